"""MDA scans: step scans with the spectra inside, and fly scans with their companion HDF5."""

import glob
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats import maps_raw
from hpcxrf.formats.hdf5_files import (
    MAX_BLOCK_BYTES,
    checked_rows,
    refuse_bad_counts,
    rows_per_block,
)
from hpcxrf.formats.mda_layout import (
    Channel,
    ExtraVariable,
    MdaHeader,
    MdaScan,
    looks_like_mda,
    map_file,
    read_extra,
    read_header,
    read_positions,
    read_scan,
    read_values,
)
from hpcxrf.formats.scan import FloatMap, RawScan, ReadOptions, ScanScalars

SPECTRUM_NAME: Final = re.compile(r"^(?P<prefix>.*:)?mca(?P<number>\d+)(?:\.VAL)?$")
CALIBRATION_NAME: Final = re.compile(r"mca\d+\.CAL[OSQ]$")
MONOCHROMATOR_ENERGY: Final = re.compile(r"(mono|bragg).*energy|(mono|bragg)\S*:E(_|RdbkAO)")
ENERGY_UNITS_KEV: Final = {"kev": 1.0, "ev": 1e-3}
LENGTH_UNITS_UM: Final = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "millimeters": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "nm": 1e-3,
}
COMPANION_FOLDERS: Final = ("../flyXRF.h5", "flyXRF.h5", "../flyXRF", "flyXRF", ".")
Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The outermost record and the rows that were written; the rows' numbers stay in the file."""

    header: MdaHeader
    outer: MdaScan
    rows: tuple[MdaScan | None, ...]
    first: MdaScan
    """The first row that was written."""


def sniff(path: Path, head: bytes) -> bool:  # noqa: ARG001 - the signature of every format
    """Whether the first bytes are an MDA header."""
    return looks_like_mda(head)


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """A step scan (rank 3) with its spectra, or a fly scan (rank 2) with its companion HDF5.

    Raises:
        InputFileError: truncated, of another rank, without spectra, or without its companion.
    """
    data = map_file(path)
    header = read_header(path, data)
    if len(header.dims) not in {2, 3}:
        raise InputFileError(
            f"{path}: MDA of rank {len(header.dims)} {header.dims}; must be 3 (rows, columns, channels) "
            "or 2 (rows, columns, with spectra in flyXRF.h5): this is no map"
        )
    rows = _read_rows(path, data, header)
    extra = read_extra(path, data, header)
    build = _step_scan if len(header.dims) == 3 else _fly_scan
    scan = build(path, data, rows, options)
    energy_kev = incident_energy_kev(extra)
    notes = (*scan.notes, *_stop_notes(rows), *_calibration_notes(rows, extra))
    return replace(scan, incident_energy_kev=energy_kev, notes=notes)


def _read_rows(path: Path, data: NDArray[np.uint8], header: MdaHeader) -> _Rows:
    outer = read_scan(path, data, header.scan_at)
    rows: list[MdaScan | None] = []
    first: MdaScan | None = None
    for number, at in enumerate(outer.sub_at):
        row = read_scan(path, data, at) if at > 0 else None
        if row is not None and first is not None:
            row = _like_first(path, row, first, number)
        first = first or row
        rows.append(row)
    if first is None:
        raise InputFileError(
            f"{path}: the scan stopped before its first row; nothing to fit: leave the file out"
        )
    return _Rows(header=header, outer=outer, rows=tuple(rows), first=first)


def _like_first(path: Path, row: MdaScan, first: MdaScan, number: int) -> MdaScan:
    """The row, sharing the names of the first: a hundred names a row would fill the memory."""
    if (row.npts, row.detectors, row.rank) != (first.npts, first.detectors, first.rank):
        raise InputFileError(
            f"{path}: row {number} has {row.npts} points and {len(row.detectors)} scan detectors, the "
            f"first row {first.npts} and {len(first.detectors)}; only rectangular scans can be read"
        )
    return replace(row, detectors=first.detectors)


def _stop_notes(rows: _Rows) -> tuple[str, ...]:
    done = sum(row.last_point for row in rows.rows if row is not None)
    asked = rows.outer.npts * rows.first.npts
    if rows.outer.last_point == rows.outer.npts and done == asked:
        return ()
    return (
        f"stopped after {rows.outer.last_point} of {rows.outer.npts} rows "
        f"({done} of {asked} points); the rest is marked as not measured",
    )


