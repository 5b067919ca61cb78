"""A fit without a calibration: the energy axis, then the scatter peaks, then theta from the best starts."""

import math
import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.candidates import Axes
from hpcxrf.fitting.axis.incident import find_elastic, move_incident
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.axis.race import race
from hpcxrf.fitting.axis.verdict import AMBIGUOUS, Finding, judge_found
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.coarse import (
    choose_bin,
    contrast_weights,
    rescale_theta,
    select,
    start_coarse,
    take_member,
)
from hpcxrf.fitting.spectrum.integrated import approach, fit_spectrum, has_few_elements
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs
from hpcxrf.fitting.spectrum.screen import Candidates, find_axes_within, propose_axes, select_distinct_axes
from hpcxrf.fitting.spectrum.separable import LeastSquares, State, build_space, minimise, objective
from hpcxrf.fitting.spectrum.theta import FOUND, FOUND_OF_FEW, INCIDENT, trust_axis
from hpcxrf.physics.model import energy_kev
from hpcxrf.physics.parameters import pack

_NEAR_STEPS: Final = 20
_APART_KEV: Final = 0.03
_CANDIDATES: Final = 14
# On 64 spectra of more than 1e4 counts the right axis was the most probable one by its peaks in all.
_WINDOW: Final = 5.0
# Where R2 stays this far below what the noise allows, the right axis may have been missed.
_POOR_FACTOR: Final = 1.25
_POOR_SHARE: Final = 0.005
# Coarse steps, and how many axes go on after them.
_ROUNDS: Final = ((4, 8), (4, 4), (5, 3))
# Further axes that are fitted to the end, by the odds against them.
_RIVAL: Final = 6.0
_LEAST_WEIGHT: Final = 10.0
_MOST_WEIGHT: Final = 100.0
AXIS: Final = ("energy_offset", "energy_slope")
_PAIRS: Final = 2
# Odds (natural logarithm) below which another axis is as good.
_MARGIN: Final = 3.0
_SLOPE_SCALE: Final = 1e-3
# Axes that differ by less are one.
_OTHER_KEV: Final = 0.1
# What lies about zero energy is the noise of the electronics; up to the fit range the model knows no lines, and a
# strong peak there speaks against an axis a little.
_ZERO_KEV: Final = 0.09
_LOW_WEIGHT: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisStart:
    """An energy axis to fit from."""

    problem: FitProblem
    """The problem, with this axis as its start, about the energy of its elastic peak."""
    posed: FitProblem
    """The problem as it was posed, about the energy of this axis's elastic peak."""
    starts: Tensor
    """(start, parameter)."""
    unexplained: float
    """Objective of the coarse fit, peaks outside of the range included."""
    score: float
    """Log probability of the positions of the peaks, up to a constant."""


def find_starts(
    counts: Tensor, problem: FitProblem, *, peaks: Peaks | None = None, window: float = _WINDOW
) -> list[AxisStart]:
    """Starting values from nothing but lines and a nominal incident energy, best axis first.

    Args:
        counts: (channel,) the full spectrum.
        problem: its start of offset and slope is not used, their bounds are.
        peaks: those of the spectrum, where they are known already.
        window: axes are tried whose peaks are less probable than those of the best by at most this (logarithm).

    Raises:
        FitError: the spectrum has no counts.
    """
    full = counts.to(torch.float64)
    if float(full.sum()) <= 0.0:
        raise FitError("calibration: the spectrum has no counts; leave the detector out")
    peaks = find_peaks(full.cpu().numpy()) if peaks is None else peaks
    found = propose_axes(full, peaks, problem, keep=_CANDIDATES, window=window)
    size = choose_bin(float(found.slope_kev[0]))
    wide = _widen(_scale_slope(problem, float(found.slope_kev[0])), found)
    state, least_squares = start_coarse(full, found.offset_kev, found.slope_kev, wide, size, _start_values(found))
    score = found.score
    for iterations, survivors in _ROUNDS:
        state = minimise(state, least_squares, iterations=iterations)
        cost = _sum_cost(state, least_squares, peaks, wide, size)
        order = torch.argsort(_add_evidence(cost, score, least_squares.counts.shape[-1]), stable=True)
        axis = rescale_theta(state.theta[order], wide, size)
        apart = select_distinct_axes(axis[:, 0], axis[:, 1], wide, full.shape[0], _APART_KEV, survivors)
        state, least_squares = select(state, least_squares, order[apart])
        score = score[order[apart]]
    cost = _sum_cost(state, least_squares, peaks, wide, size)
    evidence = _add_evidence(cost, score, least_squares.counts.shape[-1])
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


