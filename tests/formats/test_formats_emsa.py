"""EMSA/MAS spectra: X-Y and Y data, one to four columns, detectors in columns, units, and what is refused."""

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from tests.samples.text_scans import axis_of, counts_of, emsa, make_counts, notes_of, open_text


def test_the_horiba_spectrum_opens_with_its_axis_times_and_voltage(shared_cases, hpcxrf):
    path = shared_cases / "files" / "emsa_xy_xgt_mg.txt"
    facts = hpcxrf("inspect", path, "--json").json
    assert (facts["format"], facts["shape"]) == ("emsa", [1, 1, 1, 900])
    assert facts["energy_offset_kev"] == pytest.approx(-0.4, abs=1e-12)
    assert facts["energy_slope_kev"] == pytest.approx(0.01, abs=1e-12)
    assert facts["live_time_s"] == [30.0]
    assert facts["real_time_s"] == [32.118537]
    assert facts["incident_energy_kev"] is None
    assert any("beam of 30 kV" in note for note in facts["notes"])
    # Independent reader: the second word of the lines without a number sign.
    rows = [line.split(", ") for line in path.read_text().splitlines() if not line.startswith("#")]
    assert facts["total_counts"] == [sum(float(row[1]) for row in rows)]


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_y_data_go_on_from_line_to_line_whatever_the_columns(tmp_path, columns, end):
    counts = make_counts()
    scan = open_text(tmp_path, emsa(counts, columns=columns, end=end, LIVETIME="10.5", REALTIME="11.25"))
    assert scan.shape == (1, 1, 1, 64)
    assert counts_of(scan).ravel().tolist() == counts
    assert axis_of(scan) == pytest.approx((-0.2, 0.01))
    assert scan.read_scalars().live_time_s.tolist() == [[[10.5]]]
    assert scan.read_scalars().real_time_s.tolist() == [[[11.25]]]
    assert scan.dtype == np.uint32


def test_zeros_that_fill_the_last_line_are_no_channels(tmp_path):
    counts = make_counts(62)
    text = emsa([*counts, 0, 0], columns=4, NPOINTS="62")
    assert counts_of(open_text(tmp_path, text)).ravel().tolist() == counts


def test_each_column_of_a_yy_file_is_a_detector_with_its_own_axis_and_time(tmp_path):
    a, b = make_counts(seed=1), make_counts(seed=2)
    rows = [f"{x}, {y}" for x, y in zip(a, b, strict=True)]
    fields = {
        "XPERCHAN": "7.8, 7.9  eV per channel",
        "OFFSET": "-18.5, 3.0",
        "LIVETIME": "8,9",
        "REALTIME": "10.0,11.0",
    }
    text = emsa(a, kind="YY", columns=2, data=rows, SIGNALTYPE="XRF", VERSION="TC202v2.0 PIXL", **fields)
    scan = open_text(tmp_path, text)
    assert scan.shape == (2, 1, 1, 64)
    np.testing.assert_array_equal(counts_of(scan)[:, 0, 0], [a, b])
    assert axis_of(scan, 0) == pytest.approx((-0.0185, 0.0078))
    assert axis_of(scan, 1) == pytest.approx((0.003, 0.0079))
    assert scan.read_scalars().live_time_s.ravel().tolist() == [8.0, 9.0]


def test_a_pixl_bulk_sum_has_no_axis_and_opens(tmp_path):
    counts = make_counts()
    text = emsa(counts, XPERCHAN=None, OFFSET=None, LIVETIME="2563.11791992 ").replace(
        "#SPECTRUM    : Spectral Data Starts Here", "##EVENTS     : 12163307 \n#SPECTRUM"
    )
    scan = open_text(tmp_path, text.replace("#ENDOFDATA   : \n", ""), "bulk.msa")
    assert (scan.calibration, counts_of(scan).ravel().tolist()) == (None, counts)
    assert scan.read_scalars().live_time_s.tolist() == [[[2563.11791992]]]
    assert "no energy axis" in notes_of(scan)