def _calibration_notes(rows: _Rows, extra: tuple[ExtraVariable, ...]) -> tuple[str, ...]:
    """CALO and CALS are whatever the operator last typed: off by 5 % in the test files."""
    names = (*(v.name for v in extra), *(d.name for d in rows.outer.detectors))
    if not any(CALIBRATION_NAME.search(name) for name in names):
        return ()
    return (
        "energy calibration in the file (CALO, CALS, CALQ) is not trustworthy in this format and ignored",
    )


def incident_energy_kev(extra: tuple[ExtraVariable, ...]) -> float | None:
    """Monochromator energy of the extra variables, 1 to 150 keV; undulator energies are not it."""
    for variable in extra:
        label = f"{variable.name} {variable.description}"
        scale = ENERGY_UNITS_KEV.get(variable.unit.strip().lower())
        if scale is None or not variable.numbers or not MONOCHROMATOR_ENERGY.search(label.lower()):
            continue
        energy_kev = variable.numbers[0] * scale
        if 1.0 <= energy_kev <= 150.0:
            return energy_kev
    return None


def _step_scan(
    path: Path, data: NDArray[np.uint8], rows: _Rows, options: ReadOptions
) -> RawScan:
    del options
    spectrum = _first_spectrum(path, data, rows)
    detectors = spectrum_detectors(path, spectrum)
    shape = (len(detectors), rows.outer.npts, rows.first.npts, spectrum.npts)
    row_bytes = 4 * shape[0] * shape[2] * shape[3]
    if row_bytes > 64 * MAX_BLOCK_BYTES:
        raise InputFileError(
            f"{path}: one row of {shape} takes {row_bytes} bytes; the file is damaged: copy it again"
        )
    return RawScan(
        name=path.stem,
        format="mda",
        files=(path,),
        shape=shape,
        dtype=np.dtype(np.float32),
        rows_per_read=rows_per_block(row_bytes=row_bytes, chunk_rows=1, height=shape[1]),
        read_counts=partial(_read_counts, path, rows, shape, tuple(detectors)),
        read_scalars=partial(_step_scalars, path, rows, shape, detectors),
        notes=_time_notes(rows, detectors),
    )


def _first_spectrum(path: Path, data: NDArray[np.uint8], rows: _Rows) -> MdaScan:
    at = next((a for row in rows.rows if row is not None for a in row.sub_at if a > 0), None)
    if at is None:
        raise InputFileError(
            f"{path}: the scan stopped before its first spectrum; nothing to fit: leave the file out"
        )
    spectrum = read_scan(path, data, at)
    if spectrum.npts == 0:
        raise InputFileError(f"{path}: spectra of 0 channels; this file has nothing to fit")
    return spectrum


def spectrum_detectors(path: Path, spectrum: MdaScan) -> dict[int, str]:
    """Scan detectors that are spectra, in the order of their numbers: index -> name without ending."""
    found = [(i, SPECTRUM_NAME.match(d.name)) for i, d in enumerate(spectrum.detectors)]
    numbered = sorted((int(m["number"]), i, m) for i, m in found if m is not None)
    if not numbered:
        names = ", ".join(d.name for d in spectrum.detectors) or "none"
        raise InputFileError(
            f"{path}: no spectra among the innermost scan's detectors ({names}); "
            "looked for names that end in mca1.VAL, mca2.VAL ..."
        )
    return {i: f"{m['prefix'] or ''}mca{m['number']}" for _, i, m in numbered}


def _read_counts(
    path: Path, rows: _Rows, shape: Shape, columns: tuple[int, ...], wanted: slice
) -> NDArray[np.generic]:
    wanted = checked_rows(path, wanted, shape[1])
    data = map_file(path)
    block = np.zeros((shape[0], wanted.stop - wanted.start, *shape[2:]), dtype=np.float32)
    for place, row in enumerate(rows.rows[wanted]):
        for x in np.flatnonzero(_written(row, shape[2])):
            at = row.sub_at[x] if row is not None else 0
            block[:, place, x] = _spectra(path, data, at, shape[3])[list(columns)]
    for detector, spectra in enumerate(block):
        refuse_bad_counts(spectra, path=path, detector=detector, first_row=wanted.start)
    return block


def _spectra(path: Path, data: NDArray[np.uint8], at: int, channels: int) -> NDArray[np.float32]:
    """Spectra of one point (scan detector, channel)."""
    scan = read_scan(path, data, at)
    if scan.npts != channels:
        raise InputFileError(
            f"{path}: the spectrum at byte {at} has {scan.npts} channels, the first one {channels}; "
            "all points of a scan must have the same"
        )
    return read_values(data, scan)


def _written(row: MdaScan | None, width: int) -> NDArray[np.bool_]:
    """(x,): points of a row that were finished."""
    if row is None:
        return np.zeros(width, dtype=bool)
    done = np.arange(width) < row.last_point
    return done & (np.array(row.sub_at) > 0) if row.sub_at else done


