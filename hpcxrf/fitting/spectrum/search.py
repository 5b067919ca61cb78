"""A fit without a calibration: the energy axis, then the scatter peaks, then theta from the best starts."""

import time
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.incident import find_elastic, move_incident
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.coarse import choose_bin, contrast_weights, rebin, rescale_theta, select, start_coarse
from hpcxrf.fitting.spectrum.coarse import take_member
from hpcxrf.fitting.spectrum.integrated import approach, fit_spectrum, has_few_elements
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs
from hpcxrf.fitting.spectrum.screen import Candidates, propose_axes, select_distinct_axes
from hpcxrf.fitting.spectrum.separable import LeastSquares, State, build_space, minimise, objective
from hpcxrf.fitting.spectrum.theta import INCIDENT
from hpcxrf.notes import Note
from hpcxrf.physics.model import energy_kev
from hpcxrf.physics.parameters import INDEX, pack

_NEAR_STEPS: Final = 20
_APART_KEV: Final = 0.03
_CANDIDATES: Final = 14
# On 64 spectra of more than 1e4 counts the right axis was the most probable one by its peaks in all.
_WINDOW: Final = 5.0
# Coarse steps, and how many axes go on after them.
_ROUNDS: Final = ((4, 8), (4, 4), (5, 3))
# Further axes that are fitted to the end, by the odds against them.
_RIVAL: Final = 6.0
_LEAST_WEIGHT: Final = 10.0
_MOST_WEIGHT: Final = 100.0
AXIS: Final = ("energy_offset", "energy_slope")
_PAIRS: Final = 2
_AMBIGUOUS: Final = 0.01
AMBIGUOUS: Final = "ambiguous_calibration"
# The axis of an electronics bends by a thousandth of its range and not more: its sag in the middle.
_SAG_SD_KEV: Final = 0.02
# Few peaks cannot tell a bent axis from a tilted one.
_TIGHT_SAG_SD_KEV: Final = 0.004
# Axes that differ by a few eV cut the ends of the range elsewhere.
_EDGE_SHARE: Final = 0.05
_SLOPE_SCALE: Final = 1e-3
# What lies about zero energy is the noise of the electronics; up to the fit range the model knows no lines, and a
# strong peak there speaks against an axis a little.
_ZERO_KEV: Final = 0.09
_LOW_WEIGHT: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisStart:
    """An energy axis to fit from."""

    problem: FitProblem
    """The problem, with this axis as its start, about the energy of its elastic peak."""
    starts: Tensor
    """(start, parameter)."""
    unexplained: float
    """Objective of the coarse fit, peaks outside of the range included."""
    score: float
    """Log probability of the positions of the peaks, up to a constant."""


def find_starts(counts: Tensor, problem: FitProblem, *, peaks: Peaks | None = None) -> list[AxisStart]:
    """Starting values from nothing but lines and a nominal incident energy, best axis first.

    Args:
        counts: (channel,) the full spectrum.
        problem: its start of offset and slope is not used, their bounds are.
        peaks: those of the spectrum, where they are known already.

    Raises:
        FitError: the spectrum has no counts.
    """
    full = counts.to(torch.float64)
    if float(full.sum()) <= 0.0:
        raise FitError("calibration: the spectrum has no counts; leave the detector out")
    peaks = find_peaks(full.cpu().numpy()) if peaks is None else peaks
    found = propose_axes(full, peaks, problem, keep=_CANDIDATES, window=_WINDOW)
    size = choose_bin(float(found.slope_kev[0]))
    wide = _widen(_scale_slope(problem, float(found.slope_kev[0])), found)
    state, least_squares = start_coarse(full, found.offset_kev, found.slope_kev, wide, size, _start_values(found))
    score = found.score
    for iterations, survivors in _ROUNDS:
        state = minimise(state, least_squares, iterations=iterations)
        cost = _sum_cost(state, least_squares, peaks, wide, size)
        order = torch.argsort(_add_evidence(cost, score, least_squares), stable=True)
        axis = rescale_theta(state.theta[order], wide, size)
        apart = select_distinct_axes(axis[:, 0], axis[:, 1], wide, full.shape[0], _APART_KEV, survivors)
        state, least_squares = select(state, least_squares, order[apart])
        score = score[order[apart]]
    cost = _sum_cost(state, least_squares, peaks, wide, size)
    evidence = _add_evidence(cost, score, least_squares)
    return [
        _build_axis_start(
            state.theta[i], take_member(least_squares, i), (float(cost[i]), float(score[i])), wide, problem, size, peaks
        )
        for i in torch.argsort(evidence, stable=True).tolist()
        if float(evidence[i] - evidence.min()) <= _RIVAL
    ]


