"""SPEC data files (`.spec`, `.dat`, `.mca`): spectra after `@A`, continued over lines; one scan or several."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.columns import open_named_table
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
from hpcxrf.formats.text_spectra import TextSpectra, join_calibrations, make_scan, note_missing_axis, shift_channels
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="spec",
        files="SPEC data files (.spec .dat .mca, also PyMca's)",
        reads="spectra after @A of one scan or several, mesh scans as maps; axis, live and real time, counters",
    ),
)
_WHAT: Final = "a SPEC file"
_LARGEST_BYTES: Final = 64 << 20
"""Bytes of the text of a map of some 10 000 spectra."""
_SPECTRUM: Final = re.compile(r"@([A-Za-z]\w*)")
_BEGIN: Final = re.compile(rb"\s*#[FS] ")
_MESH: Final = re.compile(
    r"\s*\d+\s+[a-z]*mesh\s+(\S+)\s+\S+\s+\S+\s+(\d{1,6})\s+(\S+)\s+\S+\s+\S+\s+(\d{1,6})(?:\s|$)", re.IGNORECASE
)
_LABELS: Final = re.compile(r"\s{2,}|\t")


@dataclass(slots=True)
class _Scan:
    """One `#S` block."""

    title: str = ""
    spectra: list[NDArray[np.float64]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Name of each spectrum: A, A1, B ..."""
    rows: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    calibrations: list[tuple[float, ...]] = field(default_factory=list)
    channels: list[tuple[float, ...]] = field(default_factory=list)
    times: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def number(self) -> str:
        return (self.title.split() or ["?"])[0]

    @property
    def n_points(self) -> int:
        """Number of points: one a line of counters; without such lines one a spectrum, unless those have names."""
        if self.rows:
            return len(self.rows)
        distinct = len(set(self.names))
        blocks = max(len(self.calibrations), len(self.channels))
        per_point = distinct if distinct > 1 else blocks if blocks == len(self.spectra) else 1
        return len(self.spectra) // per_point if len(self.spectra) % per_point == 0 else len(self.spectra)


def sniff(path: Path, head: bytes) -> bool:
    """True where the first line that is not empty is `#F` or `#S`."""
    del path
    return _BEGIN.match(decode_text(head).encode()) is not None


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read all spectra of a file: points of one or more detectors.

    Raises:
        InputFileError: the file cannot be read, holds counters and no spectra, or scans that do not fit together.
    """
    scans = _parse(path, split_lines(read_text(path, _WHAT, _LARGEST_BYTES)))
    found = [scan for scan in scans if scan.spectra]
    if not found and len(scans) == 1 and (scan := open_named_table(path, options)) is not None:
        return scan
    if not found:
        n_rows = sum(len(scan.rows) for scan in scans)
        raise InputFileError(
            f"{path}: {_WHAT} with {len(scans)} scans, {n_rows} lines of counters (ROIs only, or a XANES scan) and no "
            "spectra (@A); name the file with the spectra"
        )
    n_detectors, n_channels = _check_shapes(path, found)
    n_points = sum(scan.n_points for scan in found)
    table = np.array([values for scan in found for values in scan.spectra])
    n_y, n_x, notes = _choose_shape(found, n_points)
    counts = table.reshape(n_points, n_detectors, n_channels).transpose(1, 0, 2)
    calibration, more = _read_calibrations(path, found, n_detectors, n_channels)
    live_s, real_s = _read_times(found, n_detectors)
    names, counters = _read_counters(found)
    pixels = (n_detectors, n_y, n_x)
    spectra = TextSpectra(
        counts=counts.reshape(*pixels, n_channels),
        calibration=calibration,
        live_time_s=None if live_s is None else live_s.reshape(pixels),
        real_time_s=None if real_s is None else real_s.reshape(pixels),
        scaler_names=names,
        scaler_values=None if counters is None else counters.reshape(len(names), n_y, n_x),
        notes=(*notes, *more),
    )
    return make_scan(path, "spec", spectra, options)


def _parse(path: Path, lines: Sequence[str]) -> list[_Scan]:
    """Parse all scans; a backslash at the end of a line of a spectrum continues it."""
    scans = [_Scan()]
    faults: list[str] = []
    for number, line in _join_continued(lines):
        match = _SPECTRUM.match(line)
        if line.startswith("#S "):
            scans.append(_Scan(title=line[3:]))
        elif line.startswith("#"):
            _read_header(scans[-1], line)
        elif match is not None:
            values = parse_numbers(line[match.end() :].split())
            faults += [] if values else [f"line {number}: the spectrum that begins here is not made of counts"]
            scans[-1].names.append(match[1])
            scans[-1].spectra.append(np.array(values or ()))
        elif (row := parse_numbers(line.split())) is not None:
            scans[-1].rows += [row] if row else []
    refuse_faults(path, faults)
    return scans[1:] if not scans[0].spectra else scans


def _join_continued(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Join lines that end with a backslash to the next; the number of the first, counted from 1."""
    pieces: list[str] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        pieces.append(line.rstrip("\\"))
        if not line.endswith("\\"):
            yield number - len(pieces) + 1, " ".join(pieces)
            pieces = []
    if pieces:
        yield len(lines) - len(pieces) + 1, " ".join(pieces)


