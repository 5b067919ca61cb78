"""How a run is, from its own files first and from Slurm second; nothing needs a live server.

Slurm forgets: a job that it does not know may have ended well, ended badly, or never been of this cluster, and it
gives old ids to other jobs. So "unknown to Slurm" decides nothing, and a Slurm that does not answer is a note, not a
verdict.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal

from hpcxrf.cluster.failures import Tally, tally
from hpcxrf.cluster.job_files import RunProgress, read_events, read_progress
from hpcxrf.cluster.login.run_jobs import is_job_of, recorded_ids
from hpcxrf.cluster.slurm import JobState, job_states
from hpcxrf.errors import EXIT_RESUMABLE, DatasetsFailedError, SlurmError
from hpcxrf.notes import Note
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
    """The run directory."""
    verdict: Verdict
    """How the run is, in a word or two."""
    reason: str
    """Sentence that gives the reason of the verdict."""
    job_id: str | None
    """Id of the latest job; None: the run was never submitted."""
    slurm: JobState | None
    """State of that job; None: no job, not looked up, unknown to Slurm, or no answer."""
    progress: RunProgress | None
    """Account of the driver that lives, or of the last one."""
    tally: Tally
    """Numbers of datasets."""
    notes: tuple[Note, ...]
    """Sentences on what could not be found out."""


def run_status(folder: Path, ask: AskSlurm) -> RunStatus:
    """Find out how a run is.

    Args:
        folder: the run directory.
        ask: `slurm.job_state`; called where files alone do not suffice.

    Raises:
        OutputError: no run there, or a damaged file.
    """
    run = open_run(folder)
    events, progress = read_events(run), read_progress(run)
    job_id = latest_job(events)
    state: JobState | None = None
    notes: tuple[Note, ...] = ()
    # Once: of 100 000 datasets it takes seconds.
    count = cache(partial(tally, run, progress, live=False))
    if job_id is None:
        verdict, reason = _judge_without_job(run, count)
    else:
        mine = [e for e in events if str(e.get("job_id")) == job_id]
        state, notes = _look_up(mine, job_id, ask)
        if state is not None and not is_job_of(state, run.path, recorded_ids(run)):
            state = None
        verdict, reason = _judge_job(mine, job_id, state, silent=bool(notes))
    return RunStatus(
        path=run.path,
        verdict=verdict,
        reason=reason,
        job_id=job_id,
        slurm=state,
        progress=progress,
        tally=tally(run, progress, live=True) if verdict in GOING_ON else count(),
        notes=notes,
    )


def ask_seldom(ask: AskSlurm, seconds: float) -> AskSlurm:
    """Make `ask` repeat its last answer for some seconds: the controller is everybody's."""
    answers: dict[str, tuple[float, JobState | None]] = {}

    def remembered(job_id: str) -> JobState | None:
        known = answers.get(job_id)
        if known is not None and time.monotonic() - known[0] < seconds:
            return known[1]
        answer = ask(job_id)
        answers[job_id] = (time.monotonic(), answer)
        return answer

    return remembered


def ask_together(folders: Sequence[Path]) -> AskSlurm:
    """Look up the jobs of many runs by one call of squeue; the result answers as `slurm.job_state` does.

    Raises:
        OutputError: a record of a run is damaged.
    """
    latest = [latest_job(read_events(RunDir(path=folder))) for folder in folders]
    try:
        states = job_states({job_id for job_id in latest if job_id is not None})
    except SlurmError as error:
        silence = error

        def refuse(_job_id: str) -> JobState | None:
            raise silence

        return refuse
    return states.get


def latest_job(events: Sequence[Mapping[str, Any]]) -> str | None:
    """Id of the job that was submitted or begun last; None: none ever was."""
    begun = [e for e in events if e.get("event") in {"submitted", "started"}]
    ids = [str(e["job_id"]) for e in begun if e.get("job_id") is not None]
    return ids[-1] if ids else None


def _look_up(mine: Sequence[Mapping[str, Any]], job_id: str, ask: AskSlurm) -> tuple[JobState | None, tuple[Note, ...]]:
    if _last(mine) == "asked" or (_last(mine) == "ended" and _exit_code(mine) in _FINAL):
        return None, ()
    try:
        return ask(job_id), ()
    except SlurmError as error:
        return None, (Note("warning", f"Slurm does not answer about job {job_id} now ({error})"),)


