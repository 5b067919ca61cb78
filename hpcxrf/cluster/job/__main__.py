"""`python -m hpcxrf.cluster.job RUN_DIR`: what runs inside a job, from the lock of the run to its report.

State is files: whatever ends this process, the next start does only what is missing. Exit codes are those of
`hpcxrf.errors`; 75 says that something is left to do.
"""

import datetime
import os
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hpcxrf.cluster import slurm
from hpcxrf.cluster.failures import tally
from hpcxrf.cluster.job.signals import JobSignals, job_signals
from hpcxrf.cluster.job.worker_terms import PRETEND_GPUS
from hpcxrf.cluster.job_files import JobRequest, append_event, read_request
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import EXIT_RESUMABLE, DatasetsFailedError, HpcxrfError, SlurmError
from hpcxrf.pipeline.plan import Plan, make_plan
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.runner.done import all_finished
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, open_run, set_damaged_aside

if TYPE_CHECKING:
    from hpcxrf.cluster.job.cluster import JobCluster
    from hpcxrf.cluster.job.watch import State, Watcher
    from hpcxrf.runner.driver import Hooks, Outcome

_DATASETS_PER_WORKER: Final = 2
_REQUEUE_S: Final = 120.0
_REQUEUE_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One start of a run's driver."""

    run: RunDir
    request: JobRequest
    config: RunConfig
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
    # Of all workers together: to be inherited by none of them.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    with run_lock(job.run, job_ended=slurm.job_ended):
        append_event(
            job.run,
            "started",
            job_id=job.job_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            restart_count=job.restart_count,
        )
        for journal in set_damaged_aside(job.run):
            sys.stderr.write(f"alarm: {journal}: was damaged; its dataset is done again\n")
        try:
            code = _worked(job)
        except SystemExit as left:
            _ended_badly(job, int(left.code or 0), "told to end (TERM)")
            raise
        except BaseException as error:
            code = error.exit_code if isinstance(error, HpcxrfError) else 1
            _ended_badly(job, code, str(error) or type(error).__name__)
            raise
        return _left(job) if code == EXIT_RESUMABLE else _ended(job, code, "")


def _job(run: RunDir, signals: JobSignals) -> Job:
    request = read_request(run)
    config, _ = config_of_run(run)
    pretend = os.environ.get(PRETEND_GPUS) == "1"
    device: Literal["cuda", "cpu"] = "cuda" if request.gpus_per_worker and not pretend else "cpu"
    threads = request.threads_per_worker
    execution = replace(config.execution, device=device, threads=threads)
    return Job(
        run=run,
        request=request,
        config=replace(config, execution=execution),
        job_id=os.environ.get("SLURM_JOB_ID", ""),
        restart_count=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        signals=signals,
    )


def _worked(job: Job) -> int:
    if _nothing_left(job):
        return _summary(job.run)
    # Dask, which a run that is finished has no need of.
    from hpcxrf.cluster.job.cluster import job_cluster
    from hpcxrf.cluster.job.watch import Watcher

    began, started = time.perf_counter(), _now()
    execution = job.config.execution
    watcher = Watcher(
        job.run, job_id=job.job_id, workers_wanted=job.request.workers, task_limit_s=execution.task_limit_s
    )
    with job_cluster(job.run, job.request, job.job_id, watcher.alarm) as cluster:
        watcher.start(cluster)
        try:
            plan, outcomes = _driven(job, cluster, watcher)
        finally:
            watcher.stop()
    if any(outcome.left for outcome in outcomes):
        _say(watcher, "ended")
        return EXIT_RESUMABLE
    # From here on nothing is left to do over: a signal that comes now must not make it so.
    _say(watcher, "reporting")
    _report(job, plan, outcomes, started, time.perf_counter() - began)
    _say(watcher, "ended")
    return _summary(job.run)


def _nothing_left(job: Job) -> bool:
    """Whether a finished run was submitted again: then no worker is asked for."""
    if not tally(job.run, None, live=False).at_end:
        return False
    return all_finished(_plan(job), job.run)


def _plan(job: Job) -> Plan:
    memory_bytes = job.request.memory_per_worker_mb * 2**20
    return make_plan(job.config, job.run.path, worker_bytes=memory_bytes)


def _driven(job: Job, cluster: "JobCluster", watcher: "Watcher") -> "tuple[Plan, list[Outcome]]":
    from hpcxrf.runner.driver import run_datasets, totals
    from hpcxrf.runner.worker import forget_attempts

    _say(watcher, "starting")
    forget_attempts(job.run.path)
    plan = _plan(job)
    datasets = len(plan.jobs) + len(plan.refusals)
    watcher.count.planned(datasets, {str(k): n for k, n in totals(plan).items()})
    _say(watcher, "running")
    outcomes = run_datasets(
        plan,
        job.run,
        cluster.client,
        in_flight=max(job.config.execution.datasets_in_flight, _DATASETS_PER_WORKER * job.request.workers),
        progress=lambda p: watcher.count.task(p.stage, p.pixels, ok=p.ok, found=p.found),
        hooks=_hooks(job, cluster, watcher),
    )
    return plan, outcomes


def _hooks(job: Job, cluster: "JobCluster", watcher: "Watcher") -> "Hooks":
    from hpcxrf.runner.driver import Hooks

    def stopping() -> bool:
        if watcher.fault is not None:
            raise watcher.fault
        if job.signals.draining:
            watcher.state = "draining"
        return job.signals.draining

    def at_work() -> frozenset[str]:
        return frozenset().union(*(worker.at_work for worker in cluster.sight()))

    return Hooks(
        stopping=stopping,
        patience_over=lambda: job.signals.drained(job.request.drain_s),
        at_work=at_work,
        dataset=watcher.count.dataset,
    )


def _report(job: Job, plan: Plan, outcomes: "list[Outcome]", started: str, seconds: float) -> None:
    from hpcxrf.cluster.local.run import RunResult, report_run

    result = RunResult(
        run=job.run,
        plan=plan,
        outcomes=tuple(outcomes),
        wall_s=seconds,
        workers=job.request.workers,
        threads=job.request.threads_per_worker,
        device=job.config.execution.device,
    )
    command = f"hpcxrf submit (Slurm job {job.job_id}, site {job.request.site})"
    report_run(result, job.config, started=started, command=command)


def _summary(run: RunDir) -> int:
    """Write how the run ended to the job's log; the exit code."""
    counts = tally(run, None, live=False)
    lines = [f"datasets: {counts.done} done, {counts.failed} failed"]
    lines += [f"  {number} x {reason}" for reason, number in counts.reasons]
    lines.append(f"report: {run.report_file}")
    sys.stdout.write("\n".join(lines) + "\n")
    return DatasetsFailedError.exit_code if counts.failed else 0


def _now() -> str:
    return datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")


def _say(watcher: "Watcher", state: "State") -> None:
    watcher.state = state
    watcher.account()


def _left(job: Job) -> int:
    """Something is left: ask Slurm, once, for another start of this job."""
    job.signals.patient = True
    if job.request.requeue and _requeued(job):
        append_event(job.run, "requeued", job_id=job.job_id, host=socket.gethostname(), restart_count=job.restart_count)
        return EXIT_RESUMABLE
    return _ended(job, EXIT_RESUMABLE, "the time limit was near, and Slurm does not run it again")


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
