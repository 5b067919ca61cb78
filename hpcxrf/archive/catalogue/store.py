"""The catalogue while it is being written: a file aside, in which a walk goes on where an earlier one was ended."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpcxrf import __version__
from hpcxrf.archive.catalogue.write import open_alone, remove_aside, replace_synced, write_faults
from hpcxrf.catalogue.read import open_read_only
from hpcxrf.catalogue.schema import catalogue_faults, create_tables, require_catalogue
from hpcxrf.errors import InputFileError
from hpcxrf.store.files import one_writer, output_faults


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWalk:
    """A walk that is going on."""

    connection: sqlite3.Connection
    number: int
    """Number of the walk: rows that it has found carry it."""
    roots: tuple[Path, ...]
    """All folders of the catalogue that this walk lists."""
    resumed: bool
    """An earlier start of this walk was ended before its end."""


@contextmanager
def open_walk(path: Path, roots: Sequence[Path], *, sha256: bool) -> Iterator[OpenWalk]:
    """Open a catalogue for a walk; it takes the place of the old one when the block ends without an error.

    Whatever ends the block otherwise, what was written stays aside for the next start.

    Args:
        path: the catalogue, there or not.
        roots: folders to list, absolute.
        sha256: the walk computes checksums.

    Raises:
        InputFileError: what is at `path` is not a catalogue, is damaged, or was made by a newer hpcxrf.
        OutputError: the folder cannot be written, or another process writes the catalogue.
    """
    aside = path.with_name(f".{path.name}.walk")
    with one_writer(path), output_faults(path.parent, bytes_needed=0), write_faults(path):
        connection = _open_aside(path, aside)
        try:
            walk = _begin(connection, roots, sha256=sha256)
            yield walk
            connection.execute("UPDATE walk SET ended = ? WHERE walk = ?", (now(), walk.number))
            connection.commit()
        except BaseException:
            # Half a transaction is taken back; what was committed is for the next start.
            with suppress(sqlite3.Error):
                connection.rollback()
            connection.close()
            raise
        connection.close()
        aside.with_name(f"{aside.name}-journal").unlink(missing_ok=True)
        replace_synced(aside, path)


def now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def _open_aside(path: Path, aside: Path) -> sqlite3.Connection:
    """Go on with what an earlier start left, or begin with a copy of the catalogue, or with nothing."""
    if path.exists() or path.is_symlink():
        require_catalogue(path)
    if aside.exists():
        connection = _open_left(path, aside)
        if connection is not None:
            return connection
        remove_aside(aside)
    if path.exists():
        half = aside.with_name(f"{aside.name}.{os.getpid()}.partial")
        try:
            shutil.copyfile(path, half)
            half.replace(aside)
        finally:
            half.unlink(missing_ok=True)
        return _open_copy(path, aside)
    connection = open_alone(aside)
    with connection:
        create_tables(connection)
    return connection


def _open_copy(path: Path, aside: Path) -> sqlite3.Connection:
    """Open the copy of a catalogue, which goes again where it is damaged."""
    try:
        with catalogue_faults(path):
            connection = open_alone(aside)
            try:
                _require_sound(connection, path)
            except BaseException:
                connection.close()
                raise
    except InputFileError:
        remove_aside(aside)
        raise
    return connection


def _open_left(path: Path, aside: Path) -> sqlite3.Connection | None:
    """What an earlier start left; None where it is damaged, or of an older catalogue than the one that is there."""
    try:
        connection = open_alone(aside)
    except sqlite3.Error:
        return None
    try:
        _require_sound(connection, aside)
        open_walks = connection.execute("SELECT count(*) FROM walk WHERE ended IS NULL").fetchone()[0]
        ended = connection.execute("SELECT max(walk) FROM walk WHERE ended IS NOT NULL").fetchone()[0]
    except (sqlite3.Error, InputFileError):
        connection.close()
        return None
    if open_walks and ended == _find_last_walk(path):
        return connection
    connection.close()
    return None


def _find_last_walk(path: Path) -> int | None:
    if not path.exists():
        return None
    connection = open_read_only(path)
    try:
        found: int | None = connection.execute("SELECT max(walk) FROM walk").fetchone()[0]
        return found
    finally:
        connection.close()


def _require_sound(connection: sqlite3.Connection, path: Path) -> None:
    fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise InputFileError(f"{path}: the catalogue is damaged ({fault}): remove it and make it again")
    connection.execute("SELECT scan_id FROM scan LIMIT 0")
    connection.execute("SELECT scan_id FROM kept LIMIT 0")


def _begin(connection: sqlite3.Connection, roots: Sequence[Path], *, sha256: bool) -> OpenWalk:
    listed = json.dumps([os.fsdecode(root) for root in roots])
    last = connection.execute("SELECT walk, ended, roots, sha256 FROM walk ORDER BY walk DESC LIMIT 1").fetchone()
    resumed = last is not None and last[1] is None and (last[2], bool(last[3])) == (listed, sha256)
    number = 1 if last is None else last[0] + (not resumed)
    if not resumed:
        # One that was ended and is not gone on with: its rows are those of an earlier walk.
        connection.execute("UPDATE walk SET ended = began WHERE ended IS NULL")
        program = f"hpcxrf {__version__}"
        connection.execute("INSERT INTO walk VALUES (?, ?, NULL, ?, ?, ?)", (number, now(), listed, sha256, program))
        connection.commit()
    return OpenWalk(connection=connection, number=number, roots=tuple(roots), resumed=resumed)
