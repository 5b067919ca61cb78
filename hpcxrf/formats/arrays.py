"""Spectra as plain arrays in npy, npz, HDF5 and Zarr; what the file does not say is guessed, and the guess is noted."""

import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import (
    NPY_SIGNATURE,
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
from hpcxrf.formats.axes import (
    MAX_RANK,
    Axes,
    arrange_counts,
    choose_calibration,
    describe_calibration,
    guess_axes,
    scan_shape,
    select_region,
)
from hpcxrf.formats.hdf5_files import check_rows, is_hdf5, refuse_bad_counts, rows_per_block
from hpcxrf.formats.room import require_room
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions, ScanScalars
from hpcxrf.notes import Note

_TIMES: Final = ("live_time_s", "real_time_s", "icr_hz", "ocr_hz")
_POSITIONS: Final = {"x_um": 1.0, "y_um": 1.0, "x_mm": 1e3, "y_mm": 1e3}
_SCALERS: Final = ("scaler_names", "scaler_units", "scaler_values")
_ENERGY_AXES: Final = ("energy_kev", "energy", "Energy")
_CALIBRATION: Final = "energy_calibration"
_NO_COUNTS: Final = frozenset({*_TIMES, *_POSITIONS, *_SCALERS, *_ENERGY_AXES, _CALIBRATION})
# A scan is much larger than the maps beside it; less than this and nobody can tell which it is.
_CLEARLY_LARGER: Final = 8
_EV_ABOVE: Final = 200.0
_LISTED: Final = 20
_MOST_SCALERS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """An array of spectra and what belongs to it."""

    container: Container
    entry: Entry
    axes: Axes
    shape: tuple[int, int, int, int]
    found: Mapping[str, Entry]
    """Arrays beside it by name, of the right shape."""
    notes: tuple[Note, ...]

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
    """Open an array of spectra; only headers are read.

    Raises:
        InputFileError: the file cannot be read; no array that can be spectra, or several; a rank above 4; an
            energy that does not rise.
    """
    parts = _find_parts(_open_container(path, options), options)
    stored, energy_notes = _read_calibration(parts, options)
    n_detectors, n_rows, n_columns, n_channels = parts.shape
    incident = _read_incident_kev(parts)
    tube = parts.entry.attributes.get("tube")
    source = None if tube is None else ", ".join(decode_texts(tube))
    source_notes = [] if source is None else [Note("fact", f"the file names a tube as source: {source}")]
    # Twice: whoever takes a block may copy it into its own order.
    row_bytes = 2 * n_detectors * n_columns * n_channels * parts.entry.dtype.itemsize
    height = rows_per_block(row_bytes=row_bytes, chunk_rows=_chunk_rows(parts), height=n_rows)
    return RawScan(
        name=path.stem,
        format=parts.container.format,
        files=(path,),
        shape=parts.shape,
        dtype=parts.entry.dtype.newbyteorder("="),
        rows_per_read=height,
        read_counts=lambda rows: _read_counts(parts, rows),
        read_scalars=lambda: _read_scalars(parts),
        calibration=choose_calibration(parts.where, stored, options, n_detectors, n_channels),
        incident_energy_kev=incident,
        tube=source,
        notes=(*parts.notes, *energy_notes, *describe_calibration(options), *source_notes),
    )


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


def _find_parts(container: Container, options: ReadOptions) -> _Parts:
    entry, notes = _choose(container, options.dataset_path)
    where = f"{container.path}: {entry.path}".removesuffix(": ")
    axes = guess_axes(where, entry.shape, entry.dims, options.energy_axis)
    shape = scan_shape(entry.shape, axes)
    found, misfits = _find_neighbours(container, entry, shape)
    return _Parts(
        container=container, entry=entry, axes=axes, shape=shape, found=found, notes=(*notes, *axes.notes, *misfits)
    )


def _choose(container: Container, requested: str | None) -> tuple[Entry, list[Note]]:
    """The array of spectra, and how it was chosen."""
    entries = container.entries
    if requested is not None:
        found = entries.get(requested.strip("/"))
        if found is None:
            raise InputFileError(
                f"{container.path}: no array {requested!r}; --dataset-path may be {_list_entries(entries.values())}"
            )
        return _require_usable(container, found), []
    spectra = [e for e in entries.values() if e.name not in _NO_COUNTS and _find_fault(e) is None]
    # NeXus attributes name the signal.
    signals = [e for e in spectra if decode_texts(e.attributes.get("signal")) in {(e.name,), ("1",)}]
    spectra = signals or [e for e in spectra if len(e.shape) > 2] or spectra
    if not spectra:
        raise InputFileError(_explain_no_spectra(container))
    ranked = sorted(spectra, key=lambda e: -math.prod(e.shape))
    first = ranked[0]
    if len(ranked) == 1:
        return first, [Note("fact", f"array: {first.path}")] if len(entries) > 1 else []
    if math.prod(first.shape) < _CLEARLY_LARGER * math.prod(ranked[1].shape):
        raise InputFileError(
            f"{container.path}: {len(ranked)} arrays may be the spectra; choose one with --dataset-path: "
            f"{_list_entries(ranked)}"
        )
    return first, [Note("warning", f"guessed: the largest array, {_list_entries(ranked[:1])} (--dataset-path)")]


def _find_fault(entry: Entry) -> str | None:
    """Why an array cannot be spectra."""
    if entry.dtype.kind not in "iuf":
        return f"is of type {entry.dtype}, counts must be whole or real numbers"
    if not 1 <= len(entry.shape) <= MAX_RANK or 0 in entry.shape:
        return f"has shape {entry.shape}, must have 1 to 4 axes (detector, y, x, channel), none empty"
    return None


def _require_usable(container: Container, entry: Entry) -> Entry:
    fault = _find_fault(entry)
    if fault is not None:
        raise InputFileError(f"{container.path}: {entry.path} {fault}; choose another with --dataset-path")
    return entry


def _explain_no_spectra(container: Container) -> str:
    reasons = [
        f"{e.path or 'the array'} {_find_fault(e)}" for e in container.entries.values() if e.name not in _NO_COUNTS
    ]
    what = "; ".join(reasons[:_LISTED]) if reasons else "it holds no array"
    return f"{container.path}: no array that can be spectra: {what}; name a file of spectra"


def _list_entries(entries: Iterable[Entry]) -> str:
    every = [f"{e.path} {e.shape} {e.dtype}" for e in entries]
    more = [f"and {len(every) - _LISTED} more"] if len(every) > _LISTED else []
    return ", ".join(every[:_LISTED] + more)


def _find_neighbours(
    container: Container, entry: Entry, shape: tuple[int, int, int, int]
) -> tuple[dict[str, Entry], list[Note]]:
    """Arrays beside the spectra that belong to them, and what does not fit."""
    wanted: dict[str, tuple[int | None, ...]] = dict.fromkeys(_TIMES, shape[:3])
    wanted |= dict.fromkeys(_POSITIONS, shape[1:3])
    wanted |= dict.fromkeys(_ENERGY_AXES, shape[3:])
    wanted |= {_CALIBRATION: (shape[0], 3), "scaler_values": (None, *shape[1:3])}
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
    if entry.name in _SCALERS[:2]:
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


def _read_counts(parts: _Parts, rows: slice) -> NDArray[np.generic]:
    path = parts.container.path
    wanted = check_rows(path, rows, parts.shape[1])
    if wanted.start == wanted.stop:
        shape = (parts.shape[0], 0, *parts.shape[2:])
        return np.zeros(shape, parts.entry.dtype.newbyteorder("="))
    region = select_region(parts.entry.shape, parts.axes, wanted)
    block = arrange_counts(parts.container.read(parts.entry, region), parts.axes)
    for detector, spectra in enumerate(block):
        refuse_bad_counts(spectra, path=path, detector=detector, first_row=wanted.start)
    return block


def _chunk_rows(parts: _Parts) -> int:
    if parts.entry.chunks is None or parts.axes.y is None:
        return 1
    return parts.entry.chunks[parts.axes.y]


def _read_scalars(parts: _Parts) -> ScanScalars:
    times = {name: _read_numbers(parts, name, parts.shape[:3]) for name in _TIMES}
    return replace(
        _read_scalers(parts),
        live_time_s=times["live_time_s"],
        real_time_s=times["real_time_s"],
        icr_hz=times["icr_hz"],
        ocr_hz=times["ocr_hz"],
        x_um=_read_position_um(parts, "x"),
        y_um=_read_position_um(parts, "y"),
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
            return values * _POSITIONS[name]
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
    """The file's own calibration: a table, else attributes, else the energy of each channel."""
    n_detectors = parts.shape[0]
    table = _read_numbers(parts, _CALIBRATION, (n_detectors, 3))
    if table is not None:
        return tuple(_make_calibration(*row) for row in table.tolist()), []
    offset, slope = (_read_attribute(parts, f"energy_{n}_kev") for n in ("offset", "slope"))
    if slope is not None:
        return (_make_calibration(offset or 0.0, slope, 0.0),) * n_detectors, []
    requested = options.energy_slope_kev is not None and options.energy_offset_kev is not None
    for name in () if requested else _ENERGY_AXES:
        energy = _read_numbers(parts, name, parts.shape[3:])
        if energy is not None:
            return _fit_axis(parts, parts.found[name], energy)
    return None, []


def _make_calibration(offset: float, slope: float, quadratic: float) -> EnergyCalibration:
    return EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)


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
    return (_make_calibration(*coefficients),) * parts.shape[0], [note]
