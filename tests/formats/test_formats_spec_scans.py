"""SPEC files: continued spectra, several scans, detectors and points, meshes, calibration from the first channel."""

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from tests.samples.text_scans import axis_of, counts_of, make_counts, notes_of, open_text, spec_spectrum

HEAD = "#F /data/sample.spec\n#D Mon Feb 02 10:00:00 2026\n\n"
MCA = "#@MCA %16C\n#@CHANN 64 0 63 1\n#@CALIB -0.05 0.01 0\n#@CTIME 10 9.5 10.25\n"


def scan_of(*spectra: str, number: int = 1, header: str = MCA, title: str = "ct 10") -> str:
    return f"#S {number} {title}\n#D Mon Feb 02 10:00:01 2026\n{header}" + "\n".join([*spectra, "", ""])


def test_one_spectrum_with_continued_lines_has_its_axis_and_times(tmp_path):
    counts = make_counts()
    scan = open_text(tmp_path, HEAD + scan_of(spec_spectrum(counts)), "a.mca")
    assert (scan.format, scan.shape) == ("spec", (1, 1, 1, 64))
    assert counts_of(scan).ravel().tolist() == counts
    assert axis_of(scan) == (-0.05, 0.01)
    assert scan.read_scalars().live_time_s.tolist() == [[[9.5]]]
    assert scan.read_scalars().real_time_s.tolist() == [[[10.25]]]


def test_channels_are_counted_from_the_first_one_of_the_file(tmp_path):
    header = MCA.replace("64 0 63 1", "64 100 163 1").replace("0.01 0\n", "0.01 1e-6\n")
    scan = open_text(tmp_path, scan_of(spec_spectrum(make_counts()), header=header))
    (found,) = scan.calibration
    for channel in (0, 10, 63):
        there = found.offset_kev + found.slope_kev * channel + found.quadratic_kev * channel**2
        assert there == pytest.approx(-0.05 + 0.01 * (channel + 100) + 1e-6 * (channel + 100) ** 2, abs=1e-12)


def test_spectra_of_two_devices_are_detectors_and_lines_of_counters_points(tmp_path):
    spectra = [make_counts(seed=i) for i in range(6)]
    lines = [
        text
        for point in range(3)
        for text in (
            f"{point} {10 * point}",
            spec_spectrum(spectra[2 * point], "A1"),
            spec_spectrum(spectra[2 * point + 1], "A2"),
        )
    ]
    header = f"#@MCADEV 1\n{MCA}#N 2\n#L samx  Seconds\n"
    scan = open_text(tmp_path, HEAD + scan_of(*lines, header=header, title="ascan samx 0 2 2 1"))
    assert scan.shape == (2, 3, 1, 64)
    expected = np.array(spectra).reshape(3, 2, 64).transpose(1, 0, 2)
    np.testing.assert_array_equal(counts_of(scan)[:, :, 0], expected)
    scalars = scan.read_scalars()
    assert scalars.scaler_names == ("samx", "Seconds")
    assert scalars.scaler_values[:, :, 0].tolist() == [[0.0, 1.0, 2.0], [0.0, 10.0, 20.0]]
    assert scalars.live_time_s is None  # one time for the whole scan says nothing of its points


def test_a_mesh_is_a_map_whose_first_motor_is_fast(tmp_path):
    spectra = [make_counts(seed=i) for i in range(6)]
    lines = [t for i, c in enumerate(spectra) for t in (f"{i % 3} {i // 3}", spec_spectrum(c))]
    text = HEAD + scan_of(*lines, header=MCA + "#L sx  sy\n", title="mesh sx 0 2 2 sy 0 1 1 0.1")
    scan = open_text(tmp_path, text)
    assert scan.shape == (1, 2, 3, 64)
    np.testing.assert_array_equal(counts_of(scan)[0, 1, 2], spectra[5])
    assert scan.read_scalars().scaler_values[0].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert "mesh of 2 x 3 points" in notes_of(scan)


