"""What has become of the scans of an earlier walk: unchanged, changed, moved, vanished, back again, a duplicate."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from hpcxrf.archive.catalogue.fingerprint import WHOLE
from hpcxrf.archive.catalogue.groups import find_entry
from hpcxrf.archive.catalogue.store import OpenWalk, now
from hpcxrf.catalogue.rows import decode_text, encode_text
from hpcxrf.config.untrusted import show_name
from hpcxrf.store.files import file_sha256

CHANGES: Final[Mapping[str, str]] = {
    "new": "not there at the walk before",
    "changed": "the file, its companions or its override file changed",
    "moved": "the same file under another name",
    "back": "vanished before, and there again",
    "unchanged": "not read again",
    "vanished": "there at the walk before, and no longer",
}
"""What may have become of a scan since the walk before."""
_HASHED_AT_ONCE: Final = 32
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a walk before this one, or an earlier start of it, knows of a file."""

    scan_id: int
    stamp: str
    extra: str
    retry: bool
    walk: int
    change: str
    shown_state: str
    has_sha256: bool


def find_kept(connection: sqlite3.Connection, root: Path, path: bytes) -> Kept | None:
    """The row of a file; None where it has none."""
    record = connection.execute(
        "SELECT kept.scan_id, stamp, extra, retry, walk, change, scan.state, sha256 IS NOT NULL FROM scan "
        "JOIN kept USING (scan_id) WHERE root = ? AND path = ? AND member IS NULL",
        (encode_text(os.fsdecode(root)), encode_text(os.fsdecode(path))),
    ).fetchone()
    if record is None:
        return None
    scan_id, stamp, extra, retry, walk, change, shown, has = record
    return Kept(
        scan_id=scan_id,
        stamp=stamp,
        extra=extra,
        retry=bool(retry),
        walk=walk,
        change=change,
        shown_state=shown,
        has_sha256=bool(has),
    )


def keep_unchanged(walk: OpenWalk, kept: Kept) -> None:
    """Take over a row as it is; one that had vanished is back."""
    if kept.walk == walk.number:
        return  # of an earlier start of this walk
    change = "back" if kept.shown_state == "vanished" else "unchanged"
    walk.connection.execute(
        "UPDATE kept SET walk = ?, change = ? WHERE scan_id = ?", (walk.number, change, kept.scan_id)
    )
    walk.connection.execute(
        "UPDATE scan SET (state, fault) = (SELECT state, fault FROM kept WHERE kept.scan_id = scan.scan_id) "
        "WHERE scan_id = ?",
        (kept.scan_id,),
    )


def find_moved(
    walk: OpenWalk, numbers: Mapping[str, int], fingerprint: str, mtime_ns: int, sha256: str | None
) -> int | None:
    """The scan that a new file was, under a name that is no longer there; None where there is none.

    A file that is too large to be compared whole by its fingerprint must have the same time or checksum as well.

    Args:
        walk: the walk.
        numbers: number of each root in the listing.
        fingerprint: of the new file.
        mtime_ns: its time.
        sha256: its checksum, where it is known.
    """
    query = (
        "SELECT scan_id, root, path, mtime_ns, sha256 FROM kept JOIN scan USING (scan_id) "
        "WHERE fingerprint = ? AND walk < ? ORDER BY scan_id"
    )
    for scan_id, root, path, old_ns, old_sha256 in walk.connection.execute(query, (fingerprint, walk.number)):
        same = fingerprint.startswith(WHOLE) or old_ns == mtime_ns or (sha256 is not None and sha256 == old_sha256)
        if same and not _is_there(walk.connection, numbers, str(decode_text(root)), str(decode_text(path))):
            return int(scan_id)
    return None


def _is_there(connection: sqlite3.Connection, numbers: Mapping[str, int], root: str, path: str) -> bool:
    if root in numbers:
        return find_entry(connection, numbers[root], os.fsencode(path)) is not None
    return os.path.lexists(os.path.join(root, path))  # noqa: PTH118 - names that are not UTF-8


def keep_unlisted(walk: OpenWalk, root: Path, folder: bytes) -> None:
    """Take over what lies below a folder that cannot be listed today: nobody knows what has become of it."""
    query = "SELECT scan_id, path FROM kept JOIN scan USING (scan_id) WHERE root = ? AND walk < ?"
    below = folder + b"/" if folder else b""
    scans = [
        (walk.number, scan_id)
        for scan_id, path in walk.connection.execute(query, (encode_text(os.fsdecode(root)), walk.number))
        if os.fsencode(str(decode_text(path))).startswith(below)
    ]
    walk.connection.executemany("UPDATE kept SET walk = ?, change = 'unchanged' WHERE scan_id = ?", scans)


