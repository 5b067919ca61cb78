"""`hpcxrf fit`: documented keys, true amplitudes, detectors, override files, and pictures."""

import struct
from pathlib import Path

import pytest

from hpcxrf.simulate import read_truth
from tests.samples.commands import ELEMENTS, SHAPE

FIT_KEYS = ("r2", "r2_expected", "reduced_chi2", "cpu_s", "status", "suggested", "theta", "amplitudes", "sigma")


@pytest.fixture(scope="module")
def true_amplitude(scan):
    """Expected counts by (detector, component), of the whole scan."""
    truth = read_truth(scan.with_name("leaf.truth.json"))
    totals = truth.amplitude.sum(axis=(2, 3))
    return [dict(zip(truth.components, totals[d], strict=True)) for d in range(SHAPE[0])]


def fitted(hpcxrf, scan, *more):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, *more, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_fit_gives_the_documented_keys_and_the_true_amplitudes(hpcxrf, scan, true_amplitude):
    facts = fitted(hpcxrf, scan, "--detector", 1)
    assert set(FIT_KEYS) <= facts.keys()
    assert facts["status"] == "converged"
    # The simulation hides it.
    assert [s["name"] for s in facts["suggested"]] == ["Se"]
    assert facts["detector"] == "1"
    assert 0.99 < facts["r2"] < 1.0
    assert 0.99 < facts["r2_expected"] < 1.0
    assert 0.5 < facts["reduced_chi2"] < 5.0
    assert facts["cpu_s"] > 0.0
    names = set(ELEMENTS.split(","))
    assert names < facts["amplitudes"].keys()
    assert facts["sigma"].keys() == facts["amplitudes"].keys() | facts["theta"].keys()
    for element in ("K", "Ca", "Fe"):
        found, true = facts["amplitudes"][element], true_amplitude[1][element]
        assert abs(found / true - 1.0) < 0.05
        assert 0.0 < facts["sigma"][element] < 0.05 * found


def test_the_energy_axis_of_a_fit_is_the_true_one(hpcxrf, scan):
    theta = fitted(hpcxrf, scan, "--detector", 1)["theta"]
    truth = read_truth(scan.with_name("leaf.truth.json")).theta[1]
    peak_kev = [t["energy_offset"] + 670 * t["energy_slope"] for t in (theta, truth)]
    assert abs(peak_kev[0] - peak_kev[1]) < 0.005


def test_a_fixed_parameter_has_no_sigma_and_json_says_null(hpcxrf, scan):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, "--json")
    assert "NaN" not in ran.out
    assert "Infinity" not in ran.out
    assert ran.json["sigma"]["step_offset"] is None
    assert ran.json["sigma"]["energy_slope"] > 0.0


def test_the_sum_of_detectors_has_the_sum_of_their_amplitudes(hpcxrf, scan, true_amplitude):
    facts = fitted(hpcxrf, scan, "--detector", "sum")
    assert len(facts["theta_by_detector"]) == 2
    for element in ("K", "Ca", "Fe"):
        true = sum(detector[element] for detector in true_amplitude)
        assert abs(facts["amplitudes"][element] / true - 1.0) < 0.05


def test_a_fit_for_people_is_on_standard_output_and_its_notes_are_not(hpcxrf, scan):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS)
    assert ran.code == 0
    for fact in ("R2", "amplitudes", "theta", "energy_slope", "Pb_L", "Suggested elements"):
        assert fact in ran.out
    assert "note: energy calibration from the scan file" in ran.err
    assert "note" not in ran.out


def test_a_fit_obeys_any_value_of_the_run_file_that_it_uses_and_refuses_the_others(hpcxrf, scan):
    facts = fitted(hpcxrf, scan, "--set", "fit.fixed=[fwhm_offset]", "--set", "fit.energy_range_kev=[1.5, 12]")
    assert facts["sigma"]["fwhm_offset"] is None
    for setting in ("pixels.method=nnls", "execution.workers=1", "benchmark.seed=1"):
        ran = hpcxrf("fit", scan, "--elements", "Fe", "--set", setting)
        assert ran.code == 2
        assert f"--set {setting.split('=')[0]}" in ran.err
        assert "input, sample, detector, detectors, fit only" in ran.err


@pytest.mark.parametrize("given", ["2", "-1", "all"])
def test_a_detector_that_is_not_there_is_refused(hpcxrf, scan, given):
    ran = hpcxrf("fit", scan, "--elements", "Fe", f"--detector={given}")
    assert ran.code == 2
    assert str(scan) in ran.err
    assert repr(given) in ran.err
    assert "0 to 1" in ran.err


def write_override(path: Path, offset: float, slope: float, elements: str = "Ca, Fe") -> Path:
    path.write_text(
        "VERSION: 5.00\nDATE: 2024-01-01\nDETECTOR_ELEMENTS: 1\n"
        f"ELEMENTS_TO_FIT: {elements}\n"
        f"CAL_OFFSET_[E_OFFSET]: {offset}\nCAL_SLOPE_[E_LINEAR]: {slope}\n"
        "CAL_QUAD_[E_QUADRATIC]: 0.0\nCOHERENT_SCT_ENERGY: 13.5\n"
        "MAX_ENERGY_TO_FIT: 14.5\nMIN_ENERGY_TO_FIT: 1.2\n"
    )
    return path


