"""The separable engine on one spectrum: all starts to the mean-square optimum, then the chosen objective."""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs, scatter_is_dead
from hpcxrf.fitting.spectrum.separable import Problem, State, best_of, design, minimise, objective, start, start_misfit
from hpcxrf.physics.absorber import attenuate
from hpcxrf.physics.kbeta import KbetaPairs, merge_amplitude, merge_table, prior_gram, split_kbeta
from hpcxrf.physics.lines import LineTable

MAX_ITERATIONS: Final = 60
# Relative improvement at which a pass ends. R2 moves by less than 1e-6 between 1e-5 and 1e-7; the first pass
# with Poisson weights only has to bring the weights near.
_UNIT_TOLERANCE: Final = 1e-5
POISSON_TOLERANCES: Final = (1e-4, 1e-6)
_MODULUS_PASSES: Final = 12
# Residuals below this share of the mean modulus weigh no more: the objective has a corner at 0.
_MODULUS_FLOOR: Final = 0.05
_PAIRS: Final = 3
# Absorption beyond the detector's description is tried where R2 stays this far below what the noise allows, and
# kept where it explains a fifth of what is left.
_POOR_FACTOR: Final = 1.25
_POOR_SHARE: Final = 0.001
_DEPTHS: Final = (-0.6, 2.4, 11)
_WORTH: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """End point of the search, in terms of the setup's components."""

    problem: Problem
    """The problem, with the fitted K-beta ratios in its line table."""
    theta: Tensor
    linear: Tensor
    positive: Tensor
    expected: Tensor
    """(channel,) with background."""
    r2: float
    """R2 of the mean-square optimum."""
    iterations: int
    status: FitStatus
    optical_depth: float = 0.0
    """Optical depth at 2 keV of light matter before the detector that its description leaves out."""
    kbeta: Tensor | None = None
    """(channel, pair): derivative of the counts by the logarithm of each K-beta ratio that was free."""


