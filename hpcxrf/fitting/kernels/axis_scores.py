"""Kernels: how probable energy axes are by the energies that they give to the peaks of a spectrum."""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import axis_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

SCORE_POSITIONS: Final = "void(float64[::1], float64[::1], float64[::1], float64[:,::1], float64[::1], float64[::1])"
SCORE_PARTNERS: Final = (
    "void(float64[::1], float64[::1], float64[:,::1], float64[:,::1], float64[::1], float64[::1], float64[:,::1], "
    "float64[::1])"
)
"""Signatures of the kernels."""
_U: Final = np.uint64

# Rows of room.
_ENERGY: Final = 0
_AT_ALPHA: Final = 1
_BETA_KEV: Final = 2
_DENSITY: Final = 3
_SPLIT: Final = 4

# Partners: share, standard deviation, and how large the partner may be.
_BETA_SHARE: Final = 0.55
_PARTNER_SD_KEV: Final = 0.025
_BETA_RATIOS: Final = (1.7, 50.0)
_ESCAPE_SHARE: Final = 0.08
_ESCAPE_KEV: Final = 1.742
_ESCAPE_RATIO: Final = 0.04
_OTHER_SD_KEV: Final = 0.03
_SUM_SHARE: Final = 0.05
_SUM_RATIO: Final = 0.05
_SUM_PARENTS: Final = _U(4)
_AT_LINE_KEV: Final = 0.06
_NO_BETA: Final = -3.0
_BETA_TOLERANCE_KEV: Final = 0.08
_BETA_RATIO: Final = 0.12
_BETA_Z: Final = 12.0
_IS_ALPHA: Final = 0.6
_LEAST_SPLIT_KEV: Final = 0.25
_NO_ELASTIC: Final = -2.5
_SCATTER_FROM: Final = 0.87
# Standard deviations after which a partner is none.
_FARTHEST: Final = 9.0
_PER_SD: Final = 1.0 / math.sqrt(2.0 * math.pi)


@kernel(SCORE_POSITIONS)
def score_positions(offset: Array, slope: Array, channel: Array, logs: Array, numbers: Array, score: Array) -> None:
    """Add up the logarithms of the densities at the energies of the peaks.

    Args:
        offset: (axis,) keV.
        slope: (axis,) keV per channel.
        channel: (peak,).
        logs: (peak, energy + 2): the first and the last are for what is beyond the table.
        numbers: (number,) of which the first energy of the table and its step are used.
        score: (axis,) written.
    """
    per_kev, last = 1.0 / numbers[at.STEP_KEV], float(logs.shape[1] - 1)
    begin = 1.5 - numbers[at.LOWEST_KEV] * per_kev
    for a in range(_U(offset.shape[0])):
        total = 0.0
        for p in range(_U(channel.shape[0])):
            place = (offset[a] + slope[a] * channel[p]) * per_kev + begin
            total += logs[p, _U(min(max(place, 0.0), last))]
        score[a] = total


@part
def _find_nearest(alphas: Array, energy: Number) -> Number:
    """The line nearest to an energy; they rise."""
    low, high = _U(0), _U(alphas.shape[0] - 1)
    while low < high:
        middle = (low + high) >> _U(1)
        if 0.5 * (alphas[middle] + alphas[middle + _U(1)]) < energy:
            low = middle + _U(1)
        else:
            high = middle
    return low


@part
def _draw_peak(distance: Number, sd: Number) -> Number:
    """A Gaussian of height 1; nothing far out."""
    u = distance / sd
    return math.exp(-0.5 * u * u) if abs(u) < _FARTHEST else 0.0


@part
def _place_peaks(
    offset: Number, slope: Number, peaks: Array, lines: Array, density: Array, numbers: Array, room: Array
) -> None:
    """Energies of the peaks, the density there, and where the K-beta line of each would be."""
    for p in range(_U(peaks.shape[1])):
        energy = offset + slope * peaks[at.CHANNEL, p]
        line = _find_nearest(lines[0], energy)
        off = energy - lines[0, line]
        room[_ENERGY, p], room[_BETA_KEV, p] = energy, lines[1, line] + off
        room[_AT_ALPHA, p] = _draw_peak(off, _PARTNER_SD_KEV) if abs(off) < _AT_LINE_KEV else 0.0
        room[_SPLIT, p] = lines[1, line] - lines[0, line]
        place = np.rint((energy - numbers[at.LOWEST_KEV]) / numbers[at.STEP_KEV])
        room[_DENSITY, p] = 0.0
        if place >= 0.0 and place < float(density.shape[0]):
            room[_DENSITY, p] = density[_U(place)]
        if energy > numbers[at.INCIDENT_KEV] + at.ABOVE_KEV:
            room[_DENSITY, p] += peaks[at.ABOVE, p]