def test_an_override_file_gives_elements_energy_range_and_calibration(hpcxrf, scan, tmp_path):
    override = write_override(tmp_path / "maps_fit_parameters_override.txt", 0.011, 0.00953)
    ran = hpcxrf("fit", scan, "--override", override, "--json")
    assert ran.code == 0, ran.err
    assert {"Ca", "Fe"} < ran.json["amplitudes"].keys()
    assert "Si" not in ran.json["amplitudes"]
    assert any("starting values from" in note for note in ran.json["notes"])
    low, high = (ran.json[f"{end}_channel"] * 0.00953 + 0.011 for end in ("first", "last"))
    assert abs(low - 1.2) < 0.05
    assert abs(high - 14.5) < 0.05


def test_an_override_of_none_is_no_file_and_auto_is_the_one_beside_the_scan(hpcxrf, scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "scan"
    beside.mkdir()
    for file in scan.parent.glob("leaf.h5*"):
        (beside / file.name).symlink_to(file)
    write_override(beside / "maps_fit_parameters_override.txt", 0.0, 0.00955)
    write_override(tmp_path / "none", 0.0, 0.00955)

    def notes(given):
        facts = fitted(hpcxrf, beside / scan.name, "--override", given, "--calibration", "file")
        return " | ".join(facts["notes"])

    assert "override" not in notes("none")
    assert "energy 13.5 keV from maps_fit_parameters_override.txt" in notes("auto")
    assert "energy 13.5 keV from none" in notes("./none")


@pytest.mark.parametrize("calibration", ["file", "override", "none"])
def test_every_start_of_the_calibration_ends_at_the_same_axis(hpcxrf, scan, tmp_path, calibration):
    override = write_override(tmp_path / "o.txt", 0.0, 0.00955)
    facts = fitted(hpcxrf, scan, "--override", override, "--calibration", calibration, "--energy", 13.5)
    said = {
        "file": "energy calibration from the scan file",
        "override": "starting values from o.txt",
        "none": "energy calibration determined from the spectrum",
    }
    assert said[calibration] in " | ".join(facts["notes"])
    assert abs(facts["theta"]["energy_offset"] + 670 * facts["theta"]["energy_slope"] - 6.39) < 0.01
    assert facts["r2"] > 0.99


def test_an_override_calibration_without_an_override_file_is_refused(hpcxrf, scan):
    ran = hpcxrf("fit", scan, "--elements", "Fe", "--calibration", "override")
    assert ran.code == 2
    assert "maps_fit_parameters_override.txt" in ran.err
    assert str(scan) in ran.err


def test_the_published_method_reaches_the_same_amplitudes(hpcxrf, scan):
    ours = fitted(hpcxrf, scan)
    published = fitted(hpcxrf, scan, "--method", "adam")
    assert published["iterations"] == 500
    assert "adam minimises the mean square, as published" in published["notes"]
    assert published["r2"] <= ours["r2"] + 1e-4
    for element in ("K", "Ca", "Fe"):
        assert abs(published["amplitudes"][element] / ours["amplitudes"][element] - 1) < 0.15


def test_backgrounds_are_what_they_say(hpcxrf, scan):
    by_name = {name: fitted(hpcxrf, scan, "--background", name) for name in ("snip", "none")}
    hats = fitted(hpcxrf, scan)
    assert hats["r2"] >= by_name["snip"]["r2"] - 1e-3
    # without any background the continuum has nowhere to go
    assert by_name["none"]["reduced_chi2"] > 1.5 * hats["reduced_chi2"]


def test_the_fit_range_is_the_one_that_was_asked_for(hpcxrf, scan):
    facts = fitted(hpcxrf, scan, "--energy-range", 1.5, 12.0)
    energy = [
        facts["theta"]["energy_offset"] + facts["theta"]["energy_slope"] * facts[f"{end}_channel"]
        for end in ("first", "last")
    ]
    assert abs(energy[0] - 1.5) < 0.03
    assert abs(energy[1] - 12.0) < 0.03


def test_a_plot_is_a_picture(hpcxrf, scan, tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "fit.png"
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, "--plot", path)
    assert ran.code == 0, ran.err
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert min(width, height) > 300
    assert imread(path)[..., :3].std() > 0.02
    assert [file.name for file in tmp_path.iterdir()] == ["fit.png"]


def test_a_plot_into_no_folder_is_an_output_error(hpcxrf, scan, tmp_path):
    ran = hpcxrf("fit", scan, "--elements", ELEMENTS, "--plot", tmp_path / "no" / "fit.png")
    assert ran.code == 4
    assert str(tmp_path / "no") in ran.err


def test_a_command_refuses_by_name_a_section_that_it_does_not_act_on(hpcxrf, tmp_path, scan):
    ran = hpcxrf("fit", "--elements", "Fe", scan, "--set", "benchmark.start=wide")
    assert ran.code == 2
    assert "benchmark" in ran.err
    assert "hpcxrf fit" in ran.err
