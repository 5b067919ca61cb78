"""Jobs of one run in the queue: found by the comment that all of them have, never by an id alone.

Slurm gives the ids of old jobs away again, so an id of the run's own records may name somebody else's job.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.job_files import WORKER_MARK, read_events, run_comment
from hpcxrf.cluster.login.sbatch import JOB_NAME
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import OutputError
from hpcxrf.store.rundir import RunDir

_PREFIX: Final = "hpcxrf:"


def recorded_ids(run: RunDir) -> list[str]:
    """Ids of the drivers' jobs in the records of a run, oldest first; worker jobs are not recorded.

    Raises:
        OutputError: a record is damaged.
    """
    begun = [e for e in read_events(run) if e.get("event") in {"submitted", "started"}]
    return list(dict.fromkeys(str(e["job_id"]) for e in begun if e.get("job_id") is not None))


def list_run_jobs(run: RunDir) -> list[JobState]:
    """All jobs of a run and of this user that Slurm knows, drivers and workers, ended ones included.

    Raises:
        OutputError: a record of the run is damaged.
        SlurmError: Slurm does not answer.
    """
    recorded = recorded_ids(run)
    return [job for job in slurm.own_jobs() if is_job_of(job, run.path, recorded)]


def is_job_of(job: JobState, folder: Path, recorded: Collection[str]) -> bool:
    """Whether a job is part of a run.

    Args:
        job: a job of this user.
        folder: the run directory.
        recorded: ids in the records of the run: version 0.1.0 left no comment on its jobs.
    """
    ours = [mark for mark in job.comment.split(",") if mark.startswith(_PREFIX)]
    if ours:
        return run_comment(folder) in (mark.removesuffix(WORKER_MARK) for mark in ours)
    return job.job_id in recorded and job.name == JOB_NAME and Path(job.folder).resolve() == folder.resolve()


def require_no_job(run: RunDir, jobs: Iterable[JobState]) -> None:
    """Refuse a run of which a driver's job waits in the queue or runs.

    Args:
        run: the run directory, for the message.
        jobs: result of `list_run_jobs`.

    Raises:
        OutputError: there is one.
    """
    for job in jobs:
        if not job.ended and not is_worker(job):
            raise OutputError(
                f"{run.path}: job {job.job_id} of this run is {job.state}; wait for it, or `hpcxrf cancel` it first"
            )


def is_worker(job: JobState) -> bool:
    """Whether a job of a run is that of one worker (elastic mode), not of the driver."""
    return any(mark.startswith(_PREFIX) and mark.endswith(WORKER_MARK) for mark in job.comment.split(","))
