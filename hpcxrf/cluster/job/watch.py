"""The driver's second pair of eyes: workers that die or hang, tasks beyond their time, and the account of all that."""

import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from hpcxrf.cluster.job.cluster import JobCluster, WorkerSight
from hpcxrf.cluster.job_files import RunProgress, StageProgress, write_progress
from hpcxrf.errors import HpcxrfError
from hpcxrf.store.rundir import RunDir

State = Literal["starting", "running", "draining", "reporting", "ended"]

_TICK_S: Final = 0.25
_ACCOUNT_S: Final = 2.0
_RATE_S: Final = 120.0
_NO_PROGRESS_S: Final = 900.0
_PAUSED_S: Final = 30.0
_ALARMS: Final = 20


@dataclass(slots=True)
class StageCount:
    """Tasks of one stage."""

    total: int = 0
    done: int = 0
    failed: int = 0
    pixels: int = 0


@dataclass(slots=True)
class Count:
    """What the driver has told; written by its thread, read by the watcher's."""

    stages: dict[str, StageCount] = field(default_factory=dict)
    datasets: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    ended_at: deque[float] = field(default_factory=lambda: deque(maxlen=5000))
    """Times at which tasks of this driver ended."""

    def planned(self, datasets: int, totals: dict[str, int]) -> None:
        """What is to be done."""
        self.datasets = datasets
        self.stages = {name: StageCount(total=total) for name, total in totals.items()}

    def task(self, stage: str, pixels: int, *, ok: bool, found: bool) -> None:
        """A task ended."""
        count = self.stages[stage]
        count.done += ok
        count.failed += not ok
        count.pixels += pixels
        if found:
            return
        if not self.ended_at:
            sys.stdout.write(f"first result after {_age_s():.1f} s\n")
            sys.stdout.flush()
        self.ended_at.append(time.monotonic())

    def dataset(self, event: str) -> None:
        """A dataset began or ended."""
        self.running += {"begun": 1, "refused": 0}.get(event, -1)
        self.done += event == "done"
        self.failed += event in {"failed", "refused"}


class Watcher:
    """A thread that watches while the driver waits for results."""

    def __init__(self, run: RunDir, *, job_id: str | None, workers_wanted: int, task_limit_s: float) -> None:
        self.count = Count()
        self.state: State = "starting"
        self.fault: HpcxrfError | None = None
        """Why the run cannot go on."""
        self._run, self._job_id = run, job_id
        self._wanted, self._task_limit_s = workers_wanted, task_limit_s
        self._began = self._last_account = time.monotonic()
        self._alarms: deque[str] = deque(maxlen=_ALARMS)
        self._first_seen: dict[tuple[str, str], float] = {}
        self._paused: dict[str, float] = {}
        self._workers = 0
        self._all_ready = False
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, cluster: JobCluster) -> None:
        """Begin to watch, and start the workers."""
        self._thread = threading.Thread(target=self._watch, args=(cluster,), name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; workers that end now are not started again."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def alarm(self, text: str) -> None:
        """Keep what a person should know, and write it to the job's log."""
        self._alarms.append(text)
        sys.stderr.write(f"alarm: {text}\n")
        sys.stderr.flush()

    def account(self) -> None:
        """Write how far the driver is; a full disk is no reason to stop watching."""
        self._last_account = time.monotonic()
        try:
            write_progress(self._run, self.progress())
        except HpcxrfError as error:
            self.alarm(f"the account of the progress could not be written: {error}")

    def progress(self) -> RunProgress:
        """How far the driver is."""
        now, count = time.monotonic(), self.count
        last = count.ended_at[-1] if count.ended_at else self._began
        rate = _rate(list(count.ended_at), now)
        left = sum(s.total - s.done - s.failed for s in count.stages.values())
        return RunProgress(
            host=socket.gethostname(),
            pid=os.getpid(),
            job_id=self._job_id,
            state=self.state,
            uptime_s=now - self._began,
            datasets=count.datasets,
            datasets_done=count.done,
            datasets_failed=count.failed,
            datasets_running=count.running,
            stages={
                name: StageProgress(total=s.total, done=s.done, failed=s.failed, pixels=s.pixels)
                for name, s in count.stages.items()
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
        if self.state == "running" and idle_s > _NO_PROGRESS_S:
            found.append(f"no task has ended for {idle_s:.0f} s")
        return found

    def _watch(self, cluster: JobCluster) -> None:
        while not self._ending.is_set():
            try:
                self._look(cluster)
            except HpcxrfError as error:
                self.fault = error
                return
            if time.monotonic() - self._last_account > _ACCOUNT_S:
                self.account()
            self._ending.wait(_TICK_S)

    def _look(self, cluster: JobCluster) -> None:
        sight = cluster.sight()
        cluster.watch_workers({worker.name for worker in sight})
        if cluster.nobody_left():
            raise HpcxrfError("no worker is left: each ended again and again; logs/worker-*.log say why")
        now = time.monotonic()
        self._workers = sum(worker.status == "running" for worker in sight)
        if not self._all_ready and self._workers >= self._wanted:
            self._all_ready = True
            sys.stdout.write(f"{self._workers} workers ready after {_age_s():.1f} s\n")
            sys.stdout.flush()
        paused = [worker.name for worker in sight if worker.status == "paused"]
        self._paused = {name: self._paused.get(name, now) for name in paused}
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
