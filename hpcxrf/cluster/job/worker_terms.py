"""What a worker of a job is told, and what it tells of itself: files, since a command line is read by everybody.

`secrets/workers/`     address and credentials for the workers of the driver that lives, removed with it.
`jobs/workers/NAME.json` which job, step, node and device a worker found itself on.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcxrf.cluster.security import FILE_NAMES, private_folder, write_private, write_security
from hpcxrf.errors import OutputError
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.rundir import RunDir

if TYPE_CHECKING:
    from distributed import Security

PRETEND_GPUS: Final = "HPCXRF_PRETEND_GPUS"
"""Environment variable for tests, `1`: GPUs are pinned by a Slurm that only pretends to have them, so workers
compute on the CPU. It is an alarm of every run that is made with it."""
_TERMS: Final = "terms.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTerms:
    """What every worker of a driver is told."""

    scheduler: str
    """Address."""
    threads: int
    gpus: int
    """0: it must see none; 1: exactly one."""
    pretend_gpus: bool
    memory_bytes: int
    interface: str | None
    scratch: str | None
    death_timeout_s: float
    """Without a scheduler for so long it ends."""
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker found."""

    name: str
    host: str
    node: str | None
    """Slurm's name of the host."""
    pid: int
    """Of the process that supervises it."""
    job_id: str | None
    step_id: str | None
    cuda_visible_devices: str | None
    """As Slurm set it; None: not at all."""
    pretend_gpus: bool
    fault: str | None
    """Why it refused to work."""


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


def remove_terms(run: RunDir) -> None:
    """Remove what this driver, or one that was killed, left for workers."""
    shutil.rmtree(secrets_of_workers(run), ignore_errors=True)


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


def worker_facts(name: str, terms: WorkerTerms, environment: Mapping[str, str] = os.environ) -> WorkerFacts:
    """What this process finds, before anything is loaded that would take a device."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return WorkerFacts(
        name=name,
        host=socket.gethostname(),
        node=environment.get("SLURMD_NODENAME"),
        pid=os.getpid(),
        job_id=environment.get("SLURM_JOB_ID"),
        step_id=environment.get("SLURM_STEP_ID"),
        cuda_visible_devices=visible,
        pretend_gpus=terms.pretend_gpus,
        fault=_pinning_fault(terms.gpus, visible),
    )


def write_facts(run: RunDir, facts: WorkerFacts) -> None:
    """Tell the driver, and whoever looks at the run.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = run.path / "jobs" / "workers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write_text(folder / f"{facts.name}.json", json.dumps(asdict(facts), indent=1) + "\n")


def read_facts(run: RunDir) -> dict[str, WorkerFacts]:
    """What the workers of the last driver found, by name."""
    files = sorted((run.path / "jobs" / "workers").glob("*.json"))
    return {file.stem: WorkerFacts(**json.loads(file.read_bytes())) for file in files}


def forget_facts(run: RunDir) -> None:
    """Remove what workers of earlier drivers found."""
    for file in (run.path / "jobs" / "workers").glob("*.json"):
        file.unlink(missing_ok=True)


def _pinning_fault(gpus: int, visible: str | None) -> str | None:
    """Slurm pins, and nobody else; a CPU worker hides what it sees."""
    if not gpus:
        return None
    names = [name for name in (visible or "").split(",") if name.strip()]
    if len(names) == 1:
        return None
    seen = "is not set" if visible is None else f"is {visible!r}"
    return (
        f"CUDA_VISIBLE_DEVICES {seen}, which names {len(names)} devices; a worker must be given exactly one by Slurm: "
        "does the partition have GPUs that are Slurm resources (gres)?"
    )
