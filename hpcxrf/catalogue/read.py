"""Reading a catalogue: nothing is written, locked or followed out of the file."""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hpcxrf.catalogue.rows import COLUMNS, ScanRow, decode_text, from_record
from hpcxrf.catalogue.schema import catalogue_faults, require_catalogue
from hpcxrf.catalogue.where import LIMIT_S, Clock, check_where, explain_refusal, guard
from hpcxrf.errors import InputFileError

_ROWS: Final = 500
_DAMAGE: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
)


def read_catalogue(path: Path, where: str | None = None) -> Iterator[ScanRow]:
    """Read the rows of a catalogue, in the order of root, path and member, a few at a time.

    Args:
        path: the catalogue.
        where: condition as SQL writes it, of columns, constants and comparisons, as `date > '2024-01-01' and
            shape_y > 100`; None: all rows.

    Returns:
        The rows. What is wrong with the file or the condition is found before the first one, but for damage further in.

    Raises:
        ConfigError: the condition is more than that, or names no column; with the columns that there are.
        InputFileError: the file is missing, damaged, not a catalogue, or made by a newer hpcxrf.
    """
    if where is not None:
        check_where(where)
    require_catalogue(path)
    connection = open_read_only(path)
    try:
        with catalogue_faults(path):
            # What a file says that others made is not trusted: a view in the place of the table would run functions.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"SELECT {', '.join(COLUMNS)} FROM scan LIMIT 0")  # noqa: S608 - names of columns
            clock = guard(connection, limit_s=math.inf if where is None else LIMIT_S)
            cursor = _select(connection, clock, where)
    except BaseException:
        connection.close()
        raise
    return _iterate(path, connection, cursor, clock, where)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Connect to a catalogue without locks or a journal: it is only ever replaced as a whole.

    Raises:
        InputFileError: it cannot be opened.
    """
    with catalogue_faults(path):
        return sqlite3.connect(f"file:{quote(bytes(path.absolute()))}?mode=ro&immutable=1", uri=True)


def _select(connection: sqlite3.Connection, clock: Clock, where: str | None) -> sqlite3.Cursor:
    condition = "" if where is None else f" WHERE ({where})"
    clock.start()
    try:
        # The condition was checked word by word, and the authorizer holds the rest.
        return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM scan{condition} ORDER BY root, path, member")  # noqa: S608
    except sqlite3.Error as error:
        if where is not None and error.sqlite_errorcode not in _DAMAGE:
            raise explain_refusal(where, None if clock.is_late() else error) from error
        raise
    finally:
        clock.stop()


def _iterate(
    path: Path, connection: sqlite3.Connection, cursor: sqlite3.Cursor, clock: Clock, where: str | None
) -> Iterator[ScanRow]:
    try:
        while True:
            clock.start()
            try:
                with catalogue_faults(path):
                    records = cursor.fetchmany(_ROWS)
            except InputFileError as error:
                if where is not None and clock.is_late():
                    raise explain_refusal(where, None) from error
                raise
            finally:
                clock.stop()
            if not records:
                return
            for record in records:
                yield from_record(record, path)
    finally:
        connection.close()


def read_roots(path: Path) -> tuple[str, ...]:
    """Read the folders that a catalogue lists.

    Raises:
        InputFileError: the file is damaged, not a catalogue, or made by a newer hpcxrf.
    """
    require_catalogue(path)
    connection = open_read_only(path)
    try:
        with catalogue_faults(path):
            found = connection.execute("SELECT DISTINCT root FROM scan ORDER BY root").fetchall()
    finally:
        connection.close()
    return tuple(str(decode_text(root)) for (root,) in found)
