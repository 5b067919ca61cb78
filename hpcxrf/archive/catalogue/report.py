"""What a walk found, in numbers: changes, states, formats, and reasons of what is not ok."""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.archive.catalogue.changes import CHANGES
from hpcxrf.archive.catalogue.store import OpenWalk
from hpcxrf.catalogue.rows import STATES, decode_text
from hpcxrf.config.untrusted import show_name

_NUMBER: Final = re.compile(r"\d+(\.\d+)?")
_QUOTED: Final = re.compile(r"b?(['\"]).*?\1")
_PLACE: Final = re.compile(r"(/[^\s;,:]+)+")
_MOST_REASONS: Final = 1000
_LONGEST_REASON: Final = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason, and an example of it."""

    state: str
    text: str
    """As it was found; numbers and names replaced by `#` and `...` where several files have it."""
    count: int
    example: str
    """Path of one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Numbers of a catalogue."""

    states: Mapping[str, int]
    formats: Mapping[str, int]
    """Of the scans that are ok."""
    reasons: tuple[Reason, ...]
    """The most frequent first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkReport:
    """What a walk did."""

    roots: tuple[Path, ...]
    changes: Mapping[str, int]
    """Number of rows by what became of them, as `CHANGES`, and `duplicate`."""
    contents: Contents
    read: int
    """Files that were read."""
    gone: int
    """Files that vanished between listing and reading."""
    resumed: bool
    seconds: float


@dataclass(slots=True)
class Counting:
    """Counts rows one by one, in bounded memory."""

    states: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Path and fault of one file of each."""

    def add(self, state: str, format_name: str | None, fault: str | None, path: str) -> None:
        """Count a row."""
        self.states[state] += 1
        if state == "ok":
            self.formats[format_name or "unknown"] += 1
            return
        key = (state, shorten_reason(fault or ""))
        if key not in self.examples and len(self.examples) >= _MOST_REASONS:
            key = (state, "others")
        self.reasons[key] += 1
        self.examples.setdefault(key, (show_name(path), fault or ""))

    def finish(self) -> Contents:
        """The numbers."""
        return Contents(
            states={name: self.states[name] for name in STATES if self.states[name]},
            formats=dict(sorted(self.formats.items(), key=lambda item: (-item[1], item[0]))),
            reasons=tuple(
                Reason(
                    state=key[0],
                    text=key[1] if count > 1 else self.examples[key][1],
                    count=count,
                    example=self.examples[key][0],
                )
                for key, count in self.reasons.most_common()
            ),
        )


def shorten_reason(fault: str) -> str:
    """Make one reason of those that differ in numbers and names alone."""
    text = _NUMBER.sub("#", _PLACE.sub("...", _QUOTED.sub("'...'", fault)))
    text = re.sub(r"(same content as|a detector of the scan) .*", r"\1 ...", text)
    text = re.sub(r"(not found by the walk) of .*;", r"\1;", text)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def count_rows(rows: Iterable[tuple[str, str | None, str | None, object]]) -> Contents:
    """Count rows of state, format, fault and path."""
    counting = Counting()
    for state, format_name, fault, path in rows:
        counting.add(state, format_name, fault, str(decode_text(path)))
    return counting.finish()


def report_walk(walk: OpenWalk, *, read: int, gone: int, seconds: float) -> WalkReport:
    """Count what a walk found; the contents are those of the whole catalogue."""
    connection = walk.connection
    query = "SELECT change, count(*) FROM kept WHERE walk = ? GROUP BY change"
    found = dict(connection.execute(query, (walk.number,)))
    copies = connection.execute("SELECT count(*) FROM scan WHERE state = 'duplicate'").fetchone()[0]
    return WalkReport(
        roots=walk.roots,
        changes={**{name: found.get(name, 0) for name in CHANGES}, "duplicate": copies},
        contents=count_all(connection),
        read=read,
        gone=gone,
        resumed=walk.resumed,
        seconds=seconds,
    )


def count_all(connection: sqlite3.Connection) -> Contents:
    """Count all rows of a catalogue."""
    return count_rows(connection.execute("SELECT state, format, fault, path FROM scan ORDER BY root, path"))
