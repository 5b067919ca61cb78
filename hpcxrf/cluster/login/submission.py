"""From a run file to a job of Slurm: everything is checked and written, then sbatch is asked, and nothing stays."""

import glob
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.job_files import JobRequest, Mode, append_event, read_events, write_request
from hpcxrf.cluster.login.limits import partition_faults
from hpcxrf.cluster.login.sbatch import (
    JobSize,
    after_options,
    job_request,
    job_size,
    place_options,
    refuse_control_characters,
    render,
)
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError, InputFileError, OutputError
from hpcxrf.pipeline.request import check_request
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.rundir import RunDir, create_or_resume

_SCRIPT: Final = Path("jobs", "job.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Options of a submission; None: as the profile or the run file says."""

    workers: int | None = None
    nodes: int | None = None
    time_limit_s: int | None = None
    mode: Mode = "allocation"
    after: str | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission that nothing is known to speak against; nothing is written yet."""

    config: RunConfig
    run_text: str
    folder: Path
    site: SiteProfile
    size: JobSize
    request: JobRequest
    script: str
    options: tuple[str, ...]
    """Of sbatch, beyond the script."""

    @property
    def command(self) -> str:
        """What the script is given to."""
        return shlex.join(["sbatch", *self.options])


def prepare_submission(config: RunConfig, run_text: str, folder: Path, site: SiteProfile, asked: Asked) -> Prepared:
    """Check what was asked for, and render its script. Each scan is looked at by the job's first stage.

    Raises:
        ConfigError: what no scan can be fitted with, or the site cannot give.
        FitError: elements that do not exist.
        InputFileError: an input that is not there.
    """
    folder = folder.absolute()
    check_request(config)
    _require_inputs(config.input.files)
    refuse_control_characters(str(folder), "the run directory")
    gpus = config.execution.device != "cpu"
    if config.execution.device == "cuda" and not site.gpus_per_node:
        raise ConfigError(
            f"execution.device is cuda, site {site.name} has gpus_per_node 0; name another site, or set device: auto"
        )
    workers = asked.workers if asked.workers is not None else config.execution.workers
    size = job_size(site, workers=workers, nodes=asked.nodes)
    request = job_request(
        site,
        size,
        mode=asked.mode,
        time_limit_s=asked.time_limit_s,
        gpus=gpus,
        dashboard=config.execution.dashboard,
        insecure=asked.insecure,
    )
    return Prepared(
        config=config,
        run_text=run_text,
        folder=folder,
        site=site,
        size=size,
        request=request,
        script=render(site, request, size, run_dir=folder, python=sys.executable),
        options=(*place_options(folder), *after_options(asked.after)),
    )


def submit_prepared(prepared: Prepared) -> str:
    """Make the run directory and submit; the job's id.

    Raises:
        ConfigError: the partition cannot give what is asked.
        OutputError: the run directory cannot be used, or a job of this run is in the queue.
        SlurmError: refused, or no answer.
    """
    _require_partition(prepared)
    run = create_or_resume(prepared.folder, prepared.run_text, effective(prepared.config))
    write_request(run, prepared.request)
    atomic_write_text(run.path / _SCRIPT, prepared.script, mode=0o600)
    return _submitted(run, prepared.script, prepared.options, prepared.site)


def submit_again(run: RunDir, site: SiteProfile | None = None) -> str:
    """Submit the same run directory with the script that it keeps; its job does only what is missing.

    Args:
        run: submitted before.
        site: for the tunnel to the dashboard.

    Raises:
        OutputError: never submitted, or a job of this run is in the queue.
        SlurmError: refused, or no answer.
    """
    run = RunDir(path=run.path.absolute())
    script = run.path / _SCRIPT
    if not script.is_file():
        raise OutputError(f"{run.path}: was never submitted; `hpcxrf submit` does")
    return _submitted(run, script.read_text(encoding="utf-8"), place_options(run.path), site)


def last_job(run: RunDir) -> str | None:
    """Id of the job that was submitted last; None: none ever was."""
    ids = [str(e["job_id"]) for e in read_events(run) if e.get("event") == "submitted"]
    return ids[-1] if ids else None


def _submitted(run: RunDir, script: str, options: Sequence[str], site: SiteProfile | None) -> str:
    _require_idle(run)
    job_id = slurm.submit(script, options)
    login = None if site is None else site.login_host
    append_event(
        run,
        "submitted",
        job_id=job_id,
        host=socket.gethostname(),
        login_host=login or _login_of(run) or socket.getfqdn(),
    )
    return job_id


def _login_of(run: RunDir) -> str | None:
    hosts = [e.get("login_host") for e in read_events(run) if e.get("event") == "submitted"]
    return str(hosts[-1]) if hosts else None


def _require_idle(run: RunDir) -> None:
    """Two jobs on one run: the lock would refuse the second after its wait in the queue; better at once."""
    job_id = last_job(run)
    state = None if job_id is None else slurm.job_state(job_id)
    if state is not None and not state.ended:
        raise OutputError(
            f"{run.path}: job {job_id} of this run is {state.state}; wait for it, or `hpcxrf cancel` it first"
        )


def _require_partition(prepared: Prepared) -> None:
    faults = partition_faults(prepared.site, prepared.request, prepared.size, slurm.partitions())
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"site {prepared.site.name}: such a job would never start:\n{lines}")


def _require_inputs(names: Sequence[str]) -> None:
    """Nothing is opened: one look at each name."""
    missing = [name for name in names if not _is_there(name)]
    if missing:
        lines = "\n".join(f"  {name}" for name in missing)
        raise InputFileError(f"not there:\n{lines}\ngive files, folders or patterns that exist")


def _is_there(name: str) -> bool:
    if os.path.lexists(name):
        return True
    # Path.glob has no absolute patterns.
    return next(glob.iglob(name, recursive=True), None) is not None  # noqa: PTH207