def _read_header(scan: _Scan, line: str) -> None:
    key, _, text = line.partition(" ")
    place = {"#@CALIB": scan.calibrations, "#@CHANN": scan.channels, "#@CTIME": scan.times}.get(key)
    if place is not None:
        place.append(parse_leading_numbers(text))
    elif key == "#L":
        scan.labels = [label for label in _LABELS.split(text.strip()) if label]


def _check_shapes(path: Path, scans: Sequence[_Scan]) -> tuple[int, int]:
    """Find the numbers of detectors and channels, which must be those of every scan.

    Raises:
        InputFileError: they are not.
    """
    shapes: dict[tuple[int, int], list[str]] = {}
    for scan in scans:
        lengths = {len(values) for values in scan.spectra}
        n_detectors, rest = divmod(len(scan.spectra), scan.n_points)
        if len(lengths) > 1 or rest:
            raise InputFileError(
                f"{path}: scan {scan.number} has {len(scan.spectra)} spectra of {sorted(lengths)[:4]} channels at "
                f"{scan.n_points} points; the scan was stopped or the file is damaged: remove that scan"
            )
        wanted = max((int(channels[0]) for channels in scan.channels if channels), default=0)
        if max(lengths) < wanted:
            raise InputFileError(
                f"{path}: scan {scan.number} has spectra of {max(lengths)} channels, #@CHANN says {wanted}; the file "
                "is cut off: copy it again"
            )
        shapes.setdefault((n_detectors, lengths.pop()), []).append(scan.number)
    if len(shapes) > 1:
        told = "; ".join(f"{d} detectors of {c} channels: {', '.join(n[:5])}" for (d, c), n in shapes.items())
        raise InputFileError(f"{path}: scans that do not fit together ({told}); put each kind into a file of its own")
    return next(iter(shapes))


def _choose_shape(scans: Sequence[_Scan], n_points: int) -> tuple[int, int, list[Note]]:
    """Choose rows and columns: those of a complete mesh, else one column of points."""
    if len(scans) > 1:
        return n_points, 1, [Note("fact", f"{len(scans)} scans with spectra, taken as one column of points")]
    match = _MESH.match(scans[0].title)
    if match is None:
        return n_points, 1, []
    n_x, n_y = int(match[2]) + 1, int(match[4]) + 1
    if n_x * n_y != n_points:
        text = f"mesh of {n_y} x {n_x} points of which the file has {n_points}: taken as one column"
        return n_points, 1, [Note("warning", text)]
    text = f"mesh of {n_y} x {n_x} points, {match[1]} the fast motor and {match[3]} the slow one"
    return n_y, n_x, [Note("fact", text)]


def _read_calibrations(
    path: Path, scans: Sequence[_Scan], n_detectors: int, n_channels: int
) -> tuple[tuple[EnergyCalibration, ...] | None, list[Note]]:
    """Read the axis of each detector, channels counted from 0; `0 1 0` is what SPEC writes without a calibration."""
    by_detector = []
    notes: list[Note] = []
    for detector in range(n_detectors):
        every = [_read_calibration(scan, detector) for scan in scans]
        known = [one for one in every if one is not None]
        if len(known) < len(every):
            return None, [note_missing_axis("#@CALIB")]
        joined, more = join_calibrations(path, known, n_channels)
        by_detector.append(joined)
        notes += more
    return tuple(by_detector), notes


def _read_calibration(scan: _Scan, detector: int) -> EnergyCalibration | None:
    terms = _pick(scan.calibrations, detector)
    if len(terms) < 2 or terms[1] == 0.0 or terms[:2] == (0.0, 1.0):
        return None
    channels = _pick(scan.channels, detector)
    first, step = (channels[1] if len(channels) > 1 else 0.0), (channels[3] if len(channels) > 3 else 1.0)
    calibration = EnergyCalibration(
        offset_kev=terms[0], slope_kev=terms[1], quadratic_kev=terms[2] if len(terms) > 2 else 0.0
    )
    return shift_channels(calibration, first, max(step, 1.0))


def _pick(values: Sequence[tuple[float, ...]], detector: int) -> tuple[float, ...]:
    """Pick the value of a detector, or the one that all share."""
    return () if not values else values[detector] if detector < len(values) else values[-1]


def _read_times(
    scans: Sequence[_Scan], n_detectors: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Read live and real time of `#@CTIME preset live real`, (detector, point); None unless each point has its own."""
    if any(scan.n_points > 1 or not scan.times for scan in scans):
        return None, None
    rows = [[_pick(scan.times, d) for scan in scans] for d in range(n_detectors)]
    if any(len(times) < 3 or min(times[1:3]) <= 0.0 for row in rows for times in row):
        return None, None
    table = np.array([[times[1:3] for times in row] for row in rows])
    return table[:, :, 0], table[:, :, 1]


def _read_counters(scans: Sequence[_Scan]) -> tuple[tuple[str, ...], NDArray[np.float64] | None]:
    """Read the counters and motors of each point, (counter, point); none unless all scans have the same."""
    labels = {tuple(scan.labels) for scan in scans}
    rows = [row for scan in scans for row in scan.rows]
    names = labels.pop() if len(labels) == 1 else ()
    if not names or {len(row) for row in rows} != {len(names)} or any(not scan.rows for scan in scans):
        return (), None
    return names, np.array(rows).T