def _widen(problem: FitProblem, found: Candidates) -> FitProblem:
    """The problem with the elastic peaks of all axes within its bounds and its range."""
    row = next(p for p in problem.parameters if p.name == INCIDENT)
    if not row.free:
        return problem
    low = min(row.lower, float(found.incident_kev.min()) - row.prior_sd)
    high = max(row.upper, float(found.incident_kev.max()) + row.prior_sd)
    wide = replace(row, lower=low, upper=high, prior_sd=max(row.prior_sd, high - low))
    top = problem.energy_max_kev
    if top > row.value:
        top += max(float(found.incident_kev.max()) - row.value - row.prior_sd, 0.0)
    parameters = tuple(wide if p.name == INCIDENT else p for p in problem.parameters)
    return replace(problem, parameters=parameters, energy_max_kev=top)


def _add_evidence(cost: Tensor, score: Tensor, least_squares: LeastSquares) -> Tensor:
    """(start,): what speaks against each axis, as -ln of a probability.

    The misfit counts as that of independent bins where it is noise; where it is a flaw of the model or an element
    that is not listed, it says little, and the positions of the peaks say more.
    """
    n = least_squares.counts.shape[-1]
    weight = min(max(0.5 * n * n / max(float(cost.min()), 1.0), _LEAST_WEIGHT), _MOST_WEIGHT)
    return weight * cost.log() - score


def _start_values(found: Candidates) -> dict[str, Tensor]:
    return {
        INCIDENT: found.incident_kev,
        "compton_angle": found.angle_deg,
        "fwhm_offset": found.fwhm_offset_kev,
    }


def _sum_cost(state: State, least_squares: LeastSquares, peaks: Peaks, problem: FitProblem, size: int) -> Tensor:
    """(start,): objective plus the weighted squares of the peaks that lie outside of the range, where they count."""
    y = least_squares.counts[0]
    weights = contrast_weights(y)
    middle = torch.from_numpy(peaks.channel).to(y)
    half = torch.from_numpy(1.5 * peaks.width.at(peaks.channel)).to(y) / size
    bins = torch.arange(y.shape[0], dtype=y.dtype, device=y.device)
    near = (bins - (middle[:, None] - (size - 1) / 2.0) / size).abs() <= half[:, None].clamp(min=1.0)
    under = torch.where(near, y, torch.inf).amin(dim=1)
    square = torch.where(near, weights * (y - under[:, None]).clamp(min=0.0).square(), 0.0).sum(dim=1)
    energy = energy_kev(rescale_theta(state.theta, problem, size), middle)
    return objective(state, least_squares) + (square * weigh_outside(energy, problem)).sum(dim=-1)


def weigh_outside(energy: Tensor, problem: FitProblem) -> Tensor:
    """How much a peak at an energy speaks against an axis that puts it outside of the fit range, 0 to 1.

    Args:
        energy: any shape, keV.
        problem: with the fit range; inside of it the weight is 0, as the fit itself explains the peak or not.
    """
    outside = ((energy < -_ZERO_KEV) | (energy > problem.energy_max_kev)).to(energy.dtype)
    low = ((energy > _ZERO_KEV) & (energy < problem.energy_min_kev)).to(energy.dtype)
    return outside + _LOW_WEIGHT * low


