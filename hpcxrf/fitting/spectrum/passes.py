"""The separable engine on one spectrum: all starts to the mean-square optimum, then the chosen objective."""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights, r_squared
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, State
from hpcxrf.fitting.spectrum.line_ratios import (
    DEPTH_GAIN,
    FreeRatios,
    free_ratios,
    has_free_ratios,
    measure_depth_gain,
    renew_composition,
    widen_kbeta,
)
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs, scatter_is_dead
from hpcxrf.fitting.spectrum.separable import best_of, minimise, objective, predict, start
from hpcxrf.physics.background import scatter_hats

MAX_ITERATIONS: Final = 60
# Relative improvement at which a pass ends. Of the unit-weight pass only R2 is kept, and 1 - R2 moves by 1e-4 of
# itself; the first pass with Poisson weights only has to bring the weights near; 3e-6 of a thousand channels is a
# twentieth of a standard deviation.
_UNIT_TOLERANCE: Final = 1e-4
_MODULUS_TOLERANCE: Final = 1e-5
POISSON_TOLERANCES: Final = (1e-3, 3e-6)
_MODULUS_PASSES: Final = 12
# Residuals below this share of the mean modulus weigh no more: the objective has a corner at 0.
_MODULUS_FLOOR: Final = 0.05
_PAIRS: Final = 3
# The pass with the ratios of the table only has to bring theta near; that with free ratios follows.
_ROUGH_TOLERANCE: Final = 1e-2
_GAIN_STEPS: Final = 12
# Misfit, in units of the reduced one, that a dozen free columns explain by chance in one of a million spectra.
_SCATTER_GAIN: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """End point of the search, in terms of the problem's components."""

    least_squares: LeastSquares
    """Counts, weights and model; where line ratios were fitted, its parameters follow theta."""
    theta: Tensor
    linear: Tensor
    positive: Tensor
    expected: Tensor
    """(channel,) with background."""
    r2: float
    """R2 of the mean-square optimum."""
    iterations: int
    status: FitStatus
    depth_gain: float = 0.0
    """Misfit that the depth of the sample explains, in units of the reduced misfit."""


