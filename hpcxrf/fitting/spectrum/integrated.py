"""The integrated spectrum: theta, amplitudes and their uncertainties from given starting values."""

import time
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.nnls import NonNegativeSolution, nnls_gram
from hpcxrf.fitting.objective import poisson_deviance, poisson_weights, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.coarse import find_coarse_theta
from hpcxrf.fitting.spectrum.drawn import Drawn
from hpcxrf.fitting.spectrum.gradient import minimise_adam
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, build_space
from hpcxrf.fitting.spectrum.line_ratios import read_copies, read_table
from hpcxrf.fitting.spectrum.mismatch import ModelPoint, draw_point, find_flaws
from hpcxrf.fitting.spectrum.passes import POISSON_TOLERANCES, Solution, solve_separable
from hpcxrf.fitting.spectrum.problem import FitProblem, fit_range
from hpcxrf.fitting.spectrum.ratio_notes import describe_ratios, read_ratios
from hpcxrf.fitting.spectrum.sbplx import fit_sbplx
from hpcxrf.fitting.spectrum.separable import best_of, design
from hpcxrf.fitting.uncertainty import Uncertainty, spectrum_uncertainty
from hpcxrf.notes import Note
from hpcxrf.physics.background import hats_for_range, snip_background, snip_maps
from hpcxrf.physics.model import SpectrumModel, find_tailed_lines
from hpcxrf.physics.parameters import pack

MAPS_SNIP_WIDTH: Final = 0.5
MOST_COUNTS: Final = 1e15
"""Most counts of one channel."""
_STEP_PARAMETERS: Final = ("step_offset", "step_linear")
_FEW_ELEMENTS: Final = 5
FEW_ELEMENTS: Final = "few_elements"
NO_SCATTER: Final = "no_scatter"
_FLAG_TEXTS: Final = {
    FEW_ELEMENTS: "few_elements: fewer than 5 families; the energy axis partly rests on its starting values",
    NO_SCATTER: "no_scatter: the elastic peak lies beyond the fit range, so the incident energy rests on its start",
}


def fit_spectrum(counts: Tensor, problem: FitProblem, *, starts: Tensor | None = None) -> SpectrumFit:
    """Fit one integrated spectrum: a unit-weight pass for R2, then Poisson weights for the quantities.

    Args:
        counts: (channel,) raw counts of the full spectrum, any real dtype, not scaled for dead time.
        problem: lines, starting values, range, background and method.
        starts: (start, parameter) thetas of about the problem's energy axis, from which the separable method begins;
            all but the best are dropped on the way. None: the problem's own start, its peaks brought into place.

    Returns:
        The fit; a spectrum without counts or with non-finite ones gives NaN and `status` says why.

    Raises:
        FitError: the fit range lies outside the spectrum.
    """
    began = time.process_time()
    full = counts.to(torch.float64)
    low, high = _find_range(full, problem)
    model = _build_model(low, high, problem, full.device)
    inside = full[low : high + 1]
    # What squares of them would overflow is as little a number of counts as infinity.
    sound = bool(torch.isfinite(full).all()) and float(full.max()) <= MOST_COUNTS
    bad = FitStatus.EMPTY if sound else FitStatus.NONFINITE
    if bad is FitStatus.NONFINITE or float(inside.sum()) <= 0.0:
        return _describe_failure(inside, low, model, problem, bad)
    least_squares, fixed = build_least_squares(full, low, high, model, problem)
    solution = _solve(least_squares, fixed, full, starts, problem)
    fit = _describe(solution, fixed, inside, low, problem)
    return replace(fit, cpu_s=time.process_time() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approached:
    """Where a few steps of a fit lead."""

    theta: Tensor
    """(parameter,)."""
    first_channel: int
    """Of the fit range."""
    residual: Tensor
    """(channel,) counts less the model in the fit range."""


def approach(full: Tensor, problem: FitProblem, starts: Tensor) -> Approached:
    """The best of several starts after a few steps: its axis is known to some eV, and with it the fit range.

    Args:
        full: (channel,) float64, the full spectrum.
        problem: of about this energy axis.
        starts: (start, parameter).
    """
    low, high = _find_range(full, problem)
    least_squares, _ = build_least_squares(full, low, high, _build_model(low, high, problem, full.device), problem)
    best = best_of(starts, least_squares)
    return Approached(theta=best.theta, first_channel=low, residual=best.residual)


def _find_range(full: Tensor, problem: FitProblem) -> tuple[int, int]:
    return fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, full.shape[0])


