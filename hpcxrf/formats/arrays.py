"""Spectra as plain arrays in npy, npz, HDF5 and Zarr; what the file does not say is guessed, and the guess is noted."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats import layout_bliss
from hpcxrf.formats.array_choice import CALIBRATION, ENERGY_AXES, POSITIONS, SCALERS, TIMES, choose_spectra
from hpcxrf.formats.array_containers import (
    READ_FAULTS,
    ZARR_SIGNS,
    ZIP_SIGNATURE,
    Container,
    Entry,
    decode_texts,
    open_hdf5_arrays,
    open_npy,
    open_npz,
    open_zarr_arrays,
)
from hpcxrf.formats.array_grid import Placement, find_placement
from hpcxrf.formats.array_hints import collect_hints
from hpcxrf.formats.array_scan import ArrayScan, build_raw_scan, make_calibration, require_one_shape
from hpcxrf.formats.axis_rules import guess_axes
from hpcxrf.formats.hyperspy import SignalAxes, lay_out_positions, read_axes
from hpcxrf.formats.room import require_room
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.signatures import NPY_SIGNATURE, is_hdf5
from hpcxrf.formats.table import FileFormat
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(name="npy", files="NumPy .npy", reads="one array of counts; axis by --energy-slope and --energy-offset"),
    FileFormat(
        name="npz",
        files="NumPy .npz",
        reads="an array of counts, chosen by --dataset-path; axis, times, positions, scalers beside it",
    ),
    FileFormat(
        name="hdf5-array",
        files="any HDF5 .h5 .hdf5 .nxs, also NeXus",
        reads="an array of counts, chosen by its signal or --dataset-path; axis, times, positions, scalers beside it",
    ),
    FileFormat(
        name="zarr-array",
        files="Zarr .zarr",
        reads="an array of counts, chosen by its signal or --dataset-path; axis, times, positions, scalers beside it",
    ),
    FileFormat(name="hyperspy", files="HyperSpy .hspy .zspy", reads="a map, line or spectrum; axis, positions"),
)
_EV_ABOVE: Final = 200.0
_MOST_SCALERS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Arrays of spectra and what belongs to them."""

    container: Container
    entry: Entry
    """The first array of spectra."""
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel) of the scan."""
    found: Mapping[str, Entry]
    """Arrays beside it by name, of the right shape."""
    placement: Placement
    signal: SignalAxes | None
    """Axes as HyperSpy describes them."""
    channel_name: str
    """Name of the axis of the channels; empty where it has none."""

    @property
    def where(self) -> str:
        return f"{self.container.path}: {self.entry.path}".removesuffix(": ")


def sniff(path: Path, head: bytes) -> bool:
    """True for npy, npz with arrays, any HDF5 file and any Zarr folder; ask the other readers first."""
    if path.is_dir():
        return any((path / sign).is_file() for sign in ZARR_SIGNS)
    if head.startswith(ZIP_SIGNATURE):
        return _is_npz(path)
    return head.startswith(NPY_SIGNATURE) or is_hdf5(head)


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Open arrays of spectra; only headers are read, and positions where points have to be laid out.

    Raises:
        InputFileError: the file cannot be read; no array that can be spectra, or several; a rank above 4; axes that
            can be read in two ways; an energy that does not rise.
    """
    container = _open_container(path, options)
    named = None if options.dataset_path is None else layout_bliss.find_requested(container, options)
    return build_raw_scan(named or find_scan(container, options), options)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except READ_FAULTS:
        # Cut off or damaged: its index is at its end.
        return path.suffix == ".npz"


def _open_container(path: Path, options: ReadOptions) -> Container:
    if path.is_dir():
        return open_zarr_arrays(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(NPY_SIGNATURE))
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror}; check its name and rights") from error
    if head == NPY_SIGNATURE:
        return open_npy(path)
    if head.startswith(ZIP_SIGNATURE):
        return open_npz(path)
    return open_hdf5_arrays(path, options.dataset_path, allow_external=options.allow_external)


def find_scan(container: Container, options: ReadOptions) -> ArrayScan:
    """Choose the spectra of a container and describe them.

    Raises:
        InputFileError: as `open_file`.
    """
    counts, notes = choose_spectra(container, options.dataset_path)
    entry = counts[0]
    signal = read_axes(container, entry)
    where = f"{container.path}: {entry.path}".removesuffix(": ")
    hints = collect_hints(container, entry, signal)
    axes = guess_axes(where, entry.shape, hints, options)
    n_rows = _find_common_rows(container, counts, axes.detector, axes.y)
    bare = ArrayScan(container=container, format=container.format, counts=counts, axes=axes, n_rows=n_rows)
    placement = find_placement(bare, options)
    scan = replace(bare, grid=placement.grid)
    found, misfits = _find_neighbours(container, entry, scan.shape)
    named = hints.names is not None and len(hints.names) == len(entry.shape)
    parts = _Parts(
        container=container,
        entry=entry,
        shape=scan.shape,
        found=found,
        placement=placement,
        signal=signal,
        channel_name=hints.names[axes.energy] if named and hints.names is not None else "",
    )
    calibration, energy_notes = _read_calibration(parts, options)
    tube = entry.attributes.get("tube")
    source = None if tube is None else ", ".join(decode_texts(tube))
    source_notes = [] if source is None else [Note("fact", f"the file names a tube as source: {source}")]
    several = _describe_detectors(counts)
    return replace(
        scan,
        format=container.format if signal is None else "hyperspy",
        calibration=calibration,
        incident_energy_kev=_read_incident_kev(parts),
        tube=source,
        read_scalars=lambda: _read_scalars(parts),
        notes=(*notes, *several, *axes.notes, *placement.notes, *misfits, *energy_notes, *source_notes),
    )


