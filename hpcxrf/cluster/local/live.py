"""Scans as they land, on a local cluster that stays warm: the runner's own driver, with a plan that does not end."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from distributed import Scheduler
from distributed.system import MEMORY_LIMIT

from hpcxrf.archive.live.board import PAGE, Board
from hpcxrf.archive.live.events import LiveEvent, Tell
from hpcxrf.archive.live.files import Files
from hpcxrf.archive.live.folders import Folders
from hpcxrf.archive.live.landing import Landing, Until
from hpcxrf.archive.live.preview import list_found, view_rows, warm_up
from hpcxrf.archive.live.scans import Waiting
from hpcxrf.archive.live.views import Future, Views
from hpcxrf.cluster.local.cluster import LocalClusterHandle, local_cluster
from hpcxrf.cluster.local.run import layout
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, HpcxrfError, InputFileError
from hpcxrf.notes import Note
from hpcxrf.pipeline.opening import begin_opening
from hpcxrf.pipeline.request import keep_configuration
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.datasets import next_number, read_kept
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.ending import RunEnd, describe_device, forget_end, keep_end, now
from hpcxrf.runner.graph import submit_aside
from hpcxrf.runner.hooks import Hooks
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.runner.worker import forget_attempts
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, create_or_resume, prepare_folder, set_damaged_aside
from hpcxrf.workloads import choose_workload

PATIENCE_S: Final = 15.0
"""Seconds that tasks at work may take to end after the first Ctrl-C or TERM."""
REPORT_EVERY_S: Final = 30.0
"""Seconds from one report to the next, at least; it is written when nothing is at work."""
_OVER_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCallbacks:
    """What a run that is watched says to whoever called it; from a thread of its own, except for `started`."""

    event: Tell = lambda _event: None
    """Takes everything that happens."""
    started: Callable[[LocalClusterHandle], None] = lambda _handle: None
    """Takes the cluster when its workers are there."""
    tick: Callable[[Mapping[str, Any]], None] = lambda _content: None
    """Takes the state of the page after every look at the folders."""
    stopping: Callable[[], None] = lambda: None
    """Called once when a signal says that it is to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveResult:
    """How the watching ended."""

    run: RunDir
    done: int
    """Scans that this call finished."""
    failed: int
    before: int
    """Scans that were done before."""
    left: Mapping[str, str]
    """What is not complete, by name, with what is missing."""
    interrupted: int
    """Scans that were at work when it was stopped; the same command goes on with them."""
    stopped: bool
    """A signal ended it."""
    wall_s: float

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.run.path / PAGE

    @property
    def report(self) -> Path:
        """The report of all scans."""
        return self.run.report_file


@dataclass(slots=True)
class _Signals:
    """Ctrl-C and TERM so far."""

    stop: threading.Event
    first_s: float | None = None
    again: bool = False
    told: bool = False
    before: dict[int, Any] = field(default_factory=dict)

    def take(self, number: int, frame: FrameType | None) -> None:
        """The first one ends the feeding, the second one what is at work, the third one everything."""
        if self.again and callable(self.before[number]):
            self.before[number](number, frame)
        self.again = self.first_s is not None
        self.first_s = self.first_s or time.monotonic()
        self.stop.set()

    def is_over(self) -> bool:
        """Whether what is at work has had its time."""
        return self.again or (self.first_s is not None and time.monotonic() - self.first_s > PATIENCE_S)


@dataclass(slots=True, kw_only=True)
class _Session:
    """What one call of `run_live` holds."""

    config: RunConfig
    run: RunDir
    board: Board
    landing: Landing
    tell: LiveCallbacks
    started: str
    began: float
    command: str
    device: str = ""
    reported: int = 0
    """Scans that had ended when the last report was written."""
    reported_s: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        return self.board.counts["done"] + self.board.counts["failed"]

    def after_poll(self) -> None:
        """Write what the page shows, and the report where nothing is at work."""
        self.board.write()
        self.tell.tick(self.board.content())
        quiet = not self.landing.at_work and self.ended != self.reported
        if quiet and time.monotonic() - self.reported_s > REPORT_EVERY_S:
            self.report()
            self.board.changed = True

    def report(self) -> None:
        """Write the report of all scans so far; the end of the run is kept once it has ended."""
        self.reported, self.reported_s = self.ended, time.monotonic()
        SCAN.summarise(self.config, self.end())

    def end(self) -> RunEnd:
        left = self.landing.list_left()
        return RunEnd(
            run=self.run,
            wall_s=time.perf_counter() - self.began,
            device=self.device,
            command=self.command,
            started=self.started,
            notes=tuple(Note("warning", f"{name}: not taken yet: {reason}") for name, reason in left.items()),
        )