def _build_model(low: int, high: int, problem: FitProblem, device: torch.device) -> SpectrumModel:
    return SpectrumModel(
        table=problem.table,
        channel=torch.arange(low, high + 1, dtype=torch.float64, device=device),
        constants=problem.constants,
        elastic=problem.elastic,
        copies=problem.copies,
        with_step=any(p.free or p.value != 0.0 for p in problem.parameters if p.name in _STEP_PARAMETERS),
        shape_dtype=torch.float32,
        tailed=find_tailed_lines(
            problem.table, elastic=problem.elastic, constants=problem.constants, copies=problem.copies
        ),
    )


def build_least_squares(
    full: Tensor, low: int, high: int, model: SpectrumModel, problem: FitProblem
) -> tuple[LeastSquares, Tensor]:
    """Least squares of the fit range with unit weights, and the fixed background (SNIP) taken from its counts."""
    inside = full[low : high + 1]
    fixed = torch.zeros_like(inside)
    hats = inside.new_zeros((inside.shape[0], 0))
    theta = pack(problem.parameters).to(full.device)
    if problem.background == "snip":
        fixed = _snip(full, theta, (low, high), problem)[low : high + 1]
    elif problem.background == "hats":
        hats = hats_for_range(theta, model.channel, constants=problem.constants)
    least_squares = LeastSquares(
        counts=inside - fixed,
        weights=torch.ones_like(inside),
        model=model,
        hats=hats,
        space=build_space(problem.parameters, full.device),
    )
    return least_squares, fixed


def _snip(full: Tensor, theta: Tensor, channel_range: tuple[int, int], problem: FitProblem) -> Tensor:
    """Peak-clipped background (channel,) of the full spectrum; with MAPS constants as MAPS computes it."""
    if not problem.constants.maps_line_shape:
        return snip_background(full, theta, constants=problem.constants)
    offset, slope, quadratic = theta[:3].tolist()
    background = snip_maps(
        full.cpu().numpy(),
        energy_offset=offset,
        energy_slope=slope,
        energy_quadratic=quadratic,
        channel_range=channel_range,
        snip_width=MAPS_SNIP_WIDTH if problem.snip_width is None else problem.snip_width,
        constants=problem.constants,
    )
    return torch.from_numpy(background).to(full.device)


def _solve(
    least_squares: LeastSquares, fixed: Tensor, full: Tensor, starts: Tensor | None, problem: FitProblem
) -> Solution:
    if problem.method != "separable":
        return _solve_joint(least_squares, fixed, problem)
    begin = find_coarse_theta(full, problem)[None] if starts is None else starts
    return solve_separable(begin, least_squares, fixed, problem)


def _solve_joint(least_squares: LeastSquares, fixed: Tensor, problem: FitProblem) -> Solution:
    """One of the published optimisers, which search theta and amplitudes together."""
    theta = pack(problem.parameters).to(fixed.device)
    found = minimise_adam(theta, least_squares) if problem.method == "adam" else fit_sbplx(theta, least_squares)
    _, columns = design(found.theta, least_squares)
    expected = columns @ found.linear + fixed
    return Solution(
        least_squares=least_squares,
        theta=found.theta,
        linear=found.linear,
        positive=found.linear > 0,
        expected=expected,
        r2=float(r_squared(least_squares.counts + fixed, expected)),
        iterations=found.evaluations,
        status=FitStatus.CONVERGED if found.converged else FitStatus.MAX_ITERATIONS,
    )


