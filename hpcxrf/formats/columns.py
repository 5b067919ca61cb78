"""Columns of text and CSV: an energy (keV or eV) or channel column, then counts; or counts alone."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.formats.table import FileFormat
from hpcxrf.formats.text_files import decode_text, parse_leading_numbers, read_text, split_lines
from hpcxrf.formats.text_spectra import TextSpectra, fit_axis, guess_kev_per_unit, make_scan
from hpcxrf.formats.text_tables import NumberTable, find_table
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="columns",
        files="columns and CSV .txt .csv .dat .xy",
        reads="energy (keV or eV) or channel, then counts of one or more spectra; commas, semicolons, tabs, blanks, "
        "decimal commas; times and axis from the lines above",
    ),
)
_WHAT: Final = "a table of counts"
_SNIFFED_BYTES: Final = 1 << 16
_FEWEST_LINES: Final = 16
_MOST_NEGATIVE: Final = 0.01
_ENERGY: Final = re.compile(r"[eé]nerg|\bk?ev\b|^e$|\be\s*[(\[/]", re.IGNORECASE)
_CHANNEL: Final = re.compile(r"chan|^ch\b|^bin|^#$|^no\.?$|^n$|index", re.IGNORECASE)
_COUNTS: Final = re.compile(
    r"count|cts|cps|intens|spectrum|spectra|pulse|\bdet|mca|^y$|data|events|impuls", re.IGNORECASE
)
_DERIVED: Final = re.compile(
    r"fit|backg|bkg|resid|model|error|sigma|uncert|std|weight|alpha|beta|\bdiff|smooth|\blog", re.IGNORECASE
)
_FITTED: Final = re.compile(r"fit|backg|bkg|resid|model", re.IGNORECASE)
_DETECTOR: Final = re.compile(r"\bdet|sensor|element\s*\d", re.IGNORECASE)
_OTHER_AXIS: Final = re.compile(
    r"2\s*-?theta|two\s*-?theta|2θ|time|wavelen|wavenum|raman|angle|\bq\b|d-spac|depth|position|distance|temperature"
    r"|\bdate|volt",
    re.IGNORECASE,
)
_POSITION: Final = re.compile(
    r"(?:sam|motor|stage)?_?[xyz](?:_?pos\w*|_(?:um|mm)|\s*[(\[](?:um|µm|mm)[)\]])?", re.IGNORECASE
)
_ABSORPTION: Final = re.compile(
    r"\bmu\b|mutrans|mufluor|norm_|xmu|\bi0\b|\bi1\b|itrans|i_trans|monoe|mono_energy|flatten", re.IGNORECASE
)
_KEYS: Final = {
    "live": re.compile(r"(?i)(?<![a-z])(?:live|life)[ _-]*time(?![a-z])"),
    "real": re.compile(r"(?i)(?<![a-z])(?:real|clock)[ _-]*time(?![a-z])"),
    "slope": re.compile(
        r"(?i)(?<![a-z])k?ev\s*(?:per|/)\s*ch[a-z]*|energy[ _]per[ _]ch[a-z]*|(?<![a-z])slope(?![a-z])"
    ),
    "offset": re.compile(
        r"(?i)(?<![a-z])offset(?![a-z])|energy[ _]of[ _](?:the[ _])?(?:first[ _]channel|channel[ _]0)"
    ),
    "voltage": re.compile(r"(?i)(?<![a-z])(?:tube|high|accelerating|beam)[ _]*(?:voltage|kv|hv)(?![a-z])"),
}
_VALUE: Final = re.compile(
    r"[\W_]*?(?:\(?(?:milliseconds|seconds|sec|ms|s|keV|eV|kV)\b\)?)?[\W_]*?([+-]?(?:\d|\.\d).*)", re.IGNORECASE
)
_LINES_SEARCHED: Final = 200
_LINE_SEARCHED: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """What the columns are."""

    axis: int | None
    """Column of the energies or channels."""
    unit: str
    """`keV`, `eV` or `channel`."""
    spectra: tuple[int, ...]
    notes: tuple[Note, ...]


def sniff(path: Path, head: bytes) -> bool:
    """True for text with a table of at least 16 lines that can be spectra."""
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    table = _find_beginning(path, head)
    if table is None:
        return False
    try:
        roles = _assign_roles(path, table)
    except InputFileError:
        return False
    counts = table.values[:, roles.spectra]
    return float((counts < 0.0).mean()) <= _MOST_NEGATIVE


def holds_fit(path: Path, head: bytes) -> bool:
    """Tell whether the table has fits or backgrounds beside its spectrum: what a program wrote of a scan."""
    table = _find_beginning(path, head)
    return table is not None and any(_FITTED.search(label) for label in table.labels)


def explain(path: Path, head: bytes) -> str | None:
    """Explain what a table of numbers holds that is not a spectrum; None where the file has no such table."""
    table = None if b"\0" in head else _find_beginning(path, head)
    if table is None:
        return None
    try:
        _assign_roles(path, table)
    except InputFileError as error:
        return str(error)
    return None


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: several spectra are points of one detector, unless their columns are named after detectors.

    Raises:
        InputFileError: the file cannot be read, or its table is not one of spectra.
    """
    lines = split_lines(read_text(path, _WHAT))
    table = find_table(lines)
    if table is None or len(table.values) < _FEWEST_LINES:
        raise InputFileError(
            f"{path}: no table of {_FEWEST_LINES} lines of numbers; export energy and counts in columns"
        )
    return _make_scan(path, table, _assign_roles(path, table), options)


