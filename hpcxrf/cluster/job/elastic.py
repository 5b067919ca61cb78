"""Workers as jobs of their own, by dask-jobqueue: they start when Slurm has room, one by one."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from distributed import Security, SpecCluster

from hpcxrf.cluster import slurm
from hpcxrf.cluster.dashboard import guarded_scheduler
from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.slurm import clean_environment
from hpcxrf.errors import SlurmError
from hpcxrf.store.rundir import RunDir

MOST_IN_VAIN: Final = 4
"""Jobs of a worker that end before anything is heard of it."""
_AGAIN_S: Final = 10.0
_SOON_S: Final = 2.0
_NOT_ASKED_FOR: Final = (
    "interface",
    "death-timeout",
    "local-directory",
    "shared-temp-directory",
    "extra",
    "queue",
    "account",
    "project",
    "walltime",
    "env-extra",
    "job-extra",
    "header-skip",
)
"""Settings of dask-jobqueue whose place is taken by `job_options` or by the terms of the workers."""
_REFUSED_S: Final = 1800.0
"""For so long sbatch may refuse every job while nobody works."""


def elastic_cluster(
    run: RunDir, request: JobRequest, security: Security | None, scheduler: dict[str, Any]
) -> SpecCluster:
    """A SLURMCluster without workers yet, whose scheduler is in this process.

    The variables of the job that this process is part of are removed from its environment: sbatch would take them
    for options of the worker jobs, and srun there for those of the job.

    Args:
        run: the run directory.
        request: how the workers are asked for.
        security: None: plain tcp.
        scheduler: options of `guarded_scheduler`.

    Raises:
        OSError: the credentials cannot be written.
    """
    from dask_jobqueue import SLURMCluster

    for name in set(os.environ) - set(clean_environment()):
        del os.environ[name]
    return SLURMCluster(
        name="worker",
        scheduler_cls=guarded_scheduler,
        scheduler_options=scheduler,
        security=security,
        protocol="tcp://" if security is None else "tls://",
        shared_temp_directory=str(run.secrets),
        silence_logs=False,
        **job_options(run, request),
    )


def job_options(run: RunDir, request: JobRequest) -> dict[str, Any]:
    """What dask-jobqueue makes the script of one worker of; its text goes through a shell."""
    directives = [
        *request.worker_options,
        "--open-mode=append",
        "--no-requeue",
        f"--chdir={shlex.quote(str(run.path))}",
        "--output=logs/worker-job-%j.log",
        *(["--gpus-per-task=1"] if request.gpus_per_worker else []),
    ]
    return {
        "cores": request.threads_per_worker,
        "processes": 1,
        "memory": f"{request.memory_per_worker_mb}MiB",
        "job_mem": f"{request.memory_per_worker_mb}M",
        "job_cpu": request.threads_per_worker,
        "job_name": "hpcxrf",
        "interface": None,
        "walltime": None,
        "python": shlex.quote(sys.executable),
        "job_script_prologue": ["umask 077", "ulimit -c 0", *request.setup],
        "job_extra_directives": directives,
        "worker_command": "hpcxrf.cluster.job.worker_main",
        "worker_extra_args": ["--run", shlex.quote(str(run.path))],
        "log_directory": None,
        "job_directives_skip": (),
    }


def jobqueue_settings() -> dict[str, Any]:
    """Dask configuration that leaves a worker's job to `job_options` alone, for as long as jobs are made.

    What is not given to dask-jobqueue it looks up in `jobqueue.yaml` of the user, or of the site, where an option of
    another project (a queue, an account, a walltime) would end up in these jobs.
    """
    unset: dict[str, Any] = dict.fromkeys(_NOT_ASKED_FOR)
    return {"jobqueue.slurm": unset | {"shebang": "#!/bin/bash", "scheduler-options": {}}}


@dataclass(slots=True)
class WorkerJobs:
    """What keeps the number of worker jobs: dask-jobqueue itself never replaces one that is lost."""

    cluster: SpecCluster
    """Of `elastic_cluster`."""
    wanted: int
    alarm: Callable[[str], None]
    ended: Callable[[str], bool]
    """Whether a job will not go on by itself."""
    clock: Callable[[], float] = time.monotonic
    seen: set[str] = field(default_factory=set)
    """Names of workers that the scheduler has ever known."""
    looked_at: float = float("-inf")
    in_vain: int = 0
    """Jobs in a row that ended before anything was heard of them."""
    refused_since: float | None = None
    """When sbatch began to refuse jobs; None: it took the last one, or somebody works."""

    @property
    def all_given_up(self) -> bool:
        """Jobs ended again and again before they could work, or were refused: more of them would not help."""
        refused = self.refused_since is not None and self.clock() - self.refused_since > _REFUSED_S
        return refused or self.in_vain >= MOST_IN_VAIN * self.wanted

    def watch(self, known: Collection[str]) -> None:
        """Replace jobs that are lost; call it about twice a second.

        Args:
            known: names of the workers that the scheduler knows.
        """
        if not self.seen.issuperset(known):
            self.in_vain = 0
            self.seen.update(known)
        if known:
            self.refused_since = None
        gone = self.seen - set(known)
        if len(known) >= self.wanted or self.all_given_up:
            return
        now = self.clock()
        if now - self.looked_at < (_SOON_S if gone & set(self.cluster.workers) else _AGAIN_S):
            return
        self.looked_at = now
        lost = [name for name in dict(self.cluster.workers) if name not in known and self._ended(name)]
        self._account(lost)
        # In the thread that also hears of workers that come and go.
        self.cluster.loop.add_callback(_replace, self.cluster, lost, self.wanted)

    def _account(self, lost: Collection[str]) -> None:
        for name in lost:
            if self._refused(name):
                self.refused_since = self.refused_since or self.clock()
                self.alarm(f"{name}: sbatch took no job for it (logs/dask.log); it is asked again")
            else:
                self.in_vain += name not in self.seen
                self.alarm(f"{name}: its job has ended, another is asked for")

    def _ended(self, name: str) -> bool:
        if name not in self.cluster.workers:
            return False
        job_id = self._job_id(name)
        return job_id is None or self.ended(job_id)

    def _refused(self, name: str) -> bool:
        """It is entered with the cluster when sbatch has answered; without a job the answer was no."""
        return name in self.cluster.workers and self._job_id(name) is None

    def _job_id(self, name: str) -> str | None:
        return getattr(self.cluster.workers.get(name), "job_id", None)


def job_has_ended(job_id: str) -> bool:
    """Whether Slurm says that a worker's job has ended, or does not know it any more.

    A Slurm that does not answer says nothing: the worker may well live.
    """
    try:
        state = slurm.job_state(job_id)
    except SlurmError:
        return False
    return state is None or state.ended


def _replace(cluster: SpecCluster, lost: Collection[str], wanted: int) -> None:
    for name in lost:
        cluster.worker_spec.pop(name, None)
    cluster.scale(wanted)