def find_starts_near(counts: Tensor, problem: FitProblem) -> Tensor:
    """Starting values (start, parameter) about the problem's own: its peaks in place, and the rival scatter peaks.

    Args:
        counts: (channel,) the full spectrum.
        problem: starting values of which the energy axis is nearly right.
    """
    full = counts.to(torch.float64)
    theta = pack(problem.parameters).to(full.device)
    size = choose_bin(float(theta[1]))
    state, least_squares = start_coarse(full, theta[None, 0], theta[None, 1], problem, size)
    state = minimise(state, least_squares, iterations=_NEAR_STEPS)
    return _list_pairs(state.theta[0], take_member(least_squares, 0), problem, size)


def _scale_slope(problem: FitProblem, slope_kev: float) -> FitProblem:
    """Steps of the slope in proportion to it: a thousandth moves every peak by as much whatever the channels are."""
    return replace(
        problem,
        parameters=tuple(
            replace(p, scale=_SLOPE_SCALE * slope_kev) if p.name == "energy_slope" else p for p in problem.parameters
        ),
    )


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
    peaks = find_peaks(full.cpu().numpy())
    fits = _fit_axes(full, problem, peaks)
    best = _choose_best(fits, full)
    rivals = _find_rivals(fits, best, full, problem)
    return replace(_flag_rivals(best, rivals), cpu_s=time.process_time() - began)


def _fit_axes(full: Tensor, problem: FitProblem, peaks: Peaks) -> list[SpectrumFit]:
    reached = _approach_axes(full, find_starts(full, problem, peaks=peaks))
    return [replace(fit_spectrum(full, one, starts=theta[None]), problem=one) for one, theta in reached]


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


def _build_axis_start(
    theta: Tensor,
    least_squares: LeastSquares,
    weighed: tuple[float, float],
    wide: FitProblem,
    problem: FitProblem,
    size: int,
    peaks: Peaks,
) -> AxisStart:
    """The coarse start and the rival pairs of scatter peaks at its axis, in single channels."""
    axis = rescale_theta(theta, wide, size)
    nominal = problem.table.incident_energy_kev
    elastic = find_elastic(peaks, axis[:1].cpu().numpy(), axis[1:2].cpu().numpy(), nominal)
    moved = move_incident(problem, float(elastic[0]))
    cost, score = weighed
    return AxisStart(
        problem=_set_axis(moved, axis),
        starts=_list_pairs(theta, least_squares, moved, size),
        unexplained=cost,
        score=score,
    )


def _list_pairs(theta: Tensor, least_squares: LeastSquares, problem: FitProblem, size: int) -> Tensor:
    space = build_space(problem.parameters, theta.device)
    inside = torch.where(_is_axis(problem, theta), theta, theta.clamp(space.lower, space.upper))
    pairs, _ = scan_pairs(inside, least_squares, space, _PAIRS)
    return rescale_theta(torch.cat([inside[None], pairs]), problem, size)


def _is_axis(problem: FitProblem, theta: Tensor) -> Tensor:
    """(parameter,) True for those that coarse channels restate."""
    return torch.tensor([p.name in (*AXIS, "energy_quadratic") for p in problem.parameters], device=theta.device)


def _set_axis(problem: FitProblem, theta: Tensor) -> FitProblem:
    """Start and prior of the energy axis at theta, as far as it is free."""
    axis = dict(zip(AXIS, theta[: len(AXIS)].tolist(), strict=True))
    moved = tuple(
        replace(p, value=min(max(axis[p.name], p.lower), p.upper)) if p.name in axis and p.free else p
        for p in problem.parameters
    )
    sag = _TIGHT_SAG_SD_KEV if has_few_elements(problem) else _SAG_SD_KEV
    used = (problem.energy_max_kev - axis["energy_offset"]) / axis["energy_slope"]
    bend = 4.0 * sag / used**2
    tight = tuple(
        replace(p, prior_sd=min(p.prior_sd, bend)) if p.name == "energy_quadratic" else p for p in moved
    )
    return replace(problem, parameters=tight)


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