def solve_separable(starts: Tensor, least_squares: LeastSquares, fixed: Tensor, problem: FitProblem) -> Solution:
    """Mean-square optimum from the best of the starts, then the deviance's or the modulus's.

    Args:
        starts: (start, parameter).
        least_squares: counts and unit weights (channel,) of the fit range.
        fixed: (channel,) background that is in no column.
        problem: objective, K-beta prior.
    """
    freeing = has_free_ratios(problem)
    state = minimise(
        best_of(starts, least_squares),
        least_squares,
        iterations=MAX_ITERATIONS,
        tolerance=_ROUGH_TOLERANCE if freeing else _UNIT_TOLERANCE,
    )
    state = _revive(state, least_squares)
    if problem.background == "hats" and problem.elastic and not problem.constants.maps_line_shape:
        least_squares, state = _add_scatter_hats(least_squares, state, fixed)
    iterations, free = int(state.iterations), None
    if freeing and bool(torch.isfinite(state.misfit)):
        least_squares, state, free = free_ratios(least_squares, state, fixed, problem)
        state = minimise(state, least_squares, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
        iterations += int(state.iterations)
        state = _revive(state, least_squares)
    inside = least_squares.counts + fixed
    r2 = float(r_squared(inside, predict(state, least_squares) + fixed))
    least_squares, state, more = _minimise_objective(least_squares, state, fixed, free, problem)
    expected = predict(state, least_squares) + fixed
    if float(r_squared(inside, expected)) > r2:
        # The other weights have led out of a valley; what lies below is the mean-square optimum.
        unit = replace(least_squares, weights=torch.ones_like(inside))
        again = minimise(start(state.theta, unit), unit, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
        r2 = max(r2, float(r_squared(inside, predict(again, unit) + fixed)))
    return Solution(
        least_squares=least_squares,
        theta=state.theta,
        linear=state.linear,
        positive=state.positive,
        expected=expected,
        r2=r2,
        iterations=iterations + more,
        status=_status(state),
        depth_gain=0.0 if free is None else _measure_gain(state, least_squares, fixed, problem.objective),
    )


def _add_scatter_hats(least_squares: LeastSquares, state: State, fixed: Tensor) -> tuple[LeastSquares, State]:
    """Hats between elastic and Compton peak, where they explain what no one Compton peak does.

    Not before the peaks have been found: hats in their place would keep them away.
    """
    hats = scatter_hats(state.theta, least_squares.model.channel, constants=least_squares.model.constants)
    if hats.shape[1] == 0 or not bool(torch.isfinite(state.misfit)):
        return least_squares, state
    plain = _weigh_poisson(state, least_squares, fixed)
    wider = replace(plain, hats=torch.cat([plain.hats, hats], dim=1))
    without, left = (float(start(state.theta, one).misfit) for one in (plain, wider))
    if without - left < _SCATTER_GAIN * max(left / least_squares.counts.shape[-1], 1.0):
        return least_squares, state
    wider = replace(wider, weights=least_squares.weights)
    return wider, start(state.theta, wider)


def _minimise_objective(
    least_squares: LeastSquares, state: State, fixed: Tensor, free: FreeRatios | None, problem: FitProblem
) -> tuple[LeastSquares, State, int]:
    """Reweight until the objective is lowest; the composition of the sample is renewed before each pass."""
    weigh = {"poisson": _weigh_poisson, "l1": _weigh_modulus}
    tolerances = {"mse": (), "poisson": POISSON_TOLERANCES, "l1": (_MODULUS_TOLERANCE,) * _MODULUS_PASSES}[
        problem.objective
    ]
    iterations = 0
    for number, tolerance in enumerate(tolerances):
        least_squares = weigh[problem.objective](state, least_squares, fixed)
        if free is not None:
            if number > 0 and problem.objective == "poisson":
                least_squares = widen_kbeta(least_squares, state, free)
            least_squares = renew_composition(least_squares, state, free)
        begin = start(state.theta, least_squares)
        state = minimise(begin, least_squares, iterations=MAX_ITERATIONS, tolerance=tolerance)
        iterations += int(state.iterations)
    return least_squares, state, iterations


def _measure_gain(state: State, least_squares: LeastSquares, fixed: Tensor, objective_name: str) -> float:
    """Gain of the sample's depth with Poisson weights, whatever was minimised."""
    if objective_name != "poisson":
        least_squares = _weigh_poisson(state, least_squares, fixed)
        state = start(state.theta, least_squares)
    return measure_depth_gain(state, least_squares, least=DEPTH_GAIN, iterations=_GAIN_STEPS)


def _revive(state: State, least_squares: LeastSquares) -> State:
    """Try a scatter peak elsewhere if it ended without a count: its derivative is 0, no step finds it."""
    if not scatter_is_dead(state.linear, least_squares) or not bool(torch.isfinite(state.misfit)):
        return state
    pairs, _ = scan_pairs(state.theta, least_squares, least_squares.space, _PAIRS)
    other = minimise(best_of(pairs, least_squares), least_squares, iterations=MAX_ITERATIONS, tolerance=_UNIT_TOLERANCE)
    better = bool(objective(other, least_squares) < objective(state, least_squares))
    return other if better else state


def _weigh_poisson(state: State, least_squares: LeastSquares, fixed: Tensor) -> LeastSquares:
    return replace(least_squares, weights=poisson_weights(predict(state, least_squares) + fixed))


def _weigh_modulus(state: State, least_squares: LeastSquares, fixed: Tensor) -> LeastSquares:
    """Weights `1 / |residual|` make the square a modulus (iteratively reweighted least squares)."""
    del fixed
    modulus = (least_squares.counts - predict(state, least_squares)).abs()
    return replace(least_squares, weights=1.0 / modulus.clamp(min=_MODULUS_FLOOR * float(modulus.mean())))


def _status(state: State) -> FitStatus:
    if not bool(torch.isfinite(state.misfit)) or not bool(torch.isfinite(state.theta).all()):
        return FitStatus.NONFINITE
    return FitStatus.CONVERGED if bool(state.done) else FitStatus.MAX_ITERATIONS
