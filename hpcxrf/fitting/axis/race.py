"""Energy axis and families of a spectrum together: a few axes race, each with the families that it makes of the peaks.

On the right axis few and common families explain all; on a wrong one strong peaks stay, or uncommon families have to
stand for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.axis.binned import AxisPoint, make_bins, table_at
from hpcxrf.fitting.axis.candidates import Axes
from hpcxrf.fitting.axis.evidence import Hypothesis, Search, seek, withdraw
from hpcxrf.fitting.axis.incident import find_elastic
from hpcxrf.fitting.axis.naming import name_peaks
from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.spectrum.theta import AXIS_LIMITS
from hpcxrf.physics.detector import Detector

Array = NDArray[np.float64]

_WINDOW: Final = 8.0
_MOST_AXES: Final = 8
# Where the most probable axis explains the spectrum, improbable ones do not run.
_CLEAR: Final = 3.0
_GOOD_CHI2: Final = 1.3
FAINT_COUNTS: Final = 1e4
"""Fewer counts hardly tell a right axis from a wrong one."""
_FAINT_WINDOW: Final = 4.0
_FIRST: Final = (0.03, 4)
_FINER: Final = ((0.015, 5), (0.008, 6))
_FINALISTS: Final = 2
_FINAL_MARGIN: Final = 60.0
_SAME_KEV: Final = 0.1
# Standard deviations by which the elastic peak moves where it was not found, and where else it is tried.
_RESTLESS: Final = 1.0
_SHIFTS_KEV: Final = (0.12, 0.24)
_INCIDENT: Final = 5
_LOWEST_KEV: Final = 1.0
_ABOVE_KEV: Final = 1.0
# Peaks outside of the range, in units of half a chi2.
_ZERO_KEV: Final = 0.06
_ZERO_PRICE: Final = 2.0
_LOW_KEV: Final = 0.9
_LOW_PRICE: Final = 4.0
_OUTSIDE_KEV: Final = 0.55
_OUTSIDE_CAPS: Final = ((0.05, 400.0), (0.02, 100.0), (0.0, 15.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """An axis with the families that it makes of a spectrum."""

    search: Search
    found: Hypothesis
    against: float
    """What speaks against it, as -ln of a probability."""


def race(
    counts: Tensor, peaks: Peaks, axes: Axes, incident_kev: float, *, detector: Detector, elastic: bool, low_kev: float
) -> list[Runner]:
    """Let axes race, best first.

    Args:
        counts: (channel,) float64.
        peaks: of the spectrum.
        axes: best first.
        incident_kev: nominal energy of the beam.
        detector: windows and chip.
        elastic: False for a tube.
        low_kev: lower end of the fit range.

    Returns:
        Those that came to the end; none where no axis puts the spectrum into the range.
    """
    runners = run_first_stage(counts, peaks, axes, incident_kev, detector=detector, elastic=elastic, low_kev=low_kev)
    return finish(runners, counts.shape[0], incident_kev)


def run_first_stage(
    counts: Tensor, peaks: Peaks, axes: Axes, incident_kev: float, *, detector: Detector, elastic: bool, low_kev: float
) -> list[Runner]:
    """Run the first stage of a race, which tells axes apart; best first. The arguments are those of `race`."""
    faint = float(counts.sum()) < FAINT_COUNTS
    near = np.nonzero(axes.score >= axes.score.max(initial=-np.inf) - (_FAINT_WINDOW if faint else _WINDOW))[0]
    runners: list[Runner] = []
    for i in near[:_MOST_AXES].tolist():
        if runners and not faint and runners[0].found.chi2 < _GOOD_CHI2 and axes.score[0] - axes.score[i] > _CLEAR:
            break
        ends = axes.offset_kev[i] + axes.slope_kev[i] * np.array([0.0, float(counts.shape[0])])
        if any(_is_near(ends, one.found.at, counts.shape[0], incident_kev) for one in runners):
            continue
        runner = _start(counts, peaks, axes, i, incident_kev, detector=detector, elastic=elastic, low_kev=low_kev)
        if runner is not None:
            runners.append(_run_first(runner, float(axes.score[i])))
    return sorted(runners, key=lambda one: one.against)


def finish(runners: Sequence[Runner], n_channels: int, incident_kev: float) -> list[Runner]:
    """Bring the best of those that ran the first stage to the end, best first; of two on one axis the first.

    Args:
        runners: of `run_first_stage`, best first.
        n_channels: channels of the spectrum.
        incident_kev: nominal energy of the beam.
    """
    last = [
        replace(one, found=withdraw(one.search, _run(one, 0.0, _FINER).found, relative=_FINER[-1][0]))
        for one in runners[:_FINALISTS]
        if one.against - runners[0].against < _FINAL_MARGIN
    ]
    if len(last) > 1 and is_same_axis(last[1].found.at, last[0].found.at, n_channels, incident_kev):
        last = last[:1]
    scored = [replace(one, against=one.found.cost + _price_outside(one)) for one in last]
    return sorted(scored, key=lambda one: one.against)


def list_finalists(runners: Sequence[Runner], others: Sequence[Runner]) -> list[Runner]:
    """List the best that ran the first stage, as far as they come near to the best of them and of others.

    Args:
        runners: of `run_first_stage`, in any order, of several incident energies.
        others: of `run_first_stage`, which are brought to the end apart.
    """
    best = min((one.against for one in (*runners, *others)), default=0.0)
    near = [one for one in runners if one.against - best < _FINAL_MARGIN]
    return sorted(near, key=lambda one: one.against)[:_FINALISTS]


def _ends(at: AxisPoint, n_channels: int) -> Array:
    """Energies of the first channel and of the end."""
    return np.array([at.offset_kev, at.offset_kev + at.slope_kev * n_channels])


def is_same_axis(one: AxisPoint, other: AxisPoint, n_channels: int, incident_kev: float) -> bool:
    """True where two axes hardly differ from 1 keV to the incident energy.

    Args:
        one: an axis.
        other: another one.
        n_channels: channels of the spectrum.
        incident_kev: nominal energy of the beam.
    """
    return _is_near(_ends(one, n_channels), other, n_channels, incident_kev)


def _is_near(ends: Array, other: AxisPoint, n_channels: int, incident_kev: float) -> bool:
    mine, theirs = ends, _ends(other, n_channels)
    difference = theirs - mine
    channel = (np.array([1.0, incident_kev]) - other.offset_kev) / other.slope_kev
    at = difference[0] + (difference[1] - difference[0]) * channel / n_channels
    return bool(np.abs(at).max() < _SAME_KEV)


def _start(
    counts: Tensor,
    peaks: Peaks,
    axes: Axes,
    index: int,
    nominal_kev: float,
    *,
    detector: Detector,
    elastic: bool,
    low_kev: float,
) -> Runner | None:
    offset, slope = axes.offset_kev[index : index + 1], axes.slope_kev[index : index + 1]
    seen = float(find_elastic(peaks, offset, slope, nominal_kev)[0]) if elastic else np.nan
    incident = seen if np.isfinite(seen) and seen > AXIS_LIMITS["coherent_sct_energy"][0] else nominal_kev
    at = AxisPoint(
        offset_kev=float(offset[0]),
        slope_kev=float(slope[0]),
        bend_kev=0.0,
        width_factor=(0.0, 0.0),
        incident_kev=incident,
    )
    bins = make_bins(counts, peaks, at, max(low_kev, _LOWEST_KEV), incident + _ABOVE_KEV)
    if bins is None or float(bins.counts.sum()) <= 0.0:
        return None
    search = Search(bins=bins, peaks=peaks, detector=detector, elastic=elastic)
    possible = table_at(incident, detector).component_names
    named = name_peaks(at.offset_kev + at.slope_kev * peaks.channel, peaks, incident, elastic=elastic)
    begin = Hypothesis(at=at, names=tuple(n for n in named if n in possible))
    return Runner(search=search, found=begin, against=float("inf"))


def _run_first(runner: Runner, score: float) -> Runner:
    """The first stage; where the elastic peak wants to move, it may stand on the flank of the Compton peak."""
    first = _run(runner, score, (_FIRST,))
    if abs(first.found.at.moved[_INCIDENT]) < _RESTLESS or first.found.chi2 < _GOOD_CHI2:
        return first
    begin, tries = runner.found, [first]
    for shift in _SHIFTS_KEV:
        at = replace(begin.at, incident_kev=begin.at.incident_kev + shift)
        tries.append(_run(replace(runner, found=replace(begin, at=at)), score, (_FIRST,)))
    return min(tries, key=lambda one: one.against)


def _run(runner: Runner, score: float, stages: tuple[tuple[float, int], ...]) -> Runner:
    found = runner.found
    for relative, rounds in stages:
        found = seek(runner.search, found, relative=relative, rounds=rounds)
    ran = replace(runner, found=found)
    return replace(ran, against=found.cost + _price_outside(ran) - score)


def _price_outside(runner: Runner) -> float:
    """Peaks that the axis puts where no line can be."""
    peaks, at = runner.search.peaks, runner.found.at
    energy = at.energy_kev(torch.from_numpy(peaks.channel)).numpy()
    caps = np.select([peaks.share > share for share, _ in _OUTSIDE_CAPS], [cap for _, cap in _OUTSIDE_CAPS], 0.0)
    outside = (energy < -_ZERO_KEV) | (energy > at.incident_kev + _OUTSIDE_KEV)
    low = (energy > _ZERO_KEV) & (energy < _LOW_KEV)
    zero = np.abs(energy) <= _ZERO_KEV
    prices = np.where(outside, np.minimum(0.5 * peaks.z**2, caps), _LOW_PRICE * low + _ZERO_PRICE * zero)
    return float(prices.sum())
