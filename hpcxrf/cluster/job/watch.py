"""A second thread of the driver: workers that die or hang, tasks beyond their time, and the account of all that."""

import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from hpcxrf.cluster.job.cluster import JobCluster, WorkerSight
from hpcxrf.cluster.job.pace import Pace, update_paces
from hpcxrf.cluster.job_files import RunProgress, StageProgress, write_progress
from hpcxrf.errors import HpcxrfError
from hpcxrf.store.rundir import RunDir

State = Literal["starting", "running", "draining", "reporting", "ended"]

_TICK_S: Final = 0.25
_ACCOUNT_S: Final = 2.0
_RATE_S: Final = 120.0
_NO_PROGRESS_S: Final = 900.0
_PAUSED_S: Final = 30.0
_STALLED_S: Final = 60.0
_UNWRITABLE_S: Final = 30.0
_ALARMS: Final = 20
_NAMED: Final = 8


@dataclass(slots=True)
class StageCount:
    """Tasks of one stage."""

    total: int = 0
    """Number of tasks."""
    done: int = 0
    """Number of finished ones."""
    failed: int = 0
    """Number of those that were tried and failed."""
    not_tried: int = 0
    """Number of those that a failed one kept from running."""
    pixels: int = 0
    """Number of pixels that finished ones fitted."""


@dataclass(slots=True)
class Count:
    """What the driver has counted; written by its thread, read by the watcher's."""

    stages: dict[str, StageCount] = field(default_factory=dict)
    """Tasks by stage."""
    datasets: int = 0
    """Number of datasets."""
    done: int = 0
    """Number of finished datasets."""
    failed: int = 0
    """Number of datasets that failed or cannot be opened."""
    not_tried: int = 0
    """Number of datasets that need one that failed."""
    running: int = 0
    """Number of datasets that have begun."""
    ended_at: deque[float] = field(default_factory=lambda: deque(maxlen=5000))
    """Times at which tasks of this driver ended."""

    def units(self, counts: Mapping[str, int]) -> None:
        """Add the tasks of a dataset by stage."""
        for stage, number in counts.items():
            self.stages.setdefault(stage, StageCount()).total += number

    def task(self, stage: str, pixels: int, *, ok: bool, found: bool, tried: bool = True) -> None:
        """Count a task that ended."""
        count = self.stages.setdefault(stage, StageCount())
        count.done += ok
        count.failed += tried and not ok
        count.not_tried += not tried
        count.pixels += pixels
        if found:
            return
        if not self.ended_at:
            sys.stdout.write(f"first result after {_age_s():.1f} s\n")
            sys.stdout.flush()
        self.ended_at.append(time.monotonic())

    def dataset(self, event: str) -> None:
        """A dataset began or ended."""
        self.datasets += event == "planned"
        self.running += (event == "begun") - (event == "ended")
        self.done += event == "done"
        self.failed += event == "failed"
        self.not_tried += event == "not tried"


