"""Ortec and IAEA spectra (`.spe`, text): the sections `$DATA`, `$MEAS_TIM`, `$MCA_CAL` and `$ENER_FIT`."""

import re
from collections.abc import Mapping
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
    parse_number,
    parse_numbers,
    read_text,
    split_lines,
)
from hpcxrf.formats.text_spectra import TextSpectra, make_scan, note_missing_axis, shift_channels, spread_times
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(name="iaea-spe", files="Ortec and IAEA .spe (text)", reads="one spectrum; live and real time, axis"),
)
_WHAT: Final = "an Ortec or IAEA .spe text"
_SECTION: Final = re.compile(r"\$([A-Za-z][A-Za-z0-9_]*)\s*+:?\s*+$")
_KNOWN: Final = frozenset(
    {"SPEC_ID", "SPEC_REM", "DATE_MEA", "MEAS_TIM", "DATA", "ROI", "PRESETS", "ENER_FIT", "MCA_CAL"}
)
_KEV_PER_UNIT: Final = {"kev": 1.0, "ev": 1e-3, "mev": 1e3}
_PIXEL: Final = (1, 1, 1)


def sniff(path: Path, head: bytes) -> bool:
    """True where the first line that is not empty begins a section, and one of the sections is known."""
    del path
    lines = [line.strip() for line in split_lines(decode_text(head)) if line.strip()]
    names = {match[1].upper() for line in lines if (match := _SECTION.match(line))}
    return bool(lines) and lines[0].startswith("$") and bool(names & _KNOWN)


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: one spectrum.

    Raises:
        InputFileError: the file cannot be read, is cut off, or its counts are not numbers.
    """
    sections = _split_sections(split_lines(read_text(path, _WHAT)))
    first, counts = _read_counts(path, sections)
    times = parse_numbers(" ".join(sections.get("MEAS_TIM", [])[:1]).split()) or []
    calibration, notes = _read_calibration(sections, first)
    spectra = TextSpectra(
        counts=counts,
        calibration=calibration,
        live_time_s=spread_times(times[:1], _PIXEL),
        real_time_s=spread_times(times[1:2], _PIXEL),
        notes=tuple(notes),
    )
    return make_scan(path, "iaea-spe", spectra, options)


def _split_sections(lines: list[str]) -> dict[str, list[str]]:
    """Split into sections by their names, each with its lines that are not empty; the first of a name counts."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in map(str.strip, lines):
        match = _SECTION.match(line) if line.startswith("$") else None
        if match is not None:
            current = []
            sections.setdefault(match[1].upper(), current)
        elif line:
            current.append(line)
    return sections


def _read_counts(path: Path, sections: Mapping[str, list[str]]) -> tuple[int, NDArray[np.float64]]:
    """Read number of the first channel, and counts (1, 1, 1, channel)."""
    lines = sections.get("DATA", [])
    ends = parse_numbers(lines[0].split()) if lines else None
    if not lines or ends is None or len(ends) != 2 or not 0 <= ends[0] <= ends[1] < 2**31:
        raise InputFileError(
            f"{path}: {_WHAT} needs $DATA: and the numbers of its first and last channel; export it again"
        )
    words = [word for line in lines[1:] for word in line.split()]
    counts = np.array([parse_number(word) for word in words])
    bad = np.flatnonzero(~np.isfinite(counts))
    if bad.size:
        raise InputFileError(f"{path}: channel {bad[0]}: {words[bad[0]][:60]!r} is not a count; correct the file")
    first, last = map(int, ends)
    # Some programs write the number of channels in place of the last one.
    if len(counts) not in {last - first + 1, last - first}:
        raise InputFileError(
            f"{path}: {len(counts)} counts after $DATA:, which says channels {first} to {last}; the file is cut off: "
            "copy it again"
        )
    return first, counts.reshape(1, 1, 1, -1)


def _read_calibration(
    sections: Mapping[str, list[str]], first: int
) -> tuple[tuple[EnergyCalibration] | None, list[Note]]:
    """Read $MCA_CAL (number of terms, terms, unit), else $ENER_FIT (offset, slope)."""
    for name, terms, unit in (
        ("MCA_CAL", *_read_terms(sections.get("MCA_CAL", []))),
        ("ENER_FIT", *_read_terms(["3", *sections.get("ENER_FIT", [])])),
    ):
        slope = terms[1] if len(terms) > 1 else 0.0
        if slope == 0.0 or (terms[0], slope) == (0.0, 1.0):
            continue
        factor = _KEV_PER_UNIT.get(unit.lower(), 1.0)
        quadratic = terms[2] if len(terms) > 2 else 0.0
        calibration = EnergyCalibration(
            offset_kev=terms[0] * factor, slope_kev=slope * factor, quadratic_kev=quadratic * factor
        )
        return (shift_channels(calibration, first),), [Note("fact", f"energy axis from ${name}")]
    return None, [note_missing_axis("$MCA_CAL, $ENER_FIT")]


def _read_terms(lines: list[str]) -> tuple[tuple[float, ...], str]:
    """Read the terms of a calibration and their unit; the line with their number may be missing."""
    if not lines:
        return (), ""
    head = parse_leading_numbers(lines[0])
    text = lines[1] if len(head) == 1 and len(lines) > 1 else lines[0]
    unit = text.split()[-1] if text.split() else ""
    return parse_leading_numbers(text), unit