def run_live(
    config: RunConfig,
    run_text: str,
    output: Path,
    *,
    waiting: Waiting | None = None,
    until: Until | None = None,
    callbacks: LiveCallbacks | None = None,
    command: str = "",
) -> LiveResult:
    """Watch a folder, and run every scan that lands in it as `run_here` does, until a signal or `until` ends it.

    Ctrl-C and TERM, where this is the main thread: the first one lets tasks at work end for some seconds, the second
    one does not. Whatever ends it, the same call goes on where it stopped.

    Args:
        config: a checked run file whose only input is the folder.
        run_text: its text as given.
        output: the run directory.
        waiting: how long files are waited for.
        until: when it ends by itself; None: never.
        callbacks: whom to tell.
        command: the command line, for the report.

    Raises:
        ConfigError: the run file describes something else than scans.
        InputFileError: there is no such folder.
        OutputError: the output cannot be used, holds another configuration, or another driver works on it.
        FitError: a GPU was asked for and there is none.
    """
    began, started = time.perf_counter(), now()
    tell = callbacks or LiveCallbacks()
    root = _require_folder(config)
    workers, threads, gpus = layout(config.execution)
    run = RunDir(path=output.absolute())
    prepare_folder(run.path)
    with run_lock(run):
        create_or_resume(run.path, run_text, SCAN.lasting(config))
        keep_configuration(run, config)
        kept = read_kept(run)
        set_damaged_aside(run, kept)
        forget_end(run)
        forget_attempts(run.path)
        session = _open_session(config, run, root, kept, worker_bytes=MEMORY_LIMIT // workers, tell=tell)
        session.landing.waiting, session.landing.until = waiting or Waiting(), until or Until()
        session.landing.most_ahead = 2 * max(config.execution.datasets_in_flight, 2 * workers)
        session.started, session.began, session.command = started, began, command
        session.device = describe_device("cuda:0" if gpus else "cpu", workers, threads)
        session.board.write_page()
        session.board.write()
        with local_cluster(workers, threads, run.path, gpus=gpus, dashboard=config.execution.dashboard) as handle:
            session.landing.views.begin = _ViewStarter(handle, config)
            tell.started(handle)
            signals = _drive(session, handle, in_flight=max(config.execution.datasets_in_flight, 2 * workers))
        return _close(session, signals)


def _require_folder(config: RunConfig) -> Path:
    workload = choose_workload(config)
    if workload is not SCAN:
        raise ConfigError(
            f"hpcxrf live makes maps of scans, and the run file describes a {workload.name}; use hpcxrf run"
        )
    SCAN.check(config)
    (name,) = config.input.files
    if not Path(name).is_dir():
        raise InputFileError(f"{name}: is not a folder; name the one into which scans land")
    return Path(name).absolute()


def _open_session(
    config: RunConfig,
    run: RunDir,
    root: Path,
    kept: dict[str, DatasetRecord],
    *,
    worker_bytes: int,
    tell: LiveCallbacks,
) -> _Session:
    board = Board(run=run, folder=str(root))
    board.restore()

    def tell_all(event: LiveEvent) -> None:
        board.take(event)
        tell.event(event)

    request = PlanRequest(config=config, run_dir=run.path, worker_bytes=worker_bytes, kept=kept)
    landing = Landing(
        opening=begin_opening(request, datasets=0),
        kept=kept,
        files=Files(folders=Folders(root=str(root), skipped=frozenset({str(run.path)}))),
        waiting=Waiting(),
        until=Until(),
        views=Views(begin=lambda _path, _rows: None, tell=tell_all),
        tell=tell_all,
        list_found=_list_found,
        number=next_number(run),
        most_ahead=1,
        stop=threading.Event(),
    )
    session = _Session(
        config=config, run=run, board=board, landing=landing, tell=tell, started="", began=0.0, command=""
    )
    landing.after_poll = session.after_poll
    return session


def _list_found(store: Path) -> list[str]:
    """Components that were found; a store that cannot be read is for the report to speak of."""
    try:
        return list_found(store)
    except HpcxrfError:
        return []


@dataclass(slots=True)
class _ViewStarter:
    """Begins first views on the cluster, behind the tasks of scans that are complete."""

    handle: LocalClusterHandle
    config: RunConfig
    count: int = 0

    def __call__(self, path: Path, rows: int | None) -> Future:
        self.count += 1
        key = f"view-{self.count:06}"
        future: Future = submit_aside(self.handle.client, view_rows, path, self.config, rows, key=key, priority=-1)
        return future


def _drive(session: _Session, handle: LocalClusterHandle, *, in_flight: int) -> _Signals:
    """Run the driver until nothing more comes, or a signal."""
    landing = session.landing
    signals = _Signals(landing.stop)
    # Held while the driver runs: what nobody waits for, Dask gives up.
    warm = [
        submit_aside(handle.client, warm_up, session.config, key=f"warm-{address}", worker=address)
        for address in handle.client.scheduler_info()["workers"]
    ]

    def stopping() -> bool:
        if landing.stop.is_set() and not signals.told:
            signals.told = True
            session.tell.stopping()
        return landing.stop.is_set()

    hooks = Hooks(
        stopping=stopping,
        patience_over=signals.is_over,
        at_work=lambda: handle.cluster.sync(_list_executing, handle.cluster.scheduler),
        record=landing.ended.put,
    )
    with _signals_taken(signals):
        try:
            run_items(SCAN, landing.items(), session.run, handle.client, in_flight=in_flight, hooks=hooks)
        finally:
            landing.stop.set()
            landing.over.wait(_OVER_S)
            del warm
    return signals


async def _list_executing(scheduler: Scheduler) -> frozenset[str]:
    return frozenset(task.key for worker in scheduler.workers.values() for task in worker.executing)


@contextmanager
def _signals_taken(signals: _Signals) -> Iterator[None]:
    """Take Ctrl-C and TERM while the block runs; in another thread than the main one they are the caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signals.before[number] = signal.signal(number, signals.take)
    try:
        yield
    finally:
        for known, handler in signals.before.items():
            signal.signal(known, handler)


def _close(session: _Session, signals: _Signals) -> LiveResult:
    """Write the report, and how it ended."""
    landing, board = session.landing, session.board
    landing.settle_ended()
    interrupted = len(landing.at_work)
    landing.tell(LiveEvent(kind="ended", name=board.folder))
    session.report()
    if not interrupted:
        keep_end(session.end())
    board.changed = True
    board.at_work.clear()
    board.write()
    return LiveResult(
        run=session.run,
        done=board.counts["done"],
        failed=board.counts["failed"],
        before=board.counts["found before"],
        left=landing.list_left(),
        interrupted=interrupted,
        stopped=signals.first_s is not None,
        wall_s=time.perf_counter() - session.began,
    )
