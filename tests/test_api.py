"""The library: fits and maps of arrays, runs and their results, the model to train through, and every example."""

import doctest
import importlib.util
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fit_samples import COMPONENTS, INCIDENT_KEV, TRUTH, amplitudes, drawn, expected_counts

import hpcxrf
from hpcxrf import api
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import FitStatus, PixelFit
from hpcxrf.notes import Note
from hpcxrf.physics.parameters import INDEX, PARAMETERS
from hpcxrf.results.store.maps import create_results, finalise, write_block

ROOT = Path(__file__).resolve().parents[1]
TOTAL = 1e6
NAMES = (*COMPONENTS, "COHERENT_SCT_AMPLITUDE", "COMPTON_AMPLITUDE")
AXIS = {"energy_offset_kev": 0.0, "energy_slope_kev": 0.01}


@pytest.fixture(scope="module")
def counts():
    return drawn(sum(expected_counts(TOTAL)), seed=3)


@pytest.fixture(scope="module")
def fit(counts):
    """Fitted from nothing, as the README does it."""
    return hpcxrf.fit_spectrum(counts.numpy(), COMPONENTS, INCIDENT_KEV)


def test_importing_hpcxrf_loads_neither_torch_nor_numpy():
    code = "import sys, hpcxrf; assert {'torch', 'numpy', 'xraylib'}.isdisjoint(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hpcxrf_has_the_names_of_the_library_and_no_others():
    for name in hpcxrf._LIBRARY:
        assert getattr(hpcxrf, name) is getattr(api, name)
        assert name in dir(hpcxrf)
    with pytest.raises(AttributeError, match="fit_everything"):
        _ = hpcxrf.fit_everything


def test_a_spectrum_without_calibration_is_fitted_to_the_truth(fit):
    assert fit.status is FitStatus.CONVERGED
    found = hpcxrf.parameters(fit)
    for name in ("energy_offset", "energy_slope", "coherent_sct_energy", "fwhm_offset"):
        value, sigma, _ = found[name]
        assert abs(value - TRUTH[name]) < 5.0 * sigma
    assert found["energy_slope"].unit == "keV/channel"
    assert math.isnan(found["escape_factor"].sigma)


def test_amplitudes_are_the_true_counts_by_name_with_their_uncertainty(fit):
    found = hpcxrf.amplitudes(fit)
    assert tuple(found) == NAMES
    for name, truth in zip(NAMES[:-2], amplitudes(TOTAL).tolist()[:-2], strict=True):
        value, sigma, limit = found[name]
        assert abs(value - truth) < 5.0 * sigma
        assert 0.0 < sigma < limit


def test_arrays_of_every_kind_give_the_same_fit(counts, fit):
    for same in (counts.to(torch.int32), counts.tolist(), counts.numpy().astype(np.uint32)):
        assert torch.equal(hpcxrf.fit_spectrum(same, COMPONENTS, INCIDENT_KEV).theta, fit.theta)


def test_several_spectra_give_a_list_of_the_fits_that_each_gets_alone(counts):
    other = drawn(sum(expected_counts(1e5)), seed=4)
    both = hpcxrf.fit_spectrum(torch.stack([counts, other]), COMPONENTS, INCIDENT_KEV, **AXIS)
    alone = [hpcxrf.fit_spectrum(c, COMPONENTS, INCIDENT_KEV, **AXIS) for c in (counts, other)]
    assert len(both) == 2
    for a, b in zip(both, alone, strict=True):
        assert torch.equal(a.amplitude, b.amplitude)


def test_a_warm_start_begins_at_the_earlier_theta_and_keeps_the_bounds(counts, fit):
    other = drawn(sum(expected_counts(TOTAL)), seed=5)
    warm = hpcxrf.fit_spectrum(other, COMPONENTS, INCIDENT_KEV, start=fit)
    cold = hpcxrf.fit_spectrum(other, COMPONENTS, INCIDENT_KEV)
    assert torch.equal(warm.theta_initial, fit.theta)
    assert torch.equal(warm.theta_lower, cold.theta_lower)
    assert torch.equal(warm.theta_upper, cold.theta_upper)
    assert warm.r2 == pytest.approx(cold.r2, abs=1e-5)


