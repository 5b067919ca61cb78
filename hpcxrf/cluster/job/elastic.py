"""Workers as jobs of their own: they start when Slurm has room, one by one."""

import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.job.worker_ends import MOST_STARTING, WorkerEnd, worker_end
from hpcxrf.cluster.job_files import WORKER_MARK, JobRequest
from hpcxrf.cluster.login.sbatch import JOB_NAME
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import HpcxrfError, OutputError, SlurmError
from hpcxrf.store.files import append_line
from hpcxrf.store.rundir import RunDir

MOST_IN_VAIN: Final = 4
"""Jobs of a worker that end before the scheduler knows it; then all are given up."""
ASK_S: Final = 10.0
"""Seconds between two calls of squeue, and after a refusal of sbatch: the controller is everybody's."""
_LOG: Final = "logs/worker-job-%j.log"
_SCHEDULER: Final = "of-the-run-directory"
"""Stands in the script for the address, which the worker reads from its terms: a command line is read by everybody."""
_IGNORED_SETTINGS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("interface", "death-timeout", "local-directory", "shared-temp-directory", "extra", "queue")),
    **dict.fromkeys(("account", "project", "walltime", "env-extra", "job-extra", "header-skip", "log-directory")),
    "scheduler-options": {},
}
"""Settings that dask-jobqueue would take from the `jobqueue.yaml` of the user or of the site, where those of another
project (a queue, an account, a walltime) would end up in these jobs."""
_AT_ONCE: Final = 4
_REFUSED_S: Final = 1800.0
"""Seconds for which sbatch may refuse every job while nobody works."""
_BLAMELESS: Final = frozenset({"BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "TIMEOUT"})


def worker_script(run_dir: Path, request: JobRequest, name: str) -> str:
    """The batch script of one worker, as dask-jobqueue writes it; submitted and watched it is by `WorkerJobs`.

    dask-jobqueue itself keeps no number of workers, asks Slurm job by job, and leaves a pair of keys behind.
    """
    import dask
    from dask_jobqueue.slurm import SLURMJob

    with dask.config.set({f"jobqueue.slurm.{setting}": value for setting, value in _IGNORED_SETTINGS.items()}):
        job = SLURMJob(_SCHEDULER, name=name, **_describe_job(run_dir, request))
        return str(job.job_script())


def _describe_job(run_dir: Path, request: JobRequest) -> dict[str, Any]:
    """What dask-jobqueue makes a script of, whose text goes through a shell."""
    node_gpu = [f"--node-gpu=0/{request.node_gpus}"] if request.node_gpus else []
    return {
        "cores": request.threads_per_worker,
        "processes": 1,
        "memory": f"{request.memory_per_worker_mb}MiB",
        "job_mem": f"{request.memory_per_worker_mb}M",
        "job_cpu": request.threads_per_worker,
        "job_name": JOB_NAME,
        "interface": None,
        "walltime": None,
        # Only a login shell knows `module` everywhere.
        "shebang": "#!/bin/bash -l" if any(s.startswith("module ") for s in request.setup) else "#!/bin/bash",
        "python": shlex.join([*request.launcher, request.worker_python or sys.executable]),
        "job_script_prologue": ["umask 077", "ulimit -c 0", *request.setup],
        "job_extra_directives": [
            *request.worker_options,
            *(request.gpu_options if request.gpus_per_worker else ()),
            "--open-mode=append",
            "--no-requeue",
        ],
        "worker_command": "hpcxrf.cluster.job.worker_main",
        "worker_extra_args": [*node_gpu, "--run", shlex.quote(str(run_dir))],
        "log_directory": None,
        "job_directives_skip": (),
    }


def script_options(run_dir: Path) -> list[str]:
    """Options of sbatch beside the script: folder and log, whose path Slurm expands."""
    return [f"--chdir={run_dir}", f"--output={str(run_dir).replace('%', '%%')}/{_LOG}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmCalls:
    """Calls of Slurm's programs; replaced in tests."""

    submit: Callable[[str], str]
    """Submission of the job of a worker of this name; the job's id."""
    states: Callable[[Collection[str]], Mapping[str, JobState]] = slurm.job_states
    """States of jobs by their id."""
    cancel: Callable[[Sequence[str]], None] = slurm.cancel_jobs
    """End of jobs by their id."""


@dataclass(slots=True)
class WorkerJob:
    """One worker's job."""

    job_id: str
    """Id of the job."""
    state: str = ""
    """Last state by squeue; empty: it was not called yet."""
    began: float = 0.0
    """Time at which it was first seen to run, or at which the scheduler last knew its worker."""
    address: str = ""
    """Address of the worker's process; empty: the scheduler has never known it."""


@dataclass(slots=True, kw_only=True)
class WorkerJobs:
    """All worker jobs of a driver: as many as are wanted, and another one for each that is lost."""

    run: RunDir
    """Run directory."""
    wanted: int
    """Number of workers."""
    calls: SlurmCalls
    """Calls of Slurm."""
    alarm: Callable[[str], None]
    """Called with a sentence about every lost job."""
    start_s: float
    """Seconds that a worker may take from its job's start until the scheduler knows it."""
    forgive: Callable[[str], None] = lambda _name: None
    """Called with the name of a worker whose end no task is to blame for."""
    clock: Callable[[], float] = time.monotonic
    """Clock, in seconds."""
    jobs: dict[str, WorkerJob] = field(default_factory=dict)
    """Jobs that have not ended, by name of their worker."""
    made: int = 0
    """Number of jobs so far."""
    asked_at: float = float("-inf")
    """Time of the last call of squeue."""
    submit_at: float = float("-inf")
    """Time before which nothing is submitted."""
    in_vain: int = 0
    """Jobs in a row that ended before the scheduler knew their worker."""
    refused_since: float | None = None
    """Time at which sbatch began to refuse jobs; None: it took the last one, or somebody works."""
    refusal: str = ""
    """Reason of the last refusal."""
    given_up: list[WorkerEnd] = field(default_factory=list)
    """Workers that would end the same way at every start."""
    last_end: WorkerEnd | None = None
    """How the last one ended."""
    working: int = 0
    """Number of workers that the scheduler knows."""

    def supervise(self, known: Mapping[str, str]) -> None:
        """Replace jobs that are lost; call it about twice a second.

        Args:
            known: address by name of the workers that the scheduler knows.

        Raises:
            OutputError: the run directory cannot be written; the job that could not be recorded is cancelled.
        """
        now = self.clock()
        for name, job in self.jobs.items():
            if name in known:
                self._note_life(name, job, known[name], now)
        self.working = len(known)
        if known:
            self.refused_since = None
        missing = [name for name in self.jobs if name not in known]
        if missing and now - self.asked_at >= ASK_S:
            self.asked_at = now
            self._ask(missing, now)
        if self._find_futility() is None:
            self._submit_missing(known, now)

    def end_error(self) -> HpcxrfError | None:
        """The error with which the run ends when nobody works and more jobs would not help; None: it goes on."""
        return None if self.working else self._find_futility()

    def _find_futility(self) -> HpcxrfError | None:
        if len(self.given_up) >= self.wanted:
            return self.given_up[-1].error()
        if self.in_vain >= MOST_IN_VAIN * self.wanted and self.last_end is not None:
            return self.last_end.error()
        if self.refused_since is not None and self.clock() - self.refused_since > _REFUSED_S:
            return SlurmError(f"sbatch has refused worker jobs for {_REFUSED_S / 60:g} min: {self.refusal}")
        return None

    def end(self) -> None:
        """Cancel what does not end by itself when its scheduler goes, pending jobs above all."""
        try:
            self.calls.cancel([job.job_id for job in self.jobs.values()])
        except SlurmError as error:
            self.alarm(f"worker jobs may still be in the queue; `hpcxrf cancel` ends them ({error})")

    def _note_life(self, name: str, job: WorkerJob, address: str, now: float) -> None:
        if not job.address:
            self.in_vain = 0
        elif job.address != address:
            self.alarm(f"{self._end_of(name, job).sentence}; its supervisor has started another process")
        job.address, job.began, job.state = address, now, "RUNNING"

    def _ask(self, missing: list[str], now: float) -> None:
        try:
            states = self.calls.states([self.jobs[name].job_id for name in missing])
        except SlurmError:
            # No answer means nothing: the worker may well live.
            return
        for name in missing:
            job = self.jobs[name]
            state = states.get(job.job_id)
            if state is None or state.ended:
                self._note_end(name, job, state)
                continue
            if state.state != "PENDING" and job.state in {"", "PENDING"}:
                job.began = now
            job.state = state.state
        self._cancel_stuck(missing, now)

    def _cancel_stuck(self, missing: list[str], now: float) -> None:
        """End jobs that run while nobody hears of their worker."""
        stuck = [
            name
            for name in missing
            if name in self.jobs
            and self.jobs[name].state not in {"", "PENDING"}
            and now - self.jobs[name].began > self.start_s
        ]
        for name in stuck:
            self.alarm(f"{name}: the scheduler has not heard of it for {self.start_s:g} s; its job is cancelled")
        # A Slurm that does not answer is asked again with the next look.
        with suppress(SlurmError):
            self.calls.cancel([self.jobs[name].job_id for name in stuck])

    def _note_end(self, name: str, job: WorkerJob, state: JobState | None) -> None:
        del self.jobs[name]
        if state is not None and state.state in _BLAMELESS:
            self.forgive(name)
        end = self._end_of(name, job)
        self.last_end = end
        shown = "" if state is None else f" ({state.state})"
        if end.is_final:
            self.given_up.append(end)
            self.alarm(f"{end.sentence}; its job has ended{shown}: it is given up")
            return
        self.in_vain += not job.address
        self.alarm(f"{end.sentence}; its job has ended{shown}, another is submitted")

    def _end_of(self, name: str, job: WorkerJob) -> WorkerEnd:
        return worker_end(self.run, name, job_log=self.run.path / _LOG.replace("%j", job.job_id))

    def _submit_missing(self, known: Collection[str], now: float) -> None:
        starting = sum(job.state != "PENDING" and name not in known for name, job in self.jobs.items())
        missing = self.wanted - len(self.given_up) - len(self.jobs)
        for _ in range(min(missing, MOST_STARTING - starting, _AT_ONCE)):
            if now < self.submit_at:
                return
            self._submit_one(now)

    def _submit_one(self, now: float) -> None:
        name = f"worker-{self.made}"
        try:
            job_id = self.calls.submit(name)
        except SlurmError as error:
            self.submit_at = now + ASK_S
            if str(error) != self.refusal:
                self.alarm(f"{name}: sbatch refused its job ({error}); it is submitted again every {ASK_S:g} s")
            self.refusal, self.refused_since = str(error), self.refused_since or now
            return
        self.made += 1
        self.refusal, self.refused_since = "", None
        self.jobs[name] = WorkerJob(job_id=job_id)
        try:
            append_line(self.run.path / "jobs" / "worker-jobs.jsonl", {"name": name, "job_id": job_id})
        except OutputError:
            # A job that nobody has recorded must not stay; `end` would ask for all of them.
            self.calls.cancel([job_id])
            raise


def worker_jobs(
    run: RunDir, request: JobRequest, alarm: Callable[[str], None], forgive: Callable[[str], None]
) -> WorkerJobs:
    """The worker jobs of a driver, none of them submitted yet; those that a killed driver left are cancelled.

    Args:
        run: the run directory.
        request: how many, and what each is given.
        alarm: called with a sentence about every lost job.
        forgive: called with the name of a worker whose end no task is to blame for.
    """
    # Its import sets a handler of a signal, as only the main thread may; the watcher's thread submits.
    import dask_jobqueue.slurm  # noqa: F401

    _cancel_orphans(request.comment, alarm)
    options = script_options(run.path)
    return WorkerJobs(
        run=run,
        wanted=request.workers,
        calls=SlurmCalls(submit=lambda name: slurm.submit(worker_script(run.path, request, name), options)),
        alarm=alarm,
        start_s=request.worker_start_s,
        forgive=forgive,
    )


def _cancel_orphans(comment: str, alarm: Callable[[str], None]) -> None:
    """A worker of an earlier driver that starts now would take the name of one of ours."""
    if not comment:
        return
    try:
        mark = f"{comment}{WORKER_MARK}"
        slurm.cancel_jobs([j.job_id for j in slurm.own_jobs() if mark in j.comment.split(",") and not j.ended])
    except SlurmError as error:
        alarm(f"whether worker jobs of an earlier driver are left is not known ({error})")
