"""What login node and job write for each other: small files of the run directory, never a live server.

`jobs/request.json`  how the job is to use its nodes; written at submission.
`jobs/events.jsonl`  what happened to the jobs of this run: submitted, started, ended, cancelled.
`jobs/progress.json` how far the driver is, rewritten every few seconds while it lives.

This module imports neither torch nor dask: `submit` and `status` answer on a login node.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from hpcxrf.config.untrusted import read_json_object, report_faults
from hpcxrf.errors import OutputError
from hpcxrf.store.files import append_shared_line, atomic_write_text, read_lines
from hpcxrf.store.rundir import RunDir

Mode = Literal["allocation", "elastic"]
EventName = Literal["submitted", "started", "ended", "cancelled", "requeued", "asked"]

WORKER_MARK: Final = ":worker"
"""End of the comment on worker jobs, which tells them from the driver's job."""
_FOLDER: Final = "jobs"
_OWNER_ONLY: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """How a job is to use its nodes; all that the driver needs to know of the site.

    Fields with a default are younger than version 0.1.0, whose requests are still read.
    """

    site: str
    """Name of the site profile, for messages."""
    mode: Mode
    """`allocation`: workers are steps of the driver's own job; `elastic`: each is a job of its own."""
    workers: int
    """Total number of workers."""
    threads_per_worker: int
    """Number of threads of each worker."""
    gpus_per_worker: int
    """Number of GPUs of each worker: 0 on a CPU partition, else 1."""
    memory_per_worker_mb: int
    """Memory of each worker in MiB."""
    interface: str | None
    """Network interface of scheduler and workers; None: that of the node's name."""
    scratch: str | None
    """Folder on each node's own disk; None: its temporary folder."""
    setup: tuple[str, ...]
    """Shell lines of the site before Python can run: modules, environment."""
    worker_options: tuple[str, ...]
    """`#SBATCH` options of a worker job without the prefix, `elastic` only: partition, account, time."""
    time_limit_s: int
    """Time limit of the job in seconds."""
    drain_s: int
    """Seconds that running tasks may still take after USR1."""
    requeue: bool
    """Whether the job may ask Slurm for another start of itself."""
    dashboard: bool
    """Whether the scheduler offers its dashboard."""
    insecure: bool
    """Whether scheduler and workers speak plain TCP."""
    gpu_options: tuple[str, ...] = ("--gpus-per-task=1",)
    """Options of srun or sbatch with which Slurm gives a worker its GPU; empty: whole nodes, or no GPUs."""
    node_gpus: int = 0
    """Number of GPUs of a whole node from which each worker takes its own; 0: Slurm pins the GPU."""
    launcher: tuple[str, ...] = ()
    """Words before the command of each worker, `apptainer exec --nv IMAGE`."""
    worker_python: str | None = None
    """Interpreter of the workers; None: that of the driver."""
    worker_start_s: int = 300
    """Seconds that a worker may take from its start until the scheduler knows it."""
    fail_job_on_failed_dataset: bool = False
    """Whether the batch script ends with exit code 6 when some datasets failed; false: with 0 and a note."""
    comment: str = ""
    """Comment on all jobs of this run, by which they are found; empty: jobs of version 0.1.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """Tasks of one stage."""

    total: int
    done: int
    failed: int
    """Tasks that were tried and failed."""
    not_tried: int = 0
    """Tasks that a failed one kept from running."""
    pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a driver is, by its own count. Ages are of its own clock: two hosts' clocks are never compared."""

    host: str
    pid: int
    job_id: str | None
    """None: not under Slurm."""
    state: Literal["starting", "running", "draining", "reporting", "ended"]
    uptime_s: float
    datasets: int
    datasets_done: int
    datasets_failed: int
    datasets_not_tried: int = 0
    datasets_running: int
    stages: dict[str, StageProgress]
    workers: int
    """Number of workers that take tasks now."""
    workers_wanted: int
    seconds_since_progress: float
    tasks_per_s: float
    """Over the last minutes; 0 when unknown."""
    eta_s: float | None
    alarms: tuple[str, ...]
    """Paused workers, no progress, lost workers: one sentence each."""


def run_comment(folder: Path) -> str:
    """Comment on all jobs of a run, which tells them from other jobs without telling the name of a sample.

    Args:
        folder: run directory; one folder has one comment, whichever links lead to it.
    """
    return f"hpcxrf:{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}"


def write_request(run: RunDir, request: JobRequest) -> None:
    """Keep how the job is to use its nodes.

    Raises:
        OutputError: the folder cannot be written.
    """
    _write(run, "request.json", asdict(request))


def was_submitted(run: RunDir) -> bool:
    """Whether a run was ever prepared for Slurm: its request is there."""
    return (run.path / _FOLDER / "request.json").is_file()


def read_request(run: RunDir) -> JobRequest:
    """Read how the job is to use its nodes.

    Raises:
        OutputError: never submitted, or the file is damaged.
    """
    content = _read(run, "request.json")
    if content is None:
        raise OutputError(f"{run.path}: was never submitted; `hpcxrf submit` makes its request")
    tuples = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    with report_faults(f"{run.path}/jobs/request.json", OutputError, "submit the run again"):
        return JobRequest(**(content | tuples))


def write_progress(run: RunDir, progress: RunProgress) -> None:
    """Replace the driver's account of itself.

    Raises:
        OutputError: the folder cannot be written.
    """
    _write(run, "progress.json", asdict(progress))


def read_progress(run: RunDir) -> RunProgress | None:
    """Read the last account of a driver; None: there is none.

    Raises:
        OutputError: the file is damaged.
    """
    content = _read(run, "progress.json")
    if content is None:
        return None
    with report_faults(f"{run.path}/jobs/progress.json", OutputError, "remove it"):
        stages = {name: StageProgress(**stage) for name, stage in content["stages"].items()}
        return RunProgress(**(content | {"stages": stages, "alarms": tuple(content["alarms"])}))


def append_event(run: RunDir, event: EventName, **details: object) -> None:
    """Add a line to what happened to the jobs of this run.

    Args:
        run: the run directory.
        event: what happened.
        details: of JSON types: job_id, host, exit_code, reason, restart_count ...

    Raises:
        OutputError: the folder cannot be written.
    """
    if event not in get_args(EventName):
        raise ValueError(f"{event!r} is not an event of a job; events are {', '.join(get_args(EventName))}")
    _made(run)
    append_shared_line(run.path / _FOLDER / "events.jsonl", {"event": event, **details})


def read_events(run: RunDir) -> list[dict[str, Any]]:
    """Read what happened to the jobs of this run, oldest first; empty: never submitted.

    Raises:
        OutputError: a line is damaged, or the file cannot be read.
    """
    file = run.path / _FOLDER / "events.jsonl"
    try:
        return read_lines(file)
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be read ({error.strerror}); check the rights of the run directory"
        ) from error


def _made(run: RunDir) -> None:
    (run.path / _FOLDER).mkdir(mode=_OWNER_ONLY, exist_ok=True)


def _write(run: RunDir, name: str, content: Mapping[str, object]) -> None:
    _made(run)
    atomic_write_text(run.path / _FOLDER / name, json.dumps(content, indent=1) + "\n")


def _read(run: RunDir, name: str) -> dict[str, Any] | None:
    file = run.path / _FOLDER / name
    if not file.is_file():
        return None
    return read_json_object(file, OutputError, remedy="remove it")