def _describe_detectors(counts: tuple[Entry, ...]) -> list[Note]:
    names = ", ".join(entry.path for entry in counts)
    return [Note("fact", f"{len(counts)} arrays, one a detector: {names}")] if len(counts) > 1 else []


def _find_common_rows(
    container: Container, counts: tuple[Entry, ...], detector: int | None, rows: int | None
) -> int | None:
    """Rows that all arrays have; None for one array, or arrays of one shape."""
    if len(counts) == 1:
        return None
    remedy = "name arrays of one shape with --dataset-path"
    if detector is not None:
        raise InputFileError(
            f"{container.path}: {counts[0].path} has an axis of detectors, so it cannot be one detector of several; "
            "name one array with --dataset-path"
        )
    if rows == 0:
        return require_one_shape(container, counts, remedy)
    if len({e.shape for e in counts}) > 1:
        shapes = ", ".join(f"{e.path} {e.shape}" for e in counts)
        raise InputFileError(f"{container.path}: the detectors of one scan must have one shape: {shapes}; {remedy}")
    return None


def _find_neighbours(
    container: Container, entry: Entry, shape: tuple[int, int, int, int]
) -> tuple[dict[str, Entry], list[Note]]:
    """Arrays beside the spectra that belong to them, and what does not fit."""
    wanted: dict[str, tuple[int | None, ...]] = dict.fromkeys(TIMES, shape[:3])
    wanted |= dict.fromkeys(POSITIONS, shape[1:3])
    wanted |= dict.fromkeys(ENERGY_AXES, shape[3:])
    wanted |= {CALIBRATION: (shape[0], 3), "scaler_values": (None, *shape[1:3])}
    wanted |= {"scaler_names": (None,), "scaler_units": (None,)}
    found, misfits = {}, []
    for name, expected in wanted.items():
        neighbour = container.entries.get(entry.find_neighbour(name))
        if neighbour is None or neighbour is entry:
            continue
        if _has_shape(neighbour, expected):
            found[name] = neighbour
        else:
            text = f"{neighbour.path} is not used: {neighbour.dtype} {neighbour.shape}, not {expected}"
            misfits.append(Note("warning", text))
    return found, misfits


def _has_shape(entry: Entry, expected: tuple[int | None, ...]) -> bool:
    """Same shape, axes of length 1 aside; text is checked where it is read."""
    if entry.name in SCALERS[:2]:
        return len(entry.shape) == 1 and entry.dtype.kind in "SUTO" and entry.shape[0] <= _MOST_SCALERS
    if entry.dtype.kind not in "iuf":
        return False
    if None in expected:
        return len(entry.shape) == len(expected) and entry.shape[1:] == expected[1:]
    return [n for n in entry.shape if n != 1] == [n for n in expected if n != 1]


def _read_whole(parts: _Parts, name: str) -> NDArray[Any] | None:
    entry = parts.found.get(name)
    if entry is None:
        return None
    where = f"{parts.container.path}: {entry.path}"
    require_room(where, f"shape {entry.shape}", math.prod(entry.shape) * entry.dtype.itemsize, [parts.container.path])
    return parts.container.read(entry, tuple(slice(0, n) for n in entry.shape))


