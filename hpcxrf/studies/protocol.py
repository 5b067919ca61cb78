"""The published comparison: one spectrum, one problem, one start; only the optimiser differs.

Protocol (reference in README): initial fits start at random, refinements from fitted values; the score is
R2 = 1 - SS_res / SS_tot over the fit range, in linear counts, background included.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_deviance, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.gradient import STEPS, JointFit, guess_log10, minimise_adam
from hpcxrf.fitting.spectrum.integrated import build_least_squares
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, State, build_space
from hpcxrf.fitting.spectrum.mismatch import ModelPoint, draw_point, find_flaws
from hpcxrf.fitting.spectrum.problem import FitProblem, Method, fit_range
from hpcxrf.fitting.spectrum.sbplx import EVALUATIONS, fit_sbplx, require_nlopt
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs
from hpcxrf.fitting.spectrum.search import find_starts, find_starts_near
from hpcxrf.fitting.spectrum.separable import best_of, design, minimise
from hpcxrf.fitting.uncertainty import Uncertainty, spectrum_uncertainty
from hpcxrf.physics.model import SpectrumModel, find_tailed_lines
from hpcxrf.physics.parameters import INDEX, Parameter, pack, replace_values
from hpcxrf.studies.arms import SEARCHES, Search
from hpcxrf.studies.starts import JointStart, component_names

_ITERATIONS: Final = 60
_TOLERANCE: Final = 1e-6
# A random start can end beside the best optimum by much less than what makes a user look twice.
_POOR_FACTOR: Final = 1.25
_POOR_SHARE: Final = 0.0005
_PAIRS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolFit:
    """One method's result. Tensors are float64 on the CPU; NaN where there is no solution."""

    theta: Tensor
    """(parameter,)."""
    theta_sigma: Tensor
    """(parameter,), NaN where fixed or at a bound."""
    amplitude: Tensor
    """(component,) counts."""
    r2: float
    r2_expected: float
    deviance: float
    """Poisson deviance per degree of freedom."""
    cpu_s: float
    """CPU seconds of background, columns and search; the uncertainties, which only one of the methods had, excluded."""
    wall_s: float
    evaluations: int
    """Of the model on all channels; those of `separable` and `adam` have derivatives with them."""
    status: FitStatus
    model: Tensor
    """(channel,) over the fit range, with background."""


def fit_protocol(
    counts: Tensor,
    problem: FitProblem,
    start: JointStart,
    method: Method,
    *,
    search: Search = SEARCHES[-1],
    adam_steps: int = STEPS,
    sbplx_evaluations: int = EVALUATIONS,
) -> ProtocolFit:
    """Fit one spectrum with one optimiser, from a given start.

    Every method gets the same problem: line table, columns, fit range (at the problem's own calibration, wherever
    the start lies), background (SNIP and hats at the start's theta), unit weights and no prior. `separable` is given
    theta; its amplitudes follow from it.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        problem: lines, bounds, range and background; its method and objective are not used.
        start: of this problem's parameters and components.
        method: the optimiser.
        search: how far `separable` goes beyond the start; shorter ones are there to show what each step is for.
        adam_steps: number of steps.
        sbplx_evaluations: largest number of evaluations.

    Returns:
        The fit. A spectrum without counts, one that is not finite and a search that ends in NaN are a status.

    Raises:
        FitError: the fit range lies outside the spectrum.
        ConfigError: `sbplx` without the package nlopt.
    """
    if method == "sbplx":
        require_nlopt()
    full = counts.to("cpu", torch.float64)
    limits = fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, full.shape[0])
    inside = full[limits[0] : limits[1] + 1]
    if not bool(torch.isfinite(torch.cat([full, start.theta, start.log10_amplitude])).all()):
        return _nothing(inside, problem, FitStatus.NONFINITE)
    if float(inside.sum()) <= 0.0:
        return _nothing(inside, problem, FitStatus.EMPTY)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    least_squares, fixed = build_protocol_least_squares(full, problem, start)
    if method == "separable":
        found = _separable(full, least_squares, problem, start, inside, search)
    else:
        found = _search_jointly(method, least_squares, start, adam_steps, sbplx_evaluations)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    fit = _judge(found, least_squares, fixed, inside, problem)
    return replace(fit, cpu_s=cpu_s, wall_s=wall_s)


def build_protocol_least_squares(full: Tensor, problem: FitProblem, start: JointStart) -> tuple[LeastSquares, Tensor]:
    """What every method minimises, and the fixed background (channel,) over the fit range.

    Args:
        full: (channel,) float64 counts of the full spectrum.
        problem: as for `fit_protocol`.
        start: its theta sets the width and place of the background.

    Raises:
        FitError: the fit range lies outside the spectrum.
    """
    low, high = fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, full.shape[0])
    model = SpectrumModel(
        table=problem.table,
        channel=torch.arange(low, high + 1, dtype=torch.float64),
        constants=problem.constants,
        elastic=problem.elastic,
        with_step=_uses_step(problem.parameters),
        tailed=find_tailed_lines(problem.table, elastic=problem.elastic, constants=problem.constants),
    )
    least_squares, fixed = build_least_squares(full, low, high, model, _set_start(problem, start))
    space = least_squares.space
    no_prior = replace(space, prior_sd=torch.full_like(space.prior_sd, torch.inf))
    return replace(least_squares, space=no_prior), fixed


def _set_start(problem: FitProblem, start: JointStart) -> FitProblem:
    names = [p.name for p in problem.parameters]
    values = dict(zip(names, start.theta.tolist(), strict=True))
    return replace(problem, parameters=replace_values(problem.parameters, values))


def _uses_step(parameters: tuple[Parameter, ...]) -> bool:
    shelves = [parameters[INDEX[name]] for name in ("step_offset", "step_linear")]
    return any(p.free or p.value != 0.0 for p in shelves)