@part
def _find_sum(q: Number, peaks: Array, energy: Array) -> Number:
    """How near a faint peak is to the sum of two of the strongest."""
    if peaks[at.AREA, q] >= _SUM_RATIO * peaks[at.AREA, 0]:
        return 0.0
    found = 0.0
    for i in range(min(_SUM_PARENTS, _U(peaks.shape[1]))):
        for j in range(i + _U(1)):
            found = max(found, _draw_peak(energy[q] - energy[i] - energy[j], _OTHER_SD_KEV))
    return found


@part
def _explain_peak(q: Number, peaks: Array, room: Array) -> Number:
    """Density at a peak that others add: as a K-beta line, an escape peak or pile-up of theirs."""
    energy, beta, escape = room[_ENERGY], 0.0, 0.0
    for p in range(_U(peaks.shape[1])):
        ratio = peaks[at.AREA, p] / peaks[at.AREA, q]
        if ratio > _BETA_RATIOS[0] and ratio < _BETA_RATIOS[1] and room[_AT_ALPHA, p] > 0.0:
            beta = max(beta, room[_AT_ALPHA, p] * _draw_peak(energy[q] - room[_BETA_KEV, p], _PARTNER_SD_KEV))
        if ratio * _ESCAPE_RATIO > 1.0:
            escape = max(escape, _draw_peak(energy[q] - energy[p] + _ESCAPE_KEV, _OTHER_SD_KEV))
    near = (_BETA_SHARE * beta + _ESCAPE_SHARE * escape) * (_PER_SD / _PARTNER_SD_KEV)
    return near + _SUM_SHARE * _find_sum(q, peaks, energy) * (_PER_SD / _OTHER_SD_KEV)


@part
def _lacks_beta(last_kev: Number, peaks: Array, room: Array) -> Number:
    """Whether a strong peak at a K-alpha line has no K-beta line where the spectrum would show it."""
    for p in range(_U(peaks.shape[1])):
        strong = _BETA_RATIO * peaks[at.Z, p] > _BETA_Z and room[_SPLIT, p] > _LEAST_SPLIT_KEV
        if room[_AT_ALPHA, p] > _IS_ALPHA and strong and room[_BETA_KEV, p] < last_kev:
            seen = False
            for q in range(_U(peaks.shape[1])):
                seen = seen or abs(room[_ENERGY, q] - room[_BETA_KEV, p]) < _BETA_TOLERANCE_KEV
            if not seen:
                return True
    return False


@kernel(SCORE_PARTNERS)
def score_partners(
    offset: Array, slope: Array, peaks: Array, lines: Array, density: Array, numbers: Array, room: Array, score: Array
) -> None:
    """Score axes by peaks and those that belong to them; strong K-alpha lines must have their K-beta line.

    Args:
        offset: (axis,) keV.
        slope: (axis,) keV per channel.
        peaks: (row, peak), the strongest first.
        lines: (2, line) K-alpha and K-beta energies, keV; K-alpha rises.
        density: (energy,) 1/keV, from the lowest energy in steps.
        numbers: (number,).
        room: (row, peak).
        score: (axis,) written.
    """
    top = numbers[at.INCIDENT_KEV]
    for a in range(_U(offset.shape[0])):
        _place_peaks(offset[a], slope[a], peaks, lines, density, numbers, room)
        last_kev, total, scattered = offset[a] + slope[a] * numbers[at.N_CHANNELS], 0.0, False
        for q in range(_U(peaks.shape[1])):
            weight = max(0.4 + 0.2 * math.log10(max(peaks[at.AREA, q], 1.0) / 30.0), 0.1)
            found = room[_DENSITY, q] + _explain_peak(q, peaks, room) + peaks[at.STRANGE, q]
            total += weight * math.log(found * numbers[at.SPAN_KEV])
            scattered = scattered or (room[_ENERGY, q] > _SCATTER_FROM * top and room[_ENERGY, q] < top + at.ABOVE_KEV)
        if _lacks_beta(last_kev, peaks, room):
            total += _NO_BETA
        if numbers[at.IS_ELASTIC] > 0.0 and not scattered and last_kev > top:
            total += _NO_ELASTIC
        score[a] = total
