"""How a run is, from its own files first and from Slurm second; nothing needs a live server.

Slurm forgets: a job that it does not know may have ended well, ended badly, or never been of this cluster. So
"unknown to Slurm" decides nothing, and a Slurm that does not answer is a note and no verdict.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hpcxrf.cluster.failures import Tally, tally
from hpcxrf.cluster.job_files import RunProgress, read_events, read_progress
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import EXIT_RESUMABLE, DatasetsFailedError, SlurmError
from hpcxrf.store.lock import is_alive, read_lock
from hpcxrf.store.rundir import RunDir, open_run

Verdict = Literal[
    "new", "pending", "running", "done", "done with failures", "stopped", "cancelled", "failed", "unknown"
]
"""`new`: nothing has begun; `stopped`: resumable; `failed`: the program, not a dataset; `unknown`: neither the
run directory nor Slurm says."""

# Exit codes of a job that has nothing left to do.
_FINAL: Final = (0, DatasetsFailedError.exit_code)

GOING_ON: Final = frozenset({"pending", "running"})
AskSlurm = Callable[[str], JobState | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """Everything that is known of a run."""

    path: Path
    verdict: Verdict
    said: str
    """Why the verdict is this one, a sentence."""
    job_id: str | None
    slurm: JobState | None
    """None: no job, not asked, unknown, or no answer."""
    progress: RunProgress | None
    """Of the driver that lives, or the last one."""
    tally: Tally
    notes: tuple[str, ...]


def run_status(folder: Path, ask: AskSlurm) -> RunStatus:
    """How a run is.

    Args:
        folder: the run directory.
        ask: `slurm.job_state`; called where files alone cannot tell.

    Raises:
        OutputError: no run there, or a damaged file.
    """
    run = open_run(folder)
    events, progress = read_events(run), read_progress(run)
    job_id = latest_job(events)
    state: JobState | None = None
    notes: tuple[str, ...] = ()
    if job_id is None:
        verdict, said = _without_job(run)
    else:
        mine = [e for e in events if str(e.get("job_id")) == job_id]
        state, notes = _asked(mine, job_id, ask)
        verdict, said = _of_job(mine, job_id, state, silent=bool(notes))
    return RunStatus(
        path=run.path,
        verdict=verdict,
        said=said,
        job_id=job_id,
        slurm=state,
        progress=progress,
        tally=tally(run, progress, live=verdict in GOING_ON),
        notes=notes,
    )


def asked_seldom(ask: AskSlurm, seconds: float) -> AskSlurm:
    """`ask` that gives the same answer again for some seconds: the controller is everybody's."""
    answers: dict[str, tuple[float, JobState | None]] = {}

    def remembered(job_id: str) -> JobState | None:
        known = answers.get(job_id)
        if known is not None and time.monotonic() - known[0] < seconds:
            return known[1]
        answer = ask(job_id)
        answers[job_id] = (time.monotonic(), answer)
        return answer

    return remembered


def latest_job(events: Sequence[Mapping[str, Any]]) -> str | None:
    """Of what happened, the job that was submitted or begun last."""
    begun = [e for e in events if e.get("event") in {"submitted", "started"}]
    ids = [str(e["job_id"]) for e in begun if e.get("job_id") is not None]
    return ids[-1] if ids else None


def _asked(mine: Sequence[Mapping[str, Any]], job_id: str, ask: AskSlurm) -> tuple[JobState | None, tuple[str, ...]]:
    if _last(mine) == "ended" and _exit_code(mine) in _FINAL:
        return None, ()
    try:
        return ask(job_id), ()
    except SlurmError as error:
        return None, (f"Slurm does not tell of job {job_id} now ({error})",)


def _last(mine: Sequence[Mapping[str, Any]]) -> str:
    """The last thing that happened to a job; it may have begun before its submission was written down."""
    told = [str(e["event"]) for e in mine]
    return next((event for event in reversed(told) if event != "submitted"), "submitted")


