"""Scalers, positions and times of MDA scans, point by point; spectra are read in `mda`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.maps_raw import live_time
from hpcxrf.formats.mda_layout import Channel, MdaHeader, MdaScan, map_file, read_positions, read_scan, read_values
from hpcxrf.formats.scan import FloatMap, RawScan, ScanScalars
from hpcxrf.notes import Note

CALIBRATION_NAME: Final = re.compile(r"mca\d+\.CAL[OSQ]$")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The outermost record and the rows that were written; the rows' numbers stay in the file."""

    header: MdaHeader
    outer: MdaScan
    rows: tuple[MdaScan | None, ...]
    first: MdaScan
    """The first row that was written."""


def read_rows(path: Path, data: NDArray[np.uint8], header: MdaHeader) -> Rows:
    """The outermost record and the records of its rows.

    Raises:
        InputFileError: truncated, no row written, or rows that differ in size or names.
    """
    outer = read_scan(path, data, header.scan_at)
    rows: list[MdaScan | None] = []
    first: MdaScan | None = None
    for number, at in enumerate(outer.sub_at):
        row = read_scan(path, data, at, first) if at > 0 else None
        if row is not None and first is not None:
            _refuse_other_row(path, row, first, number)
        first = first or row
        rows.append(row)
    if first is None:
        raise InputFileError(f"{path}: the scan stopped before its first row; nothing to fit: leave the file out")
    return Rows(header=header, outer=outer, rows=tuple(rows), first=first)


def _refuse_other_row(path: Path, row: MdaScan, first: MdaScan, number: int) -> None:
    if (row.npts, row.detectors, row.rank) != (first.npts, first.detectors, first.rank):
        raise InputFileError(
            f"{path}: row {number} has {row.npts} points and {len(row.detectors)} scan detectors, the "
            f"first row {first.npts} and {len(first.detectors)}; only rectangular scans can be read"
        )


def mask_written(row: MdaScan | None, width: int) -> NDArray[np.bool_]:
    """(x,): points of a row that were finished."""
    if row is None:
        return np.zeros(width, dtype=bool)
    done = np.arange(width) < row.last_point
    return done & (np.array(row.sub_at) > 0) if row.sub_at else done


def mask_measured(rows: Rows, width: int) -> NDArray[np.bool_]:
    """(y, x): points that were finished."""
    return np.stack([mask_written(row, width) for row in rows.rows])


def read_step_scalars(path: Path, rows: Rows, detectors: dict[int, str]) -> ScanScalars:
    """Scalers, positions and times; ICR and OCR of a step scan are RATES."""
    data = map_file(path)
    values = read_scaler_values(data, rows)
    scalars = read_scalars(data, rows, values)
    by_name = dict(zip(scalars.scaler_names, values, strict=True))
    names = _find_time_names(tuple(by_name), detectors)
    real, icr, ocr = (None if chosen is None else np.stack([by_name[n] for n in chosen]) for chosen in names)
    return replace(scalars, live_time_s=live_time(real, icr, ocr), real_time_s=real, icr_hz=icr, ocr_hz=ocr)


def _find_time_names(
    names: tuple[str, ...], detectors: dict[int, str]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, tuple[str, ...] | None]:
    """Names of real time, input and output count rate, one a detector, or None where one is missing."""
    real: list[str | None] = []
    icr: list[str | None] = []
    ocr: list[str | None] = []
    for base in detectors.values():
        prefix, _, number = base.rpartition("mca")
        common = f"{prefix}ElapsedReal"
        real.append(_find_first(names, f"{base}.ERTM", f"{base}:ElapsedReal", common))
        channel = f"{prefix}dxp{number}"
        icr.append(_find_first(names, f"{channel}:InputCountRate", f"{channel}.ICR"))
        ocr.append(_find_first(names, f"{channel}:OutputCountRate", f"{channel}.OCR"))
    return _require_all(real), _require_all(icr), _require_all(ocr)


def _find_first(names: tuple[str, ...], *wanted: str) -> str | None:
    return next((name for name in wanted if name in names), None)


def _require_all(names: list[str | None]) -> tuple[str, ...] | None:
    found = tuple(name for name in names if name is not None)
    return found if len(found) == len(names) else None


