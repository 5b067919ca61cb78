"""Tables of the catalogue, and how one is told from any other file."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcxrf.catalogue.rows import COLUMNS, INTEGERS, NUMBERS, REQUIRED
from hpcxrf.config.untrusted import refuse_irregular, show_name
from hpcxrf.errors import InputFileError

VERSION: Final = 1
"""Version of the tables, `PRAGMA user_version`; one is added where an older hpcxrf could not read them."""
APPLICATION_ID: Final = 0x68785266
"""`hxRf`, in the header of the file: `PRAGMA application_id`."""
SIGNATURE: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_BOOKKEEPING: Final = (
    # What a later walk compares: `stamp` of the files of a scan; `state` and `fault` as reading found them; `extra`,
    # files of the scan that its name does not tell; `walk`, the last one that found it, and what had become of it.
    "CREATE TABLE kept (scan_id INTEGER PRIMARY KEY, stamp TEXT NOT NULL, fingerprint TEXT, file_key TEXT, "
    "state TEXT NOT NULL, fault TEXT, extra TEXT NOT NULL, retry INTEGER NOT NULL, walk INTEGER NOT NULL, "
    "change TEXT NOT NULL)",
    "CREATE INDEX kept_content ON kept (fingerprint, walk)",
    "CREATE TABLE walk (walk INTEGER PRIMARY KEY, began TEXT NOT NULL, ended TEXT, roots TEXT NOT NULL, "
    "sha256 INTEGER NOT NULL, program TEXT NOT NULL)",
)


def declare_scan() -> str:
    """Write the statement that makes the table `scan`."""
    return f"CREATE TABLE scan ({', '.join(map(_declare, COLUMNS))})"


def _declare(name: str) -> str:
    if name == "scan_id":
        # AUTOINCREMENT: the number of a row that was removed is not given to another.
        return "scan_id INTEGER PRIMARY KEY AUTOINCREMENT"
    kind = "INTEGER" if name in INTEGERS else "REAL" if name in NUMBERS else "TEXT"
    return f"{name} {kind}{' NOT NULL' if name in REQUIRED else ''}"


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty catalogue."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(declare_scan())
    connection.execute("CREATE INDEX scan_place ON scan (root, path, member)")
    for statement in _BOOKKEEPING:
        connection.execute(statement)


@contextmanager
def catalogue_faults(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged file into an error that a user can act on.

    Raises:
        InputFileError: SQLite cannot read the file.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise InputFileError(
            f"{show_name(str(path))}: cannot be read: {error}; the catalogue is damaged: remove it and make it again "
            "with hpcxrf catalog"
        ) from error


def require_catalogue(path: Path) -> None:
    """Refuse a file that is not a catalogue of this version, by its first bytes; nothing else is read.

    Raises:
        InputFileError: missing, another kind of file, cut off, or made by a newer hpcxrf.
    """
    name = show_name(str(path))
    size = refuse_irregular(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise InputFileError(f"{name}: cannot be read: {error.strerror}; check its permissions") from error
    if len(head) < _HEADER_BYTES or not head.startswith(SIGNATURE):
        raise InputFileError(f"{name}: not a catalogue; make one with hpcxrf catalog FOLDER -o {name}")
    if int.from_bytes(head[68:72]) != APPLICATION_ID:
        raise InputFileError(
            f"{name}: an SQLite file of another program; name a catalogue, as hpcxrf catalog FOLDER -o FILE makes it"
        )
    version = int.from_bytes(head[60:64])
    if version > VERSION:
        raise InputFileError(
            f"{name}: a catalogue of version {version}, made by a newer hpcxrf; this one reads up to "
            f"version {VERSION}: update hpcxrf, or make the catalogue again under another name"
        )
    page_bytes = int.from_bytes(head[16:18])
    expected = int.from_bytes(head[28:32]) * (65536 if page_bytes == 1 else page_bytes)
    if size < expected:
        raise InputFileError(
            f"{name}: {size} bytes of {expected}: cut off; the catalogue is damaged: copy it again, or remove it and "
            "make it again with hpcxrf catalog"
        )
