"""What the login node and the job tell each other: small files of the run directory, never a live server.

`jobs/request.json`  how the job is to use its nodes; written at submission.
`jobs/events.jsonl`  what happened to the jobs of this run: submitted, started, ended, cancelled.
`jobs/progress.json` how far the driver is, rewritten every few seconds while it lives.

This module imports neither torch nor dask: `submit` and `status` answer on a login node.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from hpcxrf.errors import OutputError
from hpcxrf.store.files import append_shared_line, atomic_write_text, read_lines
from hpcxrf.store.rundir import RunDir

Mode = Literal["allocation", "elastic"]
EventName = Literal["submitted", "started", "ended", "cancelled", "requeued"]

_FOLDER: Final = "jobs"
_OWNER_ONLY: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """How a job is to use its nodes; all that the driver needs to know of the site."""

    site: str
    """Name of the site profile, for messages."""
    mode: Mode
    """`allocation`: workers are steps of the driver's own job; `elastic`: each is a job of its own."""
    workers: int
    threads_per_worker: int
    gpus_per_worker: int
    """0: a CPU partition; 1: pinned by Slurm."""
    memory_per_worker_mb: int
    interface: str | None
    """Network interface of scheduler and workers; None: that of the node's name."""
    scratch: str | None
    """Folder on each node's own disk; None: its temporary folder."""
    setup: tuple[str, ...]
    """Shell lines of the site before Python can run: modules, environment."""
    worker_options: tuple[str, ...]
    """`#SBATCH` options of a worker job without the prefix, `elastic` only: partition, account, time."""
    time_limit_s: int
    drain_s: int
    """Seconds that running tasks may still take after USR1."""
    requeue: bool
    dashboard: bool
    insecure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """Tasks of one stage."""

    total: int
    done: int
    failed: int
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
    datasets_running: int
    stages: dict[str, StageProgress]
    workers: int
    """That take tasks now."""
    workers_wanted: int
    seconds_since_progress: float
    tasks_per_s: float
    """Over the last minutes; 0 when unknown."""
    eta_s: float | None
    alarms: tuple[str, ...]
    """Paused workers, no progress, lost workers: one sentence each."""


def write_request(run: RunDir, request: JobRequest) -> None:
    """Keep how the job is to use its nodes.

    Raises:
        OutputError: the folder cannot be written.
    """
    _write(run, "request.json", asdict(request))


def read_request(run: RunDir) -> JobRequest:
    """How the job is to use its nodes.

    Raises:
        OutputError: never submitted, or the file is damaged.
    """
    content = _read(run, "request.json")
    if content is None:
        raise OutputError(f"{run.path}: was never submitted; `hpcxrf submit` makes its request")
    tuples = {name: tuple(content[name]) for name in ("setup", "worker_options")}
    return JobRequest(**(content | tuples))


def write_progress(run: RunDir, progress: RunProgress) -> None:
    """Replace the driver's account of itself.

    Raises:
        OutputError: the folder cannot be written.
    """
    _write(run, "progress.json", asdict(progress))


def read_progress(run: RunDir) -> RunProgress | None:
    """The last account that a driver gave; None: none ever did.

    Raises:
        OutputError: the file is damaged.
    """
    content = _read(run, "progress.json")
    if content is None:
        return None
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
        raise ValueError(f"{event!r} is no event of a job: {', '.join(get_args(EventName))}")
    _made(run)
    append_shared_line(run.path / _FOLDER / "events.jsonl", {"event": event, **details})


def read_events(run: RunDir) -> list[dict[str, Any]]:
    """What happened to the jobs of this run, oldest first; empty: never submitted.

    Raises:
        OutputError: a line is damaged.
    """
    return read_lines(run.path / _FOLDER / "events.jsonl")


def _made(run: RunDir) -> None:
    (run.path / _FOLDER).mkdir(mode=_OWNER_ONLY, exist_ok=True)


def _write(run: RunDir, name: str, content: Mapping[str, object]) -> None:
    _made(run)
    atomic_write_text(run.path / _FOLDER / name, json.dumps(content, indent=1) + "\n")


def _read(run: RunDir, name: str) -> dict[str, Any] | None:
    file = run.path / _FOLDER / name
    if not file.is_file():
        return None
    try:
        return dict(json.loads(file.read_bytes()))
    except ValueError as error:
        raise OutputError(f"{file}: is damaged ({error}); remove it") from error
