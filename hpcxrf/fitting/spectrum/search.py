"""A fit without a calibration: the energy axis, then the scatter peaks, then theta from the best starts."""

import time
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.coarse import rescale_theta, residual_cost, select, start_coarse, take_member
from hpcxrf.fitting.spectrum.integrated import approach, fit_spectrum, has_few_elements
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs
from hpcxrf.fitting.spectrum.screen import screen, select_distinct_axes
from hpcxrf.fitting.spectrum.separable import LeastSquares, build_space, minimise
from hpcxrf.notes import Note
from hpcxrf.physics.model import energy_kev
from hpcxrf.physics.parameters import pack

_NEAR_STEPS: Final = 20
_APART_KEV: Final = 0.03
# Where R2 stays this far below what the noise allows, the right axis may have been missed.
_POOR_FACTOR: Final = 1.25
_POOR_SHARE: Final = 0.005
AXIS: Final = ("energy_offset", "energy_slope")
_PAIRS: Final = 2
_AMBIGUOUS: Final = 0.01
AMBIGUOUS: Final = "ambiguous_calibration"
# Few peaks cannot tell a bent axis from a tilted one.
_TIGHT_QUADRATIC_SD: Final = 1e-8
# Axes that differ by a few eV cut the ends of the range elsewhere.
_EDGE_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Effort of the search for an energy axis."""

    refinement: int
    """Factor by which the screen's grid is finer than usual."""
    candidates: int
    """Axes that the screen hands on."""
    rounds: tuple[tuple[int, int], ...]
    """Coarse steps, and how many axes go on after them."""
    rival: float
    """A further axis is fitted to the end if it leaves at most this many times as much of the coarse spectrum."""


