"""The separable engine on one spectrum: all starts to the mean-square optimum, then the chosen objective."""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs, scatter_is_dead
from hpcxrf.fitting.spectrum.separable import (
    LeastSquares,
    State,
    best_of,
    design,
    minimise,
    objective,
    start,
    start_misfit,
)
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
_DEPTH_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """End point of the search, in terms of the problem's components."""

    least_squares: LeastSquares
    """Counts, weights and model, with the fitted K-beta ratios in the line table."""
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


def solve_separable(starts: Tensor, least_squares: LeastSquares, fixed: Tensor, problem: FitProblem) -> Solution:
    """Mean-square optimum from the best of the starts, then the deviance's or the modulus's.

    Args:
        starts: (start, parameter).
        least_squares: counts and unit weights (channel,) of the fit range.
        fixed: (channel,) background that is in no column.
        problem: objective, K-beta prior.
    """
    state = minimise(
        best_of(starts, least_squares), least_squares, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE
    )
    state = _revive(state, least_squares)
    iterations = int(state.iterations)
    least_squares, state, depth = _try_absorber(least_squares, state, fixed)
    pairs, whole_table = None, least_squares.model.table
    if problem.kbeta_sd > 0.0:
        least_squares, state, pairs = _split_kbeta(least_squares, state, problem)
        iterations += int(state.iterations)
    inside = least_squares.counts + fixed
    r2 = float(r_squared(inside, _predict(state, least_squares) + fixed))
    weigh = {"poisson": _weigh_poisson, "l1": _weigh_modulus}
    tolerances = {"mse": (), "poisson": POISSON_TOLERANCES, "l1": (_UNIT_TOLERANCE,) * _MODULUS_PASSES}[
        problem.objective
    ]
    for tolerance in tolerances:
        least_squares = weigh[problem.objective](state, least_squares, fixed)
        least_squares = _tie_kbeta(least_squares, state, pairs, problem.kbeta_sd)
        begin = start(state.theta, least_squares)
        state = minimise(begin, least_squares, iterations=MAX_ITERATIONS, tolerance=tolerance)
        iterations += int(state.iterations)
    expected = _predict(state, least_squares) + fixed
    if float(r_squared(inside, expected)) > r2:
        # The other weights have led out of a valley; what lies below is the mean-square optimum.
        unit = replace(least_squares, weights=torch.ones_like(inside))
        again = minimise(start(state.theta, unit), unit, iterations=MAX_ITERATIONS)
        r2 = max(r2, float(r_squared(inside, _predict(again, unit) + fixed)))
    found = Solution(
        least_squares=least_squares,
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


def _revive(state: State, least_squares: LeastSquares) -> State:
    """Try a scatter peak elsewhere if it ended without a count: its derivative is 0, no step finds it."""
    if not scatter_is_dead(state.linear, least_squares) or not bool(torch.isfinite(state.misfit)):
        return state
    pairs, _ = scan_pairs(state.theta, least_squares, least_squares.space, _PAIRS)
    other = minimise(best_of(pairs, least_squares), least_squares, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    better = bool(objective(other, least_squares) < objective(state, least_squares))
    return other if better else state


def _try_absorber(least_squares: LeastSquares, state: State, fixed: Tensor) -> tuple[LeastSquares, State, float]:
    """Take line ratios behind more or less air where the fit stays poor and they explain much of what is left."""
    inside = least_squares.counts + fixed
    left = 1.0 - float(r_squared(inside, _predict(state, least_squares) + fixed))
    if not left > _POOR_FACTOR * (1.0 - float(r_squared_expected(inside))) + _POOR_SHARE:
        return least_squares, state, 0.0
    depths = torch.linspace(*_DEPTHS, dtype=torch.float64)
    found, depth = least_squares, 0.0
    for _ in range(_DEPTH_ROUNDS):
        # Theta has taken up part of the absorption, so that the first depth is too small.
        costs = torch.stack([start_misfit(state.theta, _attenuate(least_squares, float(d))) for d in depths])
        best = _find_lowest(depths, costs)
        trial = _attenuate(least_squares, best)
        if float(start_misfit(state.theta, trial)) > _WORTH * float(state.misfit):
            break
        begin = start(state.theta, trial)
        found, depth = trial, best
        state = minimise(begin, trial, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    return found, state, depth


def _attenuate(least_squares: LeastSquares, optical_depth: float) -> LeastSquares:
    model = least_squares.model
    return replace(least_squares, model=replace(model, table=attenuate(model.table, optical_depth)))


def _find_lowest(places: Tensor, costs: Tensor) -> float:
    """Minimum of the parabola through the lowest of evenly spaced points and its neighbours."""
    i = int(costs.argmin())
    if i in {0, costs.shape[0] - 1}:
        return float(places[i])
    below, here, above = costs[i - 1 : i + 2].tolist()
    bend = below - 2.0 * here + above
    step = float(places[1] - places[0])
    return float(places[i]) + (0.5 * step * (below - above) / bend if bend > 0.0 else 0.0)


def _split_kbeta(
    least_squares: LeastSquares, state: State, problem: FitProblem
) -> tuple[LeastSquares, State, KbetaPairs]:
    """The mean-square optimum with free K-beta columns."""
    whole = least_squares.model.table
    table, pairs = split_kbeta(whole, energy_min_kev=problem.energy_min_kev, energy_max_kev=problem.energy_max_kev)
    n = len(whole.component_names)
    part = 1.0 / (1.0 + pairs.rho)
    linear = torch.cat([state.linear[:n], state.linear[pairs.alpha] * (1.0 - part), state.linear[n:]])
    linear[pairs.alpha] = state.linear[pairs.alpha] * part
    freed = replace(least_squares, model=replace(least_squares.model, table=table))
    tied = _tie_kbeta(freed, replace(state, linear=linear), pairs, problem.kbeta_sd)
    begin = start(state.theta, tied)
    state = minimise(begin, tied, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    return tied, state, pairs


def _tie_kbeta(least_squares: LeastSquares, state: State, pairs: KbetaPairs | None, sd: float) -> LeastSquares:
    """The prior on K-beta ratios at the present amplitudes, as strong as the misfit is, like that of theta."""
    if pairs is None:
        return least_squares
    residual = least_squares.counts - _predict(state, least_squares)
    per_channel = (least_squares.weights * residual * residual).mean()
    return replace(least_squares, linear_prior=prior_gram(pairs, state.linear, sd) * per_channel)


def _weigh_poisson(state: State, least_squares: LeastSquares, fixed: Tensor) -> LeastSquares:
    return replace(least_squares, weights=poisson_weights(_predict(state, least_squares) + fixed))


def _weigh_modulus(state: State, least_squares: LeastSquares, fixed: Tensor) -> LeastSquares:
    """Weights `1 / |residual|` make the square a modulus (iteratively reweighted least squares)."""
    del fixed
    modulus = (least_squares.counts - _predict(state, least_squares)).abs()
    return replace(least_squares, weights=1.0 / modulus.clamp(min=_MODULUS_FLOOR * float(modulus.mean())))


def _merge_kbeta(found: Solution, pairs: KbetaPairs, whole_table: LineTable) -> Solution:
    """Whole families again, with the ratios that were fitted."""
    least_squares, linear = found.least_squares, found.linear
    n = len(least_squares.model.component_names)
    table = merge_table(whole_table, pairs, linear)
    _, columns = design(found.theta, least_squares)
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
        least_squares=replace(least_squares, model=replace(least_squares.model, table=table), linear_prior=None),
        linear=whole,
        positive=positive[keep],
        kbeta=(columns[:, pairs.beta] - columns[:, pairs.alpha]) * moved,
    )


def _predict(state: State, least_squares: LeastSquares) -> Tensor:
    _, columns = design(state.theta, least_squares)
    return (columns @ state.linear[..., :, None])[..., 0]


def _status(state: State) -> FitStatus:
    if not bool(torch.isfinite(state.misfit)) or not bool(torch.isfinite(state.theta).all()):
        return FitStatus.NONFINITE
    return FitStatus.CONVERGED if bool(state.done) else FitStatus.MAX_ITERATIONS