def _search_jointly(
    method: Literal["adam", "sbplx"],
    least_squares: LeastSquares,
    start: JointStart,
    adam_steps: int,
    sbplx_evaluations: int,
) -> JointFit:
    # The protocol draws components; hats start from the counts.
    hats = guess_log10(start.theta, least_squares)[start.log10_amplitude.shape[0] :]
    logs = torch.cat([start.log10_amplitude, hats])
    if method == "adam":
        return minimise_adam(start.theta, least_squares, steps=adam_steps, log10_linear=logs)
    return fit_sbplx(start.theta, least_squares, evaluations=sbplx_evaluations, log10_linear=logs)


def _separable(
    full: Tensor, least_squares: LeastSquares, problem: FitProblem, start: JointStart, inside: Tensor, search: Search
) -> JointFit:
    """Coarse steps and rival scatter peaks, then full steps; where that leaves much, as the product finds an axis."""
    starts = start.theta[None]
    if search != "start":
        starts = torch.cat([starts, find_starts_near(full, _set_start(problem, start))])
    state = _minimise(starts, least_squares)
    evaluations = 1 + int(state.iterations)
    for others in _further_starts(full, least_squares, problem, state, inside, search):
        other = _minimise(others, least_squares)
        evaluations += 1 + int(other.iterations)
        state = other if float(other.misfit) < float(state.misfit) else state
    return JointFit(
        theta=state.theta,
        linear=state.linear,
        loss=float(state.misfit) / least_squares.counts.shape[0],
        evaluations=evaluations,
        converged=bool(state.done),
    )


def _further_starts(
    full: Tensor, least_squares: LeastSquares, problem: FitProblem, state: State, inside: Tensor, search: Search
) -> Iterator[Tensor]:
    """Other places of the scatter peaks at the axis that was reached, then the axes that a screen finds."""
    if search in {"start", "near"} or not _leaves_much(state, inside):
        return
    yield scan_pairs(state.theta, least_squares, least_squares.space, _PAIRS)[0]
    if search == "screen":
        # Shapes that were drawn at random would mislead the screen.
        for one in find_starts(full, problem):
            yield one.starts


def _minimise(starts: Tensor, least_squares: LeastSquares) -> State:
    return minimise(best_of(starts, least_squares), least_squares, iterations=_ITERATIONS, tolerance=_TOLERANCE)


def _leaves_much(state: State, inside: Tensor) -> bool:
    left = float(state.misfit) / float((inside - inside.mean()).square().sum())
    return left > _POOR_FACTOR * (1.0 - float(r_squared_expected(inside))) + _POOR_SHARE


def _judge(
    found: JointFit, least_squares: LeastSquares, fixed: Tensor, inside: Tensor, problem: FitProblem
) -> ProtocolFit:
    _, columns = design(found.theta, least_squares)
    expected = columns @ found.linear + fixed
    finite = torch.isfinite(torch.cat([found.theta, found.linear, expected])).all()
    if not bool(finite) or found.loss == float("inf"):
        return replace(_nothing(inside, problem, FitStatus.NONFINITE), evaluations=found.evaluations)
    errors = _errors(found, expected, columns, least_squares, inside, problem)
    return ProtocolFit(
        theta=found.theta,
        theta_sigma=errors.theta_sigma,
        amplitude=found.linear[: len(component_names(problem))],
        r2=float(r_squared(inside, expected)),
        r2_expected=float(r_squared_expected(inside)),
        deviance=float(poisson_deviance(inside, expected)) / errors.degrees_of_freedom,
        cpu_s=0.0,
        wall_s=0.0,
        evaluations=found.evaluations,
        status=FitStatus.CONVERGED if found.converged else FitStatus.MAX_ITERATIONS,
        model=expected,
    )


def _errors(
    found: JointFit, expected: Tensor, columns: Tensor, least_squares: LeastSquares, inside: Tensor, problem: FitProblem
) -> Uncertainty:
    """Those of the product, with its prior: what a spectrum does not determine is not uncertain without limit."""
    space = least_squares.space
    margin = 1e-6 * (space.upper - space.lower)
    inner = (found.theta > space.lower + margin) & (found.theta < space.upper - margin)
    n = len(least_squares.model.component_names)
    amplitude = found.linear[:n]
    drawn = draw_point(found.theta, amplitude, least_squares.model)
    point = ModelPoint(
        theta=found.theta,
        free=space.free,
        prior_sd=space.prior_sd,
        kbeta_sd=0.0,
        amplitude=amplitude,
        component_counts=drawn.phi.T * amplitude[:, None],
        background=expected - drawn.phi @ amplitude,
        expected=expected,
        model=least_squares.model,
        drawn=drawn,
    )
    solved = bool(torch.isfinite(expected).all())
    return spectrum_uncertainty(
        inside,
        expected,
        columns,
        drawn.jacobian,
        amplitude,
        moving=space.free & inner,
        positive_hats=found.linear[n:] > 0.0,
        prior_precision=build_space(problem.parameters).prior_sd ** -2,
        flaws=find_flaws(point, problem.detector) if solved else None,
    )


def _nothing(inside: Tensor, problem: FitProblem, status: FitStatus) -> ProtocolFit:
    theta = torch.full_like(pack(problem.parameters), torch.nan)
    return ProtocolFit(
        theta=theta,
        theta_sigma=theta,
        amplitude=theta.new_full((len(component_names(problem)),), torch.nan),
        r2=torch.nan,
        r2_expected=torch.nan,
        deviance=torch.nan,
        cpu_s=0.0,
        wall_s=0.0,
        evaluations=0,
        status=status,
        model=torch.full_like(inside, torch.nan),
    )
