"""PIXL spectra as PIXLISE writes them (`.csv`): a table of times and axes, then the counts of detector A and of B."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.formats.table import FileFormat
from hpcxrf.formats.text_files import parse_numbers, read_text, split_lines
from hpcxrf.formats.text_spectra import TextSpectra, join_calibrations, make_scan, note_missing_axis
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="pixl-csv",
        files="PIXL .csv (PIXLISE export)",
        reads="points of detectors A and B, or their bulk sum; axis, live and real time, PMC, x, y, z",
    ),
)
_WHAT: Final = "a PIXL CSV"
_LARGEST_BYTES: Final = 64 << 20
_SIGNS: Final = (b"PMC", b"live_time_", b"XPERCHAN_")
_DETECTORS: Final = ("A", "B")
_KEV: Final = 1e-3
_BEAM: Final = ("PMC", "x", "y", "z")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    labels: tuple[str, ...]
    values: NDArray[np.float64]
    """(row, column)."""

    def column(self, label: str) -> NDArray[np.float64] | None:
        return self.values[:, self.labels.index(label)] if label in self.labels else None


def sniff(path: Path, head: bytes) -> bool:
    """True where the first line names the columns of this format."""
    del path
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0]
    return all(sign in line for sign in _SIGNS)


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Read one file: its rows are points.

    Raises:
        InputFileError: the file cannot be read, or its tables do not fit together.
    """
    tables = _split_tables(path, split_lines(read_text(path, _WHAT, _LARGEST_BYTES)))
    facts = tables[0]
    by_detector = {d: table for d in _DETECTORS if (table := _find(tables, f"{d}_1")) is not None}
    if not by_detector:
        raise InputFileError(f"{path}: {_WHAT} without counts (a table A_1, A_2 ...); export the spectra too")
    shapes = {table.values.shape for table in by_detector.values()}
    n_points = len(facts.values)
    if len(shapes) > 1 or {shape[0] for shape in shapes} != {n_points}:
        raise InputFileError(
            f"{path}: {n_points} rows of times, but counts of shapes {sorted(shapes)}; the file is cut off: copy "
            "it again"
        )
    counts = np.stack([table.values for table in by_detector.values()])[:, :, None]
    calibration, notes = _read_calibration(path, facts, tuple(by_detector), counts.shape[-1])
    names, scalers = _read_scalers(facts, _find(tables, *_BEAM))
    second = sum(table.labels == facts.labels for table in tables[1:])
    spectra = TextSpectra(
        counts=counts,
        calibration=calibration,
        live_time_s=_read_times(facts, "live_time", tuple(by_detector)),
        real_time_s=_read_times(facts, "real_time", tuple(by_detector)),
        scaler_names=names,
        scaler_values=scalers[:, :, None],
        notes=(*notes, *([Note("warning", "the second set of tables (dwell spectra) is not used")] if second else [])),
    )
    return make_scan(path, "pixl-csv", spectra, options)


def _split_tables(path: Path, lines: Sequence[str]) -> list[_Table]:
    """Split the text into its tables: a line that begins with a letter names the columns of those below."""
    blocks: list[tuple[tuple[str, ...], list[list[float]]]] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        words = [word.strip() for word in line.strip(",").split(",")]
        if not line:
            continue
        if words[0][:1].isalpha():
            blocks.append((tuple(words), []))
            continue
        row = parse_numbers(words)
        if row is None or not blocks or len(row) != len(blocks[-1][0]):
            wanted = len(blocks[-1][0]) if blocks else 0
            raise InputFileError(
                f"{path}: line {number}: {line[:60]!r} must be {wanted} numbers between commas; copy the file again"
            )
        blocks[-1][1].append(row)
    tables = [_Table(labels=labels, values=np.array(rows)) for labels, rows in blocks if rows]
    if not tables or "PMC" not in tables[0].labels:
        raise InputFileError(f"{path}: {_WHAT} without rows below its first line; copy it again")
    return tables


def _find(tables: Sequence[_Table], *labels: str) -> _Table | None:
    """Find the first table whose columns begin with these names."""
    return next((table for table in tables if table.labels[: len(labels)] == labels), None)


def _read_calibration(
    path: Path, facts: _Table, detectors: Sequence[str], n_channels: int
) -> tuple[tuple[EnergyCalibration, ...] | None, list[Note]]:
    """Read XPERCHAN and OFFSET (eV) of each detector, by the median of the points."""
    result: list[EnergyCalibration] = []
    notes: list[Note] = []
    for detector in detectors:
        slopes, offsets = facts.column(f"XPERCHAN_{detector}"), facts.column(f"OFFSET_{detector}")
        if slopes is None or offsets is None or not slopes.all():
            return None, [note_missing_axis("XPERCHAN, OFFSET")]
        pairs = zip((offsets * _KEV).tolist(), (slopes * _KEV).tolist(), strict=True)
        every = [EnergyCalibration(offset_kev=a, slope_kev=b) for a, b in pairs]
        joined, more = join_calibrations(path, every, n_channels)
        result.append(joined)
        notes += [Note(note.kind, f"detector {detector}: {note.text}") for note in more]
    return tuple(result), notes


def _read_times(facts: _Table, name: str, detectors: Sequence[str]) -> NDArray[np.float64] | None:
    """Read times, (detector, point, 1); None where one was not recorded."""
    columns = [facts.column(f"{name}_{detector}") for detector in detectors]
    known = [column for column in columns if column is not None and (column > 0.0).all()]
    return np.stack(known)[:, :, None] if len(known) == len(columns) else None


def _read_scalers(facts: _Table, beam: _Table | None) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read PMC and, where each point has them, x, y and z in the file's own unit."""
    pmc = facts.values[:, facts.labels.index("PMC")]
    if beam is None:
        return ("PMC",), pmc[None]
    places: Mapping[float, NDArray[np.float64]] = {row[0]: row[1:4] for row in beam.values}
    if not all(number in places for number in pmc.tolist()):
        return ("PMC",), pmc[None]
    return _BEAM, np.vstack([pmc, np.array([places[number] for number in pmc.tolist()]).T])
