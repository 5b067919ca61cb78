"""Starting values without a calibration: energy axes by coarse fits, then the scatter peaks on each."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.incident import find_elastic, move_incident
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.spectrum.coarse import (
    choose_bin,
    contrast_weights,
    rescale_theta,
    select,
    start_coarse,
    take_member,
)
from hpcxrf.fitting.spectrum.integrated import has_few_elements
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, State, build_space
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.scatter_pair import scan_pairs
from hpcxrf.fitting.spectrum.screen import Candidates, propose_axes, select_distinct_axes
from hpcxrf.fitting.spectrum.separable import minimise, objective
from hpcxrf.fitting.spectrum.theta import FOUND, FOUND_OF_FEW, INCIDENT, trust_axis
from hpcxrf.physics.model import energy_kev
from hpcxrf.physics.parameters import pack

_NEAR_STEPS: Final = 20
APART_KEV: Final = 0.03
CANDIDATES: Final = 14
"""Axes that are proposed by the positions of the peaks."""
# On 64 spectra of more than 1e4 counts the right axis was the most probable one by its peaks in all.
WINDOW: Final = 5.0
# Coarse steps, and how many axes go on after them.
_ROUNDS: Final = ((4, 8), (4, 4), (5, 3))
# Further axes that are fitted to the end, by the odds against them.
_RIVAL: Final = 6.0
_LEAST_WEIGHT: Final = 10.0
_MOST_WEIGHT: Final = 100.0
AXIS: Final = ("energy_offset", "energy_slope")
_PAIRS: Final = 2
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
    posed: FitProblem
    """The problem as it was posed, about the energy of this axis's elastic peak."""
    starts: Tensor
    """(start, parameter)."""
    unexplained: float
    """Objective of the coarse fit, peaks outside of the range included."""
    score: float
    """Log probability of the positions of the peaks, up to a constant."""