def solve_separable(starts: Tensor, problem: Problem, fixed: Tensor, setup: FitProblem) -> Solution:
    """Mean-square optimum from the best of the starts, then the deviance's or the modulus's.

    Args:
        starts: (start, parameter).
        problem: counts and unit weights (channel,) of the fit range.
        fixed: (channel,) background that is in no column.
        setup: objective, K-beta prior.
    """
    state = minimise(best_of(starts, problem), problem, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    state = _revive(state, problem)
    iterations = int(state.iterations)
    problem, state, depth = _try_absorber(problem, state, fixed)
    pairs, whole_table = None, problem.model.table
    if setup.kbeta_sd > 0.0:
        problem, state, pairs = _split_kbeta(problem, state, setup)
        iterations += int(state.iterations)
    inside = problem.counts + fixed
    r2 = float(r_squared(inside, _predict(state, problem) + fixed))
    weigh = {"poisson": _weigh_poisson, "l1": _weigh_modulus}
    tolerances = {"mse": (), "poisson": POISSON_TOLERANCES, "l1": (_UNIT_TOLERANCE,) * _MODULUS_PASSES}[setup.objective]
    for tolerance in tolerances:
        problem = weigh[setup.objective](state, problem, fixed)
        problem = _tie_kbeta(problem, state, pairs, setup.kbeta_sd)
        begin = start(state.theta, problem)
        state = minimise(begin, problem, iterations=MAX_ITERATIONS, tolerance=tolerance)
        iterations += int(state.iterations)
    expected = _predict(state, problem) + fixed
    if float(r_squared(inside, expected)) > r2:
        # The other weights have led out of a valley; what lies below is the mean-square optimum.
        unit = replace(problem, weights=torch.ones_like(inside))
        again = minimise(start(state.theta, unit), unit, iterations=MAX_ITERATIONS)
        r2 = max(r2, float(r_squared(inside, _predict(again, unit) + fixed)))
    found = Solution(
        problem=problem,
        theta=state.theta,
        linear=state.linear,
        positive=state.positive,
        expected=expected,
        r2=r2,
        iterations=iterations,
        status=_status(state),
        optical_depth=depth,
    )
    return found if pairs is None else _merge_kbeta(found, pairs, whole_table)


def _revive(state: State, problem: Problem) -> State:
    """Try a scatter peak elsewhere if it ended without a count: its derivative is 0, no step finds it."""
    if not scatter_is_dead(state.linear, problem) or not bool(torch.isfinite(state.misfit)):
        return state
    pairs, _ = scan_pairs(state.theta, problem, problem.space, _PAIRS)
    other = minimise(best_of(pairs, problem), problem, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    better = bool(objective(other, problem) < objective(state, problem))
    return other if better else state


def _try_absorber(problem: Problem, state: State, fixed: Tensor) -> tuple[Problem, State, float]:
    """Take line ratios behind more or less air where the fit stays poor and they explain much of what is left."""
    inside = problem.counts + fixed
    left = 1.0 - float(r_squared(inside, _predict(state, problem) + fixed))
    if not left > _POOR_FACTOR * (1.0 - float(r_squared_expected(inside))) + _POOR_SHARE:
        return problem, state, 0.0
    depths = torch.linspace(*_DEPTHS, dtype=torch.float64)
    costs = torch.stack([start_misfit(state.theta, _attenuate(problem, float(d))) for d in depths])
    depth = _find_lowest(depths, costs)
    trial = _attenuate(problem, depth)
    if float(start_misfit(state.theta, trial)) > _WORTH * float(state.misfit):
        return problem, state, 0.0
    moved = minimise(start(state.theta, trial), trial, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    return trial, moved, depth


def _attenuate(problem: Problem, optical_depth: float) -> Problem:
    model = problem.model
    return replace(problem, model=replace(model, table=attenuate(model.table, optical_depth)))


def _find_lowest(places: Tensor, costs: Tensor) -> float:
    """Minimum of the parabola through the lowest of evenly spaced points and its neighbours."""
    i = int(costs.argmin())
    if i in {0, costs.shape[0] - 1}:
        return float(places[i])
    below, here, above = costs[i - 1 : i + 2].tolist()
    bend = below - 2.0 * here + above
    step = float(places[1] - places[0])
    return float(places[i]) + (0.5 * step * (below - above) / bend if bend > 0.0 else 0.0)


def _split_kbeta(problem: Problem, state: State, setup: FitProblem) -> tuple[Problem, State, KbetaPairs]:
    """The mean-square optimum with free K-beta columns."""
    whole = problem.model.table
    table, pairs = split_kbeta(whole, energy_min_kev=setup.energy_min_kev, energy_max_kev=setup.energy_max_kev)
    n = len(whole.component_names)
    part = 1.0 / (1.0 + pairs.rho)
    linear = torch.cat([state.linear[:n], state.linear[pairs.alpha] * (1.0 - part), state.linear[n:]])
    linear[pairs.alpha] = state.linear[pairs.alpha] * part
    freed = replace(problem, model=replace(problem.model, table=table))
    tied = _tie_kbeta(freed, replace(state, linear=linear), pairs, setup.kbeta_sd)
    begin = start(state.theta, tied)
    state = minimise(begin, tied, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    return tied, state, pairs


def _tie_kbeta(problem: Problem, state: State, pairs: KbetaPairs | None, sd: float) -> Problem:
    """The prior on K-beta ratios at the present amplitudes, as strong as the misfit is, like that of theta."""
    if pairs is None:
        return problem
    residual = problem.counts - _predict(state, problem)
    per_channel = (problem.weights * residual * residual).mean()
    return replace(problem, linear_prior=prior_gram(pairs, state.linear, sd) * per_channel)


def _weigh_poisson(state: State, problem: Problem, fixed: Tensor) -> Problem:
    return replace(problem, weights=poisson_weights(_predict(state, problem) + fixed))


def _weigh_modulus(state: State, problem: Problem, fixed: Tensor) -> Problem:
    """Weights `1 / |residual|` make the square a modulus (iteratively reweighted least squares)."""
    del fixed
    modulus = (problem.counts - _predict(state, problem)).abs()
    return replace(problem, weights=1.0 / modulus.clamp(min=_MODULUS_FLOOR * float(modulus.mean())))


def _merge_kbeta(found: Solution, pairs: KbetaPairs, whole_table: LineTable) -> Solution:
    """Whole families again, with the ratios that were fitted."""
    problem, linear = found.problem, found.linear
    n = len(problem.model.component_names)
    table = merge_table(whole_table, pairs, linear)
    _, columns = design(found.theta, problem)
    alpha, beta = linear[pairs.alpha], linear[pairs.beta]
    # Moving counts from one part to the other at a fixed sum.
    moved = alpha * beta / (alpha + beta).clamp(min=torch.finfo(linear.dtype).tiny)
    whole = torch.cat([merge_amplitude(pairs, linear[:n]), linear[n:]])
    keep = torch.ones_like(found.positive)
    keep[pairs.beta] = False
    positive = found.positive.clone()
    positive[pairs.alpha] |= positive[pairs.beta]
    return replace(
        found,
        problem=replace(problem, model=replace(problem.model, table=table), linear_prior=None),
        linear=whole,
        positive=positive[keep],
        kbeta=(columns[:, pairs.beta] - columns[:, pairs.alpha]) * moved,
    )


def _predict(state: State, problem: Problem) -> Tensor:
    _, columns = design(state.theta, problem)
    return (columns @ state.linear[..., :, None])[..., 0]


def _status(state: State) -> FitStatus:
    if not bool(torch.isfinite(state.misfit)) or not bool(torch.isfinite(state.theta).all()):
        return FitStatus.NONFINITE
    return FitStatus.CONVERGED if bool(state.done) else FitStatus.MAX_ITERATIONS
