"""Candidate energy axes: those that put the peaks of a spectrum on probable energies.

Every slope and offset is scored by the probability of the energies that it gives to the 16 strongest peaks; the best
thousands again by whether the peaks that belong together (K-beta, escape, pile-up) are where they should be. One
look-up per peak and axis: 0.01 CPU s for a hundred thousand axes.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from types import ModuleType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.axis.tables import LOWEST_KEV, STEP_KEV, PositionTable, build_position_table, list_families
from hpcxrf.fitting.kernels import axis_layout as at

Array = NDArray[np.float64]

_SLOPE_STEP: Final = 0.002
_OFFSET_STEP_KEV: Final = 0.015
_FWHM_PER_SIGMA: Final = 2.3548
# Detectors have 125 to 200 eV at 6 keV; what is measured of a width is good to 10 %.
_USUAL_FWHM_KEV: Final = 0.16
_FWHM_AT_KEV: Final = 6.0
_FWHM_LOG_SD: Final = 0.22
_FWHM_FARTHEST: Final = 3.2
_SCORED_PEAKS: Final = 16
_RESCORED: Final = 1000
# Share of peaks that nothing in the table explains, by their height relative to the highest.
_STRANGE: Final = ((0.10, 0.02), (0.01, 0.10), (0.0, 0.25))
_PILEUP_HEIGHT: Final = 0.01
_PILEUP_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Energy axes `offset + slope channel`, best first."""

    offset_kev: Array
    """(axis,)."""
    slope_kev: Array
    """(axis,)."""
    score: Array
    """(axis,) log probability of the peaks' energies, up to a constant."""


def find_axes(
    peaks: Peaks,
    incident_kev: float,
    *,
    offsets_kev: tuple[float, float],
    slopes_kev: tuple[float, float],
    listed: Collection[str] = (),
    elastic: bool = True,
    anode: tuple[tuple[float, float], ...] = (),
    keep: int = 14,
    apart_kev: float = 0.05,
) -> Axes:
    """Find the axes that put the peaks on probable energies.

    Args:
        peaks: those of the spectrum; none of them: no axis is found.
        incident_kev: nominal energy of the beam.
        offsets_kev: lowest and highest offset; the same twice: it is known.
        slopes_kev: lowest and highest slope; the same twice: it is known.
        listed: families that the user names.
        elastic: False for a tube.
        anode: energies (keV) and shares of the strong lines of a tube's anode; the incident energy is then its high
            voltage.
        keep: axes to return.
        apart_kev: least difference of two of them at 1 keV or at the incident energy.
    """
    if peaks.channel.size == 0:
        nothing = np.empty(0)
        return Axes(offset_kev=nothing, slope_kev=nothing, score=nothing)
    table = build_position_table(incident_kev, listed=listed, elastic=elastic, anode=anode)
    offset, slope, width = _build_grid(peaks, offsets_kev, slopes_kev)
    seen = _Seen.of(peaks, table, elastic=elastic)
    score = width + _score_positions(offset, slope, seen)
    best = np.sort(np.argpartition(-score, min(_RESCORED, score.size) - 1)[:_RESCORED])
    offset, slope, width = offset[best], slope[best], width[best]
    score = width + _score_partners(offset, slope, seen)
    order = np.argsort(-score, kind="stable")
    end_kev = max((line_kev for line_kev, _ in anode), default=incident_kev)
    kept = _keep_apart(offset[order], slope[order], end_kev, apart_kev, keep)
    order = order[kept]
    return Axes(offset_kev=offset[order], slope_kev=slope[order], score=score[order])


