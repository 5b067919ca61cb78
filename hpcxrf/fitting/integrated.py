"""The integrated spectrum: theta, amplitudes and their uncertainties from given starting values."""

import time
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.coarse import coarse_theta
from hpcxrf.fitting.gradient import fit_adam
from hpcxrf.fitting.nnls import NonNegativeSolution, nnls_gram
from hpcxrf.fitting.objective import (
    poisson_deviance,
    poisson_weights,
    r_squared,
    r_squared_expected,
)
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.separable import Problem, State, design, minimise, space_of, start
from hpcxrf.fitting.setup import SpectrumSetup, fit_range
from hpcxrf.fitting.uncertainty import Uncertainty, spectrum_uncertainty
from hpcxrf.physics.background import hats_for_range, snip_background, snip_maps
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import Evaluation, SpectrumModel
from hpcxrf.physics.parameters import Parameter, pack

MAX_ITERATIONS: Final = 60
MAPS_SNIP_WIDTH: Final = 0.5
# Relative improvement at which a pass ends. R2 moves by less than 1e-6 between 1e-5 and 1e-7; the first pass
# with Poisson weights only has to bring the weights near.
_UNIT_TOLERANCE: Final = 1e-5
_POISSON_TOLERANCES: Final = (1e-4, 1e-6)


def fit_spectrum(counts: Tensor, setup: SpectrumSetup) -> SpectrumFit:
    """Fit one integrated spectrum: a unit-weight pass for R2, then Poisson weights for the quantities.

    Args:
        counts: (channel,) raw counts of the full spectrum, any real dtype, not scaled for dead time.
        setup: lines, starting values, range, background and method.

    Returns:
        The fit; a spectrum without counts or with non-finite ones gives NaN and says so in `status`.

    Raises:
        FitError: the fit range lies outside the spectrum.
    """
    began = time.process_time()
    full = counts.to(torch.float64)
    low, high = fit_range(
        setup.parameters, setup.energy_min_kev, setup.energy_max_kev, full.shape[0]
    )
    channel = torch.arange(low, high + 1, dtype=torch.float64, device=full.device)
    model = SpectrumModel(
        table=setup.table,
        channel=channel,
        constants=setup.constants,
        elastic=setup.elastic,
        with_step=_uses_step(setup.parameters),
    )
    inside = full[low : high + 1]
    bad = FitStatus.NONFINITE if not bool(torch.isfinite(full).all()) else FitStatus.EMPTY
    if bad is FitStatus.NONFINITE or float(inside.sum()) <= 0.0:
        return _without_solution(inside, low, model, setup, bad)
    problem, fixed = build_problem(full, low, high, model, setup)
    solution = _solve(problem, fixed, inside, full, setup)
    fit = _describe(solution, problem, fixed, inside, low, setup)
    return replace(fit, cpu_s=time.process_time() - began)


def build_problem(
    full: Tensor, low: int, high: int, model: SpectrumModel, setup: SpectrumSetup
) -> tuple[Problem, Tensor]:
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
        space=space_of(setup.parameters, full.device),
    )
    return problem, fixed