def find_starts(
    counts: Tensor,
    problem: FitProblem,
    *,
    peaks: Peaks | None = None,
    window: float = WINDOW,
    shift_kev: float = 0.0,
    screened: tuple[Tensor, Tensor] | None = None,
) -> list[AxisStart]:
    """Starting values from nothing but lines and a nominal incident energy, best axis first.

    Args:
        counts: (channel,) the full spectrum.
        problem: its start of offset and slope is not used, their bounds are.
        peaks: those of the spectrum, where they are known already.
        window: axes are tried whose peaks are less probable than those of the best by at most this (logarithm).
        shift_kev: how far from the nominal incident energy the elastic peak is expected.
        screened: axes of `screen.screen`, where they are known already.

    Raises:
        FitError: the spectrum has no counts.
    """
    full = counts.to(torch.float64)
    if float(full.sum()) <= 0.0:
        raise FitError("calibration: the spectrum has no counts; leave the detector out")
    peaks = find_peaks(full.cpu().numpy()) if peaks is None else peaks
    expected_kev = problem.table.incident_energy_kev + shift_kev
    found = propose_axes(
        full, peaks, problem, keep=CANDIDATES, window=window, incident_kev=expected_kev, screened=screened
    )
    size = choose_bin(float(found.slope_kev[0]))
    wide = _widen(_scale_slope(problem, float(found.slope_kev[0])), found)
    state, least_squares = start_coarse(full, found.offset_kev, found.slope_kev, wide, size, _start_values(found))
    score = found.score
    for iterations, survivors in _ROUNDS:
        state = minimise(state, least_squares, iterations=iterations)
        cost = _sum_cost(state, least_squares, peaks, wide, size)
        order = torch.argsort(add_evidence(cost, score, least_squares.counts.shape[-1]), stable=True)
        axis = rescale_theta(state.theta[order], wide, size)
        apart = select_distinct_axes(axis[:, 0], axis[:, 1], wide, full.shape[0], APART_KEV, survivors)
        state, least_squares = select(state, least_squares, order[apart])
        score = score[order[apart]]
    cost = _sum_cost(state, least_squares, peaks, wide, size)
    evidence = add_evidence(cost, score, least_squares.counts.shape[-1])
    return [
        _build_axis_start(
            state.theta[i],
            take_member(least_squares, i),
            (float(cost[i]), float(score[i])),
            wide,
            problem,
            size,
            _see_elastic(state.theta[i], wide, size, peaks, expected_kev),
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


def add_evidence(cost: Tensor, score: Tensor, n: int) -> Tensor:
    """Weigh misfit and positions of the peaks together: what speaks against each axis, as -ln of a probability.

    The misfit counts as that of independent bins where it is noise; where it is a flaw of the model or an element
    that is not listed, it says little, and the positions of the peaks say more.

    Args:
        cost: (start,) weighted squares that are left.
        score: (start,) log probability of the positions, up to a constant.
        n: channels or bins.
    """
    weight = min(max(0.5 * n * n / max(float(cost.min()), 1.0), _LEAST_WEIGHT), _MOST_WEIGHT)
    return weight * cost.log() - score


def _start_values(found: Candidates) -> dict[str, Tensor]:
    return {INCIDENT: found.incident_kev, "compton_angle": found.angle_deg, "fwhm_offset": found.fwhm_offset_kev}


def _sum_cost(state: State, least_squares: LeastSquares, peaks: Peaks, problem: FitProblem, size: int) -> Tensor:
    """(start,): objective plus the weighted squares of the peaks that lie outside of the range, where they count."""
    y = least_squares.counts[0]
    square = peak_squares(y, contrast_weights(y), peaks, size)
    energy = energy_kev(rescale_theta(state.theta, problem, size), torch.from_numpy(peaks.channel).to(y))
    return objective(state, least_squares) + (square * weigh_outside(energy, problem)).sum(dim=-1)


def peak_squares(y: Tensor, weights: Tensor, peaks: Peaks, size: int) -> Tensor:
    """Weighted square (peak,) of each peak over what lies under it.

    Args:
        y: (bin,) counts.
        weights: (bin,).
        peaks: in channels.
        size: channels of a bin.
    """
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


def _build_axis_start(
    theta: Tensor,
    least_squares: LeastSquares,
    weighed: tuple[float, float],
    wide: FitProblem,
    problem: FitProblem,
    size: int,
    elastic_kev: float,
) -> AxisStart:
    """The coarse start and the rival pairs of scatter peaks at its axis, in single channels."""
    axis = rescale_theta(theta, wide, size)
    moved = move_incident(problem, elastic_kev)
    cost, score = weighed
    return AxisStart(
        problem=set_axis(moved, axis),
        posed=moved,
        starts=_list_pairs(theta, least_squares, moved, size),
        unexplained=cost,
        score=score,
    )


def _see_elastic(theta: Tensor, problem: FitProblem, size: int, peaks: Peaks, expected_kev: float) -> float:
    """Energy of the highest peak about the one where the elastic peak is expected; NaN: there is none."""
    offset, slope = rescale_theta(theta, problem, size)[:2].cpu().numpy()
    return float(find_elastic(peaks, np.array([offset]), np.array([slope]), expected_kev)[0])


def _list_pairs(theta: Tensor, least_squares: LeastSquares, problem: FitProblem, size: int) -> Tensor:
    space = build_space(problem.parameters, theta.device)
    inside = torch.where(_is_axis(problem, theta), theta, theta.clamp(space.lower, space.upper))
    pairs, _ = scan_pairs(inside, least_squares, space, _PAIRS)
    return rescale_theta(torch.cat([inside[None], pairs]), problem, size)


def _is_axis(problem: FitProblem, theta: Tensor) -> Tensor:
    """(parameter,) True for those that coarse channels restate."""
    return torch.tensor([p.name in (*AXIS, "energy_quadratic") for p in problem.parameters], device=theta.device)


def set_axis(problem: FitProblem, theta: Tensor, *, straight: bool = False) -> FitProblem:
    """Put start and prior of the energy axis at theta (parameter,), as far as it is free.

    Args:
        problem: as it was posed.
        theta: (parameter,).
        straight: whether the axis may bend no more than that of a spectrum of few peaks.
    """
    axis = dict(zip(AXIS, theta[: len(AXIS)].tolist(), strict=True))
    moved = tuple(
        replace(p, value=min(max(axis[p.name], p.lower), p.upper)) if p.name in axis and p.free else p
        for p in problem.parameters
    )
    trust = FOUND_OF_FEW if straight or has_few_elements(problem) else FOUND
    return replace(problem, parameters=trust_axis(moved, trust, problem.energy_max_kev))