def _build_grid(
    peaks: Peaks, offsets_kev: tuple[float, float], slopes_kev: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """Offsets, slopes and the log prior of the width at 6 keV, of all axes with a width that a detector can have."""
    low, high = slopes_kev
    slopes = np.exp(np.linspace(np.log(low), np.log(high), 1 + int(np.log(high / low) / _SLOPE_STEP)))
    n_offsets = 1 + round((offsets_kev[1] - offsets_kev[0]) / _OFFSET_STEP_KEV)
    offsets = np.linspace(*offsets_kev, n_offsets)
    slope, offset = (axis.ravel() for axis in np.meshgrid(slopes, offsets, indexing="ij"))
    fwhm = _FWHM_PER_SIGMA * slope * peaks.width.at((_FWHM_AT_KEV - offset) / slope)
    deviation = np.log(fwhm / _USUAL_FWHM_KEV) / _FWHM_LOG_SD
    # Without isolated lines nothing is known of the width.
    prior = -0.5 * deviation**2 if peaks.lines else np.zeros_like(deviation)
    possible = prior >= min(-0.5 * _FWHM_FARTHEST**2, float(prior.max()))
    return offset[possible], slope[possible], prior[possible]


def _strange(share: Array) -> Array:
    return np.select([share > limit for limit, _ in _STRANGE], [u for _, u in _STRANGE], _STRANGE[-1][1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The strongest peaks, and the table that they are judged by, as the kernels read them."""

    peaks: Array
    """(row, peak), the strongest first."""
    numbers: Array
    """(number,) of the table and of the spectrum."""
    density: Array
    """(energy,) 1/keV."""
    logs: Array
    """(peak, energy + 2) logarithms of density times span, beyond the table of what is strange."""

    @classmethod
    def of(cls, peaks: Peaks, table: PositionTable, *, elastic: bool) -> "_Seen":
        """Take the strongest of all peaks."""
        chosen = np.argsort(-peaks.area, kind="stable")[:_SCORED_PEAKS]
        rows = np.empty((at.PEAK_ROWS, chosen.size))
        rows[at.CHANNEL], rows[at.AREA], rows[at.Z] = peaks.channel[chosen], peaks.area[chosen], peaks.z[chosen]
        share = peaks.share[chosen]
        rows[at.STRANGE] = _strange(share) / table.span_kev
        rows[at.ABOVE] = np.where(share < _PILEUP_HEIGHT, _PILEUP_SHARE / table.span_kev, 0.0)
        numbers = np.empty(at.NUMBERS)
        numbers[at.LOWEST_KEV], numbers[at.STEP_KEV] = LOWEST_KEV, STEP_KEV
        numbers[at.INCIDENT_KEV], numbers[at.SPAN_KEV] = table.incident_kev, table.span_kev
        numbers[at.N_CHANNELS], numbers[at.IS_ELASTIC] = peaks.n_channels, elastic
        above = LOWEST_KEV + STEP_KEV * np.arange(table.density.size) > table.incident_kev + at.ABOVE_KEV
        density = np.pad(table.density + rows[at.ABOVE, :, None] * above, ((0, 0), (1, 1)))
        logs = np.log((density + rows[at.STRANGE, :, None]) * table.span_kev)
        return cls(peaks=rows, numbers=numbers, density=table.density, logs=logs)


@cache
def _load_kernels() -> ModuleType:
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("spectrum")


def _score_positions(offset: Array, slope: Array, seen: _Seen) -> Array:
    """(axis,) sum of ln(density x span) over the peaks; beyond the table the density is 0."""
    score = np.empty_like(offset)
    _load_kernels().score_positions(offset, slope, seen.peaks[at.CHANNEL], seen.logs, seen.numbers, score)
    return score


@lru_cache(maxsize=1)
def _k_lines() -> Array:
    """K-alpha and K-beta energies (2, line) by atomic number."""
    families = [f for f in list_families() if f.shell == "K"]
    return np.array([[f.alpha_kev for f in families], [f.beta_kev for f in families]])


def _score_partners(offset: Array, slope: Array, seen: _Seen) -> Array:
    """(axis,) score with the peaks that belong to another one; strong K-alpha lines must have their K-beta line."""
    score, room = np.empty_like(offset), np.empty((at.ROOM_ROWS, seen.peaks.shape[1]))
    _load_kernels().score_partners(offset, slope, seen.peaks, _k_lines(), seen.density, seen.numbers, room, score)
    return score


def _keep_apart(offset: Array, slope: Array, end_kev: float, apart_kev: float, keep: int) -> list[int]:
    """The first axes that differ from every better one at an end, in the channels of the best one."""
    if offset.size == 0:
        return []
    ends = (np.array([1.0, end_kev]) - offset[0]) / slope[0]
    at_ends = offset[:, None] + slope[:, None] * ends
    kept: list[int] = []
    for i in range(offset.size):
        if not kept or np.abs(at_ends[i] - at_ends[kept]).max(axis=1).min() >= apart_kev:
            kept.append(i)
        if len(kept) == keep:
            break
    return kept