def open_named_table(path: Path, options: ReadOptions) -> RawScan | None:
    """Read a table whose first columns are named energy or channel; None where the file has none that can be spectra.

    Raises:
        InputFileError: the file cannot be read.
    """
    table = find_table(split_lines(read_text(path, _WHAT)))
    if table is None or not table.labels or len(table.values) < _FEWEST_LINES:
        return None
    try:
        roles = _assign_roles(path, table)
    except InputFileError:
        return None
    label = "" if roles.axis is None else table.labels[roles.axis]
    named = _ENERGY.search(label) or _CHANNEL.search(label)
    return _make_scan(path, table, roles, options) if named else None


def _make_scan(path: Path, table: NumberTable, roles: _Roles, options: ReadOptions) -> RawScan:
    notes = [*roles.notes]
    if len(table.after) > 2:
        text = f"{len(table.after)} lines below the table are not used; the first is {table.after[0][:40]!r}"
        notes.append(Note("warning", text))
    counts = table.values[:, roles.spectra].T
    calibration, more = _read_calibration(path, table, roles)
    named = bool(table.labels) and all(_DETECTOR.search(table.labels[i]) for i in roles.spectra)
    by_detector = len(counts) > 1 and named
    stacked = counts[:, None, None] if by_detector else counts[None, :, None]
    if len(counts) > 1:
        what = "detectors" if by_detector else "points"
        notes.append(Note("fact", f"{len(counts)} columns of counts, taken as {what}"))
    spectra = TextSpectra(
        counts=stacked,
        calibration=None if calibration is None else (calibration,) * len(stacked),
        live_time_s=_read_times(table.before, "live", stacked.shape[:3]),
        real_time_s=_read_times(table.before, "real", stacked.shape[:3]),
        notes=(*notes, *more, *_describe_voltage(table.before)),
    )
    return make_scan(path, "columns", spectra, options)


def _find_beginning(path: Path, head: bytes) -> NumberTable | None:
    """Find the beginning of the table, in more than the first bytes as lines may be long."""
    try:
        with path.open("rb") as file:
            content = file.read(_SNIFFED_BYTES)
    except OSError:
        content = head
    lines = split_lines(decode_text(content))
    # The last line may be cut off.
    table = find_table(lines if len(content) < _SNIFFED_BYTES else lines[:-1])
    return None if table is None or len(table.values) < _FEWEST_LINES else table


