"""A row of the catalogue: one scan of an archive, and how it is kept in SQLite."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from hpcxrf.errors import InputFileError

STATES: Final[Mapping[str, str]] = {
    "ok": "a scan that a run takes",
    "refused": "a scan that cannot be read",
    "ignored": "a file that a run leaves out",
    "vanished": "was there at an earlier walk",
    "duplicate": "the content of another scan under a second name",
}
"""What `state` may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRow:
    """One scan of one file: a row of the table `scan`, whose columns have the names of the fields."""

    scan_id: int
    """Primary key, never used twice within a catalogue; a scan that was moved or has changed keeps its own."""
    root: str
    """Folder as it was given to `hpcxrf catalog`, absolute."""
    path: str
    """File relative to `root`; bytes that are not UTF-8 as surrogates, as Python keeps them."""
    member: str | None
    """Scan within a file that holds several; None: the file is one scan."""
    format: str | None
    """Format as `hpcxrf inspect` names it; None: not recognised, or not read."""
    shape_y: int | None
    """Rows of the map."""
    shape_x: int | None
    """Columns of the map."""
    n_channels: int | None
    n_detectors: int | None
    incident_energy_kev: float | None
    """As the scan says, else as its override file does."""
    date: str | None
    """Start of the scan, ISO 8601; UTC with a `Z` where the file says its zone, else as the file says."""
    live_time_s: float | None
    """Live time of the whole scan, s, mean over the detectors; None: not in the file."""
    counts: int | None
    """Counts of the integrated spectrum, all detectors; None: the file carries none."""
    i0_names: tuple[str, ...]
    """Scalers of the scan that can be its I0, as `normalise.i0` of a run file takes them."""
    sample: str | None
    companions: tuple[str, ...]
    """Other files of the scan, relative to `root`: further detectors, spectra of a fly scan."""
    elements: tuple[str, ...]
    """Element list that was found for the scan, `Fe` (K lines), `Pt_L`, `Au_M`."""
    elements_from: str | None
    """Where `elements` are from: `override file`."""
    override_path: str | None
    """Override file of detector 0, absolute."""
    instrument: str | None
    """Beamline or instrument, where the file says it."""
    size_bytes: int
    """Size of the file and its companions."""
    mtime_ns: int
    """Time of the last change of the file, ns since 1970."""
    sha256: str | None
    """Checksum of the file without its companions; None: not asked for (`--sha256`)."""
    state: str
    """One of `STATES`."""
    fault: str | None
    """Reason of whatever is not ok, in one line."""


COLUMNS: Final = tuple(field.name for field in fields(ScanRow))
"""Columns of the table `scan`, in their order."""
LISTS: Final = frozenset({"i0_names", "companions", "elements"})
"""Columns that hold a list as JSON."""
INTEGERS: Final = frozenset(
    {"scan_id", "shape_y", "shape_x", "n_channels", "n_detectors", "counts", "size_bytes", "mtime_ns"}
)
NUMBERS: Final = frozenset({"incident_energy_kev", "live_time_s"})
REQUIRED: Final = frozenset({"scan_id", "root", "path", "size_bytes", "mtime_ns", "state"})
_LARGEST: Final = 2**63 - 1


def to_record(row: ScanRow) -> tuple[object, ...]:
    """Values of the columns of a row; a name that is not UTF-8 becomes the BLOB of its bytes."""
    return tuple(to_sql(name, getattr(row, name)) for name in COLUMNS)


def to_sql(name: str, value: object) -> object:
    """Value of one column as SQLite takes it."""
    if name in LISTS:
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, str):
        return encode_text(value)
    if isinstance(value, int) and abs(value) > _LARGEST:
        return None
    return value


def encode_text(text: str) -> str | bytes:
    """Text for SQLite, which takes UTF-8 alone: names of other bytes as those bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def decode_text(value: object) -> object:
    """Undo `encode_text`."""
    return os.fsdecode(value) if isinstance(value, bytes) else value


def from_record(record: Sequence[object], where: object) -> ScanRow:
    """Make a row from the values of its columns.

    Args:
        record: values in the order of `COLUMNS`.
        where: catalogue, for the message.

    Raises:
        InputFileError: a value that no catalogue has.
    """
    values: dict[str, Any] = {}
    faults = []
    for name, stored in zip(COLUMNS, record, strict=True):
        try:
            values[name] = _from_sql(name, stored)
        except ValueError as error:
            faults.append(f"{name} {error}")
    if faults:
        raise InputFileError(
            f"{where}: scan {record[0]!r}: {'; '.join(faults)}; the catalogue is damaged: remove it and make it again"
        )
    return ScanRow(**values)


def _from_sql(name: str, stored: object) -> object:
    if name in LISTS:
        return _read_list(stored)
    if stored is None and name not in REQUIRED:
        return None
    if name in INTEGERS:
        known = isinstance(stored, int)
    elif name in NUMBERS:
        known = isinstance(stored, int | float) and math.isfinite(stored)
    else:
        stored = decode_text(stored)
        known = isinstance(stored, str) and (name != "state" or stored in STATES)
    if not known:
        raise ValueError(f"is {stored!r:.80}")
    return stored


def _read_list(stored: object) -> tuple[str, ...]:
    try:
        found = json.loads(stored) if isinstance(stored, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"is {stored!r:.80}, not a JSON list of texts")
    return tuple(found)
