"""Meaning of the axes of a stored array, and its energy calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions
from hpcxrf.notes import Note

MAX_RANK: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Axes of a stored array by meaning; None where the array lacks one, whose length is then 1."""

    detector: int | None
    y: int | None
    x: int | None
    energy: int
    notes: tuple[Note, ...]

    @property
    def order(self) -> tuple[int | None, int | None, int | None, int]:
        """Stored axis of detector, y, x, channel."""
        return self.detector, self.y, self.x, self.energy


def select_region(shape: tuple[int, ...], axes: Axes, rows: slice) -> tuple[slice, ...]:
    """Region of the stored array that holds the rows."""
    return tuple(rows if i == axes.y else slice(0, n) for i, n in enumerate(shape))


def arrange_counts(block: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """A stored region as (detector, y, x, channel), native byte order."""
    present = [i for i in axes.order if i is not None]
    missing = tuple(k for k, i in enumerate(axes.order) if i is None)
    ordered = np.expand_dims(block.transpose(present), missing)
    return ordered.astype(ordered.dtype.newbyteorder("="), copy=False)


def choose_calibration(
    where: str, stored: Sequence[EnergyCalibration] | None, options: ReadOptions, n_detectors: int, n_channels: int
) -> tuple[EnergyCalibration, ...] | None:
    """Calibration of each detector: the file's, with what the user gives in its place.

    A slope that the user gives also sets the quadratic term to 0, which belongs to the file's slope.

    Raises:
        InputFileError: an energy axis that does not rise over all channels.
    """
    if stored is None and options.energy_slope_kev is None:
        return None
    one = EnergyCalibration(offset_kev=0.0, slope_kev=1.0)
    result = tuple(_apply_options(c, options) for c in (stored or (one,) * n_detectors))
    faults = [
        f"detector {d}: slope {c.slope_kev:g}, quadratic {c.quadratic_kev:g}"
        for d, c in enumerate(result)
        if not _rises(c, n_channels)
    ]
    if faults:
        raise InputFileError(
            f"{where}: the energy does not rise with the channel ({'; '.join(faults)}); give the right ones with "
            "--energy-slope and --energy-offset (keV)"
        )
    return result


def _apply_options(c: EnergyCalibration, options: ReadOptions) -> EnergyCalibration:
    slope, offset = options.energy_slope_kev, options.energy_offset_kev
    return EnergyCalibration(
        offset_kev=c.offset_kev if offset is None else offset,
        slope_kev=c.slope_kev if slope is None else slope,
        quadratic_kev=c.quadratic_kev if slope is None else 0.0,
    )


def _rises(c: EnergyCalibration, n_channels: int) -> bool:
    """True where the derivative is positive at both ends; False for a NaN."""
    at_end = c.slope_kev + 2.0 * c.quadratic_kev * (n_channels - 1)
    return bool(np.isfinite(c.offset_kev) and 0.0 < c.slope_kev < np.inf and 0.0 < at_end < np.inf)


def describe_calibration(options: ReadOptions) -> tuple[Note, ...]:
    """A sentence for each number of the calibration that the user gave."""
    given = (("offset", options.energy_offset_kev), ("slope", options.energy_slope_kev))
    return tuple(
        Note("fact", f"energy {name} set to {v:g} keV by --energy-{name}") for name, v in given if v is not None
    )


def file_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        InputFileError: it is missing, unreadable or empty.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror}; check its name and rights") from error
    if size == 0:
        raise InputFileError(f"{path}: is empty (0 bytes); copy it again or exclude it")
    return size
