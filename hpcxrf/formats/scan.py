"""The result of every reader: one scan, its small facts in memory and its spectra on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.notes import Note

FloatMap = NDArray[np.float64]

LARGEST_COUNT: Final = 65535
"""Largest count of 16 bits, which a detector writes for whatever is more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyCalibration:
    """Energy of a channel: `offset + slope * channel + quadratic * channel**2`, channels from 0."""

    offset_kev: float
    slope_kev: float
    """keV per channel, positive."""
    quadratic_kev: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Facts that a user may have to add to a file that lacks them."""

    dataset_path: str | tuple[str, ...] | None = None
    """Path of the array inside an HDF5, Zarr or npz file; a pattern or several paths: one array a detector."""
    energy_axis: int | None = None
    """Axis of the channels in that array; the others are (detector,) y, x in their order."""
    detector_axis: int | None = None
    """Axis of the detectors in that array."""
    map_shape: tuple[int, int] | None = None
    """Rows and columns of a scan that is stored as a list of points."""
    positions: tuple[str, str] | None = None
    """Paths of the arrays of x and y positions, one value a point."""
    energy_offset_kev: float | None = None
    energy_slope_kev: float | None = None
    allow_external: bool = False
    """Follow external links and virtual datasets of HDF5 files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanScalars:
    """Everything measured beside the spectra; NaN where a pixel was not measured."""

    live_time_s: FloatMap | None = None
    """(detector, y, x): real time * OCR / ICR where the file has rates or counts."""
    real_time_s: FloatMap | None = None
    """(detector, y, x)."""
    icr_hz: FloatMap | None = None
    """(detector, y, x): input count rate."""
    ocr_hz: FloatMap | None = None
    """(detector, y, x): output count rate."""
    scaler_names: tuple[str, ...] = ()
    scaler_units: tuple[str, ...] = ()
    scaler_values: FloatMap | None = None
    """(scaler, y, x)."""
    x_um: FloatMap | None = None
    """(y, x): stage position, micrometres."""
    y_um: FloatMap | None = None
    """(y, x)."""
    measured: NDArray[np.bool_] | None = None
    """(y, x): False where a scan that stopped half-way has no spectrum; None means all measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawScan:
    """One scan as the instrument left it. Opening one reads headers only."""

    name: str
    """Stem of the file, for people."""
    format: str
    """Name of the format, as `inspect` prints it: `mda`, `mda-fly`, `maps-v10`, `epics-mca` ..."""
    files: tuple[Path, ...]
    """All files that the scan consists of; the first is the one that was named."""
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    dtype: np.dtype[np.generic]
    """Type of the stored counts."""
    rows_per_read: int
    """Rows that one read takes most cheaply (chunks of the file), with bounded memory."""
    read_counts: Callable[[slice], NDArray[np.generic]]
    """`read_counts(rows)` gives (detector, rows, x, channel) of a contiguous slice of rows; safe to call
    from several threads; raises InputFileError where the file ends early or holds a negative or NaN."""
    read_scalars: Callable[[], ScanScalars]
    calibration: tuple[EnergyCalibration, ...] | None = None
    """One per detector, or None when the file gives none."""
    incident_energy_kev: float | None = None
    tube: str | None = None
    """X-ray tube that the file names as source: such a scan has no single incident energy."""
    notes: tuple[Note, ...] = ()
    """Guesses made, files ignored, rows missing, shown by `inspect` and kept."""
