"""A fit from nothing: axes that the peaks speak for are fitted, and the one that explains the spectrum is chosen."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.axis.candidates import Axes
from hpcxrf.fitting.axis.flags import AMBIGUOUS, AXIS_FLAGS
from hpcxrf.fitting.axis.incident import FARTHEST_KEV, SHIFTS_KEV, move_incident
from hpcxrf.fitting.axis.peaks import Peaks, find_peaks
from hpcxrf.fitting.axis.race import FAINT_COUNTS, race
from hpcxrf.fitting.axis.verdict import Finding, judge_found
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.coarse import contrast_weights
from hpcxrf.fitting.spectrum.integrated import Approached, approach, fit_spectrum
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.screen import find_axes_within, has_few_peaks, screen
from hpcxrf.fitting.spectrum.search import (
    APART_KEV,
    CANDIDATES,
    WINDOW,
    AxisStart,
    add_evidence,
    find_starts,
    find_starts_near,
    peak_squares,
    set_axis,
    weigh_outside,
)
from hpcxrf.fitting.spectrum.theta import FOUND, INCIDENT, count_used_channels
from hpcxrf.notes import Note
from hpcxrf.physics.model import ELASTIC, energy_kev
from hpcxrf.physics.parameters import INDEX, pack

# Where R2 stays this far below what the noise allows, the right axis may have been missed.
_POOR_FACTOR: Final = 1.25
_POOR_SHARE: Final = 0.005
# Where it stays this far below, the incident energy may be another one.
_IMPERFECT_SHARE: Final = 0.002
# An elastic peak this near to the nominal energy, and this many standard deviations high, confirms it.
_SHOWN_KEV: Final = 0.1
_SHOWN_Z: Final = 10.0
# Odds (natural logarithm) below which another axis is as good.
_MARGIN: Final = 3.0
# Axes that differ by less are one.
_OTHER_KEV: Final = 0.1
# After a few steps, without line ratios of its own, the axis that is chosen in the end leaves up to 28 times what its
# fit leaves (40 spectra, 1e3 to 1e8 counts; 1.6 times in half of them). Beyond this it is hopeless beside another's.
_FAR: Final = 100.0
# Detectors are straighter than this (keV, farthest from a straight line). Of 100 axes found from nothing the right ones
# bend by .03 at most; where an element is not listed, or flaws of the model are large, a bend can serve to explain
# them, and takes the incident energy, which nothing else holds, along: by .07 in both axes found so that were wrong.
_MOST_BENT_KEV: Final = 2.0 * FOUND.sag_sd_kev
# Where a straight axis leaves this many times the chi2 of a bent one, the detector does bend (1.10 in both of those).
_BENT_GAIN: Final = 1.25


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
    # Without counts there is nothing to screen, and `find_starts` says so.
    few = has_few_peaks(peaks) and float(full.sum()) > 0.0
    screened = screen(full, problem, keep=CANDIDATES) if few else None
    tried: list[AxisStart] = []

    def add(window: float, shift_kev: float = 0.0) -> list[_Reached]:
        starts = find_starts(full, problem, peaks=peaks, window=window, shift_kev=shift_kev, screened=screened)
        fresh = [one for one in starts if not any(_is_same_start(one, other, full.shape[0]) for other in tried)]
        tried.extend(fresh)
        return _fit_axes(full, problem, peaks, fresh, fits)

    fits: list[_Reached] = []
    fits += add(WINDOW)
    reached, findings = _choose(fits, full, peaks)
    doubted = findings or _is_doubtful(reached.fit, full, peaks, problem)
    if doubted and _may_move(problem) and not _shows_incident(reached.fit, problem):
        # Whatever hangs on the incident energy looks wrong where that is wrong.
        for shift_kev in SHIFTS_KEV:
            fits += add(WINDOW, shift_kev)
    if all(_is_poor(one.fit) for one in fits):
        # Improbable by its peaks, and yet all of the spectrum: an axis is believed for that alone.
        fits += [one for one in add(math.inf) if not _is_poor(one.fit)]
    reached, findings = _choose(fits, full, peaks)
    if problem.elastic and _is_poor(reached.fit) and (other := _race_unlisted(full, peaks, reached, problem)):
        findings = [_describe_moved(other, reached)]
        reached = other
    reached, bent = _hold_straight(reached, full)
    findings += bent
    judged = judge_found(reached.fit, full, peaks, problem, findings)
    return replace(judged, cpu_s=time.process_time() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reached:
    """A fit on one of the axes."""

    fit: SpectrumFit
    problem: FitProblem
    score: float


def _choose(fits: list[_Reached], full: Tensor, peaks: Peaks) -> tuple[_Reached, list[Finding]]:
    """The fit that most speaks for, and what to say of others that are about as good."""
    against = _weigh_fits(fits, full, peaks)
    best = min(range(len(fits)), key=lambda i: against[i])
    near = [one for one, odds in zip(fits, against, strict=True) if odds - against[best] < _MARGIN]
    return fits[best], _describe_rivals([one for one in near if not _is_same_axis(one, fits[best])])


def _incident_kev(problem: FitProblem) -> float:
    return problem.parameters[INDEX[INCIDENT]].value


def _may_move(problem: FitProblem) -> bool:
    """True where the incident energy is that of an elastic peak, and free."""
    return problem.elastic and problem.parameters[INDEX[INCIDENT]].free


def _shows_incident(fit: SpectrumFit, problem: FitProblem) -> bool:
    """True where the elastic peak stands where it was said to be, and the fit explains enough to believe it."""
    i = fit.component_names.index(ELASTIC)
    near = abs(float(fit.theta[INDEX[INCIDENT]]) - _incident_kev(problem)) < _SHOWN_KEV
    return near and not _is_poor(fit) and float(fit.amplitude[i]) > _SHOWN_Z * float(fit.amplitude_sigma[i])


def _is_doubtful(fit: SpectrumFit, full: Tensor, peaks: Peaks, problem: FitProblem) -> bool:
    """True where another incident energy may be the right one."""
    return (
        float(full.sum()) < FAINT_COUNTS
        or _is_poor(fit, share=_IMPERFECT_SHARE)
        or any(flag in AXIS_FLAGS for flag in judge_found(fit, full, peaks, problem).flags)
    )


def _is_same_axis(one: _Reached, other: _Reached) -> bool:
    n_channels = one.fit.first_channel + one.fit.counts.shape[0]
    return _axis_distance_kev(one.fit.theta, other.fit.theta, n_channels, one.problem) < _OTHER_KEV


def _is_poor(fit: SpectrumFit, *, share: float = _POOR_SHARE) -> bool:
    """True where the fit leaves more than the noise and this share of the variance."""
    return not 1.0 - fit.r2 <= _POOR_FACTOR * (1.0 - fit.r2_expected) + share


def _fit_axes(
    full: Tensor, problem: FitProblem, peaks: Peaks, starts: Sequence[AxisStart], known: Sequence[_Reached]
) -> list[_Reached]:
    """Fits on some axes, but those that a few steps lead to known ones, or that leave far more than the best."""
    near = [one for one in starts if abs(_incident_kev(one.posed) - _incident_kev(problem)) <= FARTHEST_KEV]
    approached = _approach_axes(full, near, [other.fit.theta for other in known])
    left = [_left_after(at, one.problem, full, peaks) for one, at in approached]
    least = min([*left, *(_left_by_fit(one, full, peaks) for one in known)], default=math.inf)
    found = []
    for (one, at), remains in zip(approached, left, strict=True):
        if remains > _FAR * least:
            continue
        fit = fit_spectrum(full, one.problem, starts=at.theta[None])
        found.append(_Reached(fit=replace(fit, problem=one.posed), problem=one.problem, score=one.score))
    return found


def _is_same_start(one: AxisStart, other: AxisStart, n_channels: int) -> bool:
    """True for the same axis about the same incident energy."""
    first, second = pack(one.problem.parameters), pack(other.problem.parameters)
    near = abs(_incident_kev(one.posed) - _incident_kev(other.posed)) < APART_KEV
    return near and _axis_distance_kev(first, second, n_channels, one.problem) < APART_KEV


def _left_after(at: Approached, problem: FitProblem, full: Tensor, peaks: Peaks) -> float:
    """Weighted squares that an axis leaves, peaks outside of its range included."""
    weights = contrast_weights(full)
    inside = slice(at.first_channel, at.first_channel + at.residual.shape[0])
    outside = peak_squares(full, weights, peaks, 1) * weigh_outside(
        energy_kev(at.theta, torch.from_numpy(peaks.channel).to(full)), problem
    )
    left = (weights[inside] * at.residual.square()).sum() + outside.sum()
    return float(left.nan_to_num(nan=torch.inf))


def _left_by_fit(one: _Reached, full: Tensor, peaks: Peaks) -> float:
    fit = one.fit
    at = Approached(theta=fit.theta, first_channel=fit.first_channel, residual=fit.counts - fit.model)
    return _left_after(at, one.problem, full, peaks)


def _weigh_fits(fits: list[_Reached], full: Tensor, peaks: Peaks) -> list[float]:
    """What speaks against each fit, as -ln of a probability: as `add_evidence`, in single channels."""
    if len(fits) == 1:
        return [0.0]
    costs = torch.tensor([_left_by_fit(one, full, peaks) for one in fits], dtype=full.dtype)
    score = torch.tensor([one.score for one in fits], dtype=full.dtype)
    return [float(e) for e in add_evidence(costs, score, full.shape[0])]


def _race_unlisted(full: Tensor, peaks: Peaks, reached: _Reached, problem: FitProblem) -> _Reached | None:
    """Another axis on which elements that are not listed explain what the list leaves; None where there is none.

    A list that lacks a strong element may fit best with all names shifted by one.
    """
    nominal = problem.table.incident_energy_kev
    found = find_axes_within(peaks, problem, keep=CANDIDATES, incident_kev=nominal)
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
    placed = set_axis(posed, theta)
    fit = fit_spectrum(full, placed, starts=find_starts_near(full, placed))
    other = _Reached(fit=replace(fit, problem=posed), problem=placed, score=reached.score)
    return None if _is_same_axis(other, reached) else other


def _hold_straight(reached: _Reached, full: Tensor) -> tuple[_Reached, list[Finding]]:
    """The fit on an axis as straight as those of detectors are, where it explains the spectrum hardly less."""
    fit, bend = reached.fit, INDEX["energy_quadratic"]
    offset, slope, curve = (float(fit.theta[i]) for i in (0, 1, bend))
    used = count_used_channels(offset, slope, reached.problem.energy_max_kev)
    sag_kev = curve * used**2 / 4.0
    if abs(sag_kev) <= _MOST_BENT_KEV or not reached.problem.parameters[bend].free:
        return reached, []
    chord = fit.theta.clone()
    chord[1], chord[bend] = slope + curve * used, 0.0
    placed = set_axis(fit.problem or reached.problem, chord, straight=True)
    held = fit_spectrum(full, placed, starts=chord[None])
    said = f"the energy axis bends by {abs(sag_kev):.3f} keV, detectors do by less than {_MOST_BENT_KEV:g} keV"
    if not held.reduced_chi2 <= _BENT_GAIN * fit.reduced_chi2:
        text = f"{said}, yet a straight one leaves a chi2 of {held.reduced_chi2:.3g} instead of {fit.reduced_chi2:.3g}"
        return reached, [Finding(flag=AMBIGUOUS, text=text)]
    text = f"{said}: it is held straight (reduced chi2 {held.reduced_chi2:.3g}, bent {fit.reduced_chi2:.3g})"
    straight = replace(held, problem=fit.problem, notes=(*held.notes, Note("warning", text)))
    return replace(reached, fit=straight, problem=placed), []


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
        f"offset {one.fit.theta[0]:.4f} keV, slope {one.fit.theta[1]:.6f} keV, "
        f"E0 {one.fit.theta[INDEX[INCIDENT]]:.3f} keV (R2 {one.fit.r2:.5f})"
        for one in rivals
    )
    return [Finding(flag=AMBIGUOUS, text=f"another energy axis explains the spectrum about as well: {others}")]


def _approach_axes(
    full: Tensor, found: Sequence[AxisStart], known: Sequence[Tensor]
) -> list[tuple[AxisStart, Approached]]:
    """A few steps from every axis; of those that meet, the first goes on, and none that meets a known one (theta)."""
    reached: list[tuple[AxisStart, Approached]] = []
    for one in found:
        at = approach(full, one.problem, one.starts)
        others = [*known, *(other.theta for _, other in reached)]
        if all(_axis_distance_kev(at.theta, other, full.shape[0], one.problem) > APART_KEV for other in others):
            reached.append((replace(one, problem=set_axis(one.problem, at.theta)), at))
    return reached


def _axis_distance_kev(theta: Tensor, other: Tensor, n_channels: int, problem: FitProblem) -> float:
    """Largest difference of two energy axes inside the energy range."""
    channel = torch.arange(n_channels, dtype=torch.float64, device=theta.device)
    energy = energy_kev(theta, channel)
    inside = (energy >= problem.energy_min_kev) & (energy <= problem.energy_max_kev)
    return float((energy - energy_kev(other, channel))[inside].abs().max())