def _add_evidence(cost: Tensor, score: Tensor, n: int) -> Tensor:
    """(start,): what speaks against each axis, as -ln of a probability.

    The misfit counts as that of independent bins where it is noise; where it is a flaw of the model or an element
    that is not listed, it says little, and the positions of the peaks say more.
    """
    weight = min(max(0.5 * n * n / max(float(cost.min()), 1.0), _LEAST_WEIGHT), _MOST_WEIGHT)
    return weight * cost.log() - score


def _start_values(found: Candidates) -> dict[str, Tensor]:
    return {INCIDENT: found.incident_kev, "compton_angle": found.angle_deg, "fwhm_offset": found.fwhm_offset_kev}


def _sum_cost(state: State, least_squares: LeastSquares, peaks: Peaks, problem: FitProblem, size: int) -> Tensor:
    """(start,): objective plus the weighted squares of the peaks that lie outside of the range, where they count."""
    y = least_squares.counts[0]
    square = _peak_squares(y, contrast_weights(y), peaks, size)
    energy = energy_kev(rescale_theta(state.theta, problem, size), torch.from_numpy(peaks.channel).to(y))
    return objective(state, least_squares) + (square * weigh_outside(energy, problem)).sum(dim=-1)


def _peak_squares(y: Tensor, weights: Tensor, peaks: Peaks, size: int) -> Tensor:
    """(peak,): weighted square of each peak over what lies under it, in bins of `size` channels."""
    middle = (torch.from_numpy(peaks.channel).to(y) - (size - 1) / 2.0) / size
    half = torch.from_numpy(1.5 * peaks.width.at(peaks.channel)).to(y) / size
    bins = torch.arange(y.shape[0], dtype=y.dtype, device=y.device)
    near = (bins - middle[:, None]).abs() <= half[:, None].clamp(min=1.0)
    under = torch.where(near, y, torch.inf).amin(dim=1)
    return torch.where(near, weights * (y - under[:, None]).clamp(min=0.0).square(), 0.0).sum(dim=1)


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
    """Find the energy axis, then fit; of several axes the one that the positions of the peaks and the fit speak for.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        problem: lines, bounds and nominal incident energy; its energy axis is not used.

    Returns:
        The fit, with the problem about the incident energy that was found. Where another axis explains the spectrum
        as well, or too little fixes the axis, flags of `hpcxrf.fitting.axis.verdict` are set and `messages` say why.

    Raises:
        FitError: the spectrum has no counts, or no axis puts the energy range inside it.
    """
    began = time.process_time()
    full = counts.to(torch.float64)
    peaks = find_peaks(full.cpu().numpy())
    fits = _fit_axes(full, problem, peaks, _WINDOW)
    if all(_is_poor(one.fit) for one in fits):
        # Improbable by its peaks, and yet all of the spectrum: an axis is believed for that alone.
        fits += [one for one in _fit_axes(full, problem, peaks, math.inf) if not _is_poor(one.fit)]
    against = _weigh_fits(fits, full, peaks)
    best = min(range(len(fits)), key=lambda i: against[i])
    rivals = [fits[i] for i in range(len(fits)) if i != best and against[i] - against[best] < _MARGIN]
    reached, findings = fits[best], _describe_rivals(rivals)
    if problem.elastic and _is_poor(reached.fit) and (other := _race_unlisted(full, peaks, reached, problem)):
        findings = [_describe_moved(other, reached)]
        reached = other
    judged = judge_found(reached.fit, full, peaks, problem, findings)
    return replace(judged, cpu_s=time.process_time() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reached:
    """A fit on one of the axes."""

    fit: SpectrumFit
    problem: FitProblem
    score: float


def _is_poor(fit: SpectrumFit) -> bool:
    """True where the fit leaves more than the noise."""
    return not 1.0 - fit.r2 <= _POOR_FACTOR * (1.0 - fit.r2_expected) + _POOR_SHARE


def _fit_axes(full: Tensor, problem: FitProblem, peaks: Peaks, window: float) -> list[_Reached]:
    found = []
    for one, theta in _approach_axes(full, find_starts(full, problem, peaks=peaks, window=window)):
        fit = fit_spectrum(full, one.problem, starts=theta[None])
        found.append(_Reached(fit=replace(fit, problem=one.posed), problem=one.problem, score=one.score))
    return found


def _weigh_fits(fits: list[_Reached], full: Tensor, peaks: Peaks) -> list[float]:
    """What speaks against each fit, as -ln of a probability: as `_add_evidence`, in single channels."""
    if len(fits) == 1:
        return [0.0]
    weights = contrast_weights(full)
    square = _peak_squares(full, weights, peaks, 1)
    middle = torch.from_numpy(peaks.channel).to(full)
    cost = []
    for one in fits:
        inside = slice(one.fit.first_channel, one.fit.first_channel + one.fit.counts.shape[0])
        left = (weights[inside] * (one.fit.counts - one.fit.model).square()).sum()
        outside = square * weigh_outside(energy_kev(one.fit.theta, middle), one.problem)
        cost.append(left + outside.sum())
    costs = torch.stack(cost).nan_to_num(nan=torch.inf)
    score = torch.tensor([one.score for one in fits], dtype=full.dtype)
    return [float(e) for e in _add_evidence(costs, score, full.shape[0])]


def _race_unlisted(full: Tensor, peaks: Peaks, reached: _Reached, problem: FitProblem) -> _Reached | None:
    """Another axis on which elements that are not listed explain what the list leaves; None where there is none.

    A list that lacks a strong element may fit best with all names shifted by one.
    """
    nominal = problem.table.incident_energy_kev
    found = find_axes_within(peaks, problem, keep=_CANDIDATES)
    mine = reached.fit.theta[:2].cpu().numpy()
    highest = float(found.score.max(initial=0.0))
    axes = Axes(
        offset_kev=np.append(mine[0], found.offset_kev),
        slope_kev=np.append(mine[1], found.slope_kev),
        score=np.append(highest, found.score),
    )
    runners = race(full, peaks, axes, nominal, detector=problem.detector, elastic=True, low_kev=problem.energy_min_kev)
    if not runners:
        return None
    at = runners[0].found.at
    channel = (np.array([problem.energy_min_kev, nominal]) - at.offset_kev) / at.slope_kev
    if np.abs(mine[0] + mine[1] * channel - [problem.energy_min_kev, nominal]).max() < _OTHER_KEV:
        return None
    posed = move_incident(problem, at.incident_kev)
    theta = pack(posed.parameters)
    theta[0], theta[1] = at.offset_kev, at.slope_kev
    placed = _set_axis(posed, theta)
    fit = fit_spectrum(full, placed, starts=find_starts_near(full, placed))
    return _Reached(fit=replace(fit, problem=posed), problem=placed, score=reached.score)


def _describe_moved(other: _Reached, before: _Reached) -> Finding:
    left, theta = other.fit.r2, before.fit.theta
    return Finding(
        flag=AMBIGUOUS,
        text=(
            "elements that are not listed explain the peaks on this axis, on which the list alone leaves more (R2 "
            f"{left:.5f}) than on one with offset {theta[0]:.4f} keV, slope {theta[1]:.6f} keV (R2 {before.fit.r2:.5f})"
        ),
    )


def _describe_rivals(rivals: list[_Reached]) -> list[Finding]:
    if not rivals:
        return []
    others = "; ".join(
        f"offset {one.fit.theta[0]:.4f} keV, slope {one.fit.theta[1]:.6f} keV, E0 {one.fit.theta[5]:.3f} keV "
        f"(R2 {one.fit.r2:.5f})"
        for one in rivals
    )
    return [Finding(flag=AMBIGUOUS, text=f"another energy axis explains the spectrum about as well: {others}")]


def _approach_axes(full: Tensor, found: list[AxisStart]) -> list[tuple[AxisStart, Tensor]]:
    """A few steps from every axis; of those that meet, the first goes on."""
    reached: list[tuple[AxisStart, Tensor]] = []
    for one in found:
        theta = approach(full, one.problem, one.starts)
        if all(_axis_distance_kev(theta, other, full.shape[0], one.problem) > _APART_KEV for _, other in reached):
            reached.append((replace(one, problem=_set_axis(one.problem, theta)), theta))
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
        posed=moved,
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
    moved = trust_axis(moved, FOUND_OF_FEW if has_few_elements(problem) else FOUND, problem.energy_max_kev)
    return replace(problem, parameters=moved)
