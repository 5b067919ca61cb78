"""Which files belong to one scan, by their names alone, and the stamp by which a later walk sees that none has changed.

The names are looked up in the listing; what belongs together is decided by the readers themselves, which get the names
that matter (`recognise`).
"""

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from hpcxrf.archive.catalogue.walk import Entry
from hpcxrf.formats.override import find_override
from hpcxrf.formats.signatures import COMPANION_FOLDERS

READING: Final = 1
"""One is added where the same file gives another row than before, so that the next walk reads all files again."""
_MEMBER: Final = re.compile(rb"(?P<stem>.+)\.h5(?P<number>\d+)\Z", re.DOTALL)
_COMPANION: Final = re.compile(rb"_(?=.*_0\.h5\Z)", re.DOTALL)
_FIELDS: Final = "path, kind, size_bytes, mtime_ns, file_key, fault"
_FLY_FOLDERS: Final = frozenset(os.fsencode(Path(name).name) for name in COMPANION_FOLDERS) - {b"", b"."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A file that may be a scan, and the files that its name goes with."""

    entry: Entry
    beside: tuple[bytes, ...]
    """Files that decide what it is: other detectors of the scan, MDA scans whose spectra it may have."""
    known: tuple[bytes, ...]
    """Files that may be parts of the scan, by their names."""
    stamp: str
    override: Path | None


def list_entries(connection: sqlite3.Connection, number: int) -> Iterator[Entry]:
    """The entries of a root in the order of their paths, a few at a time."""
    last = b""
    while True:
        query = f"SELECT {_FIELDS} FROM entry WHERE root = ? AND path > ? ORDER BY path LIMIT 500"  # noqa: S608
        found = [_make_entry(record) for record in connection.execute(query, (number, last))]
        yield from found
        if not found:
            return
        last = found[-1].path


def _make_entry(record: tuple[bytes, str, int, int, str, str]) -> Entry:
    path, kind, size_bytes, mtime_ns, file_key, fault = record
    return Entry(path=path, kind=kind, size_bytes=size_bytes, mtime_ns=mtime_ns, file_key=file_key, fault=fault)


def find_entry(connection: sqlite3.Connection, number: int, path: bytes) -> Entry | None:
    """The entry of a path; None where the listing has none."""
    query = f"SELECT {_FIELDS} FROM entry WHERE root = ? AND path = ?"  # noqa: S608
    record = connection.execute(query, (number, path)).fetchone()
    return None if record is None else _make_entry(record)


def _find_between(connection: sqlite3.Connection, number: int, start: bytes, end: bytes) -> Iterator[Entry]:
    query = f"SELECT {_FIELDS} FROM entry WHERE root = ? AND path >= ? AND path < ? ORDER BY path"  # noqa: S608
    yield from map(_make_entry, connection.execute(query, (number, start, end)))


def find_group(
    connection: sqlite3.Connection, number: int, root: Path, entry: Entry, extra: Iterable[Path] = ()
) -> Group | None:
    """The group of a file; None where it is a detector of the scan that a lower number begins.

    Args:
        connection: with the listing.
        number: number of the root.
        root: the root.
        entry: the file.
        extra: files of the scan that an earlier reading found beyond its names.
    """
    members = list(_find_members(connection, number, entry.path))
    if members and _MEMBER.match(entry.path) is not None and members[0].path != entry.path:
        return None
    mda = sorted(_find_mda(connection, number, entry.path)) if entry.path.endswith(b"_0.h5") else []
    spectra = _find_spectra(connection, number, entry.path) if entry.path.lower().endswith(b".mda") else []
    override = _find_override_once(os.path.dirname(os.path.join(os.fsencode(root), entry.path)))  # noqa: PTH118, PTH120
    others = [one for one in members if one.path != entry.path]
    parts = [_describe(e.path, e.size_bytes, e.mtime_ns) for e in (entry, *others, *spectra)]
    parts += [_describe_file(path) for path in (*extra, *(() if override is None else (override,)))]
    digest = blake2b(f"{READING}".encode(), digest_size=16)
    for part in (*parts, *mda):
        digest.update(part + b"\0")
    return Group(
        entry=entry,
        beside=(*(one.path for one in others), *mda),
        known=tuple(one.path for one in (*others, *spectra)),
        stamp=digest.hexdigest(),
        override=override,
    )


def _describe(path: bytes, size_bytes: int, mtime_ns: int) -> bytes:
    return b"%b %d %d" % (path, size_bytes, mtime_ns)


def _describe_file(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError:
        return b"%b gone" % os.fsencode(path)
    return _describe(os.fsencode(path), status.st_size, status.st_mtime_ns)


def _find_members(connection: sqlite3.Connection, number: int, path: bytes) -> Iterator[Entry]:
    """The detectors `X.h50` .. of the scan of `X.h5N` or `X.h5`, the lowest first."""
    match = _MEMBER.match(path)
    stem = match["stem"] if match is not None else path.removesuffix(b".h5")
    if match is None and not path.endswith(b".h5"):
        return
    found = _find_between(connection, number, stem + b".h50", stem + b".h5:")
    numbered = [(int(m["number"]), e.path, e) for e in found if (m := _MEMBER.match(e.path)) and m["stem"] == stem]
    yield from (one for _, _, one in sorted(numbered, key=lambda one: one[:2]))


def _find_mda(connection: sqlite3.Connection, number: int, path: bytes) -> set[bytes]:
    """MDA scans whose spectra a file may hold, by its name and folder."""
    folder, name = os.path.split(path)
    places = {folder}
    if os.path.basename(folder) in _FLY_FOLDERS:  # noqa: PTH119
        parent = os.path.dirname(folder)  # noqa: PTH120
        siblings = connection.execute("SELECT path FROM folder WHERE root = ? AND parent = ?", (number, parent))
        places |= {parent, *(one for (one,) in siblings)}
    beginnings = {name[: match.start()] for match in _COMPANION.finditer(name)}
    return {
        found.path
        for place in places
        for start in beginnings
        # every ending: from `start.` to the sign after the point
        for found in _find_between(connection, number, _join(place, start + b"."), _join(place, start + b"/"))
        if os.path.splitext(found.path)[0] == _join(place, start) and found.path != path  # noqa: PTH122
    }


def _find_spectra(connection: sqlite3.Connection, number: int, path: bytes) -> list[Entry]:
    """Files that may hold the spectra of an MDA scan, by name and folder."""
    folder, name = os.path.split(path)
    start = os.path.splitext(name)[0] + b"_"  # noqa: PTH122
    found = []
    for place in COMPANION_FOLDERS:
        near = os.path.normpath(os.path.join(folder, os.fsencode(place)))  # noqa: PTH118
        near = b"" if near == b"." else near
        first = _join(near, start)
        between = _find_between(connection, number, first, first[:-1] + b"`")  # the sign after `_`
        found += [e for e in between if e.path.endswith(b"_0.h5") and b"/" not in e.path[len(first) :]]
    return found


def _join(folder: bytes, name: bytes) -> bytes:
    return os.path.join(folder, name)  # noqa: PTH118 - names as bytes


@lru_cache(maxsize=512)
def _find_override_once(folder: bytes) -> Path | None:
    return find_override(Path(os.fsdecode(folder)) / "scan", 0)


def forget_overrides() -> None:
    """Look for override files anew, at the beginning of a walk."""
    _find_override_once.cache_clear()