def test_a_warm_start_is_moved_into_the_bounds_of_the_new_fit(counts, fit):
    nominal = INCIDENT_KEV - 2.0  # Zn and Ba_L are still excited
    lower = hpcxrf.fit_spectrum(counts, ["Ca", "Fe"], nominal, start=fit)
    place = INDEX["coherent_sct_energy"]
    assert float(lower.theta_initial[place]) == float(lower.theta_upper[place])
    assert float(lower.theta_initial[place]) < float(fit.theta[place])


def test_a_calibration_that_is_given_goes_before_that_of_the_earlier_fit(counts, fit):
    again = hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, start=fit, **AXIS)
    places = [INDEX["energy_offset"], INDEX["energy_slope"], INDEX["fwhm_offset"]]
    expected = [0.0, 0.01, float(fit.theta[INDEX["fwhm_offset"]])]
    assert again.theta_initial[places].tolist() == expected


def test_elements_may_be_one_string(counts, fit):
    spelled = hpcxrf.fit_spectrum(counts, "Si, Ca,Fe,Zn,Ba_L,Au_M,Ca_Ca", INCIDENT_KEV)
    assert spelled.component_names == fit.component_names


def test_a_spectrum_without_counts_is_a_status_and_cannot_start_or_be_drawn():
    empty = hpcxrf.fit_spectrum(np.zeros(1500), ["Fe"], INCIDENT_KEV)
    assert empty.status is FitStatus.EMPTY
    assert torch.isnan(empty.theta).all()
    with pytest.raises(FitError, match="start: the fit ended as EMPTY"):
        hpcxrf.fit_spectrum(np.ones(1500), ["Fe"], INCIDENT_KEV, start=empty)
    with pytest.raises(FitError, match="plot_fit: the fit ended as EMPTY"):
        hpcxrf.plot_fit(empty)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"counts": np.ones((2, 3, 400))}, r"fit_spectrum: counts has shape \(2, 3, 400\).*sum a map"),
        ({"counts": -np.ones(400)}, "fit_spectrum: counts: 400 of the scan.s 400 counts are negative, down to -1"),
        ({"elements": []}, "fit_spectrum: elements is empty"),
        ({"energy_offset_kev": 0.0}, "go together; give both"),
        ({"incident_energy_kev": -3.0}, "incident_energy_kev is -3.0, must lie between 0.1 and 200 keV"),
        ({"background": "snap", "kbeta_sd": -1.0}, r"options: background is 'snap', must be .*; kbeta_sd is -1\.0"),
        ({"energy_range_kev": (4.0, 2.0)}, "invalid options: energy_range_kev is .4.0, 2.0., must .* rise"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name_and_value(given, said):
    usual = {"counts": np.ones(1500), "elements": ["Fe"], "incident_energy_kev": INCIDENT_KEV}
    with pytest.raises(ConfigError, match=said):
        hpcxrf.fit_spectrum(**(usual | given))


def test_elements_that_do_not_exist_are_named(counts):
    with pytest.raises(FitError, match="Qq: no such element"):
        hpcxrf.fit_spectrum(counts, ["Fe", "Qq"], INCIDENT_KEV)


def test_the_published_method_has_its_own_objective_and_no_other(counts):
    ours = hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, method="adam", **AXIS)
    same = {"method": "adam", "objective": "mse", **AXIS}
    named = hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, **same)
    assert torch.equal(ours.theta, named.theta)
    with pytest.raises(ConfigError, match=r"fit_spectrum: .*objective 'l1' is not available with method 'adam'"):
        hpcxrf.fit_spectrum(counts, ["Fe"], INCIDENT_KEV, method="adam", objective="l1")


def test_the_picture_shows_counts_fit_and_the_names_of_what_was_found(fit, tmp_path):
    figure = hpcxrf.plot_fit(fit, title="AXO $10 standard")
    main, residual = figure.axes
    drawn_names = {text.get_text() for text in main.texts}
    assert {"Si", "Ca", "Fe", "Zn"} <= drawn_names
    lines = {line.get_label(): line for line in main.lines}
    np.testing.assert_array_equal(lines["counts"].get_ydata(), fit.counts.numpy())
    np.testing.assert_array_equal(lines["fit"].get_ydata(), fit.model.numpy())
    (iron,) = [t.get_position()[0] for t in main.texts if t.get_text() == "Fe"]
    assert iron == pytest.approx(6.40, abs=0.03)  # Fe K-alpha, Bearden 1967
    assert residual.get_xlabel() == "energy (keV)"
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 1000


