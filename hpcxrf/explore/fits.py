"""The client of the process that fits: nothing here waits for a fit, and the newest request wins.

A request that has not begun gives way to a newer one of the same page; one that is running is ended for it. A process
that dies, or does not end what it should, is started again, and the request that it had says so.
"""

import base64
import json
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hpcxrf.explore.fit_child import GRACE_S, Child, launch
from hpcxrf.explore.requests import FitRequest

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Counts = Mapping[int, NDArray[np.integer[Any]]]
Json = dict[str, Any]

REPLACED: Final = "a newer request took its place"
CANCELLED: Final = "cancelled"
_MOST_ANSWERS: Final = 64
_CLOSED: Final = "the explorer was closed"


@dataclass(slots=True, kw_only=True)
class Job:
    """One request on its way."""

    id: str
    session: str
    request: FitRequest
    n_pixels: int | None
    line: bytes
    began: float = field(default_factory=time.monotonic)
    state: State = "waiting"
    reason: str | None = None
    fit: Json | None = None
    elapsed_s: float | None = None
    """None: it is not over."""

    def end(self, state: State, reason: str | None = None, fit: Json | None = None) -> None:
        """Say how it ended; what has ended stays as it is."""
        if self.elapsed_s is None:
            self.state, self.reason, self.fit = state, reason, fit
            self.elapsed_s = time.monotonic() - self.began

    def describe(self) -> Json:
        """The state of it as the page has it."""
        elapsed_s = time.monotonic() - self.began if self.elapsed_s is None else self.elapsed_s
        return {
            "id": self.id,
            "state": self.state,
            "elapsed_s": round(elapsed_s, 4),
            "reason": self.reason,
            "fit": self.fit,
        }


def pack_request(job_id: str, request: FitRequest, counts: Counts | None) -> bytes:
    """The line that the process reads.

    Args:
        job_id: id of the request.
        request: checked.
        counts: counts (channel,), whole numbers, by number of the detector; None: those of the whole scan.
    """
    sent = None
    if counts is not None:
        sent = {
            str(d): base64.b64encode(np.ascontiguousarray(one, dtype="<i8").tobytes()).decode()
            for d, one in counts.items()
        }
    record = {
        "id": job_id,
        "detector": request.detector,
        "elements": list(request.elements),
        "kind": request.kind,
        "values": dict(request.values),
        "fixed": list(request.fixed),
        "free": list(request.free),
        "bounds": {name: list(ends) for name, ends in request.bounds.items()},
        "focus": None if request.focus is None else list(request.focus),
        "parent": request.parent,
        "counts": sent,
    }
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


