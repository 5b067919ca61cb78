"""EMSA/MAS spectra (ISO 22029; `.msa`, `.emsa`, `.ems`, `.txt`): `#KEYWORD : value` lines, then Y or X-Y data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.formats.table import FileFormat
from hpcxrf.formats.text_files import (
    decode_text,
    parse_leading_numbers,
    parse_numbers,
    read_text,
    refuse_faults,
    split_lines,
)
from hpcxrf.formats.text_spectra import (
    TextSpectra,
    fit_axis,
    guess_kev_per_unit,
    make_scan,
    note_missing_axis,
    spread_times,
)
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="emsa",
        files="EMSA/MAS .msa .emsa .txt, also PIXL bulk sums",
        reads="one spectrum, or one a detector (YY); axis, live and real time, stage position",
    ),
)
_WHAT: Final = "an EMSA text"
_FORMAT: Final = re.compile(r"(?im)^[ \t]*#[ \t]*FORMAT\b.*EMSA")
_SIGNS: Final = frozenset({"NPOINTS", "NCOLUMNS", "XPERCHAN", "DATATYPE", "XUNITS", "YUNITS", "SPECTRUM"})
_KEV_PER_UNIT: Final = {"ev": 1e-3, "kev": 1.0, "mev": 1e3}
_NO_DETECTOR: Final = {
    "ELS": "an electron energy loss spectrum",
    "EELS": "an electron energy loss spectrum",
    "WDS": "a scan of a wavelength spectrometer",
    "AES": "an Auger electron spectrum",
    "PES": "a photoelectron spectrum",
    "XPS": "a photoelectron spectrum",
    "CL": "a cathodoluminescence spectrum",
    "CLS": "a cathodoluminescence spectrum",
}
_UM_PER_UNIT: Final = {"": 1e3, "mm": 1e3, "um": 1.0, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    unit: str
    """Whatever stands between the keyword and its colon."""
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    counts: NDArray[np.float64]
    """(detector, channel)."""
    axis: NDArray[np.float64] | None
    """X of X-Y data, in the file's unit."""


def sniff(path: Path, head: bytes) -> bool:
    """True where the first bytes are text that names this format or has four of its keywords."""
    del path
    text = decode_text(head)
    if _FORMAT.search(text) is not None:
        return True
    found = {_split_keyword(line.strip())[0] for line in split_lines(text) if line.lstrip().startswith("#")}
    return len(found & _SIGNS) >= 4


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: one pixel, one detector or one a column.

    Raises:
        InputFileError: the file cannot be read, is cut off, or holds another kind of spectrum.
    """
    fields, lines = _split_header(path, split_lines(read_text(path, _WHAT)))
    _refuse_other_signal(path, fields)
    table = _read_table(path, fields, lines)
    n_detectors = len(table.counts)
    calibration, notes = _read_calibration(path, fields, table)
    pixel = (n_detectors, 1, 1)
    spectra = TextSpectra(
        counts=table.counts[:, None, None],
        calibration=calibration,
        live_time_s=spread_times(_list_numbers(fields, "LIVETIME"), pixel),
        real_time_s=spread_times(_list_numbers(fields, "REALTIME"), pixel),
        x_um=_read_position(fields, "X"),
        y_um=_read_position(fields, "Y"),
        notes=(Note("fact", f"EMSA, {'Y' if table.axis is None else 'X-Y'} data"), *notes, *_describe_beam(fields)),
    )
    return make_scan(path, "emsa", spectra, options)


def _split_header(path: Path, lines: Sequence[str]) -> tuple[dict[str, _Field], list[str]]:
    """Split the file into its keywords, each by its first value, and its lines of data."""
    fields: dict[str, _Field] = {}
    data: list[str] = []
    for line in map(str.strip, lines):
        if not line.startswith("#"):
            data += [line] if line else []
            continue
        key, field = _split_keyword(line)
        if key == "ENDOFDATA":
            break
        fields.setdefault(key, field)
    if not data:
        raise InputFileError(f"{path}: {_WHAT} without data after #SPECTRUM; copy it again from the instrument")
    return fields, data


def _split_keyword(line: str) -> tuple[str, _Field]:
    """Split `#XPOSITION mm: 1.5` into keyword, unit and value; `##` begins keywords of the instrument's own."""
    left, _, value = line.removeprefix("#").partition(":")
    key, _, unit = left.strip().partition(" ")
    return key.upper(), _Field(unit=unit.strip().lower(), value=value.strip())


