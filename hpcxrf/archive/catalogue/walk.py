"""Listing the folders of an archive: several at a time, into a table on disk, so that memory does not grow with it."""

import os
import queue
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.untrusted import describe_fault, explain_stray
from hpcxrf.formats.registry import ZARR_MARKERS

FILE: Final = "file"
"""A regular file, or a link to one."""
UNLISTED: Final = "unlisted"
"""A folder that cannot be listed."""
LEFT_OUT: Final = "left out"
"""What a run leaves out, known without opening it."""
_BATCH: Final = 500
_AHEAD: Final = 32
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a folder."""

    path: bytes
    """Relative to the root."""
    kind: str
    size_bytes: int = 0
    mtime_ns: int = 0
    file_key: str = ""
    """Device and inode: the same of two names of one file."""
    fault: str = ""
    """Why it is left out or cannot be listed."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """What was found in one folder, or a part of it."""

    path: bytes
    entries: Sequence[Entry]
    folders: Sequence[bytes]
    ended: bool


def create_listing(connection: sqlite3.Connection) -> None:
    """Make the tables of the listing: temporary ones, on disk, since a start after a kill lists again."""
    connection.execute("PRAGMA temp_store = FILE")
    connection.execute(
        "CREATE TEMP TABLE entry (root INTEGER, path BLOB, kind TEXT, size_bytes INTEGER, mtime_ns INTEGER, "
        "file_key TEXT, fault TEXT, PRIMARY KEY (root, path)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TEMP TABLE folder (root INTEGER, parent BLOB, path BLOB, listed INTEGER, "
        "PRIMARY KEY (root, parent, path)) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX temp.folder_left ON folder (listed, root)")


def list_tree(
    connection: sqlite3.Connection, number: int, root: Path, jobs: int, progress: Callable[[int], None]
) -> None:
    """List a folder and all below it into the tables; hidden names are left out, links to folders are not followed.

    Args:
        connection: has the tables of `create_listing`.
        number: number of the root in the tables.
        root: the folder.
        jobs: folders listed at a time.
        progress: called with the number of names found since the last call.
    """
    todo: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    found: queue.Queue[_Folder] = queue.Queue(maxsize=_AHEAD)
    stop = threading.Event()
    place = os.fsencode(root)
    threads = [
        threading.Thread(target=_work, args=(place, todo, found, stop), name="list", daemon=True) for _ in range(jobs)
    ]
    for thread in threads:
        thread.start()
    try:
        connection.execute("INSERT INTO folder VALUES (?, ?, ?, 0)", (number, b"..", b""))
        busy = 0
        while True:
            busy += _feed(connection, number, todo, _AHEAD - busy)
            if busy == 0:
                return
            part = found.get()
            _keep(connection, number, part)
            progress(len(part.entries))
            busy -= part.ended
    finally:
        stop.set()
        for _ in threads:
            todo.put(None)
        with suppress(queue.Empty):
            while True:
                found.get_nowait()


def _feed(connection: sqlite3.Connection, number: int, todo: "queue.SimpleQueue[bytes | None]", room: int) -> int:
    if room <= 0:
        return 0
    query = "SELECT parent, path FROM folder WHERE listed = 0 AND root = ? LIMIT ?"
    chosen = connection.execute(query, (number, room)).fetchall()
    connection.executemany(
        "UPDATE folder SET listed = 1 WHERE root = ? AND parent = ? AND path = ?", [(number, *one) for one in chosen]
    )
    for _, path in chosen:
        todo.put(path)
    return len(chosen)


def _keep(connection: sqlite3.Connection, number: int, part: _Folder) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(number, e.path, e.kind, e.size_bytes, e.mtime_ns, e.file_key, e.fault) for e in part.entries],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO folder VALUES (?, ?, ?, 0)", [(number, part.path, one) for one in part.folders]
    )


def _work(
    root: bytes, todo: "queue.SimpleQueue[bytes | None]", found: "queue.Queue[_Folder]", stop: threading.Event
) -> None:
    while (path := todo.get()) is not None and not stop.is_set():
        try:
            for part in _list_folder(root, path):
                _hand_over(found, part, stop)
        except Exception as error:  # noqa: BLE001 - whoever waits for this folder must hear of its end
            _hand_over(found, _Folder(path, [_make_unlisted(path, error)], [], ended=True), stop)


def _hand_over(found: "queue.Queue[_Folder]", part: _Folder, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            found.put(part, timeout=0.2)
        except queue.Full:
            continue
        return


def _make_unlisted(path: bytes, error: BaseException) -> Entry:
    fault = f"a folder that cannot be listed: {describe_fault(error)}; check its permissions"
    return Entry(path=path, kind=UNLISTED, fault=fault)


def _list_folder(root: bytes, path: bytes) -> Iterator[_Folder]:
    """What is in a folder, in parts, so that one of 100 000 files is never held whole."""
    entries: list[Entry] = []
    folders: list[bytes] = []
    full = os.path.join(root, path)  # noqa: PTH118 - names as bytes
    try:
        if path and any(os.path.exists(os.path.join(full, os.fsencode(name))) for name in ZARR_MARKERS):  # noqa: PTH110, PTH118
            entries = [Entry(path=path, kind=LEFT_OUT, fault="a Zarr store in a folder; name it to open it")]
        else:
            with os.scandir(full) as listed:
                for one in listed:
                    _sort_name(one, path, entries, folders)
                    if len(entries) + len(folders) >= _BATCH:
                        yield _Folder(path, entries, folders, ended=False)
                        entries, folders = [], []
    except (FileNotFoundError, NotADirectoryError):
        pass  # gone since its parent was listed
    except OSError as error:
        entries = [*entries, _make_unlisted(path, error)]
    yield _Folder(path, entries, folders, ended=True)


def _sort_name(one: "os.DirEntry[bytes]", folder: bytes, entries: list[Entry], folders: list[bytes]) -> None:
    """Take down one name: a file, a folder to list, or why it is neither; hidden ones are left out."""
    if one.name.startswith(b"."):
        return
    path = os.path.join(folder, one.name)  # noqa: PTH118 - names as bytes
    try:
        link = one.is_symlink()
        if one.is_dir(follow_symlinks=False):
            folders.append(path)
            return
        status = one.stat()
        if stat.S_ISREG(status.st_mode):
            entries.append(
                Entry(
                    path=path,
                    kind=FILE,
                    size_bytes=status.st_size,
                    mtime_ns=max(-_LARGEST, min(status.st_mtime_ns, _LARGEST)),
                    file_key=f"{status.st_dev}:{status.st_ino}",
                )
            )
            return
        if link and stat.S_ISDIR(status.st_mode):
            entries.append(Entry(path=path, kind=LEFT_OUT, fault="a link to a folder; links are not followed"))
            return
    except OSError as error:
        if not one.is_symlink() and isinstance(error, FileNotFoundError):
            return
    stray = explain_stray(Path(os.fsdecode(one.path)))
    entries.append(Entry(path=path, kind=LEFT_OUT, fault=f"it is {stray or 'something that cannot be looked at'}"))
