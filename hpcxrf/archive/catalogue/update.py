"""A walk through an archive: every folder listed, what is new or changed read, and the catalogue brought up to date."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from hpcxrf.archive.catalogue import changes
from hpcxrf.archive.catalogue.changes import Kept
from hpcxrf.archive.catalogue.groups import Group, find_entry, find_group, forget_overrides, list_entries
from hpcxrf.archive.catalogue.report import WalkReport, report_walk
from hpcxrf.archive.catalogue.roots import check_roots, identify_roots, require_roots
from hpcxrf.archive.catalogue.store import OpenWalk, open_walk
from hpcxrf.archive.catalogue.walk import FILE, UNLISTED, Entry, create_listing, list_tree
from hpcxrf.archive.catalogue.write import INSERT_OR_REPLACE
from hpcxrf.catalogue.rows import ScanRow, to_record
from hpcxrf.formats.children import ChildPool, ask, end_children, kill_children

COMMIT_S: Final = 1.0
"""Seconds between two commits: as much is read again after a kill."""
_AHEAD: Final = 64
_LISTERS: Final = 8
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkOptions:
    """How an archive is walked."""

    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that read files."""
    sha256: bool = False
    """Compute the checksum of every scan."""
    reread: bool = False
    """Read also what has not changed."""
    scalers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """PVs of the scalers of a site, by name."""


@dataclass(slots=True, kw_only=True)
class _Walking:
    """State of a walk."""

    walk: OpenWalk
    options: WalkOptions
    numbers: Mapping[str, int]
    """Number of each root in the listing."""
    threads: ThreadPoolExecutor
    children: ChildPool
    committed_s: float = field(default_factory=time.monotonic)
    read: int = 0
    gone: int = 0
    """Files that vanished between the listing and the reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One file that becomes a row."""

    root: Path
    entry: Entry
    stamp: str
    kept: Kept | None
    change: str
    group: Group | None = None


def update_catalogue(
    path: Path, folders: Sequence[Path], options: WalkOptions, progress: Progress = lambda _step, _done, _of: None
) -> WalkReport:
    """Walk through folders and write what they hold into a catalogue; nothing is written into them.

    A catalogue that is there is brought up to date: what has not changed is not read again. The new one takes its place
    when the walk has ended; what a walk has done that was stopped before, the next one does not do again.

    Args:
        path: the catalogue.
        folders: folders to list.
        options: how.
        progress: called with the step, what is done and of how much.

    Raises:
        ConfigError: folders that do not fit with each other, the catalogue or its place.
        InputFileError: a folder is not there or vanished meanwhile; the catalogue is damaged or of a newer hpcxrf.
        OutputError: the catalogue cannot be written, or another process writes it.
    """
    roots = check_roots(path, folders)
    identities = identify_roots(roots)
    began_s = time.monotonic()
    forget_overrides()
    children = ChildPool(module="hpcxrf.archive.catalogue.child", reader="its reader", most=options.jobs)
    threads = ThreadPoolExecutor(options.jobs, thread_name_prefix="catalogue")
    with open_walk(path, roots, sha256=options.sha256) as walk:
        numbers = {os.fspath(root): number for number, root in enumerate(roots)}
        walking = _Walking(walk=walk, options=options, numbers=numbers, threads=threads, children=children)
        try:
            _list_roots(walking, progress)
            require_roots(identities)
            _read_entries(walking, progress)
            require_roots(identities)
            changes.mark_vanished(walk, numbers)
            changes.mark_duplicates(walk, threads)
        except BaseException:
            kill_children(children)
            raise
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            end_children(children)
        return report_walk(walk, read=walking.read, gone=walking.gone, seconds=time.monotonic() - began_s)


def _list_roots(walking: _Walking, progress: Progress) -> None:
    create_listing(walking.walk.connection)
    found = 0

    def count(more: int) -> None:
        nonlocal found
        found += more
        progress("list", found, found)

    for root, number in walking.numbers.items():
        list_tree(walking.walk.connection, number, Path(root), _LISTERS, count)
    walking.walk.connection.commit()