def _refuse_other_signal(path: Path, fields: Mapping[str, _Field]) -> None:
    signal = fields["SIGNALTYPE"].value.upper() if "SIGNALTYPE" in fields else ""
    if signal in _NO_DETECTOR:
        raise InputFileError(
            f"{path}: holds {_NO_DETECTOR[signal]} (SIGNALTYPE {signal}), not an X-ray spectrum of a detector; "
            "give one of EDS or XRF"
        )


def _read_table(path: Path, fields: Mapping[str, _Field], lines: Sequence[str]) -> _Table:
    """Take the numbers apart by DATATYPE, NPOINTS and NCOLUMNS."""
    rows = [parse_numbers(_split_words(line)) for line in lines]
    bad = [f"line of data {i}: {lines[i - 1][:60]!r} must be numbers" for i, row in enumerate(rows, 1) if row is None]
    refuse_faults(path, bad)
    numbers = np.array([value for row in rows for value in row or ()])
    widths = {len(row or ()) for row in rows}
    kind = fields["DATATYPE"].value.upper() if "DATATYPE" in fields else "XY" if widths == {2} else "Y"
    n_points = _read_whole(path, fields, "NPOINTS")
    if kind.startswith("X"):
        return _split_pairs(path, numbers, n_points, widths)
    columns = _read_whole(path, fields, "NCOLUMNS") or 1
    detectors = columns if kind == "YY" or (n_points is not None and len(numbers) == n_points * columns) else 1
    wanted = len(numbers) // detectors if n_points is None else n_points
    _refuse_length(path, len(numbers), wanted * detectors, numbers[wanted * detectors :], columns)
    return _Table(counts=numbers[: wanted * detectors].reshape(wanted, detectors).T.copy(), axis=None)


def _split_pairs(path: Path, numbers: NDArray[np.float64], n_points: int | None, widths: set[int]) -> _Table:
    """Split X-Y data: pairs, whatever their number in a line, or one X and one Y a detector."""
    width = max(widths) if len(widths) == 1 else 2
    several = width > 2 and (len(numbers) == n_points * width if n_points else width % 2 == 1)
    wide = width if several else 2
    wanted = len(numbers) // wide if n_points is None else n_points
    _refuse_length(path, len(numbers), wanted * wide, numbers[wanted * wide :], 0)
    table = numbers[: wanted * wide].reshape(wanted, wide)
    return _Table(counts=table[:, 1:].T.copy(), axis=table[:, 0])


def _refuse_length(path: Path, found: int, wanted: int, rest: NDArray[np.float64], columns: int) -> None:
    """Refuse data that are cut off or go on; zeros that fill the last line are nothing."""
    if found < wanted or len(rest) >= max(columns, 1) or rest.any():
        raise InputFileError(
            f"{path}: {found} numbers after #SPECTRUM, NPOINTS and DATATYPE want {wanted}; the file is cut off or was "
            "edited: copy it again from the instrument"
        )


def _split_words(line: str) -> list[str]:
    """Split a line of data at commas and blanks; where semicolons separate, a comma is a decimal one."""
    if ";" in line:
        line = line.replace(",", ".").replace(";", " ")
    return line.replace(",", " ").split()


def _read_whole(path: Path, fields: Mapping[str, _Field], key: str) -> int | None:
    """Read a whole number above 0; None where the file has none."""
    numbers = _list_numbers(fields, key)
    if not numbers:
        return None
    if numbers[0] != int(numbers[0]) or not 0 < numbers[0] < 2**31:
        raise InputFileError(f"{path}: {key} is {fields[key].value!r}, must be a whole number above 0; correct it")
    return int(numbers[0])


