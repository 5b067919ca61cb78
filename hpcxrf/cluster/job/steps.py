"""Workers as steps of the driver's own job: each is started by itself, and again when it ends."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job.pinning import NodeGpu, drop_devices, place_workers
from hpcxrf.cluster.job.worker_ends import MOST_STARTING, WorkerEnd, worker_end
from hpcxrf.cluster.job.worker_terms import forget_facts
from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.slurm import clean_environment, node_names
from hpcxrf.errors import HpcxrfError, SlurmError
from hpcxrf.store.files import output_faults
from hpcxrf.store.rundir import RunDir

MOST_DEATHS: Final = 6
"""Deaths in a row, none after a life of `_LONG_S`; then a worker is given up."""
_LONG_S: Final = 120.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_END_S: Final = 8.0


@dataclass(slots=True)
class Step:
    """One worker's step, now and before."""

    name: str
    """Name of the worker."""
    process: subprocess.Popen[bytes] | None = None
    """srun of the step; None: it is not started, or has ended."""
    began: float = 0.0
    """Time of the last start."""
    seen: float = 0.0
    """Time at which the scheduler last knew the worker."""
    address: str = ""
    """Address of the worker's process; empty: the scheduler has not known it since the start."""
    log_bytes: int = 0
    """Size of its log at the last start."""
    quoted: str = ""
    """Reason of an end that was shown last."""
    deaths: int = 0
    """Deaths in a row."""
    next_start: float = 0.0
    """Time before which it is not started."""
    end: WorkerEnd | None = None
    """Why it was given up; None: it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWorkers:
    """All workers of an allocation."""

    run: RunDir
    """Run directory."""
    steps: list[Step]
    """Their steps."""
    command: Callable[[str], list[str]]
    """Command of the step of a worker of this name."""
    environment: Mapping[str, str]
    """Environment of the steps."""
    alarm: Callable[[str], None]
    """Called with a sentence about every death."""
    start_s: float
    """Seconds that a worker may take until the scheduler knows it."""
    died: Callable[[str], None] = lambda _name: None
    """Called with the name of a worker whose step has ended."""
    clock: Callable[[], float] = field(default=time.monotonic)
    """Clock, in seconds."""

    def supervise(self, known: Mapping[str, str]) -> None:
        """Start what is to be started; call it about twice a second.

        Args:
            known: address by name of the workers that the scheduler knows.

        Raises:
            SlurmError: there is no srun.
            OutputError: the log of a worker cannot be written.
        """
        starting = sum(step.process is not None and step.name not in known for step in self.steps)
        for step in self.steps:
            if step.process is None:
                starting += starting < MOST_STARTING and self._start_when_due(step)
            elif step.process.poll() is not None:
                self._note_death(step, step.process)
            else:
                self._look_at(step, step.process, known)

    def end_error(self) -> HpcxrfError | None:
        """The error with which the run ends when every worker was given up; None: somebody is left."""
        ends = [step.end for step in self.steps if step.end is not None]
        return ends[-1].error() if len(ends) == len(self.steps) else None

    def end(self, patience_s: float = _END_S) -> None:
        """End what does not end by itself when its scheduler goes."""
        running = [step.process for step in self.steps if step.process is not None]
        for end in (None, subprocess.Popen.terminate, subprocess.Popen.kill):
            for process in running:
                if end is not None and process.poll() is None:
                    end(process)
            deadline = self.clock() + patience_s / 2
            while any(p.poll() is None for p in running) and self.clock() < deadline:
                time.sleep(0.02)

    def _start_when_due(self, step: Step) -> bool:
        if step.end is not None or self.clock() < step.next_start:
            return False
        forget_facts(self.run, step.name)
        log = self.run.logs / f"{step.name}.log"
        command = self.command(step.name)
        with output_faults(self.run.logs, bytes_needed=0), log.open("ab") as output:
            step.log_bytes = output.tell()
            try:
                step.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(self.environment)
                )
            except FileNotFoundError as error:
                raise SlurmError(f"{command[0]}: not found on the driver's node") from error
        step.began = step.seen = self.clock()
        step.address = ""
        return True

    def _note_death(self, step: Step, process: subprocess.Popen[bytes]) -> None:
        now = self.clock()
        step.deaths = step.deaths + 1 if now - step.began < _LONG_S else 1
        step.process = None
        self.died(step.name)
        end = worker_end(self.run, step.name, quoted=step.quoted, since=step.log_bytes)
        step.quoted = end.reason
        shown = f"{end.sentence}; its step ended with {process.returncode} (logs/{step.name}.log)"
        if end.is_final or step.deaths >= MOST_DEATHS:
            step.end = end
            times = "" if end.is_final else f", {step.deaths} times in a row"
            self.alarm(f"{shown}{times}: it is given up")
            return
        step.next_start = now + min(_FIRST_PAUSE_S * 2.0 ** (step.deaths - 1), _LONGEST_PAUSE_S)
        self.alarm(f"{shown} and is started again")

    def _look_at(self, step: Step, process: subprocess.Popen[bytes], known: Mapping[str, str]) -> None:
        """A step that lives while nobody hears of its worker is stuck somewhere below."""
        now = self.clock()
        if step.name not in known:
            if now - step.seen > self.start_s:
                self.alarm(f"{step.name}: the scheduler has not heard of it for {self.start_s:g} s; its step is ended")
                process.kill()
            return
        step.seen = now
        if step.address not in {"", known[step.name]}:
            end = worker_end(self.run, step.name, quoted=step.quoted, since=step.log_bytes)
            step.quoted = end.reason
            self.alarm(f"{end.sentence}; its supervisor has started another process")
        step.address = known[step.name]


def allocation_steps(
    run: RunDir,
    request: JobRequest,
    job_id: str,
    environment: Mapping[str, str],
    alarm: Callable[[str], None],
    died: Callable[[str], None],
) -> StepWorkers:
    """The workers of a job, none of them started yet.

    Args:
        run: the run directory.
        request: how many, and what each is given.
        job_id: job that this process is part of.
        environment: environment of this process.
        alarm: called with a sentence about every death.
        died: called with the worker's name.

    Raises:
        SlurmError: whole nodes are to be shared out, and Slurm does not name them.
    """
    names = [f"worker-{number}" for number in range(request.workers)]
    places: dict[str, NodeGpu] = {}
    if request.node_gpus:
        # Where Slurm pins nothing, it must not choose the node either.
        nodes = node_names(environment["SLURM_JOB_NODELIST"])
        places = dict(zip(names, place_workers(request.workers, nodes), strict=True))
    return StepWorkers(
        run=run,
        steps=[Step(name) for name in names],
        command=lambda name: step_command(request, run.path, name, places.get(name)),
        # Sizes and GPUs of the whole job would be taken for those of each step.
        environment=drop_devices(clean_environment(environment)) | {"SLURM_JOB_ID": job_id},
        alarm=alarm,
        start_s=request.worker_start_s,
        died=died,
    )


def step_command(request: JobRequest, run_dir: Path, name: str, place: NodeGpu | None = None) -> list[str]:
    """The command of one worker's step; Slurm chooses the node and pins the GPU, unless nodes are whole (`place`)."""
    return [
        "srun",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={request.threads_per_worker}",
        f"--mem={request.memory_per_worker_mb}M",
        *(request.gpu_options if request.gpus_per_worker else ()),
        *([] if place is None else [f"--nodelist={place.node}"]),
        "--job-name=worker",
        "--export=ALL",
        "--kill-on-bad-exit=0",
        *worker_command(request, run_dir, name, 0 if place is None else place.number),
    ]


def worker_command(request: JobRequest, run_dir: Path, name: str, number: int = 0) -> list[str]:
    """The command of a worker on its node, behind the site's launcher.

    Args:
        request: how the job uses its nodes.
        run_dir: run directory.
        name: name of the worker.
        number: place of its GPU in the node's own list, where nodes are whole.
    """
    gpu = [f"--node-gpu={number}/{request.node_gpus}"] if request.node_gpus else []
    module = [request.worker_python or sys.executable, "-m", "hpcxrf.cluster.job.worker_main"]
    return [*request.launcher, *module, *gpu, "--run", str(run_dir), "--name", name]