def fit_amplitudes(counts: Tensor, columns: Tensor, *, poisson: bool = True) -> tuple[Tensor, Tensor]:
    """Non-negative amplitudes at fixed columns: unit weights, then Poisson weights of the model.

    Args:
        counts: (channel,) float64.
        columns: (channel, column) float64.
        poisson: False stops after the unit-weight pass.

    Returns:
        Coefficients (column,) and which of them are above 0.
    """
    solution = _solve_weighted(counts, columns, torch.ones_like(counts))
    for _ in range(len(POISSON_TOLERANCES) if poisson else 0):
        solution = _solve_weighted(counts, columns, poisson_weights(columns @ solution.x))
    return solution.x, solution.positive


def _solve_weighted(counts: Tensor, columns: Tensor, weights: Tensor) -> NonNegativeSolution:
    weighted = columns * weights[:, None]
    return nnls_gram(columns.T @ weighted, weighted.T @ counts)


def _describe(s: Solution, fixed: Tensor, inside: Tensor, low: int, problem: FitProblem) -> SpectrumFit:
    # What is stored and mapped with is in full precision; the search was not.
    least_squares = replace(s.least_squares, model=replace(s.least_squares.model, shape_dtype=torch.float64))
    names, space = least_squares.model.component_names, least_squares.space
    n, k = len(names), len(problem.parameters)
    amplitude, hats = s.linear[:n], s.linear[n:]
    drawn = draw_point(s.theta, amplitude, least_squares.model)
    columns = torch.cat([drawn.phi, least_squares.hats], dim=1)
    margin = 1e-6 * (space.upper - space.lower)
    at_bound = space.free & ((s.theta <= space.lower + margin) | (s.theta >= space.upper - margin))
    s = replace(s, expected=columns @ s.linear + fixed)
    parts = least_squares.hats.T * hats[:, None]
    background = fixed + parts.sum(dim=0)
    moving = space.free & ~at_bound
    errors = _estimate_errors(s, columns, drawn, least_squares, inside, moving, background, problem)
    if problem.background == "snip":
        parts = fixed[None]
    ratios = read_ratios(s.theta, errors.theta_sigma, least_squares, s.depth_gain)
    return SpectrumFit(
        component_names=names,
        table=read_table(s.theta, least_squares),
        copies=read_copies(s.theta, least_squares),
        parameter_names=tuple(p.name for p in problem.parameters),
        parameter_units=tuple(p.unit for p in problem.parameters),
        theta=s.theta[:k],
        theta_sigma=errors.theta_sigma[:k],
        theta_initial=space.centre[:k],
        theta_lower=space.lower[:k],
        theta_upper=space.upper[:k],
        free=space.free[:k],
        at_bound=at_bound[:k],
        amplitude=amplitude,
        amplitude_sigma=errors.amplitude_sigma,
        detection_limit=errors.detection_limit,
        first_channel=low,
        counts=inside,
        model=s.expected,
        background=background,
        background_parts=parts[parts.sum(dim=1) > 0],
        component_counts=drawn.phi.T * amplitude[:, None],
        r2=s.r2,
        r2_expected=float(r_squared_expected(inside)),
        reduced_chi2=errors.reduced_chi2,
        deviance=float(poisson_deviance(inside, s.expected)) / errors.degrees_of_freedom,
        errors=errors,
        status=s.status,
        iterations=s.iterations,
        cpu_s=0.0,
        flags=_list_flags(problem),
        notes=(*_write_notes(at_bound[:k], problem), *describe_ratios(ratios)),
        ratios=ratios,
    )


