"""Variable projection: it recovers what made the spectrum, its cost never rises, starts do not disturb each other."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, amplitudes, channels, drawn, expected_counts, setup, table, theta_of

from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.fitting.spectrum.gradient import minimise_adam
from hpcxrf.fitting.spectrum.integrated import _build_model, build_least_squares, fit_range
from hpcxrf.fitting.spectrum.least_squares import State, build_space
from hpcxrf.fitting.spectrum.pack import pack_space
from hpcxrf.fitting.spectrum.separable import _solve_damped_step, design, minimise, objective, start
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel
from hpcxrf.physics.parameters import INDEX, PARAMETERS, pack, replace_values

TABLE = table(("Si", "Ca", "Fe", "Zn", "Ba_L"))
FREE = torch.tensor([p.free for p in PARAMETERS])
SCALE = torch.tensor([p.scale for p in PARAMETERS], dtype=torch.float64)


def problem_of(counts, *, background="none", **options):
    given = setup(TABLE, background=background, **options)
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, len(counts))
    model = SpectrumModel(table=TABLE, channel=channels(low, high), constants=PHYSICS, with_step=False)
    return build_least_squares(counts, low, high, model, given)[0]


def peaks(total=1e6):
    return expected_counts(total, lines=TABLE)[0]


def noisy(total=1e6, seed=1):
    return drawn(sum(expected_counts(total, lines=TABLE)), seed)


def run(problem, iterations=60, tolerance=1e-12, theta=None):
    begin = problem.space.centre if theta is None else theta
    return minimise(start(begin, problem), problem, iterations=iterations, tolerance=tolerance)


def test_a_spectrum_without_noise_gives_back_theta_and_the_amplitudes():
    state = run(problem_of(peaks()))
    wrong = (state.theta - theta_of(**TRUTH)) / SCALE
    assert float(wrong[FREE].abs().max()) < 1e-6
    torch.testing.assert_close(state.linear, amplitudes(1e6, TABLE), rtol=1e-7, atol=1e-3)


def test_a_linear_continuum_is_recovered_with_the_amplitudes_when_hats_may_bend():
    peaked, continuum = expected_counts(1e6, lines=TABLE)
    state = run(problem_of(peaked + continuum, background="hats"))
    assert float(((state.theta - theta_of(**TRUTH)) / SCALE)[FREE].abs().max()) < 1e-4
    torch.testing.assert_close(state.linear[:7], amplitudes(1e6, TABLE), rtol=1e-5, atol=1.0)


@pytest.mark.parametrize("background", ["none", "hats"])
def test_the_cost_never_rises_and_the_first_step_lowers_it(background):
    problem = problem_of(noisy(), background=background)
    state = start(problem.space.centre, problem)
    costs = [float(objective(state, problem))]
    misfits = [float(state.misfit)]
    for _ in range(25):
        state = minimise(state, problem, iterations=1)
        costs.append(float(objective(state, problem)))
        misfits.append(float(state.misfit))
    assert all(b <= a for a, b in pairwise(costs))
    assert costs[1] < costs[0]
    assert misfits[-1] < 0.05 * misfits[0]


def test_the_cost_never_rises_from_bad_starts_either_although_steps_overshoot_there():
    problem = problem_of(noisy(), background="hats")
    generator = torch.Generator().manual_seed(0)
    away = torch.randn(4, len(PARAMETERS), generator=generator, dtype=torch.float64)
    begins = problem.space.centre + 8.0 * torch.where(FREE, away * SCALE, 0.0)
    state = start(begins, problem)
    state = replace(state, damping=torch.full_like(state.damping, 1e-6))
    rejected = 0
    for _ in range(20):
        before, cost = state, objective(state, problem)
        state = minimise(state, problem, iterations=1)
        assert bool((objective(state, problem) <= cost * (1.0 + 1e-12)).all())
        stood = (state.theta == before.theta).all(dim=1) & ~before.done
        assert bool((state.damping >= before.damping)[stood].all())
        rejected += int(stood.sum())
    assert rejected > 0


def test_a_prior_that_outweighs_the_spectrum_pulls_a_start_back_to_its_centre():
    parameters = tuple(replace(p, prior_sd=1e-3) if p.name == "compton_angle" else p for p in setup(TABLE).parameters)
    problem = problem_of(drawn(peaks(), 1), parameters=parameters)
    begin = problem.space.centre.clone()
    begin[INDEX["compton_angle"]] = 95.0  # the centre is 90, the truth 93
    state = run(problem, theta=begin)
    assert float(state.theta[INDEX["compton_angle"]]) == pytest.approx(90.0, abs=0.01)


def test_the_amplitudes_are_optimal_at_the_theta_that_is_returned():
    problem = problem_of(noisy(), background="hats")
    state = run(problem)
    _, columns = design(state.theta, problem)
    best = nnls_gram(columns.T @ columns, columns.T @ problem.counts)
    torch.testing.assert_close(state.linear, best.x, rtol=1e-6, atol=1e-4)
    residual = problem.counts - columns @ state.linear
    assert float(state.misfit) == pytest.approx(float(residual @ residual), rel=1e-12)


def test_no_step_of_any_parameter_improves_what_is_returned():
    """Stationary, by the cost itself and not by the solver's own gradient."""
    problem = problem_of(noisy(), background="hats")
    state = run(problem)
    here = float(objective(state, problem))
    for i in FREE.nonzero()[:, 0].tolist():
        for sign in (-1.0, 1.0):
            moved = state.theta.clone()
            moved[i] += 0.1 * sign * float(problem.space.scale[i])
            there = start(moved, problem)
            assert float(objective(there, problem)) > here * (1.0 - 1e-7)


