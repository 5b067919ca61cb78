"""EPICS MCA text files (`.mca`, `.xrf`): `KEY: v1 v2 ..` with one value a detector, then one row a channel."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.axes import choose_calibration, describe_calibration, file_size
from hpcxrf.formats.hdf5_files import check_rows
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.table import FileFormat

FILE_FORMATS: Final = (
    FileFormat(
        name="epics-mca", files="EPICS MCA text .mca .xrf", reads="one spectrum a detector; axis, live and real time"
    ),
)
_KEY: Final = re.compile(r"\s*([A-Z][A-Z0-9_]*)\s*:")
_SIGNS: Final = frozenset({"VERSION", "ELEMENTS", "CHANNELS", "REAL_TIME", "LIVE_TIME", "ROIS", "DATA"})
_PER_DETECTOR: Final = ("REAL_TIME", "LIVE_TIME", "CAL_OFFSET", "CAL_SLOPE", "CAL_QUAD")
_LARGEST_BYTES: Final = 64 << 20
_FAULTS_SHOWN: Final = 10
_MOST_DIGITS: Final = 6
"""Digits of a number of detectors or channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    number: int
    """Counted from 1."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    n_detectors: int
    n_channels: int
    numbers: dict[str, tuple[float, ...]]
    """Numbers (detector,) by the keys of _PER_DETECTOR that the file has."""


def sniff(path: Path, head: bytes) -> bool:
    """True where the first bytes are text with at least two of the keys of this format."""
    del path
    if b"\0" in head:
        return False
    lines = head.decode("latin-1").splitlines()
    return len(_SIGNS & {m[1] for line in lines if (m := _KEY.match(line))}) >= 2


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: n detectors, one pixel.

    Raises:
        InputFileError: the file cannot be read, or has lines that cannot be; all faults with their lines.
    """
    header, counts = _parse(path, _read_lines(path))
    shape = (header.n_detectors, 1, 1, header.n_channels)
    calibration = choose_calibration(
        str(path), _read_calibration(header), options, header.n_detectors, header.n_channels
    )
    block = counts.T.reshape(shape).copy()
    scalars = ScanScalars(
        live_time_s=_reshape_column(header, "LIVE_TIME"), real_time_s=_reshape_column(header, "REAL_TIME")
    )
    return RawScan(
        name=path.stem,
        format="epics-mca",
        files=(path,),
        shape=shape,
        dtype=block.dtype,
        rows_per_read=1,
        read_counts=lambda rows: block[:, check_rows(path, rows, 1)].copy(),
        read_scalars=lambda: scalars,
        calibration=calibration,
        notes=describe_calibration(options),
    )


def _read_lines(path: Path) -> list[_Line]:
    size = file_size(path)
    if size > _LARGEST_BYTES:
        raise InputFileError(f"{path}: {size} bytes; an EPICS MCA text has at most {_LARGEST_BYTES}, split it")
    try:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror}; check its rights") from error
    rows = re.split(r"\r\n|\n|\r", text)
    return [_Line(number=i, text=row) for i, row in enumerate(rows, start=1)]


def _parse(path: Path, lines: list[_Line]) -> tuple[_Header, NDArray[Any]]:
    """Header and counts (channel, detector)."""
    start = next((i for i, line in enumerate(lines) if _match_key(line) == "DATA"), None)
    if start is None:
        raise InputFileError(
            f"{path}: no DATA: line in {len(lines)} lines; the file is cut off or not an EPICS MCA text"
        )
    data = [line for line in lines[start + 1 :] if line.text.strip()]
    if not data:
        raise InputFileError(f"{path}: nothing after DATA: in line {lines[start].number}")
    fields = {_match_key(line): line for line in lines[:start]}
    fields.pop("", None)
    n_detectors, faults = _parse_whole(fields.get("ELEMENTS"), len(data[0].text.split()))
    n_channels, more = _parse_whole(fields.get("CHANNELS"), len(data))
    numbers, others = _parse_numbers(fields, n_detectors)
    faults += more + others
    if len(data) != n_channels:
        where = f"CHANNELS in line {fields['CHANNELS'].number}" if "CHANNELS" in fields else "DATA"
        faults.append(
            f"line {data[-1].number}: {len(data)} channels after DATA:, {where} says {n_channels}; copy it again"
        )
    counts, bad = _parse_counts(data, n_detectors)
    _refuse(path, faults + bad)
    return _Header(n_detectors=n_detectors, n_channels=n_channels, numbers=numbers), counts


def _refuse(path: Path, faults: Sequence[str]) -> None:
    if not faults:
        return
    more = len(faults) - _FAULTS_SHOWN
    shown = [f"{path}: {fault}" for fault in faults[:_FAULTS_SHOWN]]
    raise InputFileError("\n".join([*shown, *([f"... and {more} more"] if more > 0 else [])]))


def _match_key(line: _Line) -> str:
    match = _KEY.match(line.text)
    return "" if match is None else match[1]


def _split_words(line: _Line) -> list[str]:
    return line.text.partition(":")[2].split()


def _parse_whole(line: _Line | None, default: int) -> tuple[int, list[str]]:
    """A positive whole number of the header, or the default and what is wrong."""
    if line is None:
        return default, []
    text = " ".join(_split_words(line))
    if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) > 0:
        return int(text), []
    return default, [f"line {line.number}: {_match_key(line)} is {text[:40]!r}, must be a whole number above 0"]


def _parse_numbers(fields: dict[str, _Line], n_detectors: int) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    values: dict[str, tuple[float, ...]] = {}
    faults = []
    for key in _PER_DETECTOR:
        if key not in fields:
            continue
        words = _split_words(fields[key])
        row = tuple(map(_parse_float, words))
        values[key] = row
        if len(row) != n_detectors or not all(map(math.isfinite, row)):
            faults.append(
                f"line {fields[key].number}: {key} is {' '.join(words)[:80]!r}, must be {n_detectors} numbers, one a "
                "detector"
            )
    return values, faults


def _parse_float(text: str) -> float:
    """A decimal number; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _parse_counts(data: list[_Line], n_detectors: int) -> tuple[NDArray[Any], list[str]]:
    """Counts (channel, detector) of the narrowest type that holds them, and what is wrong."""
    rows = [tuple(map(_parse_float, line.text.split())) for line in data]
    faults = [
        f"line {line.number}: {line.text.strip()[:80]!r} must be {n_detectors} counts of 0 or more, one a detector"
        for line, row in zip(data, rows, strict=True)
        if len(row) != n_detectors or not all(0.0 <= value < math.inf for value in row)
    ]
    if faults:
        return np.zeros((0, 0)), faults
    counts = np.array(rows)
    integral = bool((counts == np.rint(counts)).all() and counts.max() < 2**32)
    return counts.astype(np.uint32) if integral else counts, []


def _reshape_column(header: _Header, key: str) -> NDArray[np.float64] | None:
    """(detector, 1, 1)."""
    values = header.numbers.get(key)
    return None if values is None else np.array(values).reshape(-1, 1, 1)


def _read_calibration(header: _Header) -> tuple[EnergyCalibration, ...] | None:
    offset, slope = header.numbers.get("CAL_OFFSET"), header.numbers.get("CAL_SLOPE")
    if offset is None or slope is None:
        return None
    quadratic = header.numbers.get("CAL_QUAD", (0.0,) * header.n_detectors)
    return tuple(
        EnergyCalibration(offset_kev=a, slope_kev=b, quadratic_kev=c)
        for a, b, c in zip(offset, slope, quadratic, strict=True)
    )