def _assign_roles(path: Path, table: NumberTable) -> _Roles:
    """Decide what each column is, by the names above it and by its numbers.

    Raises:
        InputFileError: the table is not one of spectra; the message says what it looks like.
    """
    labels, n_columns = table.labels, table.values.shape[1]
    _refuse_other_quantities(path, labels)
    axis, unit, notes = _find_axis(path, table)
    rest = [i for i in range(n_columns) if i != axis and not _is_axis(labels, table.values, i)]
    named = [i for i in rest if labels and _COUNTS.search(labels[i]) and not _DERIVED.search(labels[i])]
    kept = named or [i for i in rest if not (labels and _DERIVED.search(labels[i]))]
    kept = [i for i in kept if not _is_root(table.values, kept, i)]
    left_out = [labels[i] if labels else f"column {i + 1}" for i in rest if i not in kept]
    if left_out:
        notes.append(Note("warning", f"columns that are not counts are left out: {', '.join(left_out)}"))
    if not kept:
        raise InputFileError(f"{path}: a table without a column of counts; export energy and counts")
    for i in kept:
        _refuse_rising(path, table.values[:, i], i, labels)
    if axis is None and len(kept) > 1 and not named:
        raise InputFileError(
            f"{path}: {n_columns} columns of numbers, none of which is an energy or a channel; name the columns in a "
            "line above them (energy_kev, counts)"
        )
    return _Roles(axis=axis, unit=unit, spectra=tuple(kept), notes=tuple(notes))


def _refuse_other_quantities(path: Path, labels: Sequence[str]) -> None:
    absorption = [label for label in labels if _ABSORPTION.search(label)]
    if absorption:
        raise InputFileError(
            f"{path}: holds an absorption spectrum (XANES), by its columns {', '.join(absorption)}, not the spectrum "
            "of a detector; give a file of spectra"
        )
    positions = [label for label in labels[1:] if _POSITION.fullmatch(label)]
    if len(positions) > 1:
        raise InputFileError(
            f"{path}: holds a table of positions ({', '.join(positions)}), not spectra; give a file of spectra"
        )
    if labels and _OTHER_AXIS.search(labels[0]) and not _ENERGY.search(labels[0]):
        raise InputFileError(
            f"{path}: holds a table by {labels[0]!r}, not spectra by energy or channel; give a file of spectra"
        )


def _find_axis(path: Path, table: NumberTable) -> tuple[int | None, str, list[Note]]:
    """Find the column of the energies, else of the channels."""
    labels, values = table.labels, table.values
    energies = [i for i, label in enumerate(labels) if _ENERGY.search(label) and not _COUNTS.search(label)]
    if energies and (np.diff(values[:, energies[0]]) > 0.0).all():
        return energies[0], *_find_unit(path, values[:, energies[0]], labels[energies[0]])
    rising = [i for i in range(min(2, values.shape[1] - 1)) if (np.diff(values[:, i]) > 0.0).all()]
    if not rising:
        return None, "channel", []
    # Of a channel and an energy column side by side the energy says more.
    i = rising[-1] if len(rising) > 1 and values.shape[1] > 2 else rising[0]
    label = labels[i] if labels else ""
    return i, *_find_unit(path, values[:, i], label)


def _find_unit(path: Path, axis: NDArray[np.float64], label: str) -> tuple[str, list[Note]]:
    """Find the unit of the axis by its name, else by its numbers."""
    named = bool(_ENERGY.search(label))
    counted = bool((np.diff(axis) == 1.0).all()) and axis[0] in {0.0, 1.0}
    if counted and (not named or _CHANNEL.search(label)):
        return "channel", []
    if axis[0] > 0.5 * axis[-1]:
        raise InputFileError(
            f"{path}: energies from {axis[0]:g} to {axis[-1]:g}: an energy scan (XANES, EXAFS), not the spectrum of a "
            "detector; give a file of spectra"
        )
    if not named and abs(axis[0]) > 0.2 * abs(axis[-1]):
        raise InputFileError(
            f"{path}: the first column goes from {axis[0]:g} to {axis[-1]:g} and has no name; name it (energy_kev, "
            "energy_ev or channel) in a line above the table"
        )
    fit_axis(path, axis)
    unit = re.search(r"\bk?ev\b|_k?ev\b", label, re.IGNORECASE)
    if unit is not None:
        return ("keV" if "k" in unit[0].lower() else "eV"), []
    guess = guess_kev_per_unit(float(np.median(np.diff(axis))))[1]
    name = f"column {label!r}" if label else "first column"
    return guess, [Note("warning", f"guessed: {name} is the energy in {guess}")]


