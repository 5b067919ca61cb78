"""Workers as steps of the driver's own job: each is started by itself, and again when it ends."""

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.slurm import clean_environment
from hpcxrf.errors import SlurmError
from hpcxrf.store.rundir import RunDir

MOST_DEATHS: Final = 6
"""In a row, none of which lived for `_LONG_S`; then a worker is given up."""
_LONG_S: Final = 120.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_UNSEEN_S: Final = 300.0
_END_S: Final = 8.0


@dataclass(slots=True)
class Step:
    """One worker's step, now and before."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    seen: float = 0.0
    """When the scheduler last knew the worker."""
    deaths: int = 0
    next_start: float = 0.0
    given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """All workers of an allocation."""

    run: RunDir
    steps: list[Step]
    command: Callable[[str], list[str]]
    """Of a worker's name."""
    environment: Mapping[str, str]
    alarm: Callable[[str], None]
    died: Callable[[str], None] = lambda _name: None
    """Told of a worker whose step has ended."""
    clock: Callable[[], float] = field(default=time.monotonic)

    def watch(self, known: Collection[str]) -> None:
        """Start what is to be started; call it about twice a second.

        Args:
            known: names of the workers that the scheduler knows.

        Raises:
            SlurmError: there is no srun.
        """
        for step in self.steps:
            if step.process is None:
                self._start_when_due(step)
            elif step.process.poll() is not None:
                self._died(step, step.process)
            else:
                self._look(step, step.process, known)

    @property
    def all_given_up(self) -> bool:
        """Nobody is left to work."""
        return all(step.given_up for step in self.steps)

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

    def _start_when_due(self, step: Step) -> None:
        if step.given_up or self.clock() < step.next_start:
            return
        log = self.run.logs / f"{step.name}.log"
        try:
            with log.open("ab") as output:
                step.process = subprocess.Popen(
                    self.command(step.name),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(self.environment),
                )
        except FileNotFoundError as error:
            raise SlurmError("srun: not found on the driver's node") from error
        step.began = step.seen = self.clock()

    def _died(self, step: Step, process: subprocess.Popen[bytes]) -> None:
        now = self.clock()
        step.deaths = step.deaths + 1 if now - step.began < _LONG_S else 1
        step.process = None
        self.died(step.name)
        told = f"{step.name}: its step ended with {process.returncode} (logs/{step.name}.log)"
        if step.deaths >= MOST_DEATHS:
            step.given_up = True
            self.alarm(f"{told}, {step.deaths} times in a row: it is given up")
            return
        pause = min(_FIRST_PAUSE_S * 2.0 ** (step.deaths - 1), _LONGEST_PAUSE_S)
        step.next_start = now + pause
        self.alarm(f"{told} and is started again")

    def _look(self, step: Step, process: subprocess.Popen[bytes], known: Collection[str]) -> None:
        """A step that lives while nobody hears of its worker is stuck somewhere below."""
        now = self.clock()
        if step.name in known:
            step.seen = now
        elif now - step.seen > _UNSEEN_S:
            self.alarm(f"{step.name}: not heard of for {_UNSEEN_S:g} s, its step is ended")
            process.kill()


def allocation_steps(
    run: RunDir,
    request: JobRequest,
    job_id: str,
    environment: Mapping[str, str],
    alarm: Callable[[str], None],
    died: Callable[[str], None],
) -> Steps:
    """The workers of a job, none of them started yet.

    Args:
        run: the run directory.
        request: how many, and what each is given.
        job_id: of the job that this process is part of.
        environment: of this process.
        alarm: told of every death.
        died: told of the worker.
    """
    names = [f"worker-{number}" for number in range(request.workers)]
    return Steps(
        run=run,
        steps=[Step(name) for name in names],
        command=lambda name: step_command(request, run.path, name),
        # Sizes of the whole job would be taken for those of each step.
        environment=clean_environment(environment) | {"SLURM_JOB_ID": job_id},
        alarm=alarm,
        died=died,
    )


def step_command(request: JobRequest, run_dir: Path, name: str) -> list[str]:
    """The command of one worker's step; Slurm chooses the node, and pins the GPU."""
    gpus = ["--gpus-per-task=1"] if request.gpus_per_worker else []
    return [
        "srun",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={request.threads_per_worker}",
        f"--mem={request.memory_per_worker_mb}M",
        *gpus,
        "--job-name=worker",
        "--export=ALL",
        "--kill-on-bad-exit=0",
        sys.executable,
        "-m",
        "hpcxrf.cluster.job.worker_main",
        "--run",
        str(run_dir),
        "--name",
        name,
    ]