def describe_times(rows: Rows, detectors: dict[int, str]) -> tuple[Note, ...]:
    """Notes on what is missing for a live time; empty if nothing is."""
    found = _find_time_names(tuple(channel.name for _, _, channel in _list_scaler_channels(rows)), detectors)
    labels = ("real time (mcaN.ERTM)", "input count rate (dxpN)", "output count rate (dxpN)")
    missing = [label for label, names in zip(labels, found, strict=True) if names is None]
    if not missing:
        return ()
    return (Note("warning", f"no live time: the file lacks {', '.join(missing)} for every detector"),)


def read_fly_scalars(path: Path, rows: Rows, spectra: RawScan) -> ScanScalars:
    """Times of the companion (`spectra`) with the scalers and positions of the MDA, in its shape."""
    times = spectra.read_scalars()
    size = (spectra.shape[1], spectra.shape[2])
    data = map_file(path)
    values = read_scaler_values(data, rows)
    beside = read_scalars(data, rows, values)
    measured = crop_or_pad(mask_measured(rows, rows.first.npts).astype(float), size, 0.0) > 0
    return replace(
        times,
        scaler_names=beside.scaler_names,
        scaler_units=beside.scaler_units,
        scaler_values=crop_or_pad(values, size),
        x_um=None if beside.x_um is None else crop_or_pad(beside.x_um, size),
        y_um=None if beside.y_um is None else crop_or_pad(beside.y_um, size),
        measured=None if measured.all() else measured,
    )


def crop_or_pad(values: FloatMap, size: tuple[int, int], fill: float = np.nan) -> FloatMap:
    """Values (..., y, x) cut or filled to another size; first rows and columns belong together."""
    out = np.full((*values.shape[:-2], *size), fill)
    height, width = (min(a, b) for a, b in zip(values.shape[-2:], size, strict=True))
    out[..., :height, :width] = values[..., :height, :width]
    return out


def read_scalars(data: NDArray[np.uint8], rows: Rows, values: FloatMap) -> ScanScalars:
    """Scalers and positions, without times."""
    channels = _list_scaler_channels(rows)
    measured = mask_measured(rows, rows.first.npts)
    x_um, y_um = _read_positions_um(data, rows)
    return ScanScalars(
        scaler_names=tuple(c.name for _, _, c in channels),
        scaler_units=tuple(c.unit for _, _, c in channels),
        scaler_values=values,
        x_um=x_um,
        y_um=y_um,
        measured=None if measured.all() else measured,
    )


def read_scaler_values(data: NDArray[np.uint8], rows: Rows) -> FloatMap:
    """(scaler, y, x) in the order of `_list_scaler_channels`; NaN where no point was finished."""
    width = rows.first.npts
    channels = _list_scaler_channels(rows)
    every_point = [index for level, index, _ in channels if level == 1]
    every_row = [index for level, index, _ in channels if level == 2]
    values = np.full((len(channels), rows.outer.npts, width), np.nan)
    outer = read_values(data, rows.outer)[every_row]
    for y, row in enumerate(rows.rows):
        if row is not None:
            values[: len(every_point), y] = read_values(data, row)[every_point]
            values[len(every_point) :, y] = outer[:, y, np.newaxis]
    values[:, ~mask_measured(rows, width)] = np.nan
    return values


def _list_scaler_channels(rows: Rows) -> list[tuple[int, int, Channel]]:
    """(level, index, channel): those of every point (1), then those of every row (2); names once."""
    every = [(1, i, c) for i, c in enumerate(rows.first.detectors)]
    every += [(2, i, c) for i, c in enumerate(rows.outer.detectors)]
    kept: dict[str, tuple[int, int, Channel]] = {}
    for level, index, channel in every:
        if not CALIBRATION_NAME.search(channel.name):
            kept.setdefault(channel.name, (level, index, channel))
    return list(kept.values())


def _read_positions_um(data: NDArray[np.uint8], rows: Rows) -> tuple[FloatMap | None, FloatMap | None]:
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
        x_um = _convert_to_um(x_um, rows.first.positioners[0], usual)
    if rows.outer.positioners:
        column = read_positions(data, rows.outer)[0]
        y_um = np.repeat(column[:, np.newaxis], width, axis=1)
        y_um = _convert_to_um(y_um, rows.outer.positioners[0], usual)
    return x_um, y_um


def _convert_to_um(values: FloatMap, channel: Channel, usual: float) -> FloatMap | None:
    """Values in micrometres, or None if the unit is not a length."""
    unit = channel.unit.strip().lower()
    scale = LENGTH_UNITS_UM.get(unit) if unit else usual
    return None if scale is None else values * scale