def _is_axis(labels: Sequence[str], values: NDArray[np.float64], i: int) -> bool:
    """Tell whether a column beside the axis is an axis as well: the channel beside the energy, or the reverse."""
    if labels:
        return bool(_ENERGY.search(labels[i]) or _CHANNEL.search(labels[i])) and not _COUNTS.search(labels[i])
    return i < 2 and values.shape[1] > 2 and bool((np.diff(values[:, i]) > 0.0).all())


def _is_root(values: NDArray[np.float64], columns: Sequence[int], i: int) -> bool:
    """Tell whether a column is the square root of one before it: the error bar of its counts."""
    roots = (np.sqrt(np.maximum(values[:, k], 0.0)) for k in columns if k < i)
    return any(np.allclose(values[:, i], root, rtol=1e-3, atol=1e-3) and root.any() for root in roots)


def _refuse_rising(path: Path, column: NDArray[np.float64], i: int, labels: Sequence[str]) -> None:
    if (np.diff(column) > 0.0).all():
        name = labels[i] if labels else f"column {i + 1}"
        raise InputFileError(
            f"{path}: {name} rises from line to line: time stamps, positions or an axis, not counts; give a "
            "file of spectra"
        )


def _read_calibration(path: Path, table: NumberTable, roles: _Roles) -> tuple[EnergyCalibration | None, list[Note]]:
    """Read the axis from its column, or from a slope in the lines above the table."""
    if roles.axis is not None and roles.unit != "channel":
        factor = 1e-3 if roles.unit == "eV" else 1.0
        calibration = fit_axis(path, table.values[:, roles.axis] * factor)
        return calibration, [Note("fact", f"energy axis from a column in {roles.unit}")]
    slopes, line = _read_numbers(table.before, "slope")
    if not slopes or slopes[0] <= 0.0:
        return None, []
    factor, unit = guess_kev_per_unit(slopes[0])
    offsets = _read_numbers(table.before, "offset")[0]
    offset = offsets[0] if offsets else 0.0
    calibration = EnergyCalibration(offset_kev=offset * factor, slope_kev=slopes[0] * factor)
    return calibration, [Note("fact", f"energy axis from the line {line[:60]!r}, in {unit}")]


def _read_numbers(lines: Sequence[str], key: str, *, one: bool = True) -> tuple[tuple[float, ...], str]:
    """Read the numbers after a keyword in the lines above the table, and the line."""
    for line in lines[:_LINES_SEARCHED]:
        match = _KEYS[key].search(line[:_LINE_SEARCHED])
        value = None if match is None else _VALUE.match(line[match.end() : _LINE_SEARCHED])
        numbers = () if value is None else parse_leading_numbers(_join_cells(value[1], one=one), one=one)
        if numbers:
            return numbers, line.strip()
    return (), ""


def _join_cells(text: str, *, one: bool) -> str:
    """Keep the first cell, or put commas between all of them."""
    cells = re.split(r"[;\t]", text)
    return cells[0] if one else ",".join(cells)


def _read_times(lines: Sequence[str], key: str, pixels: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Read one time, or one a spectrum, in seconds, (detector, y, x); in milliseconds where the line says so."""
    n_spectra = math.prod(pixels)
    numbers, line = _read_numbers(lines, key, one=n_spectra == 1)
    if len(numbers) < n_spectra:
        numbers = numbers[:1] * n_spectra
    if not numbers or min(numbers) <= 0.0:
        return None
    factor = 1e-3 if re.search(r"\bms\b|millisec", line) else 1.0
    return np.array(numbers[:n_spectra]).reshape(pixels) * factor


def _describe_voltage(lines: Sequence[str]) -> list[Note]:
    numbers, line = _read_numbers(lines, "voltage")
    text = f"the file says {line[:60]!r}: no incident energy is taken from a voltage"
    return [Note("fact", text)] if numbers else []
