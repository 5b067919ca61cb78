"""Workers as jobs of their own, by dask-jobqueue: they start when Slurm has room, one by one."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from distributed import Security, SpecCluster

from hpcxrf.cluster.dashboard import guarded_scheduler
from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.slurm import clean_environment
from hpcxrf.store.rundir import RunDir

_AGAIN_S: Final = 10.0


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
        "worker_command": "hpcxrf.cluster.worker_main",
        "worker_extra_args": ["--run", shlex.quote(str(run.path))],
        "log_directory": None,
    }


def watch_jobs(
    cluster: SpecCluster,
    workers: int,
    alarm: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Collection[str]], None]:
    """What keeps the number of worker jobs: dask-jobqueue itself never replaces a lost one.

    Args:
        cluster: of `elastic_cluster`.
        workers: how many there are to be.
        alarm: told of every replacement.
        clock: seconds.
    """
    asked_at = float("-inf")
    before = 0

    def watch(known: Collection[str]) -> None:
        nonlocal asked_at, before
        lost = before - len(known)
        before = len(known)
        if lost > 0:
            alarm(f"{lost} worker jobs were lost and are asked for again")
        if len(known) < workers and (lost > 0 or clock() - asked_at > _AGAIN_S):
            asked_at = clock()
            # In the thread that also hears of workers that go.
            cluster.loop.add_callback(cluster.scale, workers)

    return watch
