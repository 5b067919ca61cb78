"""Other programs as arms of the benchmark: what they are given, and that their results are put into our words."""

import logging
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from fit_samples import channels, drawn, setup, table, theta_of

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.problem import fit_range
from hpcxrf.physics.constants import PHYSICS, constant_set
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES, pack
from hpcxrf.studies.peers import fit as peers
from hpcxrf.studies.peers import mapstorch as peers_mapstorch
from hpcxrf.studies.peers import pymca as peers_pymca
from hpcxrf.studies.protocol import build_protocol_least_squares
from hpcxrf.studies.starts import JointStart, guess_amplitudes

INSTALL = "pip install hpcxrf[bench]"
COMPONENTS = ("Si", "Ca", "Fe", "Zn", "Ba_L", "Ca_Ca")
AMPLITUDE = torch.tensor([3e4, 9e4, 3e5, 1e5, 6e4, 1.0, 8e4, 1.5e5], dtype=torch.float64)
# Gaussian peaks alone, a linear axis and a narrow Compton peak: what both programs can describe.
TRUTH = {
    "energy_offset": 0.013,
    "energy_slope": 0.01004,
    "fwhm_offset": 0.105,
    "fwhm_fanoprime": 1.5e-4,
    "coherent_sct_energy": 12.0,
    "compton_fwhm_corr": 1.0,
    "compton_f_tail": 0.0,
    "compton_hi_f_tail": 0.0,
    "f_tail_offset": 0.0,
    "kb_f_tail_offset": 0.0,
}


@pytest.fixture(scope="module")
def pymca():
    return pytest.importorskip("PyMca5", reason=f"PyMca5 is not installed; {INSTALL}")


@pytest.fixture(scope="module")
def mapstorch():
    return pytest.importorskip("mapstorch", reason=f"mapstorch is not installed; {INSTALL}")


@pytest.fixture(scope="module")
def task():
    """Counts, setup and a start 20 eV and 0.3 % off."""
    lines = table(COMPONENTS)
    expected = model_spectrum(theta_of(**TRUTH), AMPLITUDE, lines, channels(0, 1499), constants=PHYSICS)
    theta = theta_of(**(TRUTH | {"energy_offset": -0.007, "energy_slope": 0.01007}))
    given = setup(lines, background="snip")
    return (drawn(expected + 20.0, seed=1), given, JointStart(theta=theta, log10_amplitude=AMPLITUDE.log10()))


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(peers_mapstorch, "MAPSTORCH_STEPS", 3)


def r2_by_hand(counts, given, model):
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, len(counts))
    y = counts.numpy()[low : high + 1]
    return 1.0 - ((y - model.numpy()) ** 2).sum() / ((y - y.mean()) ** 2).sum()


def test_missing_peers_are_all_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as error:
        peers.require_peers(["separable", "mapstorch", "pymca"])
    for word in ("mapstorch", "PyMca5", INSTALL):
        assert word in str(error.value)
    peers.require_peers(["separable", "adam", "sbplx", "product"])


def test_a_package_that_is_there_is_found_under_its_own_name(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: find_spec("json") if name == "PyMca5" else None)
    peers.require_peers(["pymca"])


@pytest.mark.parametrize("name", ["pymca", "mapstorch"])
def test_on_the_shared_background_a_peer_gets_the_counts_less_it_and_is_judged_with_it(name, task, monkeypatch):
    counts, given, start = task
    fixed = build_protocol_least_squares(counts, given, start)[1]
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, len(counts))
    seen = {}

    def fit(full, limits, problem, theta):
        seen[problem.background] = full[limits[0] : limits[1] + 1]
        found = peers._make_empty_result(seen[problem.background], problem, FitStatus.CONVERGED)
        return replace(found, model=seen[problem.background].clone(), theta=theta)

    monkeypatch.setattr(peers, f"fit_{name}", fit)
    monkeypatch.setattr(peers, "require_peers", lambda _names: None)
    shared = peers.fit_peer(name, counts, given, start, shared_background=True)
    own = peers.fit_peer(name, counts, given, start)
    assert float(fixed.sum()) > 0.02 * float(counts.sum())
    torch.testing.assert_close(seen["none"], counts[low : high + 1] - fixed)
    torch.testing.assert_close(seen["snip"], counts[low : high + 1])
    torch.testing.assert_close(shared.model, counts[low : high + 1])
    assert shared.r2 == own.r2 == 1.0