def test_a_mesh_that_stopped_is_a_column_of_its_points(tmp_path):
    lines = [t for i in range(5) for t in (f"{i % 3} {i // 3}", spec_spectrum(make_counts(seed=i)))]
    scan = open_text(tmp_path, scan_of(*lines, header=MCA + "#L sx  sy\n", title="mesh sx 0 2 2 sy 0 1 1 0.1"))
    assert scan.shape == (1, 5, 1, 64)
    assert "of which the file has 5" in notes_of(scan)


def test_several_scans_are_points_with_their_own_times(tmp_path):
    spectra = [make_counts(seed=i) for i in range(3)]
    text = HEAD + "".join(scan_of(spec_spectrum(c), number=i + 1) for i, c in enumerate(spectra))
    scan = open_text(tmp_path, text)
    assert scan.shape == (1, 3, 1, 64)
    np.testing.assert_array_equal(counts_of(scan)[0, :, 0], spectra)
    assert scan.read_scalars().live_time_s.shape == (1, 3, 1)


def test_two_spectra_with_a_calibration_each_are_detectors(tmp_path):
    a, b = make_counts(seed=1), make_counts(seed=2)
    header = MCA + MCA.replace("-0.05 0.01", "0.1 0.02").replace("9.5", "8.5")
    scan = open_text(tmp_path, scan_of(spec_spectrum(a), spec_spectrum(b), header=header))
    assert scan.shape == (2, 1, 1, 64)
    assert (axis_of(scan, 0), axis_of(scan, 1)) == ((-0.05, 0.01), (0.1, 0.02))
    assert scan.read_scalars().live_time_s.ravel().tolist() == [9.5, 8.5]


def test_the_calibration_that_spec_writes_without_one_is_none(tmp_path):
    scan = open_text(tmp_path, scan_of(spec_spectrum(make_counts()), header=MCA.replace("-0.05 0.01", "0 1")))
    assert scan.calibration is None


def test_a_scan_of_energy_and_counts_is_a_spectrum_in_columns(tmp_path):
    counts = make_counts()
    rows = "\n".join(f"{0.01 * i:.2f} {n}" for i, n in enumerate(counts))
    text = f"#F a\n#D today\n\n#S 1 saved\n#D today\n#N 2\n#L {{}}  counts\n{rows}\n"
    scan = open_text(tmp_path, text.format("energy_kev"))
    assert counts_of(scan).ravel().tolist() == counts
    assert axis_of(scan) == pytest.approx((0.0, 0.01))
    with pytest.raises(InputFileError, match="64 lines of counters"):
        open_text(tmp_path, text.format("samx"))


SHORT = MCA.replace("64 0 63", "32 0 31")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (HEAD + scan_of("1 2\n3 4", header="#L Energy  ROI1\n"), r"2 lines of counters \(ROIs only, or a XANES scan\)"),
        (scan_of(spec_spectrum(make_counts()).replace(" ", " x", 1)), "line 7: the spectrum that begins here"),
        (
            scan_of(spec_spectrum(make_counts())) + scan_of(spec_spectrum(make_counts(32)), header=SHORT, number=2),
            "scans that do not fit together.*64 channels: 1.*32 channels: 2",
        ),
        (scan_of(spec_spectrum(make_counts())[:150]), "#@CHANN says 64"),
        (scan_of("1\n2", spec_spectrum(make_counts())), "1 spectra .* at 2 points"),
        (
            scan_of(spec_spectrum(make_counts()))
            + scan_of(spec_spectrum(make_counts()), header=MCA.replace("0.01", "0.02"), number=2),
            "calibrations that differ by",
        ),
    ],
)
def test_what_holds_no_spectra_or_does_not_fit_together_is_refused(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"spectrum\.txt: .*{fault}"):
        open_text(tmp_path, text)
