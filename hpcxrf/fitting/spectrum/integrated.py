"""The integrated spectrum: theta, amplitudes and their uncertainties from given starting values."""

import time
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.nnls import NonNegativeSolution, nnls_gram
from hpcxrf.fitting.objective import poisson_deviance, poisson_weights, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.coarse import find_coarse_theta
from hpcxrf.fitting.spectrum.gradient import minimise_adam
from hpcxrf.fitting.spectrum.passes import POISSON_TOLERANCES, Solution, solve_separable
from hpcxrf.fitting.spectrum.problem import FitProblem, fit_range
from hpcxrf.fitting.spectrum.sbplx import fit_sbplx
from hpcxrf.fitting.spectrum.separable import Problem, best_of, build_space, design
from hpcxrf.fitting.uncertainty import Uncertainty, spectrum_uncertainty
from hpcxrf.physics.absorber import AIR_PER_MM
from hpcxrf.physics.background import hats_for_range, snip_background, snip_maps
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import Evaluation, SpectrumModel, find_tailed_lines
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


def fit_spectrum(counts: Tensor, setup: FitProblem, *, starts: Tensor | None = None) -> SpectrumFit:
    """Fit one integrated spectrum: a unit-weight pass for R2, then Poisson weights for the quantities.

    Args:
        counts: (channel,) raw counts of the full spectrum, any real dtype, not scaled for dead time.
        setup: lines, starting values, range, background and method.
        starts: (start, parameter) thetas of about the setup's energy axis, from which the separable method begins;
            all but the best are dropped on the way. None: the setup's own start, its peaks brought into place.

    Returns:
        The fit; a spectrum without counts or with non-finite ones gives NaN and `status` says why.

    Raises:
        FitError: the fit range lies outside the spectrum.
    """
    began = time.process_time()
    full = counts.to(torch.float64)
    low, high = _find_range(full, setup)
    model = _build_model(low, high, setup, full.device)
    inside = full[low : high + 1]
    # What squares of them would overflow is as little a number of counts as infinity.
    sound = bool(torch.isfinite(full).all()) and float(full.max()) <= MOST_COUNTS
    bad = FitStatus.EMPTY if sound else FitStatus.NONFINITE
    if bad is FitStatus.NONFINITE or float(inside.sum()) <= 0.0:
        return _describe_failure(inside, low, model, setup, bad)
    problem, fixed = build_problem(full, low, high, model, setup)
    solution = _solve(problem, fixed, full, starts, setup)
    fit = _describe(solution, fixed, inside, low, setup)
    return replace(fit, cpu_s=time.process_time() - began)


def approach(full: Tensor, setup: FitProblem, starts: Tensor) -> Tensor:
    """The best of several starts after a few steps: its axis is known to some eV, and with it the fit range.

    Args:
        full: (channel,) float64, the full spectrum.
        setup: of about this energy axis.
        starts: (start, parameter).

    Returns:
        Theta (parameter,).
    """
    low, high = _find_range(full, setup)
    problem, _ = build_problem(full, low, high, _build_model(low, high, setup, full.device), setup)
    return best_of(starts, problem).theta


def _find_range(full: Tensor, setup: FitProblem) -> tuple[int, int]:
    return fit_range(setup.parameters, setup.energy_min_kev, setup.energy_max_kev, full.shape[0])


def _build_model(low: int, high: int, setup: FitProblem, device: torch.device) -> SpectrumModel:
    return SpectrumModel(
        table=setup.table,
        channel=torch.arange(low, high + 1, dtype=torch.float64, device=device),
        constants=setup.constants,
        elastic=setup.elastic,
        with_step=any(p.free or p.value != 0.0 for p in setup.parameters if p.name in _STEP_PARAMETERS),
        shape_dtype=torch.float32,
        tailed=find_tailed_lines(setup.table, elastic=setup.elastic, constants=setup.constants),
    )


