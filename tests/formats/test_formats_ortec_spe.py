"""Ortec and IAEA .spe: $DATA, $MEAS_TIM, $MCA_CAL and $ENER_FIT."""

import pytest

from hpcxrf.errors import InputFileError
from tests.samples.text_scans import axis_of, counts_of, make_counts, notes_of, open_text, spe


def test_the_steel_spectrum_opens_with_2048_channels(shared_cases, hpcxrf):
    path = shared_cases / "files" / "ortec_like_steel.spe"
    facts = hpcxrf("inspect", path, "--json").json
    assert (facts["format"], facts["shape"], facts["calibration"]) == ("iaea-spe", [1, 1, 1, 2048], None)
    words = path.read_text().partition("2047\n")[2].split()
    assert facts["total_counts"] == [sum(map(float, words))]


def test_counts_and_times_are_those_of_the_file(tmp_path):
    counts = make_counts()
    scan = open_text(tmp_path, spe(counts), "a.spe")
    assert counts_of(scan).ravel().tolist() == counts
    assert scan.read_scalars().live_time_s.tolist() == [[[95.0]]]
    assert scan.read_scalars().real_time_s.tolist() == [[[100.0]]]
    assert "no energy axis" in notes_of(scan)


@pytest.mark.parametrize(
    ("more", "axis"),
    [
        ("$ENER_FIT:\r\n-0.05 0.01", (-0.05, 0.01)),
        ("$MCA_CAL:\r\n3\r\n-5.0E-002 1.0E-002 0.0E+000 keV", (-0.05, 0.01)),
        ("$MCA_CAL:\r\n3\r\n-50 10 0 eV", (-0.05, 0.01)),
        ("$MCA_CAL:\r\n2\r\n-0.05 0.01", (-0.05, 0.01)),
        ("$MCA_CAL:\r\n-0.05 0.01 0", (-0.05, 0.01)),
        ("$ENER_FIT:\r\n0 0.02\r\n$MCA_CAL:\r\n3\r\n-0.05 0.01 0 keV", (-0.05, 0.01)),
        ("$ENER_FIT:\r\n-0.05 0.01\r\n$MCA_CAL:\r\n3\r\n0 1 0 keV", (-0.05, 0.01)),
    ],
)
def test_the_axis_is_that_of_the_calibration_else_of_the_fit(tmp_path, more, axis):
    assert axis_of(open_text(tmp_path, spe(make_counts(), more=more), "a.spe")) == pytest.approx(axis)


def test_the_quadratic_term_and_a_first_channel_above_0_are_kept(tmp_path):
    more = "$MCA_CAL:\r\n3\r\n0.1 0.01 1e-7 keV"
    scan = open_text(tmp_path, spe(make_counts(), first=100, more=more), "a.spe")
    (found,) = scan.calibration
    for channel in (0, 63):
        there = found.offset_kev + found.slope_kev * channel + found.quadratic_kev * channel**2
        assert there == pytest.approx(0.1 + 0.01 * (channel + 100) + 1e-7 * (channel + 100) ** 2, abs=1e-12)


def test_the_number_of_channels_in_place_of_the_last_one_is_understood(tmp_path):
    assert open_text(tmp_path, spe(make_counts(), last=64), "a.spe").shape[3] == 64


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (spe(make_counts(), last=2047), "64 counts after.*channels 0 to 2047"),
        (spe(make_counts()).replace("0 63", "nothing"), "needs \\$DATA"),
        (spe(make_counts()).replace("0 63", "0 9e99"), "needs \\$DATA"),
        (spe(make_counts()).replace("$DATA:", "$DATUM:"), "needs \\$DATA"),
        (spe(make_counts(63)) + "x", "channel 63: 'x' is not a count"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"a\.spe: .*{fault}"):
        open_text(tmp_path, text, "a.spe")
