"""Amptek PMCA: the axis is fitted to the calibration points."""

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from tests.samples.text_scans import axis_of, counts_of, make_counts, notes_of, open_text, pmca


def test_the_minix_spectrum_opens_with_its_fitted_axis(shared_cases, hpcxrf):
    path = shared_cases / "files" / "amptek_pmca_minix.mca"
    facts = hpcxrf("inspect", path, "--json").json
    assert (facts["format"], facts["shape"]) == ("amptek-pmca", [1, 1, 1, 2048])
    assert facts["live_time_s"] == [8994.994673]
    assert facts["total_counts"] == [65028866.0]  # its own Slow Count
    slope, offset = np.polyfit([552.31, 607.2, 1299.82, 1651.47], [5.9, 6.49, 13.95, 17.75], 1)
    assert facts["energy_slope_kev"] == pytest.approx(slope, rel=1e-9)
    assert facts["energy_offset_kev"] == pytest.approx(offset, rel=1e-9)


def test_counts_and_times_are_those_of_the_file(tmp_path):
    counts = make_counts()
    scan = open_text(tmp_path, pmca(counts), "a.mca")
    assert counts_of(scan).ravel().tolist() == counts
    assert axis_of(scan) == pytest.approx((0.1, 0.01))
    assert scan.read_scalars().live_time_s.tolist() == [[[9.5]]]
    assert scan.read_scalars().real_time_s.tolist() == [[[10.25]]]


@pytest.mark.parametrize(
    ("points", "axis"),
    [
        (("100 1100", "300 3100"), (0.1, 0.01)),
        (("200 2.0",), (0.0, 0.01)),
        (("100,0 1,1", "300,0 3,1"), (0.1, 0.01)),
        (("100 1.0", "200 2.0", "300 3.03"), (-0.02, 0.01015)),
    ],
)
def test_points_in_ev_one_point_and_decimal_commas(tmp_path, points, axis):
    assert axis_of(open_text(tmp_path, pmca(make_counts(), points), "a.mca")) == pytest.approx(axis)


def test_without_points_there_is_no_axis(tmp_path):
    scan = open_text(tmp_path, pmca(make_counts(), ()), "a.mca")
    assert scan.calibration is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (pmca(make_counts()).partition("<<DATA>>")[0], "no counts after <<DATA>>"),
        (pmca([*make_counts(), "many"]), "channel 64: 'many' must be a count"),
        (pmca(make_counts(), ("100 abc",)), "'100 abc' must be a channel and an energy"),
        (pmca(make_counts(), ("100 3", "300 1")), "does not rise"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"a\.mca: .*{fault}"):
        open_text(tmp_path, text, "a.mca")


def test_a_file_that_ends_early_says_so(tmp_path):
    counts = make_counts()
    scan = open_text(tmp_path, pmca(counts).partition("<<END>>")[0], "a.mca")
    assert counts_of(scan).ravel().tolist() == counts
    assert "without <<END>>" in notes_of(scan)


def test_epics_and_amptek_files_of_one_name_are_told_apart_by_content(tmp_path):
    rows = "\n".join(f"{n} {n}" for n in make_counts())
    epics = f"VERSION: 3.1\nELEMENTS: 2\nCHANNELS: 64\nLIVE_TIME: 9 8\nREAL_TIME: 10 10\nDATA:\n{rows}\n"
    assert open_text(tmp_path, epics, "a.mca").format == "epics-mca"
    assert open_text(tmp_path, pmca(make_counts()), "a.mca").format == "amptek-pmca"