def _snip(
    full: Tensor, theta: Tensor, channel_range: tuple[int, int], setup: SpectrumSetup
) -> Tensor:
    """Peak-clipped background (channel,) of the full spectrum; with MAPS constants as MAPS computes it."""
    if not setup.constants.maps_line_shape:
        return snip_background(full, theta, constants=setup.constants)
    offset, slope, quadratic = theta[:3].tolist()
    background = snip_maps(
        full.cpu().numpy(), energy_offset=offset, energy_slope=slope, energy_quadratic=quadratic,
        channel_range=channel_range, snip_width=MAPS_SNIP_WIDTH, constants=setup.constants,
    )  # fmt: skip
    return torch.from_numpy(background).to(full.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solution:
    theta: Tensor
    linear: Tensor
    positive: Tensor
    expected: Tensor
    r2: float
    iterations: int
    status: FitStatus


def _solve(
    problem: Problem, fixed: Tensor, inside: Tensor, full: Tensor, setup: SpectrumSetup
) -> _Solution:
    if setup.method == "adam":
        return _solve_adam(problem, fixed, inside, setup)
    first = minimise(
        start(coarse_theta(full, setup), problem),
        problem,
        iterations=MAX_ITERATIONS,
        tolerance=_UNIT_TOLERANCE,
    )
    r2 = float(r_squared(inside, _expected(first, problem) + fixed))
    state, iterations = first, int(first.iterations)
    weighted = problem
    for tolerance in _POISSON_TOLERANCES:
        expected = _expected(state, weighted) + fixed
        weighted = replace(problem, weights=poisson_weights(expected))
        begin = start(state.theta, weighted)
        state = minimise(begin, weighted, iterations=MAX_ITERATIONS, tolerance=tolerance)
        iterations += int(state.iterations)
    return _Solution(
        theta=state.theta, linear=state.linear, positive=state.positive,
        expected=_expected(state, weighted) + fixed, r2=r2, iterations=iterations,
        status=_status(state),
    )  # fmt: skip


def _status(state: State) -> FitStatus:
    if not bool(torch.isfinite(state.misfit)) or not bool(torch.isfinite(state.theta).all()):
        return FitStatus.NONFINITE
    return FitStatus.CONVERGED if bool(state.done) else FitStatus.MAX_ITERATIONS


def _solve_adam(problem: Problem, fixed: Tensor, inside: Tensor, setup: SpectrumSetup) -> _Solution:
    theta, linear = fit_adam(pack(setup.parameters).to(inside.device), problem)
    _, columns = design(theta, problem)
    expected = columns @ linear + fixed
    return _Solution(
        theta=theta, linear=linear, positive=linear > 0, expected=expected,
        r2=float(r_squared(inside, expected)), iterations=500, status=FitStatus.MAX_ITERATIONS,
    )  # fmt: skip


def fit_amplitudes(
    counts: Tensor, columns: Tensor, *, poisson: bool = True
) -> tuple[Tensor, Tensor]:
    """Non-negative amplitudes at fixed columns: unit weights, then Poisson weights of the model.

    Args:
        counts: (channel,) float64.
        columns: (channel, column) float64.
        poisson: False stops after the unit-weight pass.

    Returns:
        Coefficients (column,) and which of them are above 0.
    """
    solution = _weighted_nnls(counts, columns, torch.ones_like(counts))
    for _ in range(len(_POISSON_TOLERANCES) if poisson else 0):
        solution = _weighted_nnls(counts, columns, poisson_weights(columns @ solution.x))
    return solution.x, solution.positive


def _weighted_nnls(counts: Tensor, columns: Tensor, weights: Tensor) -> NonNegativeSolution:
    weighted = columns * weights[:, None]
    return nnls_gram(columns.T @ weighted, weighted.T @ counts)


def _expected(state: State, problem: Problem) -> Tensor:
    _, columns = design(state.theta, problem)
    return (columns @ state.linear[..., :, None])[..., 0]


def _uses_step(parameters: tuple[Parameter, ...]) -> bool:
    by_name = {p.name: p for p in parameters}
    return any(by_name[n].free or by_name[n].value != 0.0 for n in ("step_offset", "step_linear"))


def _describe(
    s: _Solution, problem: Problem, fixed: Tensor, inside: Tensor, low: int, setup: SpectrumSetup
) -> SpectrumFit:
    evaluation, columns = design(s.theta, problem)
    names = problem.model.component_names
    n = len(names)
    amplitude, hats = s.linear[:n], s.linear[n:]
    space = problem.space
    margin = 1e-6 * (space.upper - space.lower)
    at_bound = space.free & ((s.theta <= space.lower + margin) | (s.theta >= space.upper - margin))
    errors = _errors(s, columns, evaluation, problem, inside, space.free & ~at_bound)
    parts = problem.hats.T * hats[:, None]
    background = fixed + parts.sum(dim=0)
    if setup.background == "snip":
        parts = fixed[None]
    return SpectrumFit(
        component_names=names,
        parameter_names=tuple(p.name for p in setup.parameters),
        parameter_units=tuple(p.unit for p in setup.parameters),
        theta=s.theta, theta_sigma=errors.theta_sigma, theta_initial=space.centre,
        theta_lower=space.lower, theta_upper=space.upper, free=space.free, at_bound=at_bound,
        amplitude=amplitude, amplitude_sigma=errors.amplitude_sigma,
        detection_limit=errors.detection_limit, first_channel=low, counts=inside,
        model=s.expected, background=background, background_parts=parts[parts.sum(dim=1) > 0],
        component_counts=evaluation.phi.T * amplitude[:, None],
        r2=s.r2, r2_expected=float(r_squared_expected(inside)), reduced_chi2=errors.reduced_chi2,
        deviance=float(poisson_deviance(inside, s.expected)) / errors.degrees_of_freedom,
        status=s.status, iterations=s.iterations, cpu_s=0.0,
        messages=_messages(at_bound, setup),
    )  # fmt: skip


def _errors(
    s: _Solution,
    columns: Tensor,
    evaluation: Evaluation,
    problem: Problem,
    inside: Tensor,
    moving: Tensor,
) -> Uncertainty:
    n = len(problem.model.component_names)
    jacobian = counts_jacobian(s.theta, s.linear[:n], evaluation, problem.model)
    return spectrum_uncertainty(
        inside, s.expected, columns, jacobian, s.linear[:n], moving=moving,
        positive_hats=s.positive[n:], prior_precision=problem.space.prior_sd**-2,
    )  # fmt: skip


def _messages(at_bound: Tensor, setup: SpectrumSetup) -> tuple[str, ...]:
    names = [p.name for p, flag in zip(setup.parameters, at_bound.tolist(), strict=True) if flag]
    return (f"at a bound: {', '.join(names)}",) if names else ()


def _without_solution(
    inside: Tensor, low: int, model: SpectrumModel, setup: SpectrumSetup, status: FitStatus
) -> SpectrumFit:
    space = space_of(setup.parameters, inside.device)
    n = len(model.component_names)
    nothing, no_theta = inside.new_full((n,), torch.nan), torch.full_like(space.centre, torch.nan)
    none = torch.full_like(inside, torch.nan)
    return SpectrumFit(
        component_names=model.component_names,
        parameter_names=tuple(p.name for p in setup.parameters),
        parameter_units=tuple(p.unit for p in setup.parameters),
        theta=space.centre, theta_sigma=no_theta, theta_initial=space.centre,
        theta_lower=space.lower, theta_upper=space.upper, free=space.free,
        at_bound=torch.zeros_like(space.free), amplitude=nothing, amplitude_sigma=nothing,
        detection_limit=nothing, first_channel=low, counts=inside, model=none, background=none,
        background_parts=inside.new_zeros((0, inside.shape[0])),
        component_counts=inside.new_full((n, inside.shape[0]), torch.nan),
        r2=torch.nan, r2_expected=torch.nan, reduced_chi2=torch.nan, deviance=torch.nan,
        status=status, iterations=0, cpu_s=0.0,
        messages=("the spectrum has no counts in the fit range",)
        if status is FitStatus.EMPTY
        else ("the spectrum has counts that are not finite",),
    )  # fmt: skip
