"""Cancelling a run, and marking what failed to be tried again."""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from hpcxrf.cluster import slurm
from hpcxrf.cluster.failures import Failure, ask_again
from hpcxrf.cluster.job_files import append_event, was_submitted
from hpcxrf.cluster.login.run_jobs import is_worker, list_run_jobs, recorded_ids, require_no_job
from hpcxrf.errors import OutputError
from hpcxrf.store.lock import is_alive, read_lock
from hpcxrf.store.rundir import RunDir, open_run, require_own_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What became of the jobs of a run."""

    job_ids: tuple[str, ...]
    """Ids of the jobs that were cancelled, the driver's before those of its workers."""
    unknown: tuple[str, ...]
    """Id of the job that was submitted last, where Slurm has no record of it."""
    process: int | None = None
    """Process of this host, outside Slurm, that was told to end."""


def cancel_run(folder: Path) -> Cancelled:
    """End whatever works on a run: its driver's job and worker jobs, or a driver on this host.

    Raises:
        OutputError: no run there, or a driver on another host, outside Slurm.
        SlurmError: refused, or no answer.
    """
    run = open_run(folder)
    require_own_folder(run.path)
    recorded = recorded_ids(run)
    if not recorded and not was_submitted(run):
        process = _end_process(run)
        if process is None:
            raise OutputError(f"{run.path}: no process and no job works on this run")
        return Cancelled(job_ids=(), unknown=(), process=process)
    jobs = list_run_jobs(run)
    drivers = [job.job_id for job in jobs if not job.ended and not is_worker(job)]
    slurm.cancel_jobs(drivers)
    for job_id in drivers:
        append_event(run, "cancelled", job_id=job_id, host=socket.gethostname())
    # Looked up after the drivers have gone, which could have asked for more of them.
    workers = [job.job_id for job in (list_run_jobs(run) if drivers else jobs) if is_worker(job) and not job.ended]
    slurm.cancel_jobs(workers)
    process = None if drivers or workers else _end_process(run)
    lost = recorded[-1:] if recorded and recorded[-1] not in {job.job_id for job in jobs} else []
    return Cancelled(job_ids=(*drivers, *workers), unknown=tuple(lost), process=process)


def _end_process(run: RunDir) -> int | None:
    """End a driver of this host, outside Slurm, and give its pid; None: there is none."""
    holder = read_lock(run.lock_file)
    if holder is None or holder.job_id is not None:
        return None
    if holder.host != socket.gethostname():
        raise OutputError(
            f"{run.path}: process {holder.pid} on host {holder.host} works on this run, outside Slurm; stop it there"
        )
    if not is_alive(holder):
        return None
    os.kill(holder.pid, signal.SIGTERM)
    return holder.pid


def retry_failed(folder: Path, reason: str | None) -> list[Failure]:
    """Write into the journals which failed tasks are to be tried again, and that no other failed task is.

    Args:
        folder: the run directory.
        reason: only failures with this text in their reason, whatever the case; None: all.

    Raises:
        OutputError: no run there, or a driver works on it, or a job of it is in the queue.
        SlurmError: Slurm does not answer.
    """
    require_own_folder(folder)
    run = open_run(folder)
    if was_submitted(run):
        # A job that has not begun yet would read the marks, although this command would then refuse to submit.
        require_no_job(run, list_run_jobs(run))
    return ask_again(run, reason)
