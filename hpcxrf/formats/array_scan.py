"""A scan whose spectra are arrays of a container: one for all detectors, or one a detector, read by rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container, Entry, decode_texts
from hpcxrf.formats.axes import Axes, arrange_counts, choose_calibration, describe_calibration, select_region
from hpcxrf.formats.grid import Grid, find_points, lay_out
from hpcxrf.formats.hdf5_files import check_rows, refuse_bad_counts, refuse_large_rows, rows_per_block
from hpcxrf.formats.scan import EnergyCalibration, FloatMap, RawScan, ReadOptions, ScanScalars
from hpcxrf.notes import Note

UNITS_UM: Final = {
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "nm": 1e-3,
    "m": 1e6,
}
"""Micrometres per unit of length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayScan:
    """Spectra as arrays of a container, and what belongs to them."""

    container: Container
    format: str
    counts: tuple[Entry, ...]
    """One array for all detectors, or one a detector."""
    axes: Axes
    """Of each of them."""
    grid: Grid | None = None
    """Rows and columns where axis `y` is a list of points."""
    n_rows: int | None = None
    """Rows that are in all arrays, where one is longer; None: all."""
    calibration: tuple[EnergyCalibration, ...] | None = None
    """One a detector."""
    incident_energy_kev: float | None = None
    tube: str | None = None
    read_scalars: Callable[[], ScanScalars] = ScanScalars
    notes: tuple[Note, ...] = ()

    @property
    def where(self) -> str:
        """File and path of the first array, for messages."""
        return f"{self.container.path}: {self.counts[0].path}".removesuffix(": ")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(detector, y, x, channel)."""
        stored = self.counts[0].shape
        detector, y, x, channel = (1 if i is None else stored[i] for i in self.axes.order)
        if self.n_rows is not None:
            y = self.n_rows
        if self.grid is not None:
            y, x = self.grid.shape
        return detector * len(self.counts), y, x, channel


def build_raw_scan(scan: ArrayScan, options: ReadOptions) -> RawScan:
    """Make the scan that the rest of the program reads.

    Raises:
        InputFileError: an energy that does not rise, or rows so long that the file must be damaged.
    """
    n_detectors, n_rows, n_columns, n_channels = scan.shape
    dtype = np.result_type(*(entry.dtype for entry in scan.counts)).newbyteorder("=")
    row_bytes = n_detectors * n_columns * n_channels * dtype.itemsize
    refuse_large_rows(scan.container.path, scan.shape, row_bytes)
    # Twice: whoever takes a block may copy it into its own order.
    height = rows_per_block(row_bytes=2 * row_bytes, chunk_rows=_count_chunk_rows(scan), height=n_rows)
    text = f"another program appends to this file (SWMR): rows 0 to {n_rows - 1} are read, as when it was opened"
    growing = [Note("warning", text)] if scan.container.growing else []
    return RawScan(
        name=scan.container.path.stem,
        format=scan.format,
        files=(scan.container.path,),
        shape=scan.shape,
        dtype=dtype,
        rows_per_read=height,
        read_counts=lambda rows: _read_counts(scan, rows),
        read_scalars=lambda: _read_scalars(scan),
        calibration=choose_calibration(scan.where, scan.calibration, options, n_detectors, n_channels),
        incident_energy_kev=scan.incident_energy_kev,
        tube=scan.tube,
        notes=(*scan.notes, *growing, *describe_calibration(options)),
    )


def _count_chunk_rows(scan: ArrayScan) -> int:
    chunks, axis = scan.counts[0].chunks, scan.axes.y
    if chunks is None or axis is None:
        return 1
    return chunks[axis] if scan.grid is None else max(1, chunks[axis] // scan.grid.shape[1])


def _read_counts(scan: ArrayScan, rows: slice) -> NDArray[np.generic]:
    path = scan.container.path
    wanted = check_rows(path, rows, scan.shape[1])
    if wanted.start == wanted.stop:
        dtype = np.result_type(*(entry.dtype for entry in scan.counts)).newbyteorder("=")
        return np.zeros((scan.shape[0], 0, *scan.shape[2:]), dtype)
    stored = wanted if scan.grid is None else find_points(scan.grid, wanted)
    blocks = [_read_array(scan, entry, stored) for entry in scan.counts]
    block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if scan.grid is not None:
        block = lay_out(block[:, :, 0], scan.grid, wanted, axis=1)
    for detector, spectra in enumerate(block):
        refuse_bad_counts(spectra, path=path, detector=detector, first_row=wanted.start)
    return block


def _read_array(scan: ArrayScan, entry: Entry, rows: slice) -> NDArray[Any]:
    """(detector, y, x, channel) of one array."""
    return arrange_counts(scan.container.read(entry, select_region(entry.shape, scan.axes, rows)), scan.axes)


def _read_scalars(scan: ArrayScan) -> ScanScalars:
    scalars = scan.read_scalars()
    if scan.grid is None or scalars.measured is not None:
        return scalars
    measured = scan.grid.measured
    return scalars if measured.all() else replace(scalars, measured=measured)


def read_map(container: Container, entry: Entry, n_rows: int, grid: Grid | None) -> FloatMap:
    """(y, x) of one value a pixel, or one a point of a list; NaN where a point was not measured."""
    values = container.read(entry, (slice(0, n_rows), *(slice(0, n) for n in entry.shape[1:]))).astype(np.float64)
    if grid is not None:
        return lay_out(values.reshape(-1), grid, fill=np.nan)
    return values.reshape(n_rows, -1)


def stack_maps(maps: Sequence[FloatMap | None]) -> FloatMap | None:
    """(detector, y, x), or None where one detector has none."""
    known = [m for m in maps if m is not None]
    return np.stack(known) if known and len(known) == len(maps) else None


def find_unit_um(entry: Entry) -> float | None:
    """Micrometres per unit of positions; None where the file gives no unit of length."""
    unit = " ".join(decode_texts(entry.attributes.get("units"))).strip().lower()
    return UNITS_UM.get(unit)


def require_one_shape(container: Container, entries: Sequence[Entry], remedy: str) -> int | None:
    """Rows that all arrays have; None where they are of one shape.

    Raises:
        InputFileError: their other axes differ.
    """
    first = entries[0]
    faults = [f"{e.path} {e.shape}" for e in entries if e.shape[1:] != first.shape[1:] or not e.shape]
    if faults:
        raise InputFileError(
            f"{container.path}: the detectors of one scan must have one shape: {first.path} {first.shape}, "
            f"{', '.join(faults)}; {remedy}"
        )
    lengths = {e.shape[0] for e in entries}
    return None if len(lengths) == 1 else min(lengths)


def make_calibration(offset_kev: float, slope_kev: float, quadratic_kev: float = 0.0) -> EnergyCalibration:
    """A calibration of numbers in this order."""
    return EnergyCalibration(offset_kev=offset_kev, slope_kev=slope_kev, quadratic_kev=quadratic_kev)