def test_pymca_recovers_axis_width_and_amplitudes_in_our_units(pymca, task):
    counts, given, start = task
    fit = peers.fit_peer("pymca", counts, given, start)
    assert fit.status is FitStatus.CONVERGED
    assert fit.r2 > 0.999
    found = dict(zip(PARAMETER_NAMES, fit.theta.tolist(), strict=True))
    assert found["energy_offset"] == pytest.approx(TRUTH["energy_offset"], abs=2e-3)
    assert found["energy_slope"] == pytest.approx(TRUTH["energy_slope"], rel=5e-4)
    # Width at Fe K-alpha, where offset and Fano term are known best together.
    found_kev = [(v["fwhm_offset"] / 2.3548) ** 2 + 3.58 * 6.4 * v["fwhm_fanoprime"] for v in (found, TRUTH)]
    assert found_kev[0] == pytest.approx(found_kev[1], rel=0.02)
    np.testing.assert_allclose(fit.amplitude[:4], AMPLITUDE[:4], rtol=0.01)
    # Its ratios of L lines are others.
    np.testing.assert_allclose(fit.amplitude[4], AMPLITUDE[4], rtol=0.15)


def test_what_pymca_does_not_have_is_nan(pymca, task):
    fit = peers.fit_peer("pymca", *task)
    has = {"energy_offset", "energy_slope", "fwhm_offset", "fwhm_fanoprime"}
    held = {"energy_quadratic", "coherent_sct_energy", "compton_angle"}
    known = {n for n, v in zip(PARAMETER_NAMES, fit.theta.tolist(), strict=True) if np.isfinite(v)}
    assert known == has | held
    sure = {n for n, v in zip(PARAMETER_NAMES, fit.theta_sigma.tolist(), strict=True) if v > 0}
    assert sure == has
    assert torch.isnan(fit.amplitude[COMPONENTS.index("Ca_Ca")])
    assert int(torch.isnan(fit.amplitude).sum()) == 1


def test_r2_is_ours_in_linear_counts_over_the_fit_range_with_the_background(pymca, task):
    counts, given, start = task
    fit = peers.fit_peer("pymca", counts, given, start)
    assert fit.r2 == pytest.approx(r2_by_hand(counts, given, fit.model), abs=1e-12)
    assert 0.0 < fit.cpu_s < 60.0
    assert 0 < fit.evaluations < peers_pymca.PYMCA_ITERATIONS


def test_pymca_without_elastic_peak_fits_neither_it_nor_the_compton_peak(pymca, task):
    counts, given, start = task
    fit = peers.fit_peer("pymca", counts, replace(given, elastic=False), start)
    assert fit.amplitude.shape == (len(COMPONENTS) + 1,)
    assert torch.isnan(fit.amplitude[-1])


def test_a_peer_that_breaks_down_is_a_status_and_says_why_in_the_log(pymca, task, monkeypatch, caplog):
    def fail(*_args, **_options):
        raise np.linalg.LinAlgError("Singular matrix")

    theory = import_module("PyMca5.PyMcaPhysics.xrf.ClassMcaTheory").McaTheory
    monkeypatch.setattr(theory, "estimate", fail)
    with caplog.at_level(logging.WARNING):
        fit = peers.fit_peer("pymca", *task)
    assert fit.status is FitStatus.NONFINITE
    assert np.isnan(fit.r2)
    assert torch.isnan(fit.theta).all()
    assert "Singular matrix" in caplog.text


def test_peers_print_nothing(pymca, task, monkeypatch, capsys):
    monkeypatch.setattr(peers_pymca, "PYMCA_ITERATIONS", 1)
    fit = peers.fit_peer("pymca", *task)
    assert fit.status is FitStatus.MAX_ITERATIONS
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["pymca", "mapstorch"])
def test_a_spectrum_without_counts_or_with_nan_is_a_status(name, task, request):
    request.getfixturevalue(name)
    _, given, start = task
    nothing = torch.zeros(1500)
    assert peers.fit_peer(name, nothing, given, start).status is FitStatus.EMPTY
    nothing[700] = torch.nan
    assert peers.fit_peer(name, nothing, given, start).status is FitStatus.NONFINITE


def test_mapstorch_starts_at_the_given_theta_with_its_own_names(mapstorch, task, few_steps):
    counts, given, start = task
    fit = peers.fit_peer("mapstorch", counts, given, start)
    assert fit.status is FitStatus.MAX_ITERATIONS
    assert fit.evaluations == 3
    # Three Adam steps move a parameter by three times its learning rate; that of the angle is 1 degree.
    away = (fit.theta - start.theta).abs()
    away[INDEX["compton_angle"]] /= 100.0
    away[INDEX["escape_factor"]] = 0.0
    assert float(away.max()) < 0.035
    assert float(away[INDEX["coherent_sct_energy"]]) > 0.005
    assert fit.r2 == pytest.approx(r2_by_hand(counts, given, fit.model), abs=1e-12)
    assert torch.isnan(fit.theta_sigma).all()


