"""Override files and standards: read, changed, written back."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.errors import ConfigError, InputFileError, OutputError
from hpcxrf.formats.override import (
    change_values,
    find_override,
    make_override,
    read_override,
    theta_bounds,
    theta_values,
    width_law,
    write_override,
)
from hpcxrf.formats.override_text import THETA
from hpcxrf.formats.standard import read_standards
from hpcxrf.physics.parameters import PARAMETER_NAMES

NAME = "maps_fit_parameters_override.txt"
SMALL = """   a comment with: a colon
DATE: 2015-11-04 15:32:58.832000
ELEMENTS_TO_FIT: Si, Fe,Pt_L , COMPTON_AMPLITUDE
ELEMENTS_WITH_PILEUP: Si_Si, Ca_Ca
CAL_OFFSET_[E_OFFSET]: -0.004
CAL_OFFSET_[E_OFFSET]_MAX: 0.5
CAL_SLOPE_[E_LINEAR]: 9.5d-3
FWHM_FANOPRIME: 0.000224
MAX_ENERGY_TO_FIT: 11.0
MIN_ENERGY_TO_FIT: 1.0
BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1., 1., 1.2, 1.
BRANCHING_FAMILY_ADJUSTMENT_L: Pt_L, 0., 1., 1.
DETECTOR_MATERIAL: 1
US_IC: 2xfm:scaler3_cts1.B
"""


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / NAME
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_beamline_file_gives_its_numbers(shared_data: Path) -> None:
    override = read_override(shared_data / "aps-2ide" / NAME)
    assert override.values["CAL_OFFSET"] == -0.0041840752
    assert override.values["CAL_SLOPE"] == 0.0095216077
    assert override.values["COHERENT_SCT_ENERGY"] == 10.0
    assert override.bounds["CAL_SLOPE"] == (0.0079999994, 0.015)
    assert override.bounds["COMPTON_ANGLE"] == (70.0, 170.0)
    assert " ".join(override.elements) == "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn"
    assert override.pileup == ()
    assert override.energy_range_kev == (1.0, 11.0)
    assert override.branching_k["Si"] == (1.0, 1.0, 2.9, 1.0)
    assert len(override.branching_k) == 19
    assert override.branching_l["I_L"][2] == 0.45
    assert override.branching_l_family["Sn_L"] == (0.0, 0.0, 1.0)
    assert override.detector_material == "Si"
    assert (override.be_window_um, override.air_path_um) == (0.0, None)


def test_an_unchanged_file_is_written_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "aps-2ide" / NAME
    write_override(read_override(source), tmp_path / "copy.txt")
    assert (tmp_path / "copy.txt").read_bytes() == source.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.txt"]


@pytest.mark.parametrize(
    "raw",
    [
        SMALL.replace("\n", "\r\n").encode(),
        "FWHM_OFFSET: 0.1\r\nµm in Latin-1: \xb5\n".encode("latin-1"),
        b"\xef\xbb\xbfFWHM_OFFSET: 0.1\rodd \x0c\x0b\x85\x1c\rCAL_QUAD_[E_QUADRATIC]: 0",
    ],
    ids=["crlf", "latin-1", "no last line end"],
)
def test_line_ends_and_encodings_survive(tmp_path: Path, raw: bytes) -> None:
    path = _file(tmp_path, raw)
    write_override(read_override(path), path)
    assert path.read_bytes() == raw


def test_a_change_touches_only_its_line(tmp_path: Path) -> None:
    before = read_override(_file(tmp_path, SMALL.replace("\n", "\r\n")))
    after = change_values(before, {"FWHM_FANOPRIME": 1.0 / 3.0, "CAL_OFFSET": -0.004})
    changed = [(a, b) for a, b in zip(before.lines, after.lines, strict=True) if a != b]
    assert changed == [("FWHM_FANOPRIME: 0.000224\r\n", "FWHM_FANOPRIME: 0.3333333333333333\r\n")]
    assert after.values["FWHM_FANOPRIME"] == 1.0 / 3.0
    assert before.values["FWHM_FANOPRIME"] == 0.000224


def test_a_name_that_is_missing_is_added_at_the_end(tmp_path: Path) -> None:
    before = read_override(_file(tmp_path, "FWHM_OFFSET: 0.1"))
    after = change_values(before, {"CAL_SLOPE_MAX": 0.02, "FWHM_FANO_COEFF": 3.58})
    assert "".join(after.lines) == ("FWHM_OFFSET: 0.1\nCAL_SLOPE_[E_LINEAR]_MAX: 0.02\nFWHM_FANO_COEFF: 3.58\n")
    assert after.bounds["CAL_SLOPE"] == (None, 0.02)


@given(
    st.dictionaries(
        st.sampled_from(["CAL_OFFSET", "CAL_SLOPE", "FWHM_OFFSET", "COMPTON_ANGLE_MAX", "AIRPATH"]),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_written_numbers_are_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, float]
) -> None:
    folder = tmp_path_factory.mktemp("law")
    changed = change_values(read_override(_file(folder, SMALL)), values)
    write_override(changed, folder / NAME)
    again = read_override(folder / NAME)
    for name, value in values.items():
        if name == "COMPTON_ANGLE_MAX":
            assert again.bounds["COMPTON_ANGLE"][1] == value
        else:
            assert again.values[name] == value
    assert again.elements == ("Si", "Fe", "Pt_L")
    assert again.pileup == ("Si_Si", "Ca_Ca")


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    override = read_override(_file(tmp_path, SMALL))
    with pytest.raises(ConfigError, match=r"CAL_SLOPE = nan.*finite"):
        change_values(override, {"CAL_SLOPE": float("nan")})


def test_all_bad_numbers_are_named_at_once_with_their_lines(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        "FWHM_OFFSET: abc\nfree text\nCAL_OFFSET_[E_OFFSET]_MAX: nan\nCOMPTON_ANGLE:\n"
        "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1, x\nUS_IC: abc\nCAL_SLOPE_[E_LINEAR]: 0,0095\n",
    )
    with pytest.raises(InputFileError) as caught:
        read_override(path)
    message = str(caught.value)
    for part in ("line 1: FWHM_OFFSET is 'abc'", "line 3: CAL_OFFSET_MAX is 'nan'", "line 4:"):
        assert part in message
    assert "line 5: BRANCHING_RATIO_ADJUSTMENT_K" in message
    assert "line 7: CAL_SLOPE is '0,0095'" in message
    assert message.count(str(path)) == 5


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "KEY: value"),
        ("only prose here\n", "KEY: value"),
        ("CAL_SLOPE_MAX: 1\nCAL_SLOPE_MIN: 2\n", "CAL_SLOPE_MIN 2 is above CAL_SLOPE_MAX 1"),
        ("MIN_ENERGY_TO_FIT: 11\nMAX_ENERGY_TO_FIT: 1\n", "must be below MAX_ENERGY_TO_FIT"),
        ("FWHM_FANO_COEFF: 0\n", "must be above 0"),
        ("DETECTOR_MATERIAL: 7\n", r"must be 0 \(Ge\) or 1 \(Si\)"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InputFileError, match=fault):
        read_override(_file(tmp_path, text))


def test_a_missing_or_huge_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"nowhere.txt: cannot be read"):
        read_override(tmp_path / "nowhere.txt")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(InputFileError, match="short text"):
        read_override(tmp_path / "huge")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    override = read_override(_file(tmp_path, SMALL))
    with pytest.raises(OutputError, match="absent"):
        write_override(override, tmp_path / "absent" / NAME)


def test_the_last_of_two_lines_counts_and_is_the_one_changed(tmp_path: Path) -> None:
    override = read_override(_file(tmp_path, "FWHM_OFFSET: 0.1\nFWHM_OFFSET: 0.2\n"))
    assert override.values["FWHM_OFFSET"] == 0.2
    changed = change_values(override, {"FWHM_OFFSET": 0.3})
    assert changed.lines == ("FWHM_OFFSET: 0.1\n", "FWHM_OFFSET: 0.3\n")


def test_the_nearest_file_is_found_with_the_detectors_own_first(tmp_path: Path) -> None:
    scan = tmp_path / "mda" / "scan.mda"
    scan.parent.mkdir()
    assert find_override(scan, 0) is None
    above = tmp_path / NAME
    above.touch()
    assert find_override(scan, 1) == above
    own = tmp_path / f"{NAME}1"
    own.touch()
    assert (find_override(scan, 0), find_override(scan, 1)) == (above, own)
    beside = scan.parent / NAME
    beside.touch()
    assert find_override(scan, 1) == beside


def test_a_relative_path_looks_in_the_folder_above_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mda").mkdir()
    (tmp_path / NAME).touch()
    monkeypatch.chdir(tmp_path / "mda")
    found = find_override(Path("scan.mda"), 0)
    assert found is not None
    assert found.samefile(tmp_path / NAME)


@pytest.mark.parametrize(
    ("head", "choice", "law", "why"),
    [
        ("DATE: 2015-11-04 15:32:58.832000\n", "auto", 2.96, "dated 2015-11-04"),
        ("DATE: Tue Oct  8 23:59:59 2024\n", "auto", 2.96, "dated 2024-10-08"),
        ("DATE: Wed Oct  9 00:00:01 2024\n", "auto", 3.58, "dated 2024-10-09"),
        ("DATE: 04-Nov-2015 15:32:58.00\n", "auto", 2.96, "dated 2015-11-04"),
        ("DATE: 2015-11-04\n", "3.58", 3.58, "set by fit.width_law"),
        ("DATE: 2025-01-01\nFWHM_FANO_COEFF: 2.96\n", "3.58", 2.96, "FWHM_FANO_COEFF"),
        ("DATE: yesterday\n", "auto", 3.58, r"ATTENTION.*yesterday"),
        ("", "auto", 3.58, "ATTENTION.*no DATE"),
    ],
)
def test_the_width_law_follows_the_key_the_choice_and_the_date(
    tmp_path: Path, head: str, choice: str, law: float, why: str
) -> None:
    override = read_override(_file(tmp_path, head + "FWHM_OFFSET: 0.1\n"))
    found, note = width_law(override, choice)  # type: ignore[arg-type]
    assert found == law
    assert re.search(why, note.text)
    assert note.kind == ("warning" if "ATTENTION" in why else "fact")


def test_theta_has_the_models_names_and_keeps_the_width(shared_data: Path) -> None:
    override = read_override(shared_data / "aps-2ide" / NAME)
    theta = theta_values(override, law=2.96, target=3.58)
    assert set(theta) == set(PARAMETER_NAMES) - {"escape_factor"}
    assert theta["energy_slope"] == 0.0095216077
    assert theta["compton_f_tail"] == 0.13308163
    assert 3.58 * theta["fwhm_fanoprime"] == pytest.approx(2.96 * 0.00022440446, rel=1e-14)
    # XRF-Maps's own optimiser returns this for the same file.
    assert theta["fwhm_fanoprime"] == pytest.approx(1.850e-4, rel=5e-3)


def test_bounds_follow_the_same_names_and_factor(tmp_path: Path) -> None:
    text = "FWHM_FANOPRIME_MAX: 3.58e-4\nCOMPTON_ANGLE_MIN: 70\nCOMPTON_ANGLE_MAX: 170\n"
    bounds = theta_bounds(read_override(_file(tmp_path, text)), law=2.96, target=3.58)
    assert bounds["compton_angle"] == (70.0, 170.0)
    assert bounds["fwhm_fanoprime"] == (None, pytest.approx(2.96e-4, rel=1e-14))


def test_both_spellings_of_the_step_are_read(tmp_path: Path) -> None:
    text = "F_STEP_OFFSET: 0.01\nF_STEP_LINEAR: 0.02\nCOMPTON_F_STEP: 0.03\n"
    theta = theta_values(read_override(_file(tmp_path, text)), law=3.58, target=3.58)
    assert theta == {"step_offset": 0.01, "step_linear": 0.02, "compton_f_step": 0.03}


def test_the_standard_of_the_beamline_is_read(shared_data: Path) -> None:
    (standard,) = read_standards(shared_data / "aps-2ide" / "maps_standardinfo.txt")
    assert standard.filename == "axo_std.mda"
    assert standard.areal_density_ug_cm2 == {"Ca": 1.931, "Fe": 0.504, "Cu": 0.284}


def test_several_standards_may_follow_one_another(tmp_path: Path) -> None:
    one = "FILENAME: {}.mda\r\nELEMENTS_IN_STANDARD: Ca, Fe\r\nWEIGHT: {}, 2\r\n"
    path = tmp_path / "maps_standardinfo.txt"
    path.write_text("prose\n" + one.format("a b", 1) + one.format("c", 3), newline="")
    first, second = read_standards(path)
    assert (first.filename, second.filename) == ("a b.mda", "c.mda")
    assert second.areal_density_ug_cm2 == {"Ca": 3.0, "Fe": 2.0}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no line FILENAME"),
        ("FILENAME: a\nWEIGHT: 1\n", "ELEMENTS_IN_STANDARD is missing"),
        ("FILENAME: a\nELEMENTS_IN_STANDARD: Ca\nWEIGHT: x\n", r"line 3: WEIGHT 'x'"),
        ("FILENAME: a\nELEMENTS_IN_STANDARD: Ca\nWEIGHT: -1\n", r"above 0"),
        ("FILENAME: a\nELEMENTS_IN_STANDARD: Ca, Fe\nWEIGHT: 1\n", "1 weights for 2 elements"),
        ("FILENAME: a\nELEMENTS_IN_STANDARD: Ca, Ca\nWEIGHT: 1, 2\n", "comes twice"),
    ],
)
def test_an_incomplete_standard_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "maps_standardinfo.txt"
    path.write_text(text)
    with pytest.raises(InputFileError, match=fault):
        read_standards(path)


@given(
    theta=st.fixed_dictionaries(
        {}, optional={name: st.floats(-1e6, 1e6, allow_nan=False) for name in sorted(set(THETA.values()))}
    )
)
def test_a_new_file_reads_back_bit_for_bit(theta, tmp_path_factory):
    path = tmp_path_factory.mktemp("new") / "maps_fit_parameters_override.txt0"
    made = make_override(
        path, theta=theta, elements=["Si", "Pt_L"], pileup=["Si_Cl"], width_law=2.96, title="CAL_OFFSET: 9\nleaf"
    )
    write_override(made, path)
    found = read_override(path)
    assert theta_values(found, law=2.96, target=2.96) == theta
    assert (found.elements, found.pileup) == (("Si", "Pt_L"), ("Si_Cl",))
    assert width_law(found, "auto")[0] == 2.96


def test_a_number_that_is_not_finite_is_refused_in_a_new_file(tmp_path):
    with pytest.raises(ConfigError, match="must be finite"):
        make_override(
            tmp_path / "a", theta={"energy_slope": math.nan}, elements=["Fe"], pileup=[], width_law=3.58, title=""
        )