class Watcher:
    """A thread that watches while the driver waits for results."""

    def __init__(
        self,
        run: RunDir,
        *,
        job_id: str | None,
        workers_wanted: int,
        task_limit_s: float,
        stages: Sequence[str] = (),
        stalled_s: float = _STALLED_S,
        unwritable_s: float = _UNWRITABLE_S,
    ) -> None:
        self.count = Count(stages={name: StageCount() for name in stages})
        self.state: State = "starting"
        self.fault: HpcxrfError | None = None
        """Error with which the run ends; None: it goes on."""
        self._run, self._job_id = run, job_id
        self._wanted, self._task_limit_s = workers_wanted, task_limit_s
        self._stalled_s, self._unwritable_s = stalled_s, unwritable_s
        self._unwritable_since: float | None = None
        self._began = self._last_account = time.monotonic()
        self._alarms: deque[str] = deque(maxlen=_ALARMS)
        self._first_seen: dict[tuple[str, str], float] = {}
        self._paused: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}
        self._troubled: set[str] = set()
        self._workers = 0
        self._all_ready = False
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, cluster: JobCluster) -> None:
        """Begin to watch, and start the workers."""
        self._thread = threading.Thread(target=self._watch, args=(cluster,), name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and write the last account; workers that end now are not started again."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self.account()

    def alarm(self, text: str) -> None:
        """Keep what a person should know, and write it to the job's log."""
        self._alarms.append(text)
        self._write_log(text)

    def account(self) -> None:
        """Write how far the driver is; a run directory that takes nothing for long ends the run."""
        self._last_account = now = time.monotonic()
        try:
            write_progress(self._run, self.progress())
        except HpcxrfError as error:
            if self._unwritable_since is None:
                self._unwritable_since = now
                self.alarm(str(error))
            elif now - self._unwritable_since > self._unwritable_s:
                self.fault = self.fault or error
            return
        self._unwritable_since = None

    def _write_log(self, text: str) -> None:
        # The log may be on the disk that is full.
        with suppress(OSError):
            sys.stderr.write(f"alarm: {text}\n")
            sys.stderr.flush()

    def progress(self) -> RunProgress:
        """How far the driver is."""
        now, count = time.monotonic(), self.count
        last = count.ended_at[-1] if count.ended_at else self._began
        rate = _rate(list(count.ended_at), now)
        left = sum(s.total - s.done - s.failed - s.not_tried for s in count.stages.values())
        return RunProgress(
            host=socket.gethostname(),
            pid=os.getpid(),
            job_id=self._job_id,
            state=self.state,
            uptime_s=now - self._began,
            datasets=count.datasets,
            datasets_done=count.done,
            datasets_failed=count.failed,
            datasets_not_tried=count.not_tried,
            datasets_running=count.running,
            stages={
                name: StageProgress(total=s.total, done=s.done, failed=s.failed, not_tried=s.not_tried, pixels=s.pixels)
                for name, s in list(count.stages.items())
                if s.total
            },
            workers=self._workers,
            workers_wanted=self._wanted,
            seconds_since_progress=now - last,
            tasks_per_s=rate,
            eta_s=left / rate if rate else None,
            alarms=(*self._alarms, *self._standing(now, now - last)),
        )

    def _standing(self, now: float, idle_s: float) -> list[str]:
        """Alarms that last as long as their cause."""
        found = [
            f"{name} is paused for {now - since:.0f} s: its memory is nearly full"
            for name, since in self._paused.items()
            if now - since > _PAUSED_S
        ]
        troubles = list(self._find_troubles(now).values())
        more = len(troubles) - _NAMED
        found += [*troubles[:_NAMED], f"{more} more workers make no progress"] if more > 0 else troubles
        if self.state == "running" and idle_s > _NO_PROGRESS_S:
            found.append(f"no task has ended for {idle_s:.0f} s")
        return found

    def _find_troubles(self, now: float) -> dict[str, str]:
        """Sentences about workers that do not get on, by their name."""
        found = {pace.worker.name: pace.trouble(now, self._stalled_s) for pace in list(self._paces.values())}
        return {name: trouble for name, trouble in found.items() if trouble is not None}

    def _watch(self, cluster: JobCluster) -> None:
        while not self._ending.is_set():
            try:
                self._look(cluster)
            except HpcxrfError as error:
                self.fault = error
                return
            except Exception as error:  # noqa: BLE001 (a run that nobody watches any more would wait until its time limit)
                traceback.print_exc()
                self.fault = HpcxrfError(f"the watcher of the workers has failed: {type(error).__name__}: {error}")
                return
            if time.monotonic() - self._last_account > _ACCOUNT_S:
                self.account()
            self._ending.wait(_TICK_S)

    def _look(self, cluster: JobCluster) -> None:
        sight = cluster.list_workers()
        cluster.supervise_workers({worker.name: worker.address for worker in sight})
        error = cluster.end_error()
        if error is not None:
            raise error
        now = time.monotonic()
        self._workers = sum(worker.status == "running" for worker in sight)
        if not self._all_ready and self._workers >= self._wanted:
            self._all_ready = True
            sys.stdout.write(f"{self._workers} workers ready after {_age_s():.1f} s\n")
            sys.stdout.flush()
        paused = [worker.name for worker in sight if worker.status == "paused"]
        self._paused = {name: self._paused.get(name, now) for name in paused}
        self._paces = update_paces(self._paces, sight, now)
        troubles = self._find_troubles(now)
        for name in troubles.keys() - self._troubled:
            self._write_log(troubles[name])
        self._troubled = set(troubles)
        for worker in self._overdue(sight, now):
            self.alarm(f"{worker.name}: a task takes longer than {self._task_limit_s:g} s; its process is killed")
            cluster.restart(worker.address)

    def _overdue(self, sight: Sequence[WorkerSight], now: float) -> list[WorkerSight]:
        at_work = [(worker.address, key) for worker in sight for key in worker.at_work]
        self._first_seen = {pair: self._first_seen.get(pair, now) for pair in at_work}
        late = {address for (address, _), since in self._first_seen.items() if now - since > self._task_limit_s}
        self._first_seen = {p: t for p, t in self._first_seen.items() if p[0] not in late}
        return [worker for worker in sight if worker.address in late]


def _age_s() -> float:
    """Of this process, its start included."""
    fields = Path("/proc/self/stat").read_bytes().rsplit(b")", 1)[1].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _rate(ended_at: Sequence[float], now: float) -> float:
    """Tasks per second of the last minutes."""
    recent = [t for t in ended_at if now - t < _RATE_S]
    return len(recent) / max(now - recent[0], 1.0) if len(recent) > 1 else 0.0