USUAL: Final = Effort(refinement=1, candidates=16, rounds=((4, 8), (4, 4), (5, 3)), rival=1.25)
THOROUGH: Final = Effort(refinement=2, candidates=48, rounds=((4, 24), (5, 8), (5, 5)), rival=1.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisStart:
    """An energy axis to fit from."""

    problem: FitProblem
    """The problem, with this axis as its start."""
    starts: Tensor
    """(start, parameter)."""
    unexplained: float
    """Objective of the coarse fit, counts outside of the range included."""


def find_starts(counts: Tensor, problem: FitProblem, effort: Effort = USUAL) -> list[AxisStart]:
    """Starting values from nothing but lines and a nominal incident energy, best axis first.

    Args:
        counts: (channel,) the full spectrum.
        problem: its start of offset and slope is not used, their bounds are.
        effort: how far to look.

    Raises:
        FitError: the spectrum has no counts.
    """
    full = counts.to(torch.float64)
    if float(full.sum()) <= 0.0:
        raise FitError("calibration: the spectrum has no counts; leave the detector out")
    found = screen(full, problem, keep=effort.candidates, refinement=effort.refinement)
    scatter = {"coherent_sct_energy": found.incident_kev, "compton_angle": found.angle_deg}
    state, least_squares = start_coarse(full, found.offset_kev, found.slope_kev, problem, scatter)
    for iterations, survivors in effort.rounds:
        state = minimise(state, least_squares, iterations=iterations)
        order = torch.argsort(residual_cost(state, least_squares), stable=True)
        state, least_squares = select(state, least_squares, order)
        axis = rescale_theta(state.theta, problem)
        apart = select_distinct_axes(axis[:, 0], axis[:, 1], problem, full.shape[0], _APART_KEV, survivors)
        state, least_squares = select(state, least_squares, apart)
    cost = residual_cost(state, least_squares)
    rivals = cost <= effort.rival * cost[0]
    return [
        _build_axis_start(state.theta[i], take_member(least_squares, i), float(cost[i]), problem)
        for i in torch.nonzero(rivals)[:, 0].tolist()
    ]


def find_starts_near(counts: Tensor, problem: FitProblem) -> Tensor:
    """Starting values (start, parameter) about the problem's own: its peaks in place, and the rival scatter peaks.

    Args:
        counts: (channel,) the full spectrum.
        problem: starting values of which the energy axis is nearly right.
    """
    full = counts.to(torch.float64)
    theta = pack(problem.parameters).to(full.device)
    state, least_squares = start_coarse(full, theta[None, 0], theta[None, 1], problem)
    state = minimise(state, least_squares, iterations=_NEAR_STEPS)
    return _build_axis_start(state.theta[0], take_member(least_squares, 0), float(state.misfit), problem).starts


def fit_from_nothing(counts: Tensor, problem: FitProblem) -> SpectrumFit:
    """Find the energy axis, then fit; of several axes the one that explains most of the whole spectrum.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        problem: lines, bounds and nominal incident energy; its energy axis is not used.

    Returns:
        The fit; where another axis explains the spectrum within 1 % as well, `ambiguous_calibration` is set and
        the other axis is named in `messages`.

    Raises:
        FitError: the spectrum has no counts, or no axis puts the energy range inside it.
    """
    began = time.process_time()
    full = counts.to(torch.float64)
    fits = _fit_axes(full, problem, USUAL)
    best = _choose_best(fits, full)
    if 1.0 - best.r2 > _POOR_FACTOR * (1.0 - best.r2_expected) + _POOR_SHARE:
        fits += _fit_axes(full, problem, THOROUGH)
        best = _choose_best(fits, full)
    rivals = _find_rivals(fits, best, full, problem)
    return replace(_flag_rivals(best, rivals), cpu_s=time.process_time() - began)


def _fit_axes(full: Tensor, problem: FitProblem, effort: Effort) -> list[SpectrumFit]:
    reached = _approach_axes(full, find_starts(full, problem, effort))
    return [fit_spectrum(full, one, starts=theta[None]) for one, theta in reached]


def _choose_best(fits: list[SpectrumFit], full: Tensor) -> SpectrumFit:
    best = fits[0]
    for other in fits[1:]:
        best = other if _explains_more(other, best, full) else best
    return best


def _find_rivals(fits: list[SpectrumFit], best: SpectrumFit, full: Tensor, problem: FitProblem) -> list[SpectrumFit]:
    """All other axes that leave hardly more, each once."""
    rivals: list[SpectrumFit] = []
    for fit in fits:
        known = any(
            _axis_distance_kev(fit.theta, other.theta, full.shape[0], problem) <= _APART_KEV for other in rivals
        )
        if not known and _is_rival(fit, best, full, problem):
            rivals.append(fit)
    return rivals


def _approach_axes(full: Tensor, found: list[AxisStart]) -> list[tuple[FitProblem, Tensor]]:
    """A few steps from every axis; of those that meet, the first goes on."""
    reached: list[tuple[FitProblem, Tensor]] = []
    for one in found:
        theta = approach(full, one.problem, one.starts)
        if all(_axis_distance_kev(theta, other, full.shape[0], one.problem) > _APART_KEV for _, other in reached):
            reached.append((_set_axis(one.problem, theta), theta))
    return reached


def _axis_distance_kev(theta: Tensor, other: Tensor, n_channels: int, problem: FitProblem) -> float:
    """Largest difference of two energy axes inside the energy range."""
    channel = torch.arange(n_channels, dtype=torch.float64, device=theta.device)
    energy = energy_kev(theta, channel)
    inside = (energy >= problem.energy_min_kev) & (energy <= problem.energy_max_kev)
    return float((energy - energy_kev(other, channel))[inside].abs().max())


def _build_axis_start(theta: Tensor, least_squares: LeastSquares, cost: float, problem: FitProblem) -> AxisStart:
    """The coarse start and the rival pairs of scatter peaks at its axis, in single channels."""
    pairs, _ = scan_pairs(theta, least_squares, build_space(problem.parameters, theta.device), _PAIRS)
    starts = rescale_theta(torch.cat([theta[None], pairs]), problem)
    return AxisStart(problem=_set_axis(problem, starts[0]), starts=starts, unexplained=cost)


def _set_axis(problem: FitProblem, theta: Tensor) -> FitProblem:
    """Start and prior of the energy axis at theta, as far as it is free."""
    axis = dict(zip(AXIS, theta[: len(AXIS)].tolist(), strict=True))
    moved = tuple(
        replace(p, value=min(max(axis[p.name], p.lower), p.upper)) if p.name in axis and p.free else p
        for p in problem.parameters
    )
    if has_few_elements(problem):
        moved = tuple(
            replace(p, prior_sd=min(p.prior_sd, _TIGHT_QUADRATIC_SD)) if p.name == "energy_quadratic" else p
            for p in moved
        )
    return replace(problem, parameters=moved)


def _explains_more(one: SpectrumFit, other: SpectrumFit, full: Tensor) -> bool:
    """Compare by R2 where both fitted the same channels but for the ends, else by the square that they leave."""
    _, covered = _residual(one, full)
    _, covered_other = _residual(other, full)
    if _differ_at_ends(covered, covered_other, full):
        return one.r2 > other.r2
    return _residual_square(one, other, full) < _residual_square(other, one, full)


def _differ_at_ends(covered: Tensor, other: Tensor, full: Tensor) -> bool:
    differ = float(full[covered ^ other].sum())
    return differ < _EDGE_SHARE * float(full[covered | other].sum())


def _residual_square(one: SpectrumFit, other: SpectrumFit, full: Tensor) -> float:
    """Square that the first leaves over the channels that both fitted; what it leaves out, it does not explain."""
    residual, covered = _residual(one, full)
    _, covered_other = _residual(other, full)
    ends_only = _differ_at_ends(covered, covered_other, full)
    compared = covered & covered_other if ends_only else covered | covered_other
    return float(residual[compared].square().sum())


def _residual(fit: SpectrumFit, full: Tensor) -> tuple[Tensor, Tensor]:
    """Counts less model and which channels were fitted, (channel,) of the full spectrum each."""
    inside = slice(fit.first_channel, fit.first_channel + fit.counts.shape[0])
    residual, covered = full.clone(), torch.zeros_like(full, dtype=torch.bool)
    residual[inside] -= fit.model
    covered[inside] = True
    return residual, covered


def _is_rival(fit: SpectrumFit, best: SpectrumFit, full: Tensor, problem: FitProblem) -> bool:
    """Another axis that leaves hardly more."""
    if fit is best:
        return False
    apart = _axis_distance_kev(best.theta, fit.theta, full.shape[0], problem)
    return apart > _APART_KEV and _residual_square(fit, best, full) <= (1.0 + _AMBIGUOUS) * _residual_square(
        best, fit, full
    )


def _flag_rivals(best: SpectrumFit, rivals: list[SpectrumFit]) -> SpectrumFit:
    if not rivals:
        return best
    others = "; ".join(
        f"offset {fit.theta[0]:.4f} keV, slope {fit.theta[1]:.6f} keV, E0 {fit.theta[5]:.3f} keV (R2 {fit.r2:.5f})"
        for fit in rivals
    )
    message = (
        f"{AMBIGUOUS}: another energy axis explains the spectrum within 1 % as well: {others}; give the incident "
        "energy, more elements or a calibration"
    )
    return replace(best, flags=(*best.flags, AMBIGUOUS), notes=(*best.notes, Note("warning", message)))
