"""Where an explorer that is a job listens: a file of the run directory, of its owner alone, for whoever submitted it.

`secrets/explorer/job-<id>.json` (0600 in folders 0700) is there from the moment at which the job listens until it
ends. The secret of the explorer is in it and in no other file: not in the script, and not in the log.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from hpcxrf.cluster.security import private_folder, write_private
from hpcxrf.config.untrusted import read_json_object
from hpcxrf.errors import OutputError
from hpcxrf.store.files import output_faults
from hpcxrf.store.rundir import RunDir

_FOLDER: Final = "explorer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorerAddress:
    """How to come to an explorer that is a job."""

    job_id: str
    host: str
    """The compute node."""
    socket: str
    """Path of its Unix socket there."""
    secret: str
    """What a browser exchanges for the cookie."""


def write_address(run: RunDir, address: ExplorerAddress) -> Path:
    """Leave the address of a job that listens.

    Raises:
        OutputError: the folder is not this user's or cannot be written.
    """
    private_folder(run.secrets)
    path = private_folder(run.secrets / _FOLDER) / _name_file(address.job_id)
    write_private(path, json.dumps(asdict(address), indent=1) + "\n")
    return path


def read_address(run: RunDir, job_id: str) -> ExplorerAddress | None:
    """Read where a job listens; None: it does not say so yet, or not any more.

    Raises:
        OutputError: the file is damaged.
    """
    path = run.secrets / _FOLDER / _name_file(job_id)
    if not path.is_file():
        return None
    remedy = "remove it, and submit the explorer again"
    content = read_json_object(path, OutputError, remedy=remedy)
    names = {one.name for one in fields(ExplorerAddress)}
    if set(content) != names or not all(isinstance(value, str) for value in content.values()):
        raise OutputError(f"{path}: is not the address of an explorer; {remedy}")
    return ExplorerAddress(**content)


def remove_address(run: RunDir, job_id: str) -> None:
    """Remove the address of a job that ends; nothing there is no error.

    Raises:
        OutputError: the folder cannot be written.
    """
    with output_faults(run.path, bytes_needed=0):
        (run.secrets / _FOLDER / _name_file(job_id)).unlink(missing_ok=True)


def remove_stale_addresses(run: RunDir, living: Collection[str]) -> None:
    """Remove what jobs left that were killed.

    Args:
        run: the run directory.
        living: ids of the explorers of this run that wait or run.

    Raises:
        OutputError: the folder cannot be written.
    """
    kept = {_name_file(job_id) for job_id in living}
    with output_faults(run.path, bytes_needed=0):
        # A name with a dot in front is that of a file that a kill left half-written.
        for path in (run.secrets / _FOLDER).glob("*"):
            if path.name not in kept and not any(path.name.startswith(f".{name}.") for name in kept):
                path.unlink(missing_ok=True)


def _name_file(job_id: str) -> str:
    return f"job-{job_id}.json"