def build_problem(full: Tensor, low: int, high: int, model: SpectrumModel, setup: FitProblem) -> tuple[Problem, Tensor]:
    """Unit-weight problem of the fit range, and the fixed background (SNIP) taken from its counts."""
    inside = full[low : high + 1]
    fixed = torch.zeros_like(inside)
    hats = inside.new_zeros((inside.shape[0], 0))
    theta = pack(setup.parameters).to(full.device)
    if setup.background == "snip":
        fixed = _snip(full, theta, (low, high), setup)[low : high + 1]
    elif setup.background == "hats":
        hats = hats_for_range(theta, model.channel, constants=setup.constants)
    problem = Problem(
        counts=inside - fixed,
        weights=torch.ones_like(inside),
        model=model,
        hats=hats,
        space=build_space(setup.parameters, full.device),
    )
    return problem, fixed


def _snip(full: Tensor, theta: Tensor, channel_range: tuple[int, int], setup: FitProblem) -> Tensor:
    """Peak-clipped background (channel,) of the full spectrum; with MAPS constants as MAPS computes it."""
    if not setup.constants.maps_line_shape:
        return snip_background(full, theta, constants=setup.constants)
    offset, slope, quadratic = theta[:3].tolist()
    background = snip_maps(
        full.cpu().numpy(),
        energy_offset=offset,
        energy_slope=slope,
        energy_quadratic=quadratic,
        channel_range=channel_range,
        snip_width=MAPS_SNIP_WIDTH if setup.snip_width is None else setup.snip_width,
        constants=setup.constants,
    )
    return torch.from_numpy(background).to(full.device)


def _solve(problem: Problem, fixed: Tensor, full: Tensor, starts: Tensor | None, setup: FitProblem) -> Solution:
    if setup.method != "separable":
        return _solve_joint(problem, fixed, setup)
    begin = find_coarse_theta(full, setup)[None] if starts is None else starts
    return solve_separable(begin, problem, fixed, setup)