class FitProcess:
    """The process of one dataset, and the requests on their way to it; every method returns at once."""

    def __init__(self, run_dir: Path, dataset_id: str, *, complete: Callable[[Job, Json], Json] | None = None) -> None:
        """Prepare; the process starts with `start`, or with the first request.

        Args:
            run_dir: the run.
            dataset_id: the dataset.
            complete: turns the process's answer into the fit that is given out, in a thread of its own; what it raises
                becomes the reason of a failed fit.
        """
        self._command = (sys.executable, "-m", "hpcxrf.explore.fitting_process", str(run_dir), dataset_id)
        self._complete = complete
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._running: Job | None = None
        self._child: Child | None = None
        self._is_ready = self._wanted = self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.started_s: float | None = None
        """How long the last start took, until it was ready."""

    def start(self) -> None:
        """Start the process, so that the first fit need not wait for it."""
        with self._changed:
            self._wanted = True
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="fits", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def submit(
        self, request: FitRequest, counts: Counts | None = None, *, n_pixels: int | None = None, session: str = ""
    ) -> str:
        """Ask for a fit; one of the same session that has not ended gives way to it.

        Args:
            request: checked.
            counts: counts (channel,), whole numbers, by number of the detector; None: those of the whole scan.
            n_pixels: number of pixels that they are of.
            session: name of the page that asks.

        Returns:
            The id of the request.
        """
        job_id = uuid.uuid4().hex[:16]
        line = pack_request(job_id, request, counts)
        job = Job(id=job_id, session=session, request=request, n_pixels=n_pixels, line=line)
        with self._changed:
            before = self._waiting.pop(session, None)
            if before is not None:
                before.end("cancelled", REPLACED)
            if self._running is not None and self._running.session == session:
                self._end_running(REPLACED)
            self._jobs[job.id] = self._waiting[session] = job
            if self._closed:
                job.end("failed", "the explorer is closing")
                del self._waiting[session]
            elif not self._is_ready:
                job.reason = "the fit process is starting"
            while len(self._jobs) > _MOST_ANSWERS:
                self._jobs.popitem(last=False)
        self.start()
        return job_id

    def poll(self, job_id: str) -> Json | None:
        """State of a request: id, state, elapsed_s, reason, and the fit when it is done; None: no such request."""
        with self._changed:
            job = self._jobs.get(job_id)
            return None if job is None else job.describe()

    def cancel(self, job_id: str) -> Json | None:
        """End a request; what has ended stays as it is. None: no such request."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if self._running is job:
                self._end_running(CANCELLED)
            elif self._waiting.get(job.session) is job:
                del self._waiting[job.session]
                job.end("cancelled", CANCELLED)
            return job.describe()

    def close(self) -> None:
        """End the process; requests that are on their way are cancelled."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting.values(), *([self._running] if self._running else [])):
                job.end("cancelled", _CLOSED)
            self._waiting.clear()
            if self._child is not None:
                self._child.process.kill()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=GRACE_S)

    @property
    def pid(self) -> int | None:
        """Number of the process; None: there is none."""
        with self._changed:
            return None if self._child is None else self._child.process.pid

    def _end_running(self, reason: str) -> None:
        """Tell the page that the running request is over, and the process to leave it."""
        if self._running is not None and self._child is not None and self._running.elapsed_s is None:
            self._running.end("cancelled", reason)
            self._child.interrupt()

    def _work(self) -> None:
        """The thread: start the process, hand it one request after the other, take the answers."""
        while self._wait_for_work():
            child = self._child or self._start_child()
            job = None if child is None else self._take()
            if child is not None and job is not None:
                self._run(job, child)
        self._stop_child()

    def _wait_for_work(self) -> bool:
        """Wait until there is a request or the process is to be started; False: it is all over."""
        with self._changed:
            while not (self._closed or self._waiting or (self._wanted and self._child is None)):
                self._changed.wait()
            self._wanted = False
            return not self._closed

    def _take(self) -> Job | None:
        """The next request, if one still waits."""
        with self._changed:
            if not self._waiting or self._closed:
                return None
            _, job = self._waiting.popitem(last=False)
            self._running, job.state, job.reason = job, "running", None
            return job

    def _start_child(self) -> Child | None:
        """Start the process and wait until it is ready; None: it is not, and every request has the reason."""
        began = time.monotonic()
        try:
            child = launch(self._command)
        except OSError as error:
            self._refuse_all(str(error))
            return None
        with self._changed:
            self._child = child
            if self._closed:
                child.process.kill()
        record = child.read()
        if record is not None and record["state"] == "ready":
            with self._changed:
                self._is_ready, self.started_s = True, time.monotonic() - began
            return child
        self._refuse_all(child.describe_end() if record is None else str(record["reason"]))
        self._stop_child()
        return None

    def _refuse_all(self, reason: str) -> None:
        with self._changed:
            for job in self._waiting.values():
                job.end("failed", f"fits are not possible: {reason}")
            self._waiting.clear()

    def _run(self, job: Job, child: Child) -> None:
        """Send a request and wait for its answer."""
        record = child.read(lambda: job.elapsed_s is not None) if child.send(job.line) else None
        if record is None or record["id"] != job.id:
            ended = child.describe_end()
            self._stop_child()
            with self._changed:
                job.end("failed", f"{ended}; it is started again, ask for the fit once more")
                self._running, self._wanted = None, not self._closed
            return
        fit: Json | None = record.get("fit")
        state: State = record["state"]
        reason: str | None = record.get("reason")
        if fit is not None and job.elapsed_s is None and self._complete is not None:
            try:
                fit = self._complete(job, fit)
            except Exception as error:  # noqa: BLE001  the thread lives on, and the page says what happened
                fit, state, reason = None, "failed", str(error)
        with self._changed:
            job.end(state, reason, fit)
            self._running = None

    def _stop_child(self) -> None:
        with self._changed:
            child, self._child, self._is_ready = self._child, None, False
        if child is not None:
            child.stop()