def _estimate_errors(
    s: Solution,
    columns: Tensor,
    drawn: Drawn,
    least_squares: LeastSquares,
    inside: Tensor,
    moving: Tensor,
    background: Tensor,
    problem: FitProblem,
) -> Uncertainty:
    """Uncertainty of amplitudes and of theta, followed by the parameters of the line ratios where these were fitted."""
    point = _locate(s, drawn, least_squares, background, problem)
    solved = bool(torch.isfinite(s.expected).all())
    return spectrum_uncertainty(
        inside,
        s.expected,
        columns,
        drawn.jacobian,
        point.amplitude,
        moving=moving,
        positive_hats=s.positive[point.amplitude.shape[0] :],
        prior_precision=point.prior_sd**-2,
        flaws=find_flaws(point, problem.detector) if solved else None,
        model_error=problem.model_error,
    )


def _locate(
    s: Solution, drawn: Drawn, least_squares: LeastSquares, background: Tensor, problem: FitProblem
) -> ModelPoint:
    amplitude = s.linear[: len(least_squares.model.component_names)]
    return ModelPoint(
        theta=s.theta,
        free=least_squares.space.free,
        prior_sd=least_squares.space.prior_sd,
        kbeta_sd=problem.kbeta_sd,
        amplitude=amplitude,
        component_counts=drawn.phi.T * amplitude[:, None],
        background=background,
        expected=s.expected,
        model=least_squares.model,
        drawn=drawn,
    )


def _list_flags(problem: FitProblem) -> tuple[str, ...]:
    """Names of what makes a calibration doubtful whatever the fit says."""
    free = {p.name: p for p in problem.parameters}
    if not free["energy_slope"].free:
        return ()
    flags = [FEW_ELEMENTS] if has_few_elements(problem) else []
    if problem.copies is None and free["coherent_sct_energy"].value > problem.energy_max_kev:
        flags.append(NO_SCATTER)
    return tuple(flags)


def has_few_elements(problem: FitProblem) -> bool:
    """True where there are too few families (pile-up not counted) to determine an energy axis."""
    names = problem.table.component_names
    return sum("_" not in n or n.endswith(("_L", "_M")) for n in names) < _FEW_ELEMENTS


def _write_notes(at_bound: Tensor, problem: FitProblem) -> tuple[Note, ...]:
    names = [p.name for p, flag in zip(problem.parameters, at_bound.tolist(), strict=True) if flag]
    bounds = [f"parameters at a bound: {', '.join(names)}"] if names else []
    return tuple(Note("warning", text) for text in [*bounds, *(_FLAG_TEXTS[flag] for flag in _list_flags(problem))])


def _describe_failure(
    inside: Tensor, low: int, model: SpectrumModel, problem: FitProblem, status: FitStatus
) -> SpectrumFit:
    space = build_space(problem.parameters, inside.device)
    n = len(model.component_names)
    nothing, no_theta = inside.new_full((n,), torch.nan), torch.full_like(space.centre, torch.nan)
    none = torch.full_like(inside, torch.nan)
    fault = "no counts in the fit range" if status is FitStatus.EMPTY else "counts that are not finite"
    return SpectrumFit(
        component_names=model.component_names,
        table=problem.table,
        parameter_names=tuple(p.name for p in problem.parameters),
        parameter_units=tuple(p.unit for p in problem.parameters),
        theta=space.centre,
        theta_sigma=no_theta,
        theta_initial=space.centre,
        theta_lower=space.lower,
        theta_upper=space.upper,
        free=space.free,
        at_bound=torch.zeros_like(space.free),
        amplitude=nothing,
        amplitude_sigma=nothing,
        detection_limit=nothing,
        first_channel=low,
        counts=inside,
        model=none,
        background=none,
        background_parts=inside.new_zeros((0, inside.shape[0])),
        component_counts=inside.new_full((n, inside.shape[0]), torch.nan),
        r2=torch.nan,
        r2_expected=torch.nan,
        reduced_chi2=torch.nan,
        deviance=torch.nan,
        status=status,
        iterations=0,
        cpu_s=0.0,
        notes=(Note("warning", f"the spectrum has {fault}"),),
    )
