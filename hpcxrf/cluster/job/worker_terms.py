"""What a worker of a job must know, and what it found: files, since a command line is read by everybody.

`secrets/workers/`     address and credentials for the workers of the driver that lives, removed with it.
`jobs/workers/NAME.json` job, step, node and device on which a worker found itself, and why it does not work.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcxrf.cluster.dashboard import remove_dashboard_file
from hpcxrf.cluster.security import FILE_NAMES, private_folder, write_private, write_security
from hpcxrf.errors import OutputError
from hpcxrf.store.files import atomic_write_text, output_faults
from hpcxrf.store.rundir import RunDir

if TYPE_CHECKING:
    from distributed import Security

PRETEND_GPUS: Final = "HPCXRF_PRETEND_GPUS"
"""Environment variable for tests, `1`: GPUs are pinned by a Slurm that only pretends to have them, so workers
compute on the CPU. It is an alarm of every run that is made with it."""
_TERMS: Final = "terms.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTerms:
    """What every worker of a driver must know."""

    scheduler: str
    """Address of the scheduler."""
    driver_host: str
    """Name of the scheduler's host."""
    threads: int
    """Number of torch threads."""
    gpus: int
    """Number of GPUs that it must see, 0 or 1."""
    pretend_gpus: bool
    """Whether it computes on the CPU although it is given a GPU."""
    memory_bytes: int
    """Memory limit of its process."""
    interface: str | None
    """Network that it listens on; None: that of the node's name."""
    scratch: str | None
    """Folder on the node's own disk; None: its temporary folder."""
    worker_start_s: float
    """Seconds after which it ends when it could not register with the scheduler."""
    tls: bool
    """Whether connections are encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker found."""

    name: str
    """Name with which it registers."""
    host: str
    """Name of its host."""
    node: str | None
    """Slurm's name of the host."""
    pid: int
    """Process that supervises it."""
    job_id: str | None
    """Slurm job that it is part of."""
    step_id: str | None
    """Step of that job."""
    cuda_visible_devices: str | None
    """Devices that it sees, also those of ROCm; None: the variable is not set."""
    pretend_gpus: bool
    """Whether it computes on the CPU although it is given a GPU."""
    fault: str | None
    """Reason why it, or its last process, does not work, in one sentence; None: it works."""
    exit_code: int = 0
    """Exit code of `hpcxrf.errors` that belongs to the fault."""
    is_final: bool = False
    """Whether another start would end the same way."""


def secrets_of_workers(run: RunDir) -> Path:
    """The folder of terms and credentials."""
    return run.secrets / "workers"


def write_terms(run: RunDir, terms: WorkerTerms, security: "Security | None") -> None:
    """Leave terms and credentials where only the owner of the run reads them.

    Raises:
        OutputError: the folder is not this user's or cannot be written.
    """
    folder = private_folder(secrets_of_workers(run))
    if security is not None:
        write_security(security, folder)
    write_private(folder / _TERMS, json.dumps(asdict(terms), indent=1) + "\n")


def remove_secrets(run: RunDir) -> None:
    """Remove all secrets that this driver, or one that was killed, left: keys, terms, the way to the dashboard.

    Call it with the run's lock held.

    Raises:
        OutputError: the run directory cannot be written.
    """
    shutil.rmtree(secrets_of_workers(run), ignore_errors=True)
    remove_dashboard_file(run.path)
    with output_faults(run.path, bytes_needed=0):
        # Keys that dask-jobqueue wrote for version 0.1.0, and files that a kill left half-written.
        for file in run.secrets.glob(".*"):
            file.unlink(missing_ok=True)


def read_terms(run: RunDir) -> tuple[WorkerTerms, dict[str, str]]:
    """Terms, and the files for `distributed.Security` (none without TLS).

    Raises:
        OutputError: no driver works on this run.
    """
    folder = secrets_of_workers(run)
    try:
        terms = WorkerTerms(**json.loads((folder / _TERMS).read_bytes()))
    except OSError as error:
        raise OutputError(
            f"{folder / _TERMS}: {error.strerror}; no driver works on this run, so a worker has nothing to do"
        ) from error
    names = ("tls_ca_file", "tls_worker_cert", "tls_worker_key")
    files = {key: str(folder / name) for key, name in zip(names, FILE_NAMES, strict=True)}
    return terms, files if terms.tls else {}


def worker_facts(name: str, terms: WorkerTerms, devices: str | None, environment: Mapping[str, str]) -> WorkerFacts:
    """What this process finds.

    Args:
        name: name of the worker.
        terms: terms of the driver.
        devices: names of the devices that it sees; None: the variable is not set.
        environment: environment of this process.
    """
    return WorkerFacts(
        name=name,
        host=socket.gethostname(),
        node=environment.get("SLURMD_NODENAME"),
        pid=os.getpid(),
        job_id=environment.get("SLURM_JOB_ID"),
        step_id=environment.get("SLURM_STEP_ID"),
        cuda_visible_devices=devices,
        pretend_gpus=terms.pretend_gpus,
        fault=None,
    )


def write_facts(run: RunDir, facts: WorkerFacts) -> None:
    """Leave what a worker found for the driver, and for whoever looks at the run.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = _folder(run)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write_text(folder / f"{facts.name}.json", json.dumps(asdict(facts), indent=1) + "\n")


def read_facts(run: RunDir) -> dict[str, WorkerFacts]:
    """What the workers of the last driver found, by name."""
    found = {file.stem: read_facts_of(run, file.stem) for file in sorted(_folder(run).glob("*.json"))}
    return {name: facts for name, facts in found.items() if facts is not None}


def read_facts_of(run: RunDir, name: str) -> WorkerFacts | None:
    """What one worker found; None: it has not come so far, or its file is damaged."""
    try:
        return WorkerFacts(**json.loads((_folder(run) / f"{name}.json").read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def forget_facts(run: RunDir, name: str = "*") -> None:
    """Remove what workers of earlier drivers found, or what one of them found at its last start."""
    for file in _folder(run).glob(f"{name}.*"):
        file.unlink(missing_ok=True)


def fault_file(run: RunDir, name: str) -> Path:
    """File in which the process of a worker leaves to its supervisor why it cannot work."""
    return _folder(run) / f"{name}.fault"


def _folder(run: RunDir) -> Path:
    return run.path / "jobs" / "workers"
