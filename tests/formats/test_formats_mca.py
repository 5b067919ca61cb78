"""EPICS MCA text files."""

from pathlib import Path

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.epics_mca import open_file, sniff
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.notes import Note

HEAD = """VERSION: 3.1
ELEMENTS: 2
DATE: Jan 30, 2013
CHANNELS: 3
REAL_TIME: 10 11
LIVE_TIME: 9 8
CAL_OFFSET: 0.0 0.1
CAL_SLOPE: 0.01 0.02
CAL_QUAD: 0 0
ENVIRONMENT: 13BMA:E:Energy.VAL="35000.0" (Mono Energy)
DATA:
"""
ROWS = " 1 2\n 3 4\n 5 6\n"


def _file(folder: Path, text: str, name: str = "a.mca") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


def test_the_thin_glass_opens_with_its_four_detectors(shared_data: Path) -> None:
    path = shared_data / "larch-srm1832" / "srm1832.mca"
    assert sniff(path, path.read_bytes()[:512])
    scan = open_file(path, ReadOptions())
    assert (scan.format, scan.shape, scan.name) == ("epics-mca", (4, 1, 1, 2048), "srm1832")
    counts = scan.read_counts(slice(0, 1))
    # Independent reader: the columns after the line DATA:.
    text = path.read_text().split("DATA:")[1]
    expected = np.array(text.split(), dtype=int).reshape(2048, 4).T
    np.testing.assert_array_equal(counts[:, 0, 0], expected)
    assert counts.sum(axis=(1, 2, 3)).tolist() == [4634946, 4484726, 5866804, 7481558]
    scalars = scan.read_scalars()
    assert scalars.live_time_s is not None
    assert scalars.live_time_s[:, 0, 0].tolist() == [96.360748, 96.160698, 87.729240, 77.401505]
    assert scan.calibration is not None
    assert scan.calibration[1].slope_kev == 1.463605e-02
    assert scan.incident_energy_kev is None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_do_not_matter(tmp_path: Path, end: str) -> None:
    scan = open_file(_file(tmp_path, (HEAD + ROWS).replace("\n", end)), ReadOptions())
    assert scan.read_counts(slice(0, 1)).tolist() == [[[[1, 3, 5]]], [[[2, 4, 6]]]]
    assert scan.dtype == np.dtype("u4")


def test_counts_that_are_no_whole_numbers_are_kept(tmp_path: Path) -> None:
    scan = open_file(_file(tmp_path, HEAD + "0.5 2\n3 4\n5 6\n"), ReadOptions())
    assert scan.read_counts(slice(0, 1))[0, 0, 0, 0] == 0.5


def test_rows_outside_of_the_one_are_refused(tmp_path: Path) -> None:
    scan = open_file(_file(tmp_path, HEAD + ROWS), ReadOptions())
    with pytest.raises(InputFileError, match="1 rows"):
        scan.read_counts(slice(0, 2))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"0 bytes"),
        ("VERSION: 3\nCHANNELS: 2\n", "no DATA: line"),
        (HEAD, "nothing after DATA: in line 11"),
        (HEAD + " 1 2\n 3 4\n", r"line 13: 2 channels after DATA:, CHANNELS in line 4 says 3"),
        (HEAD + ROWS + " 7 8\n", "4 channels after DATA:"),
        (HEAD + " 1 2\n 3\n 5 6\n", r"line 13: '3' must be 2 counts"),
        (HEAD + " 1 2\n 3 4 5\n 5 6\n", r"line 13: '3 4 5' must be 2 counts"),
        (HEAD + " 1 2\n 3 x\n 5 6\n", r"line 13: '3 x'"),
        (HEAD + " 1 2\n 3 -4\n 5 6\n", r"line 13: '3 -4' must be 2 counts of 0 or more"),
        (HEAD + " 1 2\n 3 nan\n 5 6\n", r"line 13: '3 nan'"),
        (HEAD.replace("10 11", "10") + ROWS, r"line 5: REAL_TIME is '10', must be 2 numbers"),
        (HEAD.replace("ELEMENTS: 2", "ELEMENTS: two") + ROWS, r"line 2: ELEMENTS is 'two'"),
        (HEAD.replace("CHANNELS: 3", "CHANNELS: -3") + ROWS, r"line 4: CHANNELS is '-3'"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(tmp_path: Path, text: str, fault: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(InputFileError, match=fault) as caught:
        open_file(path, ReadOptions())
    assert str(path) in str(caught.value)


def test_all_faults_are_said_at_once_up_to_ten(tmp_path: Path) -> None:
    bad = HEAD.replace("CHANNELS: 3", "CHANNELS: 30") + "x x\n" * 30
    with pytest.raises(InputFileError) as caught:
        open_file(_file(tmp_path, bad), ReadOptions())
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 20 more"


@pytest.mark.parametrize("slope", ["0.01 -0.02", "0 0.02"])
def test_an_energy_that_does_not_rise_is_refused_unless_one_is_given(tmp_path: Path, slope: str) -> None:
    path = _file(tmp_path, HEAD.replace("0.01 0.02", slope) + ROWS)
    with pytest.raises(InputFileError, match=r"does not rise.*--energy-slope"):
        open_file(path, ReadOptions())
    scan = open_file(path, ReadOptions(energy_slope_kev=0.03))
    assert scan.calibration is not None
    assert [(c.offset_kev, c.slope_kev) for c in scan.calibration] == [(0.0, 0.03), (0.1, 0.03)]
    assert scan.notes == (Note("fact", "energy slope set to 0.03 keV by --energy-slope"),)


def test_a_quadratic_term_that_bends_the_energy_down_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, HEAD.replace("CAL_QUAD: 0 0", "CAL_QUAD: 0 -0.006") + ROWS)
    with pytest.raises(InputFileError, match=r"detector 1: slope 0\.02, quadratic -0\.006"):
        open_file(path, ReadOptions())


def test_an_energy_that_falls_first_is_refused(tmp_path: Path) -> None:
    text = HEAD.replace("0.01 0.02", "0.01 -0.02").replace("CAL_QUAD: 0 0", "CAL_QUAD: 0 0.02")
    with pytest.raises(InputFileError, match=r"detector 1: slope -0\.02"):
        open_file(_file(tmp_path, text + ROWS), ReadOptions())


def test_a_slope_that_is_given_replaces_the_quadratic_term_too(tmp_path: Path) -> None:
    path = _file(tmp_path, HEAD.replace("CAL_QUAD: 0 0", "CAL_QUAD: 1e-5 2e-5") + ROWS)
    stored = open_file(path, ReadOptions()).calibration
    given = open_file(path, ReadOptions(energy_slope_kev=0.03)).calibration
    assert stored is not None
    assert given is not None
    assert [c.quadratic_kev for c in stored] == [1e-5, 2e-5]
    assert [c.quadratic_kev for c in given] == [0.0, 0.0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"none.mca: cannot be read"):
        open_file(tmp_path / "none.mca", ReadOptions())


def test_only_this_format_is_recognised(shared_data: Path) -> None:
    override = shared_data / "aps-2ide" / "maps_fit_parameters_override.txt"
    assert not sniff(override, override.read_bytes())
    for name in ("mda/axo_std.mda", "maps_standardinfo.txt"):
        path = shared_data / "aps-2ide" / name
        assert not sniff(path, path.read_bytes()[:4096])
    assert sniff(Path("any"), HEAD.encode())