def _of_job(
    mine: Sequence[Mapping[str, Any]], job_id: str, state: JobState | None, *, silent: bool
) -> tuple[Verdict, str]:
    last, cancelled = _last(mine), _cancelled(mine)
    if state is not None and not state.ended:
        # A job that left early may have been put back into the queue.
        return _waiting(state) if state.state == "PENDING" else _running(state)
    if cancelled or (state is not None and state.state == "CANCELLED"):
        return ("cancelled", f"job {job_id} was cancelled; `hpcxrf resume` goes on with what is missing")
    if last == "ended":
        return _ended(mine, job_id)
    if state is not None:
        return _left(state)
    if silent:
        going: Verdict = "running" if last == "started" else "pending"
        return going, f"job {job_id} was {going} when its files were last written"
    return "unknown", (
        f"Slurm does not know job {job_id} (any more), and it left no word of its end; what is finished is kept, "
        "`hpcxrf resume` goes on with what is missing"
    )


def _cancelled(mine: Sequence[Mapping[str, Any]]) -> bool:
    """Cancelled since it last began; it may have written down its own end after that, but not a good one."""
    told = [str(e["event"]) for e in mine]
    begun = max((i for i, event in enumerate(told) if event == "started"), default=0)
    return "cancelled" in told[begun:] and _exit_code(mine) not in _FINAL


def _ended(mine: Sequence[Mapping[str, Any]], job_id: str) -> tuple[Verdict, str]:
    code = _exit_code(mine)
    reason = next(e.get("reason") for e in reversed(mine) if e["event"] == "ended")
    why = f": {reason}" if reason else ""
    if code == 0:
        return "done", f"job {job_id} went to its end"
    if code == DatasetsFailedError.exit_code:
        return "done with failures", f"job {job_id} went to its end; some datasets failed"
    if code == EXIT_RESUMABLE:
        return "stopped", f"job {job_id} stopped early{why}; `hpcxrf resume` goes on"
    return "failed", f"job {job_id} ended with exit code {code}{why}; `hpcxrf logs` has more"


def _exit_code(mine: Sequence[Mapping[str, Any]]) -> object:
    return next((e.get("exit_code") for e in reversed(mine) if e["event"] == "ended"), None)


def _waiting(state: JobState) -> tuple[Verdict, str]:
    start = "" if state.start in {"N/A", ""} else f", expected to start {state.start}"
    return "pending", f"job {state.job_id} waits: {state.reason}{start}"


def _running(state: JobState) -> tuple[Verdict, str]:
    where = state.nodes or "its nodes"
    return "running", f"job {state.job_id} is {state.state} on {where} since {state.elapsed}"


def _left(state: JobState) -> tuple[Verdict, str]:
    why = "" if state.reason in {"None", ""} else f" ({state.reason})"
    return "stopped", (
        f"Slurm says {state.state}{why} of job {state.job_id}, which left no word of its end; `hpcxrf resume` goes on"
    )


def _without_job(run: RunDir) -> tuple[Verdict, str]:
    holder = read_lock(run.lock_file)
    # Of a process on another host nothing is known: its lock speaks for it.
    if holder is not None and (holder.host != socket.gethostname() or is_alive(holder)):
        return "running", f"on host {holder.host}, pid {holder.pid}"
    if "benchmark" in run.effective():
        if (run.path / "benchmark.html").is_file():
            return "done", "a benchmark, with its page"
        return "stopped", "a benchmark; `hpcxrf benchmark` on the same folder goes on"
    counts = tally(run, None, live=False)
    if counts.at_end:
        verdict: Verdict = "done with failures" if counts.failed else "done"
        return verdict, "the run went to its end here"
    if counts.datasets == 0:
        return "new", "nothing has begun"
    return "stopped", "no driver is at it; `hpcxrf resume` goes on"