def test_a_batch_of_starts_is_the_stack_of_single_fits():
    problem = problem_of(noisy(), background="hats")
    begins = torch.stack([problem.space.centre] * 3)
    begins[1, INDEX["energy_slope"]] *= 1.002
    begins[2, INDEX["fwhm_offset"]] = 0.15
    whole = minimise(start(begins, problem), problem, iterations=12)
    for i in range(3):
        single = minimise(start(begins[i], problem), problem, iterations=12)
        torch.testing.assert_close(whole.theta[i], single.theta, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(whole.linear[i], single.linear, rtol=1e-7, atol=1e-4)
        assert int(whole.iterations[i]) == int(single.iterations)
        assert bool(whole.done[i]) == bool(single.done)


def test_theta_stays_inside_its_bounds_in_every_step():
    parameters = replace_values(PARAMETERS, {"coherent_sct_energy": 12.0})
    tight = tuple(replace(p, upper=0.005) if p.name == "f_tail_offset" else p for p in parameters)
    problem = problem_of(peaks(), parameters=tight)
    state = start(problem.space.centre, problem)
    for _ in range(15):
        state = minimise(state, problem, iterations=1)
        assert bool(((state.theta >= problem.space.lower) & (state.theta <= problem.space.upper)).all())
    assert float(state.theta[INDEX["f_tail_offset"]]) == 0.005


@pytest.mark.parametrize("off", [0.0, 1e-18, -1e-18])
@pytest.mark.parametrize("upper", [False, True])
def test_a_parameter_that_rounding_keeps_from_its_bound_takes_no_step(upper, off):
    """A step to a bound is a sum that rounds; held there alone, or let go for a neighbour's sake, is another step."""
    problem = problem_of(peaks())
    state = start(problem.space.centre, problem)
    at, beside = INDEX["compton_hi_f_tail"], INDEX["compton_f_tail"]
    bound = (problem.space.upper if upper else problem.space.lower)[at]
    outwards = 1.0 if upper else -1.0
    theta, hessian, gradient = state.theta.clone(), torch.eye(len(FREE), dtype=torch.float64), state.gradient * 0.0
    theta[at] = bound + off
    hessian[at, beside] = hessian[beside, at] = 0.9 * outwards
    gradient[at], gradient[beside] = 0.1 * outwards, 1.0
    prior_sd = torch.full_like(problem.space.prior_sd, 1e9)
    flat = replace(problem, space=replace(problem.space, prior_sd=prior_sd))
    state = replace(state, theta=theta, hessian=hessian, gradient=gradient)
    trial, _ = _solve_damped_step(state, flat)
    assert float((trial[at] - bound).abs()) <= 1e-17
    assert float((trial[beside] - theta[beside]) / problem.space.scale[beside]) == pytest.approx(1.0 / 1.01, rel=1e-6)
    compiled, space = torch.empty_like(theta).numpy(), pack_space(flat.space)
    n = len(FREE)
    load_spectrum_kernels().take_step(
        theta.numpy(), space, float(state.misfit) / 1e3, float(state.damping), hessian.numpy(), gradient.numpy(),
        np.empty((3, n, n)), np.empty((5, n)), np.empty((2, n), np.uint64), compiled,
    )  # fmt: skip
    np.testing.assert_allclose(compiled, trial.numpy(), rtol=1e-9, atol=1e-17)


def test_fixed_parameters_do_not_move():
    state = run(problem_of(noisy()))
    begin = pack(setup(TABLE).parameters)
    assert bool((state.theta[~FREE] == begin[~FREE]).all())
    assert bool((state.theta[FREE] != begin[FREE]).any())


def test_a_tight_prior_holds_a_parameter_that_the_spectrum_would_move():
    counts = drawn(peaks(), 1)

    def angle_with(prior_sd):
        parameters = tuple(
            replace(p, prior_sd=prior_sd) if p.name == "compton_angle" else p for p in setup(TABLE).parameters
        )
        return float(run(problem_of(counts, parameters=parameters)).theta[INDEX["compton_angle"]])

    # Start 90, truth 93.
    loose, medium, tight = (angle_with(sd) for sd in (40.0, 0.05, 1e-4))
    assert loose == pytest.approx(93.0, abs=0.5)
    assert tight == pytest.approx(90.0, abs=0.01)
    assert tight < medium < loose


def test_the_prior_weighs_as_much_as_the_misfit_of_one_channel_per_squared_sd():
    problem = problem_of(noisy())
    state = start(problem.space.centre, problem)
    moved = problem.space.centre.clone()
    moved[INDEX["compton_angle"]] += 80.0  # two standard deviations of 40
    away = start(moved, problem)
    extra = float(objective(away, problem) / away.misfit) - 1.0
    assert extra == pytest.approx(4.0 / problem.counts.shape[0], rel=1e-9)
    assert float(objective(state, problem)) == float(state.misfit)


def test_a_parameter_with_no_influence_does_not_stop_the_others():
    """Gamma at a tail of 0 has no derivative at all."""
    parameters = tuple(
        replace(p, value=0.0, upper=0.0, free=False) if "tail" in p.name else p for p in setup(TABLE).parameters
    )
    truth = TRUTH | dict.fromkeys(("compton_f_tail", "compton_hi_f_tail", "f_tail_offset", "kb_f_tail_offset"), 0.0)
    state = run(problem_of(expected_counts(1e6, lines=TABLE, truth=truth)[0], parameters=parameters))
    off = (state.theta - theta_of(**truth)) / SCALE
    held = [i for n, i in INDEX.items() if "gamma" in n or "tail" in n]
    off[held] = 0.0
    assert float(off[FREE].abs().max()) < 1e-5


def test_iterations_are_counted_and_a_finished_start_stands_still():
    problem = problem_of(noisy())
    done = run(problem, tolerance=1e-6)
    assert bool(done.done)
    again = minimise(done, problem, iterations=10)
    assert int(again.iterations) == int(done.iterations)
    assert bool((again.theta == done.theta).all())
    assert int(run(problem, iterations=3).iterations) == 3


def test_a_start_that_is_not_finite_is_done_at_once_and_does_not_hurt_its_neighbour():
    problem = problem_of(noisy())
    begins = torch.stack([problem.space.centre * torch.nan, problem.space.centre])
    state = minimise(start(begins, problem), problem, iterations=12)
    single = minimise(start(problem.space.centre, problem), problem, iterations=12)
    assert int(state.iterations[0]) == 0
    torch.testing.assert_close(state.theta[1], single.theta, rtol=1e-9, atol=1e-12)


def test_near_the_optimum_a_step_gains_what_its_quadratic_model_promises():
    problem = problem_of(drawn(peaks(), 1))
    best = run(problem)
    begin = start(best.theta + 0.02 * torch.where(FREE, SCALE, 0.0), problem)
    begin = replace(begin, damping=torch.full_like(begin.damping, 1e-7))
    promised = float(_solve_damped_step(begin, problem)[1])
    after = minimise(begin, problem, iterations=1)
    gained = float(objective(begin, problem) - objective(after, problem))
    assert gained > 0.0
    assert promised == pytest.approx(gained, rel=0.1)


def test_the_space_holds_the_columns_of_the_parameter_table():
    space = build_space(PARAMETERS)
    i = INDEX["compton_angle"]
    assert [float(c[i]) for c in (space.centre, space.lower, space.upper, space.prior_sd, space.scale)] == [
        90.0,
        40.0,
        170.0,
        40.0,
        5.0,
    ]
    assert space.free.dtype == torch.bool


def test_adam_lowers_its_loss_keeps_amplitudes_positive_and_theta_in_its_bounds():
    problem = problem_of(noisy(), background="hats")
    begin = pack(setup(TABLE).parameters)

    def loss(theta, linear):
        _, columns = design(theta, problem)
        return float((problem.weights * (problem.counts - columns @ linear) ** 2).mean())

    fits = [minimise_adam(begin, problem, steps=n) for n in (1, 40, 120)]
    losses = [loss(fit.theta, fit.linear) for fit in fits]
    assert losses[0] > losses[1] > losses[2]
    theta, linear = fits[1].theta, fits[1].linear
    assert bool((linear > 0.0).all())
    assert bool(((theta >= problem.space.lower) & (theta <= problem.space.upper)).all())
    assert bool((theta[~FREE] == begin[~FREE]).all())
    assert loss(theta, linear) > float(run(problem).misfit) / problem.counts.shape[0]


def test_adam_is_deterministic():
    problem = problem_of(noisy())
    first, second = (minimise_adam(pack(setup(TABLE).parameters), problem, steps=15) for _ in range(2))
    assert torch.equal(first.theta, second.theta)
    assert torch.equal(first.linear, second.linear)


def test_the_state_carries_one_entry_for_each_start():
    problem = problem_of(noisy())
    state = start(torch.stack([problem.space.centre] * 2), problem)
    assert isinstance(state, State)
    assert state.misfit.shape == (2,)
    assert state.hessian.shape == (2, len(PARAMETERS), len(PARAMETERS))


def test_a_step_against_a_bound_that_looks_uphill_does_not_end_the_search():
    """E0 at a bound and the Compton angle tied to it: the clamped step promises less than nothing."""
    truth = TRUTH | {"coherent_sct_energy": 20.03}
    begin = truth | {"coherent_sct_energy": 19.6}
    free = {"coherent_sct_energy": (19.55, 20.45), "compton_angle": (30.0, 180.0)}
    lines = table(("Si", "Ca", "Fe", "Zn"), 20.0)
    asked = setup(lines, energy_max_kev=21.0)
    rows = tuple(
        replace(
            p,
            value=begin.get(p.name, p.value),
            free=p.name in free,
            lower=free.get(p.name, (p.lower,))[0],
            upper=free.get(p.name, (p.upper,))[-1],
        )
        for p in asked.parameters
    )
    asked = replace(asked, parameters=rows)
    counts = drawn(sum(expected_counts(1e6, lines=lines, truth=truth, n_channels=2200)), 1)
    low, high = fit_range(rows, 1.0, 21.0, 2200)
    problem, _ = build_least_squares(counts, low, high, _build_model(low, high, asked, counts.device), asked)
    ends = [
        minimise(start(theta_of(**values), problem), problem, iterations=60, tolerance=1e-5)
        for values in (begin, truth)
    ]
    assert float(ends[0].misfit) == pytest.approx(float(ends[1].misfit), rel=1e-4)