def _measured(rows: _Rows, width: int) -> NDArray[np.bool_]:
    return np.stack([_written(row, width) for row in rows.rows])


def _step_scalars(
    path: Path, rows: _Rows, shape: Shape, detectors: dict[int, str]
) -> ScanScalars:
    """Scalers, positions and times; ICR and OCR of a step scan are RATES."""
    data = map_file(path)
    values = _scaler_values(data, rows)
    scalars = _scalars(data, rows, values)
    by_name = dict(zip(scalars.scaler_names, values, strict=True))
    names = _time_names(tuple(by_name), detectors)
    real, icr, ocr = (
        None if chosen is None else np.stack([by_name[n] for n in chosen]) for chosen in names
    )
    return replace(
        scalars,
        live_time_s=maps_raw.live_time(real, icr, ocr),
        real_time_s=real,
        icr_hz=icr,
        ocr_hz=ocr,
    )


def _time_names(
    names: tuple[str, ...], detectors: dict[int, str]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, tuple[str, ...] | None]:
    """Names of real time, input and output count rate, one a detector, or None where one is missing."""
    real: list[str | None] = []
    icr: list[str | None] = []
    ocr: list[str | None] = []
    for base in detectors.values():
        prefix, _, number = base.rpartition("mca")
        common = f"{prefix}ElapsedReal"
        real.append(_first_of(names, f"{base}.ERTM", f"{base}:ElapsedReal", common))
        channel = f"{prefix}dxp{number}"
        icr.append(_first_of(names, f"{channel}:InputCountRate", f"{channel}.ICR"))
        ocr.append(_first_of(names, f"{channel}:OutputCountRate", f"{channel}.OCR"))
    return _all_of(real), _all_of(icr), _all_of(ocr)


def _first_of(names: tuple[str, ...], *wanted: str) -> str | None:
    return next((name for name in wanted if name in names), None)


def _all_of(names: list[str | None]) -> tuple[str, ...] | None:
    found = tuple(name for name in names if name is not None)
    return found if len(found) == len(names) else None


def _time_notes(rows: _Rows, detectors: dict[int, str]) -> tuple[str, ...]:
    found = _time_names(_scaler_names(rows), detectors)
    labels = ("real time (mcaN.ERTM)", "input count rate (dxpN)", "output count rate (dxpN)")
    missing = [label for label, names in zip(labels, found, strict=True) if names is None]
    if not missing:
        return ()
    return (f"no live time: the file lacks {', '.join(missing)} for every detector",)


def _fly_scan(path: Path, data: NDArray[np.uint8], rows: _Rows, options: ReadOptions) -> RawScan:
    """Spectra of the companion, whose own width wins; positions and scalers of the MDA."""
    del data
    companions = find_companions(path)
    if not companions:
        raise InputFileError(
            f"{path}: fly scan (MDA of rank 2, scalers only) without its spectra; looked for "
            f"{path.stem}_*_0.h5 with /MAPS_RAW in {', '.join(_companion_folders(path))}; "
            "put the detector's file there"
        )
    spectra = maps_raw.open_file(companions[0], options)
    _, height, width, _ = spectra.shape
    notes = [f"spectra from {companions[0].name}"]
    if len(companions) > 1:
        notes.append(f"more such files ignored: {', '.join(p.name for p in companions[1:])}")
    if (height, width) != (rows.outer.npts, rows.first.npts):
        notes.append(
            f"the MDA says {rows.outer.npts} x {rows.first.npts} points, the spectra are "
            f"{height} x {width}: the spectra decide, first columns belong together"
        )
    return replace(
        spectra,
        name=path.stem,
        format="mda-fly",
        files=(path, companions[0]),
        read_scalars=partial(_fly_scalars, path, rows, spectra),
        notes=tuple(notes),
    )


def _companion_folders(path: Path) -> tuple[str, ...]:
    return tuple(str((path.absolute().parent / name).resolve()) for name in COMPANION_FOLDERS)


def find_companions(path: Path) -> tuple[Path, ...]:
    """HDF5 files with the spectra of a fly scan, nearest folder first; empty if there are none."""
    found: list[Path] = []
    for folder in _companion_folders(path):
        for candidate in sorted(Path(folder).glob(f"{glob.escape(path.stem)}_*_0.h5")):
            with candidate.open("rb") as file:
                head = file.read(4096)
            if maps_raw.sniff(candidate, head):
                found.append(candidate)
    return tuple(dict.fromkeys(found))