def _solve_joint(problem: Problem, fixed: Tensor, setup: FitProblem) -> Solution:
    """One of the published optimisers, which search theta and amplitudes together."""
    theta = pack(setup.parameters).to(fixed.device)
    found = minimise_adam(theta, problem) if setup.method == "adam" else fit_sbplx(theta, problem)
    _, columns = design(found.theta, problem)
    expected = columns @ found.linear + fixed
    return Solution(
        problem=problem,
        theta=found.theta,
        linear=found.linear,
        positive=found.linear > 0,
        expected=expected,
        r2=float(r_squared(problem.counts + fixed, expected)),
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


def _describe(s: Solution, fixed: Tensor, inside: Tensor, low: int, setup: FitProblem) -> SpectrumFit:
    # What is stored and mapped with is in full precision; the search was not.
    problem = replace(s.problem, model=replace(s.problem.model, shape_dtype=torch.float64))
    evaluation, columns = design(s.theta, problem)
    names = problem.model.component_names
    n = len(names)
    amplitude, hats = s.linear[:n], s.linear[n:]
    space = problem.space
    margin = 1e-6 * (space.upper - space.lower)
    at_bound = space.free & ((s.theta <= space.lower + margin) | (s.theta >= space.upper - margin))
    s = replace(s, expected=columns @ s.linear + fixed)
    errors = _estimate_errors(s, columns, evaluation, problem, inside, space.free & ~at_bound, setup.kbeta_sd)
    parts = problem.hats.T * hats[:, None]
    background = fixed + parts.sum(dim=0)
    if setup.background == "snip":
        parts = fixed[None]
    return SpectrumFit(
        component_names=names,
        table=problem.model.table,
        parameter_names=tuple(p.name for p in setup.parameters),
        parameter_units=tuple(p.unit for p in setup.parameters),
        theta=s.theta,
        theta_sigma=errors.theta_sigma,
        theta_initial=space.centre,
        theta_lower=space.lower,
        theta_upper=space.upper,
        free=space.free,
        at_bound=at_bound,
        amplitude=amplitude,
        amplitude_sigma=errors.amplitude_sigma,
        detection_limit=errors.detection_limit,
        first_channel=low,
        counts=inside,
        model=s.expected,
        background=background,
        background_parts=parts[parts.sum(dim=1) > 0],
        component_counts=evaluation.phi.T * amplitude[:, None],
        r2=s.r2,
        r2_expected=float(r_squared_expected(inside)),
        reduced_chi2=errors.reduced_chi2,
        deviance=float(poisson_deviance(inside, s.expected)) / errors.degrees_of_freedom,
        status=s.status,
        iterations=s.iterations,
        cpu_s=0.0,
        flags=_list_flags(setup),
        messages=(*_write_messages(at_bound, setup), *_describe_absorber(s.optical_depth)),
    )


def _estimate_errors(
    s: Solution,
    columns: Tensor,
    evaluation: Evaluation,
    problem: Problem,
    inside: Tensor,
    moving: Tensor,
    kbeta_sd: float,
) -> Uncertainty:
    n, k = len(problem.model.component_names), moving.shape[0]
    jacobian = counts_jacobian(s.theta, s.linear[:n], evaluation, problem.model)
    precision = problem.space.prior_sd**-2
    if s.kbeta is not None:
        free = s.kbeta.shape[1]
        jacobian = torch.cat([jacobian, s.kbeta], dim=1)
        precision = torch.cat([precision, precision.new_full((free,), kbeta_sd**-2)])
        moving = torch.cat([moving, moving.new_ones(free)])
    errors = spectrum_uncertainty(
        inside,
        s.expected,
        columns,
        jacobian,
        s.linear[:n],
        moving=moving,
        positive_hats=s.positive[n:],
        prior_precision=precision,
    )
    return replace(errors, theta_sigma=errors.theta_sigma[:k])


def _list_flags(setup: FitProblem) -> tuple[str, ...]:
    """Names of what makes a calibration doubtful whatever the fit says."""
    free = {p.name: p for p in setup.parameters}
    if not free["energy_slope"].free:
        return ()
    flags = [FEW_ELEMENTS] if has_few_elements(setup) else []
    if free["coherent_sct_energy"].value > setup.energy_max_kev:
        flags.append(NO_SCATTER)
    return tuple(flags)


def has_few_elements(setup: FitProblem) -> bool:
    """True where there are too few families (pile-up not counted) to determine an energy axis."""
    names = setup.table.component_names
    return sum("_" not in n or n.endswith(("_L", "_M")) for n in names) < _FEW_ELEMENTS


def _write_messages(at_bound: Tensor, setup: FitProblem) -> tuple[str, ...]:
    names = [p.name for p, flag in zip(setup.parameters, at_bound.tolist(), strict=True) if flag]
    bounds = (f"parameters at a bound: {', '.join(names)}",) if names else ()
    return (*bounds, *(_FLAG_TEXTS[flag] for flag in _list_flags(setup)))


def _describe_absorber(optical_depth: float) -> tuple[str, ...]:
    if optical_depth == 0.0:
        return ()
    absorption = "extra absorption equal to" if optical_depth > 0.0 else "less absorption than described, by"
    air_mm = abs(optical_depth) / AIR_PER_MM
    return (f"line ratios imply {absorption} {air_mm:.0f} mm of air; check detector.be_window_um and air_path_mm",)


def _describe_failure(
    inside: Tensor, low: int, model: SpectrumModel, setup: FitProblem, status: FitStatus
) -> SpectrumFit:
    space = build_space(setup.parameters, inside.device)
    n = len(model.component_names)
    nothing, no_theta = inside.new_full((n,), torch.nan), torch.full_like(space.centre, torch.nan)
    none = torch.full_like(inside, torch.nan)
    return SpectrumFit(
        component_names=model.component_names,
        table=setup.table,
        parameter_names=tuple(p.name for p in setup.parameters),
        parameter_units=tuple(p.unit for p in setup.parameters),
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
        messages=("the spectrum has no counts in the fit range",)
        if status is FitStatus.EMPTY
        else ("the spectrum has counts that are not finite",),
    )