def _read_entries(walking: _Walking, progress: Progress) -> None:
    """Read what has to be read, several files at a time; rows are written in the order of the names."""
    total = walking.walk.connection.execute("SELECT count(*) FROM entry").fetchone()[0]
    waiting: deque[tuple[_Work, Future[dict[str, Any]]]] = deque()
    for done, work in enumerate(_plan(walking), start=1):
        if work is not None:
            waiting.append((work, _begin(walking, work)))
        while len(waiting) > _AHEAD or (waiting and waiting[0][1].done()):
            _write_first(walking, waiting)
        _commit_at_times(walking, progress, done - len(waiting), total)
    while waiting:
        _write_first(walking, waiting)
        _commit_at_times(walking, progress, total - len(waiting), total)
    walking.walk.connection.commit()
    progress("read", total, total)


def _write_first(walking: _Walking, waiting: "deque[tuple[_Work, Future[dict[str, Any]]]]") -> None:
    work, answer = waiting.popleft()
    _write_row(walking, work, answer.result())


def _commit_at_times(walking: _Walking, progress: Progress, done: int, total: int) -> None:
    if time.monotonic() - walking.committed_s > COMMIT_S:
        walking.walk.connection.commit()
        walking.committed_s = time.monotonic()
        progress("read", done, total)


def _begin(walking: _Walking, work: _Work) -> "Future[dict[str, Any]]":
    """Begin to read a file; what is known without that waits for its turn, so that rows are numbered in order."""
    if work.group is not None:
        return walking.threads.submit(_ask, walking, work)
    unlisted = work.entry.kind == UNLISTED
    known: Future[dict[str, Any]] = Future()
    known.set_result({"state": "refused" if unlisted else "ignored", "fault": work.entry.fault, "retry": unlisted})
    return known


def _plan(walking: _Walking) -> Iterator[_Work | None]:
    """What to do about each name: a file to read, or nothing, where its row is known or it has none."""
    for root, number in walking.numbers.items():
        for entry in list_entries(walking.walk.connection, number):
            yield _plan_entry(walking, Path(root), number, entry)


def _plan_entry(walking: _Walking, root: Path, number: int, entry: Entry) -> _Work | None:
    connection = walking.walk.connection
    kept = changes.find_kept(connection, root, entry.path)
    group = None
    if entry.kind == FILE:
        extra = [Path(name) for name in json.loads(kept.extra)] if kept is not None else []
        group = find_group(connection, number, root, entry, extra)
        if group is None:
            return None
    elif entry.kind == UNLISTED:
        changes.keep_unlisted(walking.walk, root, entry.path)
    stamp = blake2b(entry.fault.encode(), digest_size=16).hexdigest() if group is None else group.stamp
    work = _Work(root=root, entry=entry, stamp=stamp, kept=kept, change=_name_change(walking, kept, stamp), group=group)
    if kept is not None and not _must_read(walking, kept, stamp):
        changes.keep_unchanged(walking.walk, kept)
        return None
    return work


def _must_read(walking: _Walking, kept: Kept, stamp: str) -> bool:
    if kept.stamp != stamp:
        return True
    if kept.walk == walking.walk.number:
        return False
    lacks_sha256 = walking.options.sha256 and not kept.has_sha256 and kept.shown_state in {"ok", "duplicate"}
    return kept.retry or walking.options.reread or lacks_sha256


def _name_change(walking: _Walking, kept: Kept | None, stamp: str) -> str:
    if kept is None:
        return "new"
    if kept.walk == walking.walk.number:
        return kept.change
    if kept.stamp != stamp:
        return "changed"
    return "back" if kept.shown_state == "vanished" else "unchanged"


def _ask(walking: _Walking, work: _Work) -> dict[str, Any]:
    """Let a child look at a file."""
    group = work.group
    beside = () if group is None else group.beside
    override = None if group is None or group.override is None else os.fspath(group.override)
    question = {
        "path": os.path.join(work.root, os.fsdecode(work.entry.path)),  # noqa: PTH118 - any name
        "size": work.entry.size_bytes,
        "beside": [os.path.join(work.root, os.fsdecode(one)) for one in beside],  # noqa: PTH118 - any name
        "override": override,
        "sha256": walking.options.sha256,
        "scalers": {name: list(pvs) for name, pvs in walking.options.scalers.items()},
    }
    return ask(walking.children, question)