def _list_numbers(fields: Mapping[str, _Field], key: str) -> tuple[float, ...]:
    """List the numbers of a keyword; a comma separates where each column has one, else it may be a decimal one."""
    several = "DATATYPE" in fields and fields["DATATYPE"].value.upper() == "YY"
    return parse_leading_numbers(fields[key].value, one=not several) if key in fields else ()


def _read_calibration(
    path: Path, fields: Mapping[str, _Field], table: _Table
) -> tuple[tuple[EnergyCalibration, ...] | None, list[Note]]:
    """Read the axis of X-Y data from its column, of Y data from OFFSET (or CHOFFSET) and XPERCHAN."""
    n_detectors = len(table.counts)
    slopes = _list_numbers(fields, "XPERCHAN")
    if table.axis is not None:
        step = float(np.median(np.diff(table.axis))) if len(table.axis) > 1 else 0.0
        factor, notes = _find_unit(path, fields, step)
        return (fit_axis(path, table.axis * factor),) * n_detectors, notes
    if not slopes or not all(slopes):
        return None, [note_missing_axis("XPERCHAN")]
    factor, notes = _find_unit(path, fields, slopes[0])
    zeros = _list_numbers(fields, "CHOFFSET")
    offsets = _list_numbers(fields, "OFFSET")
    if not offsets:
        offsets = tuple(-zero * slope for zero, slope in zip(zeros, slopes, strict=False)) or (0.0,)
    elif zeros and abs(offsets[0] / slopes[0] + zeros[0]) > 1.0:
        text = f"CHOFFSET {zeros[0]:g} disagrees with OFFSET {offsets[0]:g}; OFFSET is taken"
        notes.append(Note("warning", text))
    if len(slopes) not in {1, n_detectors} or len(offsets) not in {1, n_detectors}:
        raise InputFileError(
            f"{path}: {len(slopes)} XPERCHAN and {len(offsets)} OFFSET for {n_detectors} columns; give one, or one a "
            "column"
        )
    pairs = zip(_repeat(offsets, n_detectors), _repeat(slopes, n_detectors), strict=True)
    return tuple(EnergyCalibration(offset_kev=a * factor, slope_kev=b * factor) for a, b in pairs), notes


def _repeat(values: tuple[float, ...], n: int) -> tuple[float, ...]:
    return values if len(values) == n else values * n


def _find_unit(path: Path, fields: Mapping[str, _Field], step: float) -> tuple[float, list[Note]]:
    """Find the factor to keV by XUNITS, else by the step."""
    unit = fields["XUNITS"].value.strip() if "XUNITS" in fields else ""
    if unit.lower() in _KEV_PER_UNIT:
        return _KEV_PER_UNIT[unit.lower()], []
    if unit:
        raise InputFileError(
            f"{path}: XUNITS is {unit!r}; the axis of a spectrum is in eV or keV, other spectra are not read"
        )
    factor, name = guess_kev_per_unit(step)
    return factor, [Note("warning", f"XUNITS is missing; guessed to be {name}")]


def _read_position(fields: Mapping[str, _Field], letter: str) -> NDArray[np.float64] | None:
    """Read XPOSITION or YPOSITION in micrometres, (1, 1), where the file has both."""
    if not (_list_numbers(fields, "XPOSITION") and _list_numbers(fields, "YPOSITION")):
        return None
    factor = _UM_PER_UNIT.get(fields[f"{letter}POSITION"].unit)
    return None if factor is None else np.array([[_list_numbers(fields, f"{letter}POSITION")[0] * factor]])


def _describe_beam(fields: Mapping[str, _Field]) -> list[Note]:
    """Describe BEAMKV, which is the voltage of a tube or of electrons and not the energy of a monochromatic beam."""
    kilovolts = _list_numbers(fields, "BEAMKV")
    if not kilovolts or kilovolts[0] <= 0.0:
        return []
    text = f"beam of {kilovolts[0]:g} kV (BEAMKV): of a tube or of electrons, so no incident energy is taken from it"
    return [Note("fact", text)]