def test_default_theta_is_the_table_of_parameters_with_the_values_given():
    theta = hpcxrf.default_theta(12.5, energy_slope=0.012)
    assert theta[INDEX["coherent_sct_energy"]] == 12.5
    assert theta[INDEX["energy_slope"]] == 0.012
    others = [p for p in PARAMETERS if p.name not in {"coherent_sct_energy", "energy_slope"}]
    assert all(theta[INDEX[p.name]] == p.value for p in others)
    with pytest.raises(ConfigError, match="no parameter is called slope; there are energy_offset"):
        hpcxrf.default_theta(12.5, slope=0.012)


def test_the_model_of_the_notebook_holds_all_recorded_counts_in_each_pixel():
    table = hpcxrf.line_table("Ca,Fe", 10.0)
    amplitude = torch.tensor([[3e3, 1e4, 0.0, 0.0], [0.0, 0.0, 500.0, 800.0]], dtype=torch.float64)
    theta = hpcxrf.default_theta(10.0)
    spectra = hpcxrf.model_spectrum(theta, amplitude, table, 2048)
    assert spectra.shape == (2, 2048)
    # Escape peaks come on top of the amplitude: less than a percent here.
    np.testing.assert_allclose(spectra.sum(dim=-1), amplitude.sum(dim=-1), rtol=0.01)
    part = hpcxrf.model_spectrum(theta, amplitude, table, torch.arange(500.0, 700.0).double())
    np.testing.assert_allclose(part, spectra[:, 500:700], rtol=1e-12)


def test_sizes_that_do_not_go_together_are_all_named():
    table = hpcxrf.line_table(["Ca", "Fe"], 10.0)
    with pytest.raises(ConfigError, match=r"theta has shape \(5,\).*22; amplitude .*\(2,\).*4"):
        hpcxrf.model_spectrum(torch.zeros(5), torch.zeros(2), table, 100)
    tube = hpcxrf.model_spectrum(hpcxrf.default_theta(10.0), torch.ones(3).double(), table, 100, elastic=False)
    assert tube.shape == (100,)