def _read_numbers(parts: _Parts, name: str, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    values = _read_whole(parts, name)
    return None if values is None else values.astype(np.float64).reshape(shape)


def _read_scalars(parts: _Parts) -> ScanScalars:
    times = {name: _read_numbers(parts, name, parts.shape[:3]) for name in TIMES}
    placed = parts.placement.read_positions()
    if parts.signal is not None:
        placed = lay_out_positions(parts.signal.steps_um, parts.shape[1:3])
    x_um, y_um = (_read_position_um(parts, axis) for axis in "xy")
    return replace(
        _read_scalers(parts),
        live_time_s=times["live_time_s"],
        real_time_s=times["real_time_s"],
        icr_hz=times["icr_hz"],
        ocr_hz=times["ocr_hz"],
        x_um=placed.get("x_um") if x_um is None else x_um,
        y_um=placed.get("y_um") if y_um is None else y_um,
    )


def _read_scalers(parts: _Parts) -> ScanScalars:
    values = _read_whole(parts, "scaler_values")
    if values is None or values.shape[0] == 0:
        return ScanScalars()
    count = values.shape[0]
    names = decode_texts(_read_whole(parts, "scaler_names"))
    units = decode_texts(_read_whole(parts, "scaler_units")) or ("",) * count
    if len(names) != count or len(units) != count:
        raise InputFileError(
            f"{parts.container.path}: {count} scalers, but {len(names)} scaler_names and {len(units)} "
            "scaler_units; must be one each"
        )
    return ScanScalars(scaler_names=names, scaler_units=units, scaler_values=values.astype(np.float64))


def _read_position_um(parts: _Parts, axis: str) -> NDArray[np.float64] | None:
    """(y, x) in micrometres."""
    for name in (f"{axis}_um", f"{axis}_mm"):
        values = _read_numbers(parts, name, parts.shape[1:3])
        if values is not None:
            return values * POSITIONS[name]
    return None


def _read_attribute(parts: _Parts, name: str) -> float | None:
    """A number among the attributes.

    Raises:
        InputFileError: it is there and no finite number.
    """
    value = parts.entry.attributes.get(name)
    if value is None:
        return None
    try:
        number = float(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputFileError(f"{parts.where}: attribute {name} is {value!r}, must be a number")
    return number


def _read_incident_kev(parts: _Parts) -> float | None:
    energy = _read_attribute(parts, "incident_energy_kev")
    if energy is not None and energy <= 0.0:
        raise InputFileError(f"{parts.where}: attribute incident_energy_kev is {energy:g}, must be above 0 keV")
    return energy


def _read_calibration(parts: _Parts, options: ReadOptions) -> tuple[tuple[EnergyCalibration, ...] | None, list[Note]]:
    """The file's own calibration: a table, else attributes, else HyperSpy's axis, else the energy of each channel."""
    n_detectors = parts.shape[0]
    table = _read_numbers(parts, CALIBRATION, (n_detectors, 3))
    if table is not None:
        return tuple(make_calibration(*row) for row in table.tolist()), []
    offset, slope = (_read_attribute(parts, f"energy_{n}_kev") for n in ("offset", "slope"))
    if slope is not None:
        return (make_calibration(offset or 0.0, slope, 0.0),) * n_detectors, []
    if parts.signal is not None and parts.signal.calibration is not None:
        return (parts.signal.calibration,) * n_detectors, []
    requested = options.energy_slope_kev is not None and options.energy_offset_kev is not None
    for entry in () if requested else _find_energy_arrays(parts):
        energy = parts.container.read(entry, tuple(slice(0, n) for n in entry.shape)).astype(np.float64)
        return _fit_axis(parts, entry, energy.reshape(parts.shape[3:]))
    return None, []


def _find_energy_arrays(parts: _Parts) -> list[Entry]:
    """Arrays with the energy of each channel: of a usual name, else that which NeXus names as the axis."""
    usual = [parts.found[name] for name in ENERGY_AXES if name in parts.found]
    axis = parts.container.entries.get(parts.entry.find_neighbour(parts.channel_name or " "))
    unit = "" if axis is None else " ".join(decode_texts(axis.attributes.get("units"))).lower()
    named = axis is not None and unit in {"ev", "kev"} and axis.shape == parts.shape[3:] and axis.dtype.kind in "iuf"
    return usual or ([axis] if named and axis is not None else [])


def _fit_axis(
    parts: _Parts, entry: Entry, energy: NDArray[np.float64]
) -> tuple[tuple[EnergyCalibration, ...], list[Note]]:
    """A parabola through the energy of each channel."""
    where = f"{parts.container.path}: {entry.path}"
    steps = np.diff(energy)
    if len(energy) < 3 or not (np.isfinite(energy).all() and (steps > 0).all()):
        raise InputFileError(
            f"{where}: the energy must be finite and rise from channel to channel; correct it, or give "
            "both --energy-slope and --energy-offset (keV)"
        )
    unit = decode_texts(entry.attributes.get("units"))
    in_ev = unit == ("eV",) or (not unit and energy[-1] > _EV_ABOVE)
    kev = energy * (1e-3 if in_ev else 1.0)
    slope = float((kev[-1] - kev[0]) / (len(kev) - 1))
    straight = kev[0] + slope * np.arange(len(kev))
    coefficients = [float(kev[0]), slope, 0.0]
    if np.abs(kev - straight).max() > 0.01 * slope:
        coefficients = np.polynomial.polynomial.polyfit(np.arange(len(kev)), kev, 2).tolist()
    what = "eV" if in_ev else "keV"
    if unit:
        note = Note("fact", f"energy calibration from {entry.path}, in {what}")
    else:
        note = Note("warning", f"energy calibration from {entry.path}, guessed to be in {what}")
    return (make_calibration(*coefficients),) * parts.shape[0], [note]
