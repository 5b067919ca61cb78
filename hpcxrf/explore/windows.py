"""A scan before any fit: maps of all counts, and of the counts in windows around the strongest line of each element.

A window tells where counts are, not whose: what lies under a line, and lines of other elements beside it, count, too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xraylib
from numpy.typing import NDArray

from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.store.spectra import SpectraStore

FloatArray = NDArray[np.float64]

MOST_WINDOWS: Final = 22
_FAMILIES: Final = (("", xraylib.KA1_LINE, range(13, 47)), ("_L", xraylib.LA1_LINE, range(44, 93)))
"""Suffix of the name, line, and atomic numbers of the families that are looked for."""
_NOT_MEASURED: Final = frozenset({43, 61, 84, 85, 86, 87, 88, 89, 91})
"""Elements without stable isotopes, which samples do not have."""
_NOISE_KEV: Final = 0.1
"""Width of a peak at no energy (FWHM); that of a usual silicon detector, as is what it gains with the energy."""
_FANO_KEV: Final = 0.0025
_LOWEST_KEV: Final = 1.2
_CERTAIN: Final = 8.0
"""Standard deviations by which a window must exceed what lies beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Energies around a line, as wide as a peak is at half of its height."""

    name: str
    """Name of the family, as of a component."""
    low_kev: float
    high_kev: float

    def channels(self, calibration: EnergyCalibration, n_channels: int) -> slice:
        """Channels whose energy lies in the window."""
        inside = np.flatnonzero(np.abs(channel_energies_kev(calibration, n_channels) - self._middle) <= self._half)
        return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)

    @property
    def _middle(self) -> float:
        return (self.low_kev + self.high_kev) / 2

    @property
    def _half(self) -> float:
        return (self.high_kev - self.low_kev) / 2


def channel_energies_kev(calibration: EnergyCalibration, n_channels: int) -> FloatArray:
    """Energy of every channel, (channel,)."""
    channel = np.arange(n_channels, dtype=np.float64)
    energy_kev: FloatArray = (
        calibration.offset_kev + calibration.slope_kev * channel + calibration.quadratic_kev * channel**2
    )
    return energy_kev


def choose_windows(
    integrated: FloatArray, calibration: Sequence[EnergyCalibration], incident_energy_kev: float | None
) -> tuple[Window, ...]:
    """Choose the families whose strongest line stands out of the integrated spectra, at most 22, by atomic number.

    An L line beside a K line of a chosen element is left out: light elements are more usual.

    Args:
        integrated: (detector, channel).
        calibration: calibration of each detector.
        incident_energy_kev: lines above it are not looked for; None: it is not known.
    """
    found: list[tuple[float, int, Window]] = []
    light_kev: list[float] = []
    for suffix, line, numbers in _FAMILIES:
        for z in numbers:
            energy_kev = 0.0 if z in _NOT_MEASURED else xraylib.LineEnergy(z, line)
            if not _LOWEST_KEV <= energy_kev < (incident_energy_kev or np.inf):
                continue
            half = _width_kev(energy_kev) / 2
            window = Window(
                name=f"{xraylib.AtomicNumberToSymbol(z)}{suffix}", low_kev=energy_kev - half, high_kev=energy_kev + half
            )
            taken = suffix and any(abs(one - energy_kev) < 2 * half for one in light_kev)
            excess = 0.0 if taken else _find_excess(integrated, calibration, window)
            if excess > _CERTAIN:
                found.append((excess, z, window))
                light_kev += [] if suffix else [energy_kev, xraylib.LineEnergy(z, xraylib.KB1_LINE)]
    best = sorted(found, key=lambda one: -one[0])[:MOST_WINDOWS]
    return tuple(window for _, _, window in sorted(best, key=lambda one: one[1]))


def sum_windows(
    counts: SpectraStore, detectors: Sequence[int], windows: Sequence[Window], calibration: Sequence[EnergyCalibration]
) -> NDArray[np.float32]:
    """Add up the counts of every pixel: all of them, then those in each window.

    Args:
        counts: of the scan.
        detectors: numbers of those that are added up.
        windows: windows.
        calibration: calibration of each detector; may be empty where there are no windows.

    Returns:
        (1 + window, y, x).
    """
    _, n_y, n_x, n_channels = counts.shape
    total = np.zeros((1 + len(windows), n_y, n_x))
    for detector in detectors:
        parts = [slice(None), *(window.channels(calibration[detector], n_channels) for window in windows)]
        for y, x in _list_blocks((n_y, n_x), counts.chunks[1:3]):
            block = counts.read_rows([detector], y, x)[0]
            for place, part in enumerate(parts):
                total[place, y, x] += block[..., part].sum(axis=-1, dtype=np.float64)
    return total.astype(np.float32)


def _find_excess(integrated: FloatArray, calibration: Sequence[EnergyCalibration], window: Window) -> float:
    """By how much a window exceeds the mean of its neighbours, in standard deviations; of all detectors together."""
    width, inside, beside = window.high_kev - window.low_kev, 0.0, 0.0
    for spectrum, one in zip(integrated, calibration, strict=True):
        for shift, is_inside in ((-1.25, False), (0.0, True), (1.25, False)):
            moved = Window(
                name="", low_kev=window.low_kev + shift * width, high_kev=window.high_kev + shift * width
            ).channels(one, spectrum.size)
            if moved.stop - moved.start < 2:
                return 0.0
            counted = float(spectrum[moved].mean()) * width / one.slope_kev
            inside, beside = (inside + counted, beside) if is_inside else (inside, beside + counted / 2)
    return (inside - beside) / math.sqrt(max(inside + beside / 2, 1.0))


def _width_kev(energy_kev: float) -> float:
    """Full width of a peak at half of its height."""
    return math.sqrt(_NOISE_KEV**2 + _FANO_KEV * energy_kev)


def _list_blocks(shape_yx: tuple[int, int], step_yx: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """All chunks of the counts, clipped to the scan."""
    (n_y, n_x), (step_y, step_x) = shape_yx, step_yx
    for y in range(0, n_y, step_y):
        for x in range(0, n_x, step_x):
            yield slice(y, min(y + step_y, n_y)), slice(x, min(x + step_x, n_x))