@pytest.mark.parametrize("per_line", [1, 2])
def test_x_y_data_take_the_axis_from_their_first_column(tmp_path, per_line):
    counts = make_counts()
    pairs = [f"{-0.3 + 0.02 * i:.5f}, {n}." for i, n in enumerate(counts)]
    data = [", ".join(pairs[i : i + per_line]) for i in range(0, 64, per_line)]
    text = emsa(counts, kind="XY", columns=per_line, data=data, XUNITS="keV", XPERCHAN="0.02", OFFSET="-0.3")
    scan = open_text(tmp_path, text)
    assert counts_of(scan).ravel().tolist() == counts
    assert axis_of(scan) == pytest.approx((-0.3, 0.02))


@pytest.mark.parametrize(
    ("fields", "offset", "slope", "note"),
    [
        ({"OFFSET": None, "CHOFFSET": "20"}, -0.2, 0.01, None),
        ({"CHOFFSET": "20."}, -0.2, 0.01, None),
        ({"CHOFFSET": "40."}, -0.2, 0.01, "CHOFFSET 40 disagrees"),
        ({"XUNITS": None}, -0.2, 0.01, "guessed to be eV"),
        ({"XUNITS": None, "XPERCHAN": "0.01", "OFFSET": "0"}, 0.0, 0.01, "guessed to be keV"),
        ({"XUNITS": "keV", "XPERCHAN": "0,01", "OFFSET": "-0,2"}, -0.2, 0.01, None),
    ],
)
def test_the_axis_comes_from_offset_or_choffset_in_the_unit_of_the_file(tmp_path, fields, offset, slope, note):
    scan = open_text(tmp_path, emsa(make_counts(), **fields))
    assert axis_of(scan) == pytest.approx((offset, slope))
    assert note is None or note in notes_of(scan)


def test_the_stage_position_is_in_micrometres(tmp_path):
    text = emsa(make_counts()).replace("#SIGNALTYPE", "#XPOSITION mm: 1.5\n#YPOSITION mm: -0.25\n#SIGNALTYPE")
    scalars = open_text(tmp_path, text).read_scalars()
    assert (scalars.x_um.tolist(), scalars.y_um.tolist()) == ([[1500.0]], [[-250.0]])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (emsa(make_counts(), SIGNALTYPE="ELS"), "electron energy loss spectrum.*EDS or XRF"),
        (emsa(make_counts(), XUNITS="nm"), "XUNITS is 'nm'"),
        (emsa(make_counts(), NPOINTS="100"), "64 numbers after #SPECTRUM.*want 100"),
        (emsa(make_counts(), NPOINTS="60"), "64 numbers after #SPECTRUM.*want 60"),
        (emsa(make_counts(), NPOINTS="1e99"), "NPOINTS is '1e99'"),
        (emsa(make_counts(), NPOINTS="-3"), "NPOINTS is '-3'"),
        (emsa([]), "without data"),
        (emsa(make_counts(), data=["1", "two", "3"]), r"line of data 2: 'two' must be numbers"),
        (emsa(make_counts(), XPERCHAN="-10"), "does not rise"),
        (emsa(make_counts(4)), "4 channels; a spectrum has 16"),
        (emsa(make_counts(), kind="YY", columns=2, NPOINTS="32", XPERCHAN="1, 2, 3"), "3 XPERCHAN"),
    ],
)
def test_what_cannot_be_a_spectrum_is_refused_by_name(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"spectrum\.txt: .*{fault}"):
        open_text(tmp_path, text)


def test_negative_counts_are_refused_with_their_channel(tmp_path):
    counts = make_counts()
    counts[7] = -4
    scan = open_text(tmp_path, emsa(counts))
    with pytest.raises(InputFileError, match="channel 7: -4"):
        counts_of(scan)


def test_an_axis_that_the_user_gives_replaces_the_one_of_the_file(tmp_path):
    scan = open_text(tmp_path, emsa(make_counts()), energy_slope_kev=0.02, energy_offset_kev=0.1)
    assert axis_of(scan) == (0.1, 0.02)
