"""The published optimisers over this model: right gradients, right optima, one problem, starts from the seed alone."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, amplitudes, channels, drawn, expected_counts, one_line, setup, table, theta_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.gradient import guess_log10, joint_gradient, minimise_adam
from hpcxrf.fitting.spectrum.integrated import build_least_squares
from hpcxrf.fitting.spectrum.problem import fit_range
from hpcxrf.fitting.spectrum.sbplx import fit_sbplx
from hpcxrf.fitting.spectrum.separable import best_of, design, minimise
from hpcxrf.formats.registry import open_scan
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel, model_spectrum
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES, PARAMETERS, pack, replace_values
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.single import integrate
from hpcxrf.studies import protocol
from hpcxrf.studies.arms import SEARCHES
from hpcxrf.studies.protocol import build_protocol_least_squares, fit_protocol
from hpcxrf.studies.starts import JointStart, component_names, guess_amplitudes, perturbed_start, random_start

TABLE = table(("Si", "Ca", "Fe", "Zn", "Ba_L"))
AMPLITUDE = amplitudes(1e6, TABLE)
METHODS = ("separable", "adam", "sbplx")
needs_nlopt = pytest.mark.skipif(find_spec("nlopt") is None, reason="needs the extra bench: nlopt")
FREE = torch.tensor([p.free for p in PARAMETERS])


def noisy(seed=1):
    return drawn(sum(expected_counts(1e6, lines=TABLE)), seed)


def near_truth():
    """What made `noisy`, but for the continuum."""
    return JointStart(theta=theta_of(**TRUTH), log10_amplitude=torch.log10(AMPLITUDE))


def problem_of(counts, given):
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, len(counts))
    model = SpectrumModel(
        table=given.table, channel=channels(low, high), constants=PHYSICS, elastic=given.elastic, with_step=False
    )
    return build_least_squares(counts, low, high, model, given)[0]


def automatic(theta, logs, problem):
    """Loss and gradient by differentiation of the public model."""
    theta, logs = theta.clone().requires_grad_(), logs.clone().requires_grad_()
    columns = design(theta, problem)[1]
    loss = (problem.weights * (problem.counts - columns @ 10.0**logs) ** 2).mean()
    loss.backward()
    return loss.detach(), torch.cat([torch.where(FREE, theta.grad, 0.0), logs.grad])


# --- adam ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["none", "hats"])
def test_the_joint_gradient_is_that_of_automatic_differentiation(background):
    problem = problem_of(noisy(), setup(TABLE, background=background))
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(problem.counts.shape, generator=generator, dtype=torch.float64)
    problem = replace(problem, weights=weights)
    theta = theta_of(**TRUTH)
    logs = guess_log10(theta, problem) + torch.linspace(-0.4, 0.4, problem.hats.shape[1] + 7)
    loss, gradient = joint_gradient(theta, logs, problem)
    true_loss, true_gradient = automatic(theta, logs, problem)
    assert loss == pytest.approx(float(true_loss), rel=1e-12)
    scale = true_gradient.abs().max()
    torch.testing.assert_close(gradient, true_gradient, rtol=1e-8, atol=1e-12 * float(scale))


def test_the_steps_are_those_of_the_adam_of_torch():
    problem = problem_of(noisy(), setup(TABLE, background="none"))
    begin, logs = theta_of(**TRUTH), torch.log10(AMPLITUDE) - 0.3
    moved = torch.zeros_like(begin, requires_grad=True)
    free_logs = logs.clone().requires_grad_()
    optimiser = torch.optim.Adam([{"params": [moved], "lr": 0.1}, {"params": [free_logs], "lr": 0.2}])
    step = torch.where(FREE, problem.space.scale, 0.0)
    losses, points = [], []
    for _ in range(12):
        columns = design(begin + moved * step, problem)[1]
        loss = ((problem.counts - columns @ 10.0**free_logs) ** 2).mean()
        losses.append(float(loss.detach()))
        points.append((begin + moved * step).detach().clone())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fit = minimise_adam(begin, problem, steps=12, log10_linear=logs)
    best = int(np.argmin(losses))
    assert best > 2
    assert fit.loss == pytest.approx(losses[best], rel=1e-4)
    off = (fit.theta - points[best]) / problem.space.scale
    assert float(off.abs().max()) < 1e-3
    assert fit.evaluations == 12


def test_both_baselines_stay_in_the_bounds_and_leave_what_is_fixed():
    problem = problem_of(noisy(), setup(TABLE, background="none"))
    space = problem.space
    tight = replace(space, lower=space.centre - 0.05 * space.scale, upper=space.centre + 0.05 * space.scale)
    problem = replace(problem, space=tight)
    fits = [minimise_adam(space.centre, problem, steps=20)]
    if find_spec("nlopt") is not None:
        fits.append(fit_sbplx(space.centre, problem, evaluations=300))
    for fit in fits:
        assert bool(((fit.theta >= tight.lower) & (fit.theta <= tight.upper)).all())
        assert bool((fit.theta[~FREE] == space.centre[~FREE]).all())
        assert bool((fit.theta[FREE] != space.centre[FREE]).any())
        assert bool((fit.linear > 0.0).all())


# --- sbplx --------------------------------------------------------------------------------------


def one_peak():
    """One line and a Compton peak far away; only the width and the offset are free."""
    lines = one_line(has_tail=False)
    free = {"energy_offset", "fwhm_offset"}
    parameters = tuple(
        replace(p, free=p.name in free) for p in replace_values(PARAMETERS, {"coherent_sct_energy": 12.0})
    )
    truth = theta_of(energy_offset=0.021, fwhm_offset=0.13, coherent_sct_energy=12.0)
    amplitude = torch.tensor([3e4, 1e4], dtype=torch.float64)
    mean = model_spectrum(truth, amplitude, lines, channels(0, 1399), constants=PHYSICS, elastic=False)
    given = setup(lines, parameters=parameters, background="none", elastic=False)
    return problem_of(drawn(mean, 5), given), truth


@needs_nlopt
def test_subplex_reaches_the_optimum_that_scipy_finds():
    problem, truth = one_peak()
    places = [INDEX["energy_offset"], INDEX["fwhm_offset"]]

    def residual(x):
        theta = problem.space.centre.clone()
        theta[places] = torch.from_numpy(x[:2] * np.array([0.01, 0.01]))
        columns = design(theta, problem)[1].numpy()
        return columns @ 10.0 ** x[2:] - problem.counts.numpy()

    peer = least_squares(residual, [2.0, 11.0, 4.0, 4.0], xtol=1e-12, ftol=1e-12, gtol=1e-12)
    fit = fit_sbplx(problem.space.centre, problem, evaluations=4000)
    assert fit.loss == pytest.approx(2.0 * peer.cost / problem.counts.shape[0], rel=2e-5)
    np.testing.assert_allclose(fit.theta[places], peer.x[:2] * 0.01, atol=1e-4)
    np.testing.assert_allclose(torch.log10(fit.linear), peer.x[2:], atol=1e-3)
    assert float((fit.theta - truth)[places].abs().max()) < 2e-3


@needs_nlopt
def test_subplex_counts_its_evaluations_and_keeps_the_best():
    problem, _ = one_peak()
    losses = [fit_sbplx(problem.space.centre, problem, evaluations=n) for n in (1, 50, 400)]
    assert [fit.evaluations for fit in losses] == [1, 50, 400]
    assert losses[0].loss > losses[1].loss > losses[2].loss
    assert not any(fit.converged for fit in losses)


@needs_nlopt
def test_columns_that_subplex_kept_are_those_of_a_fresh_evaluation():
    problem = problem_of(noisy(), setup(TABLE, background="hats"))
    fit = fit_sbplx(theta_of(**TRUTH), problem, evaluations=600)
    columns = design(fit.theta, problem)[1]
    loss = ((problem.counts - columns @ fit.linear) ** 2).mean()
    assert fit.loss == pytest.approx(float(loss), rel=1e-4)


def test_subplex_without_its_package_is_a_configuration_error(monkeypatch):
    monkeypatch.setattr("hpcxrf.fitting.spectrum.sbplx.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install hpcxrf\[bench\]"):
        fit_protocol(noisy(), setup(TABLE), near_truth(), "sbplx")


# --- starts -------------------------------------------------------------------------------------

NARROW = {"energy_offset": 0.05, "energy_slope": 0.02 * 0.0123, "energy_quadratic": 2e-8, "coherent_sct_energy": 0.2}
WIDE = {"energy_offset": 0.2, "energy_slope": 0.05 * 0.0123, "energy_quadratic": 1e-7, "coherent_sct_energy": 0.3}
SHAPES = {
    "compton_fwhm_corr": (1.0, 4.0),
    "compton_f_tail": (0.0, 1.0),
    "compton_hi_f_tail": (0.0, 0.1),
    "f_tail_offset": (0.0, 0.1),
    "kb_f_tail_offset": (0.0, 0.2),
    "fwhm_fanoprime": (5e-5, 5e-4),
    "fwhm_offset": (0.05, 0.2),
}


def nominal():
    values = {"energy_offset": 0.02, "energy_slope": 0.0123, "coherent_sct_energy": 11.7}
    return setup(TABLE, parameters=replace_values(PARAMETERS, values))


@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_random_starts_fill_the_ranges_of_the_protocol_and_no_more(width):
    given = nominal()
    starts = [random_start(given, width, seed) for seed in range(400)]
    theta = torch.stack([s.theta for s in starts])
    centre = pack(given.parameters)
    angles = (70.0, 120.0) if width == "narrow" else (70.0, 170.0)
    ranges = dict(SHAPES, compton_angle=angles)
    for name, half in (NARROW if width == "narrow" else WIDE).items():
        ranges[name] = (float(centre[INDEX[name]]) - half, float(centre[INDEX[name]]) + half)
    for name in PARAMETER_NAMES:
        drawn_values = theta[:, INDEX[name]]
        if name not in ranges:
            assert bool((drawn_values == centre[INDEX[name]]).all()), name
            continue
        low, high = ranges[name]
        room = 0.02 * (high - low)
        assert low <= float(drawn_values.min()) < low + room, name
        assert high - room < float(drawn_values.max()) <= high, name
    logs = torch.stack([s.log10_amplitude for s in starts])
    assert logs.shape == (400, 7)
    assert float(logs.min()) >= 0.0
    assert float(logs.max()) <= 6.0
    assert float(logs.mean()) == pytest.approx(3.0, abs=0.15)


@hypothesis_settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**62), width=st.sampled_from(["narrow", "wide"]))
def test_a_random_start_comes_from_its_seed_and_lies_in_the_bounds(seed, width):
    given_setup = nominal()
    torch.manual_seed(seed % 1000)
    first = random_start(given_setup, width, seed)
    torch.manual_seed(7)
    again = random_start(given_setup, width, seed)
    assert torch.equal(first.theta, again.theta)
    assert torch.equal(first.log10_amplitude, again.log10_amplitude)
    other = random_start(given_setup, width, seed + 1)
    assert not torch.equal(first.theta, other.theta)
    lower = torch.tensor([p.lower for p in given_setup.parameters])
    upper = torch.tensor([p.upper for p in given_setup.parameters])
    assert bool(((first.theta >= lower) & (first.theta <= upper)).all())


def test_a_random_start_leaves_what_is_fixed():
    held = tuple(replace(p, free=p.free and p.name != "energy_slope") for p in PARAMETERS)
    begin = random_start(setup(TABLE, parameters=held), "wide", 3)
    assert float(begin.theta[INDEX["energy_slope"]]) == 0.01
    assert float(begin.theta[INDEX["energy_offset"]]) != 0.0


def test_a_perturbed_start_is_within_a_sigma_of_the_fit():
    theta, given = theta_of(**TRUTH), setup(TABLE)
    sigma = 0.1 * torch.tensor([p.scale for p in PARAMETERS], dtype=torch.float64)
    sigma[INDEX["fwhm_offset"]] = torch.nan
    starts = torch.stack([perturbed_start(theta, sigma, AMPLITUDE, given, seed).theta for seed in range(300)])
    share = ((starts - theta) / sigma)[:, FREE & torch.isfinite(sigma)]
    assert float(share.abs().max()) <= 1.0
    assert bool((share.abs().max(dim=0).values > 0.95).all())
    assert bool((starts[:, INDEX["fwhm_offset"]] == theta[INDEX["fwhm_offset"]]).all())
    assert bool((starts[:, ~FREE] == theta[~FREE]).all())


def test_an_absent_component_is_started_at_one_count():
    amplitude = torch.tensor([0.0, 1e3, 1e-7, 100.0, 10.0, 1.0, 5.0], dtype=torch.float64)
    theta = theta_of(**TRUTH)
    begin = perturbed_start(theta, torch.full_like(theta, torch.nan), amplitude, setup(TABLE), 0)
    torch.testing.assert_close(
        begin.log10_amplitude, torch.tensor([0.0, 3.0, 0.0, 2.0, 1.0, 0.0, np.log10(5.0)], dtype=torch.float64)
    )


def test_amplitudes_are_guessed_from_the_counts_about_the_strongest_line():
    given = setup(TABLE)
    begin = JointStart(
        theta=theta_of(energy_offset=0.0, energy_slope=0.01, coherent_sct_energy=12.0),
        log10_amplitude=torch.full((7,), 5.5, dtype=torch.float64),
    )
    counts = torch.full((1500,), 7.0, dtype=torch.float64)
    iron = slice(630, 651)  # 6.404 keV +-0.1 keV
    counts[iron] += 100.0
    counts[:300] = 0.0  # Si at 1.74 keV
    counts[1135:1145] += 81.0  # within 0.4 keV of the Compton peak at 11.72 keV, not of the elastic one at 12 keV
    found = guess_amplitudes(begin, counts, given)
    assert torch.equal(found.theta, begin.theta)
    share = {n: float(TABLE.ratio[TABLE.component == i].max()) for i, n in enumerate(TABLE.component_names)}
    wanted = [1.0 / share["Si"], *(8.0 * c / share[n] for n, c in (("Ca", 7), ("Fe", 107), ("Zn", 7), ("Ba_L", 7)))]
    torch.testing.assert_close(10.0**found.log10_amplitude, torch.tensor([*wanted, 56.0, 136.0], dtype=torch.float64))
    moved = guess_amplitudes(replace(begin, theta=theta_of(energy_offset=1.0, energy_slope=0.01)), counts, given)
    assert moved.log10_amplitude[2] < found.log10_amplitude[2] - 0.5


def test_a_guess_of_a_line_beyond_the_spectrum_is_a_count_and_a_tube_has_no_elastic_peak():
    given = setup(TABLE, elastic=False)
    begin = random_start(given, "narrow", 1)
    found = guess_amplitudes(begin, torch.full((400,), 50.0, dtype=torch.float64), given)
    assert found.log10_amplitude.shape == (6,)
    assert len(component_names(given)) == 6
    assert float(found.log10_amplitude[-1]) == 0.0
    assert 0.0 < float(found.log10_amplitude[3]) < 0.3  # Zn: one count in its strongest line


@pytest.mark.parametrize("method", ["adam", pytest.param("sbplx", marks=[needs_nlopt, pytest.mark.slow])])
def test_at_few_counts_random_amplitudes_and_not_the_optimiser_are_what_fails(method):
    counts = drawn(sum(expected_counts(2e3, lines=TABLE)), 3)
    given = setup(TABLE, background="snip")
    r2 = []
    for seed in (1, 2):
        begin = random_start(given, "narrow", seed)
        starts = (begin, guess_amplitudes(begin, counts, given))
        limits = {"adam_steps": 100, "sbplx_evaluations": 1500}
        r2.append([fit_protocol(counts, given, start, method, **limits).r2 for start in starts])
    at_random, guessed = np.array(r2).T
    assert (guessed > at_random).all()
    assert guessed.min() > 0.85
    assert at_random.max() < 0.2


# --- the protocol -------------------------------------------------------------------------------


def test_every_method_is_given_the_same_problem(monkeypatch):
    counts, given = noisy(), setup(TABLE, background="snip")
    begin = random_start(given, "narrow", 4)
    seen = {}

    def spy(name, real):
        def search(*args, **options):
            seen[name] = args[1]
            return real(*args, **options)

        monkeypatch.setattr(protocol, name, search)

    for name in ("minimise", "minimise_adam", "fit_sbplx"):
        spy(name, getattr(protocol, name))
    for method in METHODS if find_spec("nlopt") is not None else METHODS[:2]:
        fit_protocol(counts, given, begin, method, adam_steps=2, sbplx_evaluations=5)
    first = seen["minimise"]
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, len(counts))
    torch.testing.assert_close(first.model.channel, channels(low, high))
    assert bool((first.weights == 1.0).all())
    assert bool(torch.isinf(first.space.prior_sd).all())
    background = counts[low : high + 1] - first.counts
    assert 0.02 < float(background.sum() / counts.sum()) < 0.3
    for other in seen.values():
        assert torch.equal(other.counts, first.counts)
        assert torch.equal(other.model.channel, first.model.channel)
        assert torch.equal(other.space.lower, first.space.lower)
        assert other.model.table is given.table


def test_the_background_is_that_of_the_start_and_the_range_that_of_the_set_up():
    counts, given = noisy(), setup(TABLE, background="snip")
    problems = [build_protocol_least_squares(counts, given, random_start(given, "wide", s)) for s in (0, 1)]
    assert not torch.equal(problems[0][1], problems[1][1])
    assert torch.equal(problems[0][0].model.channel, problems[1][0].model.channel)
    for problem, fixed in problems:
        low = int(problem.model.channel[0])
        torch.testing.assert_close(problem.counts + fixed, counts[low : low + len(fixed)])


def test_the_separable_fit_does_not_depend_on_shapes_that_it_starts_from():
    counts, given = noisy(), setup(TABLE, background="none")
    far = theta_of(**TRUTH)
    far[INDEX["fwhm_offset"]], far[INDEX["compton_gamma"]] = 0.07, 4.0
    fits = [
        fit_protocol(counts, given, replace(near_truth(), theta=theta), "separable")
        for theta in (theta_of(**TRUTH), far)
    ]
    assert fits[0].r2 == pytest.approx(fits[1].r2, abs=2e-6)
    assert fits[0].status is FitStatus.CONVERGED


@pytest.mark.parametrize("method", ["adam", pytest.param("sbplx", marks=needs_nlopt)])
def test_from_the_truth_the_baselines_come_near_the_separable_fit(method):
    counts, given = noisy(), setup(TABLE, background="snip")
    best = fit_protocol(counts, given, near_truth(), "separable")
    fit = fit_protocol(counts, given, near_truth(), method, adam_steps=100, sbplx_evaluations=2500)
    assert fit.r2 == pytest.approx(best.r2, abs=1e-2)
    assert fit.r2 < best.r2 + 1e-4
    assert fit.status is FitStatus.MAX_ITERATIONS
    again = fit_protocol(counts, given, near_truth(), method, adam_steps=100, sbplx_evaluations=2500)
    assert torch.equal(fit.theta, again.theta)
    assert torch.equal(fit.amplitude, again.amplitude)


def test_the_score_is_that_of_the_model_counts():
    counts, given = noisy(), setup(TABLE, background="hats")
    fit = fit_protocol(counts, given, near_truth(), "separable")
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, len(counts))
    y, model = counts[low : high + 1].numpy(), fit.model.numpy()
    spread = ((y - y.mean()) ** 2).sum()
    assert fit.r2 == pytest.approx(1.0 - ((y - model) ** 2).sum() / spread, rel=1e-12)
    assert fit.r2_expected == pytest.approx(1.0 - y.sum() / spread, rel=1e-12)
    assert 0.8 < fit.deviance < 1.3
    off = (fit.amplitude - AMPLITUDE).abs() / AMPLITUDE
    assert float(off.max()) < 0.1
    sigma = fit.theta_sigma[INDEX["energy_offset"]]
    assert 0.0 < float(sigma) < 1e-2
    assert bool(torch.isnan(fit.theta_sigma[~FREE]).all())


@pytest.mark.parametrize("method", METHODS)
def test_bad_spectra_and_starts_are_a_status(method):
    if method == "sbplx":
        pytest.importorskip("nlopt")
    given, begin = setup(TABLE, background="snip"), near_truth()
    holed = noisy().clone()
    holed[40] = torch.nan
    lost = replace(begin, theta=begin.theta * torch.nan)
    for counts, at, status in (
        (torch.zeros(1500), begin, FitStatus.EMPTY),
        (holed, begin, FitStatus.NONFINITE),
        (noisy(), lost, FitStatus.NONFINITE),
    ):
        fit = fit_protocol(counts, given, at, method)
        assert fit.status is status
        assert np.isnan([fit.r2, fit.deviance]).all()
        assert bool(torch.isnan(fit.theta).all())
        assert fit.amplitude.shape == (7,)


def test_a_search_that_ends_in_nan_is_a_status(monkeypatch):
    real = protocol.minimise_adam
    monkeypatch.setattr(
        protocol, "minimise_adam", lambda *a, **k: replace(real(*a, **k), linear=torch.full((7,), torch.inf).double())
    )
    fit = fit_protocol(noisy(), setup(TABLE, background="none"), near_truth(), "adam", adam_steps=3)
    assert (fit.status, fit.evaluations) == (FitStatus.NONFINITE, 3)


def test_a_range_outside_of_the_spectrum_is_refused():
    with pytest.raises(FitError, match="fit range"):
        fit_protocol(noisy(), setup(TABLE, energy_min_kev=40.0, energy_max_kev=50.0), near_truth(), "adam")


# --- measured data ------------------------------------------------------------------------------


def test_adam_lowers_its_loss_on_a_measured_spectrum(shared_data):
    path = shared_data / "aps-2ide/mda/axo_std.mda"
    raw = {
        "input": {"files": ["-"]},
        "sample": {"elements": ["Si", "Ar", "Ca", "Fe", "Cu", "La_L", "Pd_L", "Mo_L", "Pb_M"]},
        "fit": {"energy_range_kev": [1.0, 11.0], "background": "snip"},
    }
    config = check_config(raw, "test")
    scan = open_scan(path, read_options(config))
    given = prepare(config, scan_facts(scan, path), 0).problem
    counts = torch.from_numpy(integrate(scan))[0]
    begin = random_start(given, "narrow", 0)
    fits = [fit_protocol(counts, given, begin, "adam", adam_steps=n) for n in (1, 20, 80)]
    assert fits[0].r2 < fits[1].r2 < fits[2].r2
    best = fit_protocol(counts, given, begin, "separable")
    assert best.r2 > 0.99
    assert best.r2 > fits[2].r2
    problem, _ = build_protocol_least_squares(counts, given, begin)
    short = minimise_adam(begin.theta, problem, steps=5)
    assert short.theta.shape == begin.theta.shape
    assert short.linear.shape == begin.log10_amplitude.shape


@pytest.mark.parametrize("seed", [1, 24, 25])
def test_from_a_start_that_leads_elsewhere_the_separable_fit_finds_the_best_axis(seed):
    counts, given = noisy(), setup(TABLE)
    begin = random_start(given, "wide", seed)
    problem = build_protocol_least_squares(counts, given, begin)[0]
    total = float((problem.counts - problem.counts.mean()).square().sum())

    def left_from(theta):
        state = minimise(best_of(theta[None], problem), problem, iterations=60)
        return float(state.misfit) / total

    fit = fit_protocol(counts, given, begin, "separable")
    assert left_from(begin.theta) > 0.005
    assert fit.r2 > 1.0 - left_from(theta_of(**TRUTH)) - 1e-4


@pytest.mark.parametrize("seed", [1, 24])
def test_every_part_of_the_search_goes_on_from_the_one_before(seed):
    counts, given = noisy(), setup(TABLE)
    begin = random_start(given, "wide", seed)
    fits = [fit_protocol(counts, given, begin, "separable", search=search) for search in SEARCHES]
    r2 = [fit.r2 for fit in fits]
    assert r2[1] <= r2[2] <= r2[3]
    assert r2[0] < r2[3] - 0.005
    assert torch.equal(fits[3].theta, fit_protocol(counts, given, begin, "separable").theta)


def test_each_part_of_the_search_is_left_out_where_it_is_not_asked_for(monkeypatch):
    counts, given = noisy(), setup(TABLE)
    begin = random_start(given, "wide", 1)
    called = []
    for name in ("find_starts_near", "scan_pairs", "find_starts"):
        real = getattr(protocol, name)
        monkeypatch.setattr(protocol, name, lambda *a, n=name, f=real: called.append(n) or f(*a))
    monkeypatch.setattr(protocol, "_leaves_much", lambda *_: True)
    seen = []
    for search in SEARCHES:
        called.clear()
        fit_protocol(counts, given, begin, "separable", search=search)
        seen.append(tuple(called))
    near, pairs, screen = "find_starts_near", "scan_pairs", "find_starts"
    assert seen == [(), (near,), (near, pairs), (near, pairs, screen)]
