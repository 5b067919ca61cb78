"""CSV of handheld instruments and of PIXL: readings, points, detectors A and B."""

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from tests.samples.text_scans import axis_of, counts_of, handheld_csv, make_counts, notes_of, open_text, pixl_csv

READINGS = [make_counts(seed=i) for i in range(3)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_readings_of_a_handheld_file_are_points(tmp_path, separator):
    scan = open_text(tmp_path, handheld_csv(READINGS, separator=separator), "a.csv")
    assert (scan.format, scan.shape) == ("instrument-csv", (1, 3, 1, 64))
    np.testing.assert_array_equal(counts_of(scan)[0, :, 0], READINGS)
    assert axis_of(scan) == (-0.015974, 0.020052)
    assert scan.read_scalars().live_time_s.ravel().tolist() == [19.5, 18.5, 17.5]
    assert scan.read_scalars().real_time_s.ravel().tolist() == [20.0] * 3
    assert scan.tube == "15 kV, 40 kV"


def test_axes_that_differ_little_are_joined_with_a_note_and_others_refused(tmp_path):
    scan = open_text(tmp_path, handheld_csv(READINGS, slopes=[0.020049, 0.020052, 0.020052]), "a.csv")
    assert axis_of(scan) == (-0.015974, 0.020052)
    assert "their median is taken" in notes_of(scan)
    with pytest.raises(InputFileError, match=r"a\.csv: .*differ by .* channels"):
        open_text(tmp_path, handheld_csv(READINGS, slopes=[0.02, 0.02, 0.03]), "a.csv")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (handheld_csv(READINGS).rpartition(",")[0], "must be 3 counts, one a reading"),
        (handheld_csv(READINGS) + "Realtime,20,20,20,20\n,1,2,3,4\n", "stands below rows of 3 counts"),
        ("".join(handheld_csv(READINGS).splitlines(keepends=True)[:-4]), "60 rows of counts, NumData says 64"),
        (handheld_csv(READINGS).partition("\n,")[0] + "\n", "without counts"),
        (handheld_csv([[1, 2]]), "2 channels"),
    ],
)
def test_a_handheld_file_that_is_cut_off_is_refused(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"a\.csv: .*{fault}"):
        open_text(tmp_path, text, "a.csv")


A = [make_counts(seed=i) for i in range(2)]
B = [make_counts(seed=i) for i in range(2, 4)]


def test_detectors_points_times_and_positions_of_pixl_are_read(tmp_path):
    scan = open_text(tmp_path, pixl_csv(A, B), "a.csv")
    assert (scan.format, scan.shape) == ("pixl-csv", (2, 2, 1, 64))
    np.testing.assert_array_equal(counts_of(scan)[:, :, 0], [A, B])
    assert axis_of(scan, 0) == pytest.approx((-0.02, 0.0079))
    assert axis_of(scan, 1) == pytest.approx((-0.0185, 0.0078))
    scalars = scan.read_scalars()
    assert scalars.live_time_s[:, :, 0].tolist() == [[8.5, 8.5], [8.25, 8.25]]
    assert scalars.scaler_names == ("PMC", "x", "y", "z")
    assert scalars.scaler_values[:, 1, 0].tolist() == [11.0, 0.1, 0.2, 0.3]


def test_a_bulk_sum_of_pixl_is_one_point_and_dwell_spectra_are_not_used(tmp_path):
    scan = open_text(tmp_path, pixl_csv(A[:1], B[:1]) + pixl_csv(B[:1], A[:1]), "a.csv")
    assert scan.shape == (2, 1, 1, 64)
    np.testing.assert_array_equal(counts_of(scan)[:, 0, 0], [A[0], B[0]])
    assert "dwell" in notes_of(scan)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (pixl_csv(A, B).rpartition("\n4")[0][:-40], "must be 64 numbers"),
        (pixl_csv(A, B).partition("A_1")[0], "without counts"),
        (pixl_csv(A, B).partition("\n")[0] + "\n", "without rows"),
        (pixl_csv(A, [*B, B[0]]), "2 rows of times, but counts of shapes"),
        (pixl_csv(A, B).replace("PMC,x", "1,x"), "line 4"),
    ],
)
def test_a_pixl_file_that_is_cut_off_is_refused(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"a\.csv: .*{fault}"):
        open_text(tmp_path, text, "a.csv")
