"""`python -m hpcxrf.cluster.job RUN_DIR`: what runs inside a job, from the lock of the run to its report.

State is files: whatever ends this process, the next start does only what is missing. Exit codes are those of
`hpcxrf.errors`; 75 says that something is left to do.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hpcxrf.cluster import slurm
from hpcxrf.cluster.failures import tally
from hpcxrf.cluster.job.pinning import forget_devices
from hpcxrf.cluster.job.signals import JobSignals, job_signals
from hpcxrf.cluster.job.worker_terms import PRETEND_GPUS
from hpcxrf.cluster.job_files import JobRequest, append_event, read_request
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import EXIT_RESUMABLE, DatasetsFailedError, HpcxrfError, SlurmError
from hpcxrf.notes import Note
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.runner.datasets import read_kept
from hpcxrf.runner.done import count_if_finished
from hpcxrf.runner.ending import RunEnd, describe_device, forget_end, keep_end, now
from hpcxrf.runner.workload import Planned, PlanRequest, Workload
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, open_run, set_damaged_aside
from hpcxrf.workloads import read_workload

if TYPE_CHECKING:
    from hpcxrf.cluster.job.cluster import JobCluster
    from hpcxrf.cluster.job.watch import State, Watcher
    from hpcxrf.runner.hooks import Ended, Hooks

_DATASETS_PER_WORKER: Final = 2
_REQUEUE_S: Final = 120.0
_REQUEUE_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One start of a run's driver."""

    run: RunDir
    request: JobRequest
    config: RunConfig
    workload: Workload
    job_id: str
    restart_count: int
    signals: JobSignals


def main() -> int:
    """Run the run directory that the command line names; the exit code."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m hpcxrf.cluster.job RUN_DIR\n")
        return 2
    with job_signals() as signals:
        try:
            return run_job(Path(sys.argv[1]), signals)
        except HpcxrfError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code


def run_job(folder: Path, signals: JobSignals) -> int:
    """Do what is missing of a run, with the workers of this job.

    Args:
        folder: the run directory, submitted before.
        signals: of this process.

    Returns:
        0 done; 6 done, but datasets failed; 75 something is left.

    Raises:
        OutputError: another driver is at it, or the run directory cannot be written.
        HpcxrfError: nothing can be run at all.
        SystemExit: TERM came; what is finished is kept.
    """
    job = _job(open_run(folder.absolute()), signals)
    forget_devices()
    with run_lock(job.run, job_ended=slurm.job_ended):
        append_event(
            job.run,
            "started",
            job_id=job.job_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            restart_count=job.restart_count,
        )
        for journal in set_damaged_aside(job.run, read_kept(job.run)):
            sys.stderr.write(f"alarm: {journal}: was damaged; its dataset is done again\n")
        try:
            code = drive_missing_work(job)
        except SystemExit as left:
            _ended_badly(job, int(left.code or 0), "told to end (TERM)")
            raise
        except BaseException as error:
            code = error.exit_code if isinstance(error, HpcxrfError) else 1
            _ended_badly(job, code, str(error) or type(error).__name__)
            raise
        if code == EXIT_RESUMABLE:
            return request_requeue(job)
        _ended(job, code, "")
        return choose_exit_code(job, code)


def choose_exit_code(job: Job, code: int) -> int:
    """The exit code of the batch script: failed datasets among good ones end it with 0, unless the site says otherwise.

    So mails say that the job is done, and chains of jobs (`afterok`) go on; not where nothing at all was done.
    """
    if code != DatasetsFailedError.exit_code or job.request.fail_job_on_failed_dataset:
        return code
    if not tally(job.run, None, live=False).done:
        sys.stdout.write("not one dataset is done\n")
        return code
    sys.stdout.write("some datasets failed; the job ends with 0 (fail_job_on_failed_dataset of the site profile)\n")
    return 0


def _job(run: RunDir, signals: JobSignals) -> Job:
    request = read_request(run)
    config, _ = config_of_run(run)
    pretend = os.environ.get(PRETEND_GPUS) == "1"
    device: Literal["cuda", "cpu"] = "cuda" if request.gpus_per_worker and not pretend else "cpu"
    workload = read_workload(run)
    threads = 1 if workload.one_core else request.threads_per_worker
    execution = replace(config.execution, device=device, threads=threads)
    return Job(
        run=run,
        request=request,
        config=replace(config, execution=execution),
        workload=workload,
        job_id=os.environ.get("SLURM_JOB_ID", ""),
        restart_count=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        signals=signals,
    )


def drive_missing_work(job: Job) -> int:
    """Run what is missing with the workers of this job; the exit code."""
    if _nothing_left(job):
        return print_summary(job)
    # Dask, which a run that is finished has no need of.
    from hpcxrf.cluster.job.cluster import job_cluster
    from hpcxrf.cluster.job.watch import Watcher

    began, started = time.perf_counter(), now()
    watcher = Watcher(
        job.run,
        job_id=job.job_id,
        workers_wanted=job.request.workers,
        task_limit_s=job.config.execution.task_limit_s,
        stages=tuple(job.workload.stages),
    )
    notes: list[Note] = []
    with job_cluster(job.run, job.request, job.job_id, watcher.alarm) as cluster:
        watcher.start(cluster)
        try:
            ended = run_plan(job, cluster, watcher, notes)
        finally:
            watcher.stop()
    if ended.left:
        _say(watcher, "ended")
        return EXIT_RESUMABLE
    # From here on nothing is left to do over: a signal that comes now must not make it so.
    _say(watcher, "reporting")
    end = RunEnd(
        run=job.run,
        wall_s=time.perf_counter() - began,
        device=describe_device(job.config.execution.device, job.request.workers, job.request.threads_per_worker),
        command=f"hpcxrf submit (Slurm job {job.job_id}, site {job.request.site})",
        started=started,
        notes=tuple(notes),
    )
    job.workload.summarise(job.config, end)
    keep_end(end)
    _say(watcher, "ended")
    return print_summary(job)


def _nothing_left(job: Job) -> bool:
    """Whether a finished run was submitted again: then no worker is asked for."""
    if not tally(job.run, None, live=False).at_end:
        return False
    return count_if_finished(job.workload, plan_again(job, [])) is not None


def plan_again(job: Job, notes: list[Note]) -> Iterator[Planned]:
    """The plan of the run, without what earlier jobs finished; notes go to the list."""
    request = PlanRequest(
        config=job.config,
        run_dir=job.run.path,
        worker_bytes=job.request.memory_per_worker_mb * 2**20,
        kept=read_kept(job.run),
        note=notes.append,
    )
    return job.workload.plan(request)


def run_plan(job: Job, cluster: "JobCluster", watcher: "Watcher", notes: list[Note]) -> "Ended":
    """Feed the workers until everything has ended, or the job must."""
    from hpcxrf.runner.driver import run_items
    from hpcxrf.runner.worker import forget_attempts

    _say(watcher, "starting")
    forget_end(job.run)
    forget_attempts(job.run.path)
    _say(watcher, "running")
    return run_items(
        job.workload,
        plan_again(job, notes),
        job.run,
        cluster.client,
        in_flight=max(job.config.execution.datasets_in_flight, _DATASETS_PER_WORKER * job.request.workers),
        hooks=_hooks(job, cluster, watcher),
    )


def _hooks(job: Job, cluster: "JobCluster", watcher: "Watcher") -> "Hooks":
    from hpcxrf.runner.hooks import Hooks

    def stopping() -> bool:
        if watcher.fault is not None:
            raise watcher.fault
        if job.signals.draining:
            watcher.state = "draining"
        return job.signals.draining

    def at_work() -> frozenset[str]:
        return frozenset().union(*(worker.at_work for worker in cluster.list_workers()))

    return Hooks(
        stopping=stopping,
        patience_over=lambda: job.signals.drained(job.request.drain_s),
        at_work=at_work,
        dataset=watcher.count.dataset,
        units=watcher.count.units,
        progress=lambda p: watcher.count.task(p.stage, p.pixels, ok=p.ok, found=p.found, tried=p.tried),
    )


def print_summary(job: Job) -> int:
    """Write how the run ended to the job's log; the exit code."""
    counts = tally(job.run, None, live=False)
    not_tried = f", {counts.not_tried} not tried" if counts.not_tried else ""
    lines = [f"datasets: {counts.done} done, {counts.failed} failed{not_tried}"]
    lines += [f"  {number} x {reason}" for reason, number in counts.reasons]
    lines.append(f"page: {job.run.path / job.workload.page}")
    sys.stdout.write("\n".join(lines) + "\n")
    return DatasetsFailedError.exit_code if counts.failed + counts.not_tried else 0


