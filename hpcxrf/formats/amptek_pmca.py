"""Amptek PMCA spectra (`.mca` of DppMCA and ADMCA): `<<SECTION>>` lines, `KEY - value`, one count a line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.formats.table import FileFormat
from hpcxrf.formats.text_files import parse_number, parse_numbers, read_text, refuse_faults, split_lines
from hpcxrf.formats.text_spectra import TextSpectra, guess_kev_per_unit, make_scan, note_missing_axis, spread_times
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="amptek-pmca",
        files="Amptek .mca (DppMCA, ADMCA)",
        reads="one spectrum; live and real time, axis fitted to the calibration points",
    ),
)
_BEGIN: Final = "<<PMCA SPECTRUM>>"
_WHAT: Final = "an Amptek PMCA text"
_PIXEL: Final = (1, 1, 1)


def sniff(path: Path, head: bytes) -> bool:
    """True where the first line is that of the format."""
    del path
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_BEGIN.encode())


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: one spectrum.

    Raises:
        InputFileError: the file cannot be read or is cut off, or its counts or calibration are not numbers.
    """
    sections = _split_sections(split_lines(read_text(path, _WHAT)))
    lines = sections.get("DATA", [])
    if not lines:
        raise InputFileError(f"{path}: no counts after <<DATA>>; the file is cut off: copy it again")
    values = np.array([parse_number(line) for line in lines])
    bad = np.flatnonzero(~np.isfinite(values))
    refuse_faults(path, [f"channel {i}: {lines[i][:60]!r} must be a count; correct the file" for i in bad])
    times = _read_pairs(sections.get(_BEGIN.strip("<>"), []))
    calibration, notes = _read_calibration(path, sections.get("CALIBRATION", []))
    if "END" not in sections:
        notes.append(Note("warning", "the file ends without <<END>>: channels may be missing"))
    spectra = TextSpectra(
        counts=values.reshape(1, 1, 1, -1),
        calibration=calibration,
        live_time_s=spread_times(_read_seconds(times, "LIVE_TIME"), _PIXEL),
        real_time_s=spread_times(_read_seconds(times, "REAL_TIME"), _PIXEL),
        notes=tuple(notes),
    )
    return make_scan(path, "amptek-pmca", spectra, options)


def _split_sections(lines: list[str]) -> dict[str, list[str]]:
    """Split into sections by their names; each holds its lines that are not empty."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in map(str.strip, lines):
        if line.startswith("<<") and line.endswith(">>"):
            name = line.strip("<>").strip().upper()
            sections.setdefault(name, [])
        elif line:
            sections.setdefault(name, []).append(line)
    return sections


def _read_pairs(lines: list[str]) -> dict[str, str]:
    """Read `KEY - value` lines."""
    pairs = (line.partition(" - ") for line in lines)
    return {key.strip().upper(): value.strip() for key, _, value in pairs}


def _read_seconds(pairs: Mapping[str, str], key: str) -> list[float]:
    return parse_numbers(pairs.get(key, "").replace(",", ".").split()) or []


def _read_calibration(path: Path, lines: list[str]) -> tuple[tuple[EnergyCalibration] | None, list[Note]]:
    """Fit a line through the points (channel, energy); through one point, a line from 0 keV at channel 0."""
    words = [line.replace(",", ".").split() for line in lines if not line.upper().startswith("LABEL")]
    points = [(parse_numbers(w) or []) for w in words]
    refuse_faults(
        path,
        [
            f"<<CALIBRATION>>: {line[:60]!r} must be a channel and an energy; correct or remove it"
            for line, point in zip((" ".join(w) for w in words), points, strict=True)
            if len(point) != 2
        ],
    )
    if not points:
        return None, [note_missing_axis("<<CALIBRATION>> is empty")]
    channel, energy = np.array(points).T
    if np.ptp(channel) <= 0.0:
        offset, slope = 0.0, float(energy[0] / channel[0]) if channel[0] else 0.0
        notes = [Note("warning", "energy axis from one calibration point: 0 keV is taken to be in channel 0")]
    else:
        middle = channel.mean()
        slope = float(((channel - middle) * energy).sum() / ((channel - middle) ** 2).sum())
        offset = float(energy.mean() - slope * middle)
        notes = []
    factor, unit = guess_kev_per_unit(slope)
    off = float(np.abs(offset + slope * channel - energy).max())
    if not notes:
        text = f"energy axis: a line through {len(points)} calibration points, off by at most {off:.3g} {unit}"
        notes.append(Note("fact", text))
    return (EnergyCalibration(offset_kev=offset * factor, slope_kev=slope * factor),), notes
