"""Cancelling a run and asking for what failed anew."""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from hpcxrf.cluster import slurm
from hpcxrf.cluster.failures import Failure, ask_again
from hpcxrf.cluster.job_files import append_event, read_events
from hpcxrf.errors import OutputError
from hpcxrf.store.lock import is_alive, read_lock
from hpcxrf.store.rundir import RunDir, open_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What became of the jobs of a run."""

    job_ids: tuple[str, ...]
    unknown: tuple[str, ...]
    """That Slurm does not know (any more)."""


def cancel_run(folder: Path) -> Cancelled:
    """End whatever works on a run: its jobs, or a driver on this host.

    Raises:
        OutputError: no run there, or a driver on another host, outside Slurm.
        SlurmError: refused, or no answer.
    """
    run = open_run(folder)
    events = read_events(run)
    ids = list(dict.fromkeys(str(e["job_id"]) for e in events if e.get("job_id") is not None))
    if not ids:
        _end_here(run)
        return Cancelled(job_ids=(), unknown=())
    ended, unknown = [], []
    for job_id in ids:
        state = slurm.job_state(job_id)
        if state is None or not slurm.cancel(job_id):
            unknown.append(job_id)
        elif not state.ended:
            append_event(run, "cancelled", job_id=job_id, host=socket.gethostname())
            ended.append(job_id)
    # Of earlier jobs nobody asks.
    return Cancelled(job_ids=tuple(ended), unknown=tuple(i for i in unknown if i == ids[-1]))


def _end_here(run: RunDir) -> None:
    holder = read_lock(run.lock_file)
    if holder is None:
        raise OutputError(f"{run.path}: nothing works on this run")
    if holder.host != socket.gethostname():
        raise OutputError(f"{run.path}: host {holder.host}, pid {holder.pid} works on it, outside Slurm; end it there")
    if is_alive(holder):
        os.kill(holder.pid, signal.SIGTERM)


def retry_failed(folder: Path, reason: str | None) -> list[Failure]:
    """Write into the journals that what failed is to be tried again, and that nothing else that failed is.

    Args:
        folder: the run directory.
        reason: only failures with this text in their reason, whatever the case; None: all.

    Raises:
        OutputError: no run there, or a driver works on it.
    """
    return ask_again(open_run(folder), reason)
