"""Candidate energy axes: those that put the peaks of a spectrum on probable energies.

Every slope and offset is scored by the probability of the energies that it gives to the 16 strongest peaks; the best
thousands again by whether the peaks that belong together (K-beta, escape, pile-up) are where they should be. One
look-up per peak and axis: 0.05 CPU s for a hundred thousand axes.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.axis.tables import LOWEST_KEV, STEP_KEV, PositionTable, build_position_table, list_families

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
_ABOVE_KEV: Final = 0.5
# Partners: share, standard deviation, and how large the partner may be.
_BETA_SHARE: Final = 0.55
_PARTNER_SD_KEV: Final = 0.025
_BETA_RATIOS: Final = (1.7, 50.0)
_ESCAPE_SHARE: Final = 0.08
_ESCAPE_KEV: Final = 1.742
_ESCAPE_RATIO: Final = 0.04
_SUM_SHARE: Final = 0.05
_SUM_RATIO: Final = 0.05
_SUM_PARENTS: Final = 4
_AT_LINE_KEV: Final = 0.06
_NO_BETA: Final = -3.0
_BETA_TOLERANCE_KEV: Final = 0.08
_BETA_RATIO: Final = 0.12
_BETA_Z: Final = 12.0
_LEAST_SPLIT_KEV: Final = 0.25
_NO_ELASTIC: Final = -2.5
_SCATTER_FROM: Final = 0.87


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
    chosen = np.argsort(-peaks.area, kind="stable")[:_SCORED_PEAKS]
    channel, share = peaks.channel[chosen], peaks.share[chosen]
    strange = _strange(share) / table.span_kev
    score = width + _score_positions(offset, slope, channel, share, strange, table)
    best = np.sort(np.argpartition(-score, min(_RESCORED, score.size) - 1)[:_RESCORED])
    offset, slope, width = offset[best], slope[best], width[best]
    energy = offset[:, None] + slope[:, None] * channel
    last = offset + slope * peaks.n_channels
    score = width + _score_partners(energy, peaks, chosen, strange, table, last, elastic=elastic)
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


def _score_positions(
    offset: Array, slope: Array, channel: Array, share: Array, strange: Array, table: PositionTable
) -> Array:
    """(axis,) sum of ln(density x span) over the peaks; beyond the table the density is 0."""
    score = np.zeros_like(offset)
    energy = LOWEST_KEV + STEP_KEV * np.arange(table.density.size)
    above = (energy > table.incident_kev + _ABOVE_KEV) * (_PILEUP_SHARE / table.span_kev)
    for one, height, unlikely in zip(channel, share, strange, strict=True):
        density = table.density + (above if height < _PILEUP_HEIGHT else 0.0)
        padded = np.pad(density, 1)
        logs = np.log((padded + unlikely) * table.span_kev)
        index = (offset + slope * one) * (1.0 / STEP_KEV) + (1.5 - LOWEST_KEV / STEP_KEV)
        score += logs.take(index.astype(np.int64), mode="clip")
    return score


@lru_cache(maxsize=1)
def _k_lines() -> tuple[Array, Array]:
    """K-alpha and K-beta energies by atomic number."""
    families = [f for f in list_families() if f.shell == "K"]
    return np.array([f.alpha_kev for f in families]), np.array([f.beta_kev for f in families])


def _score_partners(
    energy: Array,
    peaks: Peaks,
    chosen: NDArray[np.int64],
    strange: Array,
    table: PositionTable,
    last_kev: Array,
    *,
    elastic: bool,
) -> Array:
    """(axis,) score with the peaks that belong to another one; strong K-alpha lines must have their K-beta line."""
    area, z = peaks.area[chosen], peaks.z[chosen]
    alphas, betas = _k_lines()
    nearest = np.clip(np.searchsorted(0.5 * (alphas[1:] + alphas[:-1]), energy), 0, alphas.size - 1)
    off = energy - alphas[nearest]
    at_alpha = np.exp(-0.5 * (off / _PARTNER_SD_KEV) ** 2) * (np.abs(off) < _AT_LINE_KEV)
    beta_kev = betas[nearest] + off
    density = table.at(energy) + np.where(
        (energy > table.incident_kev + _ABOVE_KEV) & (peaks.share[chosen] < _PILEUP_HEIGHT),
        _PILEUP_SHARE / table.span_kev,
        0.0,
    )
    ratio = area[:, None] / area
    fits_beta = (ratio > _BETA_RATIOS[0]) & (ratio < _BETA_RATIOS[1])
    distance = energy[:, None, :] - beta_kev[:, :, None]
    height = 1.0 / (_PARTNER_SD_KEV * np.sqrt(2.0 * np.pi))
    near = np.exp(-0.5 * np.minimum((distance / _PARTNER_SD_KEV) ** 2, 80.0)) * height
    as_beta = (near * at_alpha[:, :, None] * fits_beta).max(axis=1)
    escape = np.exp(-0.5 * np.minimum(((energy[:, None, :] - energy[:, :, None] + _ESCAPE_KEV) / 0.03) ** 2, 80.0))
    as_escape = (escape * (ratio > 1.0 / _ESCAPE_RATIO)).max(axis=1) * height
    density = density + _BETA_SHARE * as_beta + _ESCAPE_SHARE * as_escape + _SUM_SHARE * _sum_density(energy, area)
    weight = np.maximum(0.4 + 0.2 * np.log10(np.maximum(area, 1.0) / 30.0), 0.1)
    score = (weight * np.log((density + strange) * table.span_kev)).sum(axis=1)
    seen = (np.abs(distance) < _BETA_TOLERANCE_KEV).any(axis=2)
    wanted = (at_alpha > 0.6) & (_BETA_RATIO * z > _BETA_Z) & (betas - alphas > _LEAST_SPLIT_KEV)[nearest]
    score = score + _NO_BETA * (wanted & ~seen & (beta_kev < last_kev[:, None])).any(axis=1)
    if elastic:
        top = table.incident_kev
        scattered = ((energy > _SCATTER_FROM * top) & (energy < top + _ABOVE_KEV)).any(axis=1)
        score = score + _NO_ELASTIC * (~scattered & (last_kev > top))
    total: Array = score
    return total


def _sum_density(energy: Array, area: Array) -> Array:
    """(axis, peak) density of the sums of every two of the strongest peaks."""
    height = 1.0 / (0.03 * np.sqrt(2.0 * np.pi))
    density = np.zeros_like(energy)
    weak = area < _SUM_RATIO * area[:1]
    parents = range(min(_SUM_PARENTS, energy.shape[1]))
    for i in parents:
        for j in range(i + 1):
            off = energy - energy[:, i : i + 1] - energy[:, j : j + 1]
            density = np.maximum(density, np.exp(-0.5 * np.minimum((off / 0.03) ** 2, 80.0)) * height)
    return density * weak


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
