"""Writing a catalogue: aside, without locks, and renamed when it is whole, so that network file systems do no harm."""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hpcxrf.catalogue.rows import COLUMNS, ScanRow, to_record
from hpcxrf.catalogue.schema import create_tables
from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import OutputError
from hpcxrf.store.files import output_faults, sync_folder

_MARKS: Final = ", ".join("?" * len(COLUMNS))
INSERT: Final = f"INSERT INTO scan VALUES ({_MARKS})"  # noqa: S608 - marks alone
INSERT_OR_REPLACE: Final = f"INSERT OR REPLACE INTO scan VALUES ({_MARKS})"  # noqa: S608 - marks alone


def write_catalogue(path: Path, rows: Iterable[ScanRow]) -> None:
    """Write a catalogue of rows that are known, in place of one that may be there.

    Args:
        path: the catalogue.
        rows: no two of one `scan_id`.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with output_faults(path.parent, bytes_needed=0), write_faults(path):
        try:
            connection = open_alone(aside)
            try:
                with connection:
                    create_tables(connection)
                    connection.executemany(INSERT, map(to_record, rows))
                    # Without a stamp the next walk reads them all.
                    connection.execute(
                        "INSERT INTO kept SELECT scan_id, '', NULL, '', state, fault, '[]', 0, 0, 'new' FROM scan"
                    )
            finally:
                connection.close()
            replace_synced(aside, path)
        finally:
            remove_aside(aside)


def open_alone(path: Path) -> sqlite3.Connection:
    """Connect to a file that no other process opens: without locks, which network file systems may lack or fake.

    Raises:
        sqlite3.Error: it cannot be opened, or is not a database.
    """
    connection = sqlite3.connect(f"file:{quote(bytes(path.absolute()))}?mode=rwc&nolock=1", uri=True)
    try:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def remove_aside(aside: Path) -> None:
    """Remove a file that was being written, and what SQLite left beside it."""
    aside.unlink(missing_ok=True)
    aside.with_name(f"{aside.name}-journal").unlink(missing_ok=True)


def replace_synced(aside: Path, path: Path) -> None:
    """Put a finished file in the place of another, durably.

    Raises:
        OSError: the folder cannot be written.
    """
    with aside.open("rb") as stream:
        os.fsync(stream.fileno())
    aside.replace(path)
    sync_folder(path.parent)


@contextmanager
def write_faults(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a disk that takes nothing into an error that a user can act on.

    Raises:
        OutputError: SQLite cannot write the file.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"{show_name(str(path))}: cannot be written: {error}; free some space or name another folder"
        ) from error