def _fly_scalars(path: Path, rows: _Rows, spectra: RawScan) -> ScanScalars:
    times = spectra.read_scalars()
    size = (spectra.shape[1], spectra.shape[2])
    data = map_file(path)
    values = _scaler_values(data, rows)
    beside = _scalars(data, rows, values)
    measured = _fitted(_measured(rows, rows.first.npts).astype(float), size, 0.0) > 0
    return replace(
        times,
        scaler_names=beside.scaler_names,
        scaler_units=beside.scaler_units,
        scaler_values=_fitted(values, size),
        x_um=None if beside.x_um is None else _fitted(beside.x_um, size),
        y_um=None if beside.y_um is None else _fitted(beside.y_um, size),
        measured=None if measured.all() else measured,
    )


def _fitted(values: FloatMap, size: tuple[int, int], fill: float = np.nan) -> FloatMap:
    """Values (..., y, x) cut or filled to another size; first rows and columns belong together."""
    out = np.full((*values.shape[:-2], *size), fill)
    height, width = (min(a, b) for a, b in zip(values.shape[-2:], size, strict=True))
    out[..., :height, :width] = values[..., :height, :width]
    return out


def _scalars(data: NDArray[np.uint8], rows: _Rows, values: FloatMap) -> ScanScalars:
    """Scalers and positions, without times."""
    channels = _scaler_channels(rows)
    measured = _measured(rows, rows.first.npts)
    x_um, y_um = _positions(data, rows)
    return ScanScalars(
        scaler_names=tuple(c.name for _, _, c in channels),
        scaler_units=tuple(c.unit for _, _, c in channels),
        scaler_values=values,
        x_um=x_um,
        y_um=y_um,
        measured=None if measured.all() else measured,
    )


def _scaler_values(data: NDArray[np.uint8], rows: _Rows) -> FloatMap:
    """(scaler, y, x) in the order of `_scaler_channels`; NaN where no point was finished."""
    width = rows.first.npts
    channels = _scaler_channels(rows)
    every_point = [index for level, index, _ in channels if level == 1]
    every_row = [index for level, index, _ in channels if level == 2]
    values = np.full((len(channels), rows.outer.npts, width), np.nan)
    outer = read_values(data, rows.outer)[every_row]
    for y, row in enumerate(rows.rows):
        if row is not None:
            values[: len(every_point), y] = read_values(data, row)[every_point]
            values[len(every_point) :, y] = outer[:, y, np.newaxis]
    values[:, ~_measured(rows, width)] = np.nan
    return values


def _scaler_channels(rows: _Rows) -> list[tuple[int, int, Channel]]:
    """(level, index, channel): those of every point (1), then those of every row (2); names once."""
    every = [(1, i, c) for i, c in enumerate(rows.first.detectors)]
    every += [(2, i, c) for i, c in enumerate(rows.outer.detectors)]
    kept: dict[str, tuple[int, int, Channel]] = {}
    for level, index, channel in every:
        if not CALIBRATION_NAME.search(channel.name):
            kept.setdefault(channel.name, (level, index, channel))
    return list(kept.values())


def _scaler_names(rows: _Rows) -> tuple[str, ...]:
    return tuple(channel.name for _, _, channel in _scaler_channels(rows))


def _positions(data: NDArray[np.uint8], rows: _Rows) -> tuple[FloatMap | None, FloatMap | None]:
    """(y, x) micrometres; a positioner without a unit has that of the other axis, or millimetres."""
    height, width = rows.outer.npts, rows.first.npts
    units = [p.unit.strip().lower() for s in (rows.first, rows.outer) for p in s.positioners[:1]]
    usual = next((LENGTH_UNITS_UM[u] for u in units if u in LENGTH_UNITS_UM), 1e3)
    x_um = y_um = None
    if rows.first.positioners:
        x_um = np.full((height, width), np.nan)
        for y, row in enumerate(rows.rows):
            if row is not None and row.positioners:
                x_um[y] = read_positions(data, row)[0]
        x_um = _micrometres(x_um, rows.first.positioners[0], usual)
    if rows.outer.positioners:
        column = read_positions(data, rows.outer)[0]
        y_um = np.repeat(column[:, np.newaxis], width, axis=1)
        y_um = _micrometres(y_um, rows.outer.positioners[0], usual)
    return x_um, y_um


def _micrometres(values: FloatMap, channel: Channel, usual: float) -> FloatMap | None:
    """Values in micrometres, or None if the unit is no length."""
    unit = channel.unit.strip().lower()
    scale = LENGTH_UNITS_UM.get(unit) if unit else usual
    return None if scale is None else values * scale