def _last(mine: Sequence[Mapping[str, Any]]) -> str:
    """The last thing that happened to a job; it may have begun before its submission was written down."""
    return next((str(e["event"]) for e in reversed(mine) if e["event"] != "submitted"), "submitted")


def _judge_job(
    mine: Sequence[Mapping[str, Any]], job_id: str, state: JobState | None, *, silent: bool
) -> tuple[Verdict, str]:
    last = _last(mine)
    if state is not None and not state.ended:
        # A job that left early may have been put back into the queue.
        return ("pending" if state.state == "PENDING" else "running"), describe_job(state)
    if _was_cancelled(mine) or (state is not None and state.state == "CANCELLED"):
        return ("cancelled", f"job {job_id} was cancelled; `hpcxrf resume` goes on with what is missing")
    if last in {"asked", "ended"}:
        return _judge_end(mine, job_id)
    if state is not None:
        why = "" if state.reason in {"None", ""} else f" ({state.reason})"
        return "stopped", (
            f"Slurm reports {state.state}{why} for job {job_id}, and the job did not report how it ended; "
            "`hpcxrf resume` goes on"
        )
    if silent:
        going: Verdict = "running" if last == "started" else "pending"
        return going, f"job {job_id} was {going} when its files were last written"
    return "unknown", (
        f"Slurm has no record of job {job_id}, and the job did not report how it ended; finished results are kept, "
        "`hpcxrf resume` goes on with what is missing"
    )


def _was_cancelled(mine: Sequence[Mapping[str, Any]]) -> bool:
    """Cancelled since it last began; it may have written down its own end after that, but not a good one."""
    events = [str(e["event"]) for e in mine]
    begun = max((i for i, event in enumerate(events) if event == "started"), default=0)
    return "cancelled" in events[begun:] and _exit_code(mine) not in _FINAL


def _judge_end(mine: Sequence[Mapping[str, Any]], job_id: str) -> tuple[Verdict, str]:
    if _last(mine) == "asked":
        return "stopped", "more was asked of the run since its last job; `hpcxrf resume` makes it"
    code = _exit_code(mine)
    reason = next(e.get("reason") for e in reversed(mine) if e["event"] == "ended")
    why = f": {reason}" if reason else ""
    if code == 0:
        return "done", f"job {job_id} finished"
    if code == DatasetsFailedError.exit_code:
        return "done with failures", f"job {job_id} finished; some datasets failed"
    if code == EXIT_RESUMABLE:
        return "stopped", f"job {job_id} stopped early{why}; `hpcxrf resume` goes on"
    return "failed", f"job {job_id} ended with exit code {code}{why}; `hpcxrf logs` has more"


def _exit_code(mine: Sequence[Mapping[str, Any]]) -> object:
    return next((e.get("exit_code") for e in reversed(mine) if e["event"] == "ended"), None)


def describe_job(state: JobState) -> str:
    """A sentence on a job that has not ended: why it waits, or where it runs."""
    if state.state == "PENDING":
        start = "" if state.start in {"N/A", ""} else f", expected to start {state.start}"
        return f"job {state.job_id} waits: {state.reason}{start}"
    return f"job {state.job_id} is {state.state} on {state.nodes or 'its nodes'} since {state.elapsed}"


def _judge_without_job(run: RunDir, count: Callable[[], Tally]) -> tuple[Verdict, str]:
    holder = read_lock(run.lock_file)
    # Of a process on another host nothing is known: its lock speaks for it.
    if holder is not None and (holder.host != socket.gethostname() or is_alive(holder)):
        return "running", f"on host {holder.host}, pid {holder.pid}"
    counts = count()
    if counts.at_end:
        verdict: Verdict = "done with failures" if counts.failed + counts.not_tried else "done"
        return verdict, "the run finished on this machine"
    if counts.datasets == 0:
        return "new", "the run has not begun"
    return "stopped", "no process is working on this run; `hpcxrf resume` goes on"