def mark_vanished(walk: OpenWalk, numbers: Mapping[str, int]) -> None:
    """Mark what this walk has not found below its roots; the rows stay, in case that the files come back."""
    query = (
        "SELECT scan_id, path, scan.state FROM kept JOIN scan USING (scan_id) "
        "WHERE root = ? AND walk < ? AND scan.state != 'vanished' LIMIT ?"
    )
    for root, number in numbers.items():
        while gone := walk.connection.execute(query, (encode_text(root), walk.number, _AT_ONCE)).fetchall():
            for scan_id, path, state in gone:
                listed = find_entry(walk.connection, number, os.fsencode(str(decode_text(path)))) is not None
                fault = f"not found by the walk of {now()}; it was {state}"
                after = ("ignored", "now a detector of another scan") if listed else ("vanished", fault)
                walk.connection.execute("UPDATE scan SET state = ?, fault = ? WHERE scan_id = ?", (*after, scan_id))
                walk.connection.execute(
                    "UPDATE kept SET walk = ?, change = 'vanished' WHERE scan_id = ?", (walk.number, scan_id)
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """One of several scans that may be the same."""

    scan_id: int
    place: str
    """Absolute path."""
    file_key: str
    sha256: str | None


def mark_duplicates(walk: OpenWalk, pool: Executor) -> None:
    """Mark every scan whose content is that of one with a lower number: by size and hash of those alone."""
    connection = walk.connection
    connection.execute(
        "UPDATE scan SET (state, fault) = (SELECT state, fault FROM kept WHERE kept.scan_id = scan.scan_id) "
        "WHERE state = 'duplicate'"
    )
    there = "kept.state = 'ok' AND scan.state = 'ok' AND fingerprint IS NOT NULL"
    query = (
        f"SELECT fingerprint, size_bytes, scan_id, root, path, file_key, sha256 FROM kept JOIN scan USING (scan_id) "  # noqa: S608
        f"WHERE {there} AND fingerprint IN (SELECT fingerprint FROM kept JOIN scan USING (scan_id) WHERE {there} "
        "GROUP BY fingerprint, size_bytes HAVING count(*) > 1) ORDER BY fingerprint, size_bytes, scan_id"
    )
    cursor = connection.execute(query)
    for (fingerprint, _), records in groupby(cursor, key=lambda record: (record[0], record[1])):
        first: list[_Copy] = []
        while some := [_make_copy(record) for record in islice(records, _HASHED_AT_ONCE)]:
            _mark_some(connection, pool, some, first, whole=fingerprint.startswith(WHOLE))


def _make_copy(record: Sequence[object]) -> _Copy:
    _, _, scan_id, root, path, file_key, sha256 = record
    place = os.path.join(str(decode_text(root)), str(decode_text(path)))  # noqa: PTH118 - names that are not UTF-8
    known = None if sha256 is None else str(sha256)
    return _Copy(scan_id=int(str(scan_id)), place=place, file_key=str(file_key), sha256=known)


def _mark_some(
    connection: sqlite3.Connection, pool: Executor, some: Sequence[_Copy], first: list[_Copy], *, whole: bool
) -> None:
    """Compare some copies with the first of each content, which grow by those that are none."""
    keys = {one.file_key for one in (*first, *some)}
    hashes: dict[int, str | None] = {}
    if not whole and len(keys) > 1:
        wanted = [one for one in (*first, *some) if one.sha256 is None]
        hashes = dict(zip([one.scan_id for one in wanted], pool.map(_hash_or_none, wanted), strict=True))
        connection.executemany(
            "UPDATE scan SET sha256 = ? WHERE scan_id = ?", [(value, key) for key, value in hashes.items() if value]
        )
    for one in some:
        own = one.sha256 or hashes.get(one.scan_id)
        same = next(
            (
                other
                for other in first
                if whole
                or one.file_key == other.file_key
                or (own is not None and own == (other.sha256 or hashes.get(other.scan_id)))
            ),
            None,
        )
        if same is None:
            first.append(_Copy(scan_id=one.scan_id, place=one.place, file_key=one.file_key, sha256=own))
            continue
        fault = f"same content as {show_name(same.place)}"
        connection.execute("UPDATE scan SET state = 'duplicate', fault = ? WHERE scan_id = ?", (fault, one.scan_id))


def _hash_or_none(one: _Copy) -> str | None:
    try:
        return file_sha256(Path(one.place))
    except OSError:
        return None
