"""Conditions on the catalogue, as SQL writes them: columns, constants and comparisons alone.

Two walls stand before the table. The text is split into words here, and each must be a column, a constant or an
operator, so that a wrong name gets a message that lists the right ones. Then SQLite asks an authorizer, as it prepares
the statement, for each thing that the statement would do.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from hpcxrf.archive.catalogue.rows import COLUMNS
from hpcxrf.archive.catalogue.schema import declare_scan
from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import ConfigError

EXAMPLE: Final = "date > '2024-01-01' and shape_y > 100"
MAX_LENGTH: Final = 10_000
"""Most characters of a condition."""
MAX_DEPTH: Final = 32
"""Most parentheses within each other."""
LIMIT_S: Final = 30.0
"""Most seconds that SQLite may work on one condition."""
_WORDS: Final = frozenset({"and", "or", "not", "like", "in", "is", "null", "between", "escape", "isnull", "notnull"})
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<comment>--|/\*)
    | (?P<text>'(?:[^'\0]|'')*')
    | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z0-9_.]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | "(?P<quoted>[^"\0]*)"
    | (?P<sign><=|>=|<>|!=|==|[=<>()+\-*/,])""",
    re.VERBOSE,
)
_PROGRESS_STEPS: Final = 20_000
_MAX_EXPRESSION_DEPTH: Final = 900
_MAX_PATTERN: Final = 1_000


def check_where(expression: str) -> None:
    """Refuse a condition that is more than columns, constants, comparisons, arithmetic and boolean logic.

    Args:
        expression: as after SQL's WHERE: `date > '2024-01-01' and shape_y > 100`.

    Raises:
        ConfigError: what is not allowed, all faults at once, with the columns that there are.
    """
    if len(expression) > MAX_LENGTH:
        raise ConfigError(f"--where: {len(expression)} characters; at most {MAX_LENGTH}: write a shorter condition")
    tokens = list(_split(expression))
    words = [token for token in tokens if token is not None]
    before = ["", *(word[0] for word in words)]
    faults = [fault for word, one in zip(words, before, strict=False) if (fault := _explain(word, one)) is not None]
    if len(words) < len(tokens):
        place = words[-1].end() if words else 0
        faults.append(f"{show_name(expression[place:].lstrip()[:20])!r} is not understood")
    faults += _explain_nesting([word[0] for word in words])
    if not tokens:
        faults.append("it is empty")
    if faults:
        raise ConfigError(_describe(expression, faults))
    _prepare(expression)


def _prepare(expression: str) -> None:
    """Let SQLite understand a condition on an empty table, before an hour's walk."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(declare_scan())
        guard(connection, limit_s=LIMIT_S)
        connection.execute(f"SELECT scan_id FROM scan WHERE ({expression})")  # noqa: S608 - checked word by word
    except sqlite3.Error as error:
        raise explain_refusal(expression, error) from error
    finally:
        connection.close()


def _split(expression: str) -> Iterator[re.Match[str] | None]:
    """Split a condition into its words; None, and no more, where there is none."""
    place = 0
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        if match is None:
            yield None
            return
        place = match.end()
        if match.lastgroup != "space":
            yield match


def _explain_nesting(words: list[str]) -> list[str]:
    depths = list(accumulate({"(": 1, ")": -1}.get(word, 0) for word in words))
    deepest = max(depths, default=0)
    faults = ["a ')' closes nothing"] if min(depths, default=0) < 0 else []
    if not faults and depths and depths[-1] > 0:
        faults.append("a '(' is not closed")
    if deepest > MAX_DEPTH:
        faults.append(f"{deepest} parentheses within each other; at most {MAX_DEPTH}")
    return faults


def _explain(match: re.Match[str], before: str) -> str | None:
    """Say why a word is not allowed; None: it is."""
    word = match[0]
    if match.lastgroup == "comment":
        return f"{word!r} begins a comment, which is not allowed"
    if match.lastgroup == "quoted" and match["quoted"].lower() not in COLUMNS:
        return f"{show_name(word)} is not a column; write a text in single quotes, 'so'"
    if match.lastgroup == "name" and word.lower() not in _WORDS and word.lower() not in COLUMNS:
        return f"{word} is not a column"
    if word == "(" and before.strip('"').lower() in COLUMNS:
        return f"{before}(...) is a function, which is not allowed"
    return None


def _describe(expression: str, faults: list[str]) -> str:
    return (
        f"--where {show_name(expression)[:200]!r}: {'; '.join(dict.fromkeys(faults))}; write comparisons of columns, "
        f"as {EXAMPLE}; columns: {', '.join(COLUMNS)}"
    )


def guard(connection: sqlite3.Connection, *, limit_s: float) -> "Clock":
    """Let a connection do nothing but select columns of the table `scan`, for a limited time.

    Args:
        connection: from now on for one statement alone.
        limit_s: most seconds that SQLite may work.

    Returns:
        The clock, which runs between its `start` and `stop`.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, _MAX_EXPRESSION_DEPTH)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MAX_PATTERN)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_make_authorizer())
    clock = Clock(limit_s)
    connection.set_progress_handler(clock.is_late, _PROGRESS_STEPS)
    return clock


class Clock:
    """Seconds that SQLite has worked, without those that its caller takes over the rows."""

    __slots__ = ("_left_s", "_until")

    def __init__(self, limit_s: float) -> None:
        self._left_s = limit_s
        self._until: float | None = None

    def start(self) -> None:
        """SQLite begins to work."""
        self._until = time.monotonic() + self._left_s

    def stop(self) -> None:
        """SQLite has given what it was asked for."""
        if self._until is not None:
            self._left_s = self._until - time.monotonic()
        self._until = None

    def is_late(self) -> bool:
        """Whether SQLite has to give up."""
        return self._until is not None and time.monotonic() > self._until


def _make_authorizer() -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    selects = 0

    def authorise(action: int, first: str | None, second: str | None, _base: str | None, source: str | None) -> int:
        nonlocal selects
        if action == sqlite3.SQLITE_SELECT:
            selects += 1
            return sqlite3.SQLITE_OK if selects == 1 else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ:
            # No column: the table is gone through for its rows alone.
            known = first == "scan" and (not second or second in COLUMNS) and source is None
            return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY
        # LIKE is a function to SQLite.
        known = action == sqlite3.SQLITE_FUNCTION and second == "like"
        return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY

    return authorise


def explain_refusal(expression: str, error: sqlite3.Error | None) -> ConfigError:
    """Say what SQLite does not take of a condition; None: it took too long over it."""
    if error is None:
        return ConfigError(f"--where: took longer than {LIMIT_S:g} s; write a simpler condition")
    return ConfigError(_describe(expression, [str(error)]))
