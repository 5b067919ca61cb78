"""CSV of handheld instruments (Olympus Delta, Vanta): one column a reading; `Livetime`, `Slope` .. above counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.formats.table import FileFormat
from hpcxrf.formats.text_files import decode_text, parse_number, parse_numbers, read_text, split_lines
from hpcxrf.formats.text_spectra import TextSpectra, join_calibrations, make_scan, note_missing_axis
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="instrument-csv",
        files="handheld CSV (Olympus Delta, Vanta)",
        reads="one spectrum a reading, taken as points; axis, live and real time, tube voltage",
    ),
)
_WHAT: Final = "an instrument's CSV"
_KEYS: Final = frozenset(
    {"livetime", "realtime", "slope", "offset", "numdata", "exposurenum", "tubevoltageset", "tubevoltagemon", "testid"}
)
_SEPARATORS: Final = (",", ";", "\t")
_FEWEST_KEYS: Final = 3
_LONGEST_NAME: Final = 100


def sniff(path: Path, head: bytes) -> bool:
    """True where at least three lines begin with the names of this format and a separator."""
    del path
    lines = split_lines(decode_text(head))
    return any(len(_list_keys(lines, separator) & _KEYS) >= _FEWEST_KEYS for separator in _SEPARATORS)


def _list_keys(lines: Sequence[str], separator: str) -> set[str]:
    return {_name(line.partition(separator)[0]) for line in lines if separator in line}


def _name(text: str) -> str:
    """Name of a row without blanks, units and case: `Live Time (s)` is `livetime`."""
    return "".join(c for c in text[:_LONGEST_NAME].partition("(")[0].lower() if c.isalnum())


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: its readings are points of one detector.

    Raises:
        InputFileError: the file cannot be read, or its rows do not have one value a reading.
    """
    lines = [line for line in split_lines(read_text(path, _WHAT)) if line.strip(" ,;\t")]
    separator = max(_SEPARATORS, key=lambda s: len(_list_keys(lines[:100], s) & _KEYS))
    facts, rows = _split_rows(path, lines, separator)
    counts = np.array(rows).T
    n_readings, n_channels = counts.shape
    wanted = facts.get("numdata", [])
    if any(parse_number(text) != n_channels for text in wanted):
        raise InputFileError(
            f"{path}: {n_channels} rows of counts, NumData says {wanted[0]}; the file is cut off: export it again"
        )
    calibration, notes = _read_calibration(path, facts, n_readings, n_channels)
    voltages = _read_numbers(facts, "tubevoltageset", n_readings)
    kilovolts = [] if voltages is None else sorted({round(v, 1) for v in voltages.tolist()})
    tube = ", ".join(f"{v:g} kV" for v in kilovolts) or None
    points = (1, n_readings, 1)
    live_s, real_s = (_read_numbers(facts, key, n_readings) for key in ("livetime", "realtime"))
    notes += [Note("fact", f"{n_readings} readings, taken as points")] if n_readings > 1 else []
    spectra = TextSpectra(
        counts=counts[None, :, None],
        calibration=calibration,
        live_time_s=None if live_s is None else live_s.reshape(points),
        real_time_s=None if real_s is None else real_s.reshape(points),
        tube=tube,
        notes=(*notes, *([Note("fact", f"the file names a tube as source: {tube}")] if tube else [])),
    )
    return make_scan(path, "instrument-csv", spectra, options)


def _split_rows(path: Path, lines: Sequence[str], separator: str) -> tuple[dict[str, list[str]], list[list[float]]]:
    """Split into the named rows of texts, and the rows of counts: those without a name, or with a number as name."""
    facts: dict[str, list[str]] = {}
    rows: list[list[float]] = []
    width = 0
    for number, line in enumerate(lines, start=1):
        name, *words = (word.strip().strip('"') for word in line.rstrip(separator + " ").split(separator))
        if name and not np.isfinite(parse_number(name)):
            facts.setdefault(_name(name), words)
            width = max(width, len(words)) if _name(name) in _KEYS else width
            continue
        row = parse_numbers(word.replace(",", ".") for word in words)
        if not row or len(row) != width:
            raise InputFileError(
                f"{path}: row {number} that is not empty: {line[:60]!r} must be {width} counts, one a reading; "
                "export the spectra again"
            )
        rows.append(row)
    if not rows:
        raise InputFileError(
            f"{path}: {_WHAT} without counts below its named rows; export the spectra, not the results"
        )
    if any(len(row) != width for row in rows):
        raise InputFileError(
            f"{path}: a named row of {width} values stands below rows of {len(rows[0])} counts; export it again"
        )
    return facts, rows


def _read_numbers(facts: dict[str, list[str]], key: str, n_readings: int) -> NDArray[np.float64] | None:
    """Read the numbers of a named row; None unless every reading has one above 0."""
    values = parse_numbers(text.replace(",", ".") for text in facts.get(key, []))
    if values is None or len(values) != n_readings or min(values) <= 0.0:
        return None
    return np.array(values)


def _read_calibration(
    path: Path, facts: dict[str, list[str]], n_readings: int, n_channels: int
) -> tuple[tuple[EnergyCalibration] | None, list[Note]]:
    """Read Slope and Offset, in keV where the slope is below 0.5 and in eV else."""
    slopes = _read_numbers(facts, "slope", n_readings)
    offsets = parse_numbers(text.replace(",", ".") for text in facts.get("offset", []))
    if slopes is None:
        return None, [note_missing_axis("Slope, Offset")]
    if offsets is None or len(offsets) != n_readings:
        offsets = [0.0] * n_readings
    factor = 1e-3 if float(np.median(slopes)) >= 0.5 else 1.0
    pairs = zip(offsets, slopes.tolist(), strict=True)
    every = [EnergyCalibration(offset_kev=a * factor, slope_kev=b * factor) for a, b in pairs]
    joined, notes = join_calibrations(path, every, n_channels)
    return (joined,), notes