@pytest.fixture(scope="module")
def example():
    """workflows/train_through_model.py as a module."""
    path = ROOT / "workflows" / "train_through_model.py"
    spec = importlib.util.spec_from_file_location("train_through_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_example_learns_the_calibration_and_the_amplitudes_through_the_model(example):
    before = torch.get_rng_state()
    training = example.train(n_pixels=256, steps=150)
    torch.set_rng_state(before)
    assert training.gradients_finite
    assert training.losses[-1] < 0.3 * training.losses[0]
    theta = training.module.theta().detach()
    for name, truth in example.TRUE_AXIS.items():
        wrong_at_first = abs(example.GUESSED_AXIS[name] - truth)
        assert abs(float(theta[INDEX[name]]) - truth) < 0.1 * wrong_at_first
    counts, truth = example.simulate_pixels(100, seed=98)
    shares = truth / truth.sum(dim=-1, keepdim=True)
    found = training.module.amplitudes(counts).detach() / counts.sum(dim=-1, keepdim=True)
    # Guessing the mean composition of all pixels would be right in the mean, and wrong in each.
    assert (found - shares).square().mean() < 0.2 * (shares - shares.mean(dim=0)).square().mean()
    assert "truth  0.02000" in example.report(training)


def test_the_deviance_of_the_example_is_the_poisson_log_likelihood_ratio(example):
    counts, expected = torch.tensor([0.0, 3.0, 8.0]), torch.tensor([0.5, 2.0, 9.0])
    by_hand = (2 * 0.5 + 2 * (2 - 3 + 3 * math.log(1.5)) + 2 * (9 - 8 + 8 * math.log(8 / 9))) / 3
    expected.requires_grad_()
    deviance = example.poisson_deviance(counts, expected)
    deviance.backward()
    assert deviance.item() == pytest.approx(by_hand, rel=1e-5)
    np.testing.assert_allclose(expected.grad, 2.0 / 3.0 * (1 - counts / expected.detach()), rtol=1e-5)


def test_the_name_of_version_0_1_0_is_the_same_function():
    assert hpcxrf.fit_integrated is hpcxrf.fit_spectrum


def test_a_fit_shows_itself_in_one_line_and_as_an_escaped_table(fit):
    assert re.fullmatch(
        r"<SpectrumFit good, converged: 9 components, R2 0\.99\d+, deviance [\d.]+, channels \d+ to \d+>", repr(fit)
    )
    strange = replace(fit, component_names=("<script>", *fit.component_names[1:]), notes=(Note("warning", "a < b"),))
    page = strange._repr_html_()
    assert "&lt;script&gt;" in page
    assert "a &lt; b" in page
    assert "<script>" not in page
    assert page.count("<tr>") == 1 + len(fit.component_names)


def test_all_faults_of_a_call_are_named_at_once_by_their_arguments():
    with pytest.raises(ConfigError) as error:
        hpcxrf.fit_spectrum(np.ones(1500), [], 500.0, method="newton", incident_energy_sd_kev=0.0)
    for said in (
        "elements is empty",
        "incident_energy_kev is 500.0",
        "method is 'newton'",
        "incident_energy_sd_kev is 0.0",
    ):
        assert said in str(error.value)
    assert "run file" not in str(error.value)


def test_an_axis_that_no_detector_has_is_refused():
    with pytest.raises(ConfigError, match=r"starting values: energy_slope is 5, must lie between 0\.0001 and 0\.2"):
        hpcxrf.fit_spectrum(np.ones(1500), ["Fe"], 12.0, energy_offset_kev=0.0, energy_slope_kev=5.0)


def test_the_detector_of_a_call_changes_the_ratios_of_its_lines(counts):
    thick = hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, detector=hpcxrf.Detector(air_path_mm=60.0), **AXIS)
    assert thick.problem.detector.air_path_mm == 60.0
    usual = hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, **AXIS)
    assert usual.problem.detector == hpcxrf.Detector()
    assert not torch.equal(thick.amplitude, usual.amplitude)


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """A folder with the files that the examples name, and the names that they go on with."""
    monkeypatch.chdir(tmp_path)
    theta = hpcxrf.default_theta(12.0)
    table = hpcxrf.line_table(["Si", "Ca", "Fe"], 12.0)
    share = torch.rand(6, 8, 5, generator=torch.Generator().manual_seed(1)).double() + 0.5
    amplitude = share * torch.tensor([300.0, 900.0, 3000.0, 800.0, 2000.0])
    expected = hpcxrf.model_spectrum(theta, amplitude, table, 1500).clamp(min=0.0) + 0.2
    cube = torch.poisson(expected, generator=torch.Generator().manual_seed(2)).numpy().astype(np.uint16)
    np.savez("leaf.npz", counts=cube)
    fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), ["Si", "Ca", "Fe"], 12.0)
    maps = hpcxrf.fit_map(cube, fit)
    store = tmp_path / "out" / "results" / "leaf.zarr"
    create_results(
        store, detectors=("0",), components=fit.component_names, shape_yx=(6, 8), n_channels=1500, attributes={}
    )
    tensors = {n: maps[n].values.reshape(-1, 48).T for n in ("amplitude", "sigma", "detection_limit")}
    tensors |= {n: maps[n].values.reshape(-1) for n in ("deviance", "status")}
    fitted = PixelFit(**{n: torch.tensor(values) for n, values in tensors.items()})
    write_block(store, 0, slice(0, 6), slice(0, 8), fitted)
    finalise(store, {})
    return {"hpcxrf": hpcxrf, "torch": torch, "cube": cube, "fit": fit, "maps": maps}


def test_every_example_of_a_docstring_runs_as_it_is_written(examples):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    without = []
    for name in hpcxrf._LIBRARY:
        (found,) = finder.find(getattr(hpcxrf, name), name, globs=dict(examples))
        if not found.examples and not isinstance(getattr(hpcxrf, name), type):
            without.append(name)
        runner.run(found)
    assert runner.summarize(verbose=False).failed == 0
    assert without == []


def test_the_page_trains_through_the_model_as_written():
    page = (ROOT / "docs" / "train-through-the-model.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(code, names)  # noqa: S102 (the README's own code)
    assert torch.isfinite(names["theta"].grad).all()


def test_every_name_of_the_library_is_one_of_the_package():
    assert set(api.__all__) <= set(dir(hpcxrf))
    assert all(getattr(hpcxrf, name) is getattr(api, name) for name in api.__all__)