def _write_row(walking: _Walking, work: _Work, answer: Mapping[str, Any]) -> None:
    """Write what was found about one file; a scan that moved or changed keeps its number."""
    if answer.get("gone"):
        walking.gone += 1
        return
    walking.read += work.group is not None
    connection, entry = walking.walk.connection, work.entry
    fingerprint, sha256 = answer.get("fingerprint"), answer.get("sha256")
    scan_id, change = None if work.kept is None else work.kept.scan_id, work.change
    if scan_id is None and fingerprint is not None:
        scan_id = changes.find_moved(walking.walk, walking.numbers, fingerprint, entry.mtime_ns, sha256)
        change = change if scan_id is None else "moved"
    row, files = _make_row(walking, work, answer)
    record = list(to_record(row))
    record[0] = scan_id
    written = connection.execute(INSERT_OR_REPLACE, record).lastrowid
    extra, stamp = _find_extra(walking, work, files)
    connection.execute(
        "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            written,
            stamp,
            fingerprint,
            entry.file_key,
            row.state,
            row.fault,
            json.dumps(extra),
            bool(answer.get("retry")),
            walking.walk.number,
            change,
        ),
    )


def _find_extra(walking: _Walking, work: _Work, files: Sequence[str]) -> tuple[list[str], str]:
    """Files of the scan that its name does not tell, and the stamp with them."""
    if work.group is None or not files:
        return [], work.stamp
    root = os.fspath(work.root)
    known = {os.path.join(root, os.fsdecode(one)) for one in work.group.known}  # noqa: PTH118 - any name
    extra = [file for file in files if file not in known]
    if not extra:
        return [], work.stamp
    again = find_group(
        walking.walk.connection, walking.numbers[root], work.root, work.entry, [Path(one) for one in extra]
    )
    return extra, work.stamp if again is None else again.stamp


def _make_row(walking: _Walking, work: _Work, answer: Mapping[str, Any]) -> tuple[ScanRow, list[str]]:
    """The row, and the other files of the scan."""
    entry, root = work.entry, os.fspath(work.root)
    files = [os.path.normpath(one) for one in answer.get("files", ())]
    size = entry.size_bytes + sum(_find_size(walking, root, one) for one in files)
    state, fault = answer.get("state"), answer.get("fault") or None
    if state is None:
        # The child was ended over it.
        state, fault = "refused", f"{fault or 'cannot be read'}; the file is damaged: copy it again or leave it out"
    row = ScanRow(
        scan_id=0,
        root=root,
        path=os.fsdecode(entry.path),
        member=None,
        format=answer.get("format"),
        shape_y=answer.get("shape_y"),
        shape_x=answer.get("shape_x"),
        n_channels=answer.get("n_channels"),
        n_detectors=answer.get("n_detectors"),
        incident_energy_kev=answer.get("incident_energy_kev"),
        date=answer.get("date"),
        live_time_s=answer.get("live_time_s"),
        counts=answer.get("counts"),
        i0_names=tuple(answer.get("i0_names", ())),
        sample=answer.get("sample"),
        companions=tuple(_shorten(one, root) for one in files),
        elements=tuple(answer.get("elements", ())),
        elements_from=answer.get("elements_from"),
        override_path=answer.get("override_path"),
        instrument=answer.get("instrument"),
        size_bytes=size,
        mtime_ns=entry.mtime_ns,
        sha256=answer.get("sha256"),
        state=state,
        fault=fault,
    )
    return row, files


def _shorten(file: str, root: str) -> str:
    """Relative to the root, where it lies below."""
    start = root.rstrip(os.sep) + os.sep
    return file.removeprefix(start)


def _find_size(walking: _Walking, root: str, file: str) -> int:
    short = _shorten(file, root)
    found = find_entry(walking.walk.connection, walking.numbers[root], os.fsencode(short)) if short != file else None
    if found is not None:
        return found.size_bytes
    try:
        return os.stat(file).st_size  # noqa: PTH116 - any name
    except OSError:
        return 0