def _say(watcher: "Watcher", state: "State") -> None:
    watcher.state = state
    watcher.account()


def request_requeue(job: Job) -> int:
    """Something is left: ask Slurm, once, for another start of this job."""
    job.signals.patient = True
    if job.request.requeue:
        # Written first: where nothing can be written, nothing is put into the queue that nobody records.
        append_event(job.run, "requeued", job_id=job.job_id, host=socket.gethostname(), restart_count=job.restart_count)
        if _requeued(job):
            return EXIT_RESUMABLE
    return _ended(job, EXIT_RESUMABLE, "stopped before the time limit; Slurm refused to requeue the job")


def _requeued(job: Job) -> bool:
    """Whether Slurm runs this job again; a controller that is busy is asked again for as long as there may be time."""
    began = time.monotonic()
    while True:
        try:
            return slurm.requeue(job.job_id)
        except SlurmError as error:
            # scontrol is part of the job that is ended to be run again.
            if job.signals.terminated:
                return True
            sys.stderr.write(f"alarm: {error}\n")
            sys.stderr.flush()
        if time.monotonic() - began > _REQUEUE_S:
            return False
        time.sleep(_REQUEUE_PAUSE_S)


def _ended_badly(job: Job, code: int, reason: str) -> None:
    """As `_ended`; a disk that is full must not hide what it is the consequence of."""
    try:
        _ended(job, code, reason)
    except HpcxrfError as error:
        sys.stderr.write(f"alarm: {error}\n")


def _ended(job: Job, code: int, reason: str) -> int:
    append_event(job.run, "ended", job_id=job.job_id, host=socket.gethostname(), exit_code=code, reason=reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