def test_the_guess_of_the_compared_optimisers_is_that_of_mapstorch(mapstorch, task):
    counts, given, start = task
    values = dict(zip(PARAMETER_NAMES, start.theta.tolist(), strict=True))
    axis = [values[name] for name in ("coherent_sct_energy", "energy_offset", "energy_slope")]
    ours = guess_amplitudes(start, counts, given).log10_amplitude
    names = {0: "Si", 1: "Ca", 2: "Fe", 3: "Zn", 6: "COHERENT_SCT_AMPLITUDE", 7: "COMPTON_AMPLITUDE"}
    for place, name in names.items():
        guess = import_module("mapstorch.opt").init_elem_amps
        theirs = guess(name, counts.numpy(), *axis, compton_angle=values["compton_angle"])
        share = float(given.table.ratio[given.table.component == place].max()) if place < 6 else 1.0
        assert float(ours[place]) == pytest.approx(float(theirs) - np.log10(share), abs=0.03), name


def test_mapstorch_gives_counts_of_whole_families_and_has_the_pile_up(mapstorch, task, few_steps):
    fit = peers.fit_peer("mapstorch", *task)
    assert torch.isfinite(fit.amplitude).all()
    # It starts from peak heights: right within a factor of two, where the height of K-alpha alone would
    # leave an L family at a quarter.
    ratio = fit.amplitude[:5] / AMPLITUDE[:5]
    assert float(ratio.min()) > 0.4
    assert float(ratio.max()) < 2.5


def test_mapstorch_draws_the_peaks_as_wide_as_our_constants_say(mapstorch, task):
    _, given, start = task
    for name in ("physics", "maps-legacy-2.96"):
        values = peers_mapstorch._translate_theta(replace(given, constants=constant_set(name)), start.theta)
        assert values["FWHM_FANO_COEFF"] == constant_set(name).width_factor
        assert values["FWHM_FANOPRIME"] == pytest.approx(TRUTH["fwhm_fanoprime"])


def test_mapstorch_that_ends_in_nan_is_fitted_again_without_tails(mapstorch, task, few_steps, monkeypatch, caplog):
    opt = import_module("mapstorch.opt")
    genuine, calls = opt.fit_spec, []

    def poisoned(*args, **options):
        calls.append(options["fixed_param_vals"])
        tensors, peaks, background, losses = genuine(*args, **options)
        return tensors, peaks if options["fixed_param_vals"] else peaks * np.nan, background, losses

    monkeypatch.setattr(opt, "fit_spec", poisoned)
    fit = peers.fit_peer("mapstorch", *task)
    assert [bool(fixed) for fixed in calls] == [False, True]
    assert fit.status is FitStatus.MAX_ITERATIONS
    assert fit.evaluations == 6
    for name in ("f_tail_offset", "kb_f_tail_offset", "compton_f_tail", "compton_hi_f_tail"):
        assert fit.theta[INDEX[name]] == 0.0
    assert "without tails" in caplog.text


@pytest.mark.slow
def test_mapstorch_converges_from_near_the_truth_in_its_500_steps(mapstorch, task):
    fit = peers.fit_peer("mapstorch", *task)
    assert fit.r2 > 0.97
    assert fit.evaluations == 500


def test_pymca_fits_the_measured_standard_as_it_does_by_itself(pymca, shared_data):
    from hpcxrf.config.run import check_config
    from hpcxrf.formats.registry import open_scan
    from hpcxrf.formats.scan import ReadOptions
    from hpcxrf.pipeline.prepare.facts import scan_facts
    from hpcxrf.pipeline.prepare.from_config import prepare
    from hpcxrf.pipeline.single import integrate

    path = shared_data / "aps-2ide" / "mda" / "axo_std.mda"
    elements = ["Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn"]
    sample = {"elements": [*elements, "La_L", "Pd_L", "Mo_L", "Pb_M", "Ca_Ca"]}
    raw = {"input": {"files": [str(path)]}, "sample": sample, "fit": {"background": "snip"}}
    scan = open_scan(path, ReadOptions())
    given = prepare(check_config(raw, "test"), scan_facts(scan, path), 0).problem
    theta = pack(given.parameters)
    start = JointStart(theta=theta, log10_amplitude=torch.zeros(22, dtype=torch.float64))
    fit = peers.fit_peer("pymca", torch.from_numpy(integrate(scan))[0], given, start)
    # 0.9954 was measured with PyMca's own tools, from the file's calibration.
    assert fit.r2 == pytest.approx(0.9954, abs=5e-4)
