"""From a run file to a job of Slurm: everything is checked, then written, then given to sbatch, and nothing stays."""

import fcntl
import glob
import os
import shlex
import socket
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.job_files import JobRequest, Mode, append_event, read_events, run_comment, write_request
from hpcxrf.cluster.login.checks import partition_faults
from hpcxrf.cluster.login.run_jobs import is_worker, list_run_jobs, require_no_job
from hpcxrf.cluster.login.sbatch import (
    JobSize,
    after_options,
    job_request,
    job_size,
    one_core_site,
    place_options,
    refuse_control_characters,
    render,
)
from hpcxrf.config.run import RunConfig
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError, InputFileError, OutputError, SlurmError
from hpcxrf.pipeline.request import keep_configuration
from hpcxrf.store.files import atomic_write_text, output_faults
from hpcxrf.store.lock import is_alive, read_lock
from hpcxrf.store.rundir import RunDir, create_or_resume, prepare_folder, require_own_folder
from hpcxrf.workloads import choose_workload

_SCRIPT: Final = Path("jobs", "job.sh")
_GUARD: Final = Path("jobs", "submit.guard")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """Options of a submission; None: as the profile or the run file has it."""

    workers: int | None = None
    """Total number of workers."""
    nodes: int | None = None
    """Number of nodes."""
    time_limit_s: int | None = None
    """Time limit of the job in seconds."""
    mode: Mode = "allocation"
    """Whether workers are steps of one job, or jobs."""
    after: str | None = None
    """Id of the job whose end the new one waits for."""
    insecure: bool = False
    """Whether scheduler and workers speak plain TCP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked submission, of which nothing is written yet."""

    config: RunConfig
    """The run."""
    run_text: str
    """Text of the run file, as given."""
    folder: Path
    """The run directory, absolute."""
    site: SiteProfile
    """The profile."""
    size: JobSize
    """Nodes and workers."""
    request: JobRequest
    """What the driver needs to know of the site."""
    script: str
    """The batch script."""
    options: tuple[str, ...]
    """Options of sbatch, beyond those of the script."""

    @property
    def command(self) -> str:
        """The command that takes the script."""
        return shlex.join(["sbatch", *self.options])


def prepare_submission(
    config: RunConfig, run_text: str, folder: Path, site: SiteProfile, options: SubmitOptions
) -> Submission:
    """Check a submission and render its script. Each scan is opened by the job's first stage, not here.

    Raises:
        ConfigError: no scan can be fitted with this run file, or the site has less than is requested.
        FitError: elements that do not exist.
        InputFileError: an input does not exist.
    """
    folder = folder.absolute()
    workload = choose_workload(config)
    workload.check(config)
    if workload.reads_files:
        _require_inputs(config.input.files if config.input.catalogue is None else (config.input.catalogue,))
    if workload.one_core:
        site = one_core_site(site)
        config = replace(config, execution=replace(config.execution, device="cpu"))
    refuse_control_characters(str(folder), "the run directory")
    if config.execution.device == "cuda" and not site.gpus_per_node:
        raise ConfigError(
            f"execution.device is cuda, site {site.name} has gpus_per_node 0; name another site, or set device: auto"
        )
    workers = options.workers if options.workers is not None else config.execution.workers
    size = job_size(site, workers=workers, nodes=options.nodes)
    request = job_request(
        site,
        size,
        mode=options.mode,
        time_limit_s=options.time_limit_s,
        gpus=config.execution.device != "cpu",
        dashboard=config.execution.dashboard,
        insecure=options.insecure,
        comment=run_comment(folder),
    )
    return Submission(
        config=config,
        run_text=run_text,
        folder=folder,
        site=site,
        size=size,
        request=request,
        script=render(site, request, size, run_dir=folder, python=sys.executable),
        options=(*place_options(folder), *after_options(options.after)),
    )


def submit_run(submission: Submission) -> str:
    """Make the run directory and submit; returns the job's id.

    A run directory that has a job in the queue, or a driver at work, stays as it is.

    Raises:
        ConfigError: the partition has less than is requested.
        OutputError: the run directory cannot be used, or a job of this run is in the queue.
        SlurmError: refused, or no answer.
    """
    _require_partition(submission)
    run = prepare_folder(submission.folder)
    with _guard(run):
        workload = choose_workload(submission.config)
        lasting, fixed = workload.lasting(submission.config), workload.fixed(submission.config)
        if fixed is not None:
            # Another configuration takes the place of that of a run, and not of one that is at work.
            _require_idle(run)
        create_or_resume(submission.folder, submission.run_text, lasting, fixed=fixed)
        _require_writable(run)
        known = _require_idle(run)
        keep_configuration(run, submission.config)
        write_request(run, submission.request)
        atomic_write_text(run.path / _SCRIPT, submission.script, mode=0o600)
        return _send(run, submission.script, submission.options, submission.site.login_host, known)


def submit_again(run: RunDir, site: SiteProfile | None = None) -> str:
    """Submit the same run directory with the script that it keeps; its job does only what is missing.

    Args:
        run: the run directory, submitted before.
        site: profile with the name of the login node, for the tunnel to the dashboard; None: as before.

    Raises:
        OutputError: never submitted, or a job of this run is in the queue, or the folder cannot be written.
        SlurmError: refused, or no answer.
    """
    run = RunDir(path=run.path.absolute())
    require_own_folder(run.path)
    script = run.path / _SCRIPT
    if not script.is_file():
        raise OutputError(f"{run.path}: was never submitted; use `hpcxrf submit`")
    with _guard(run):
        _require_writable(run)
        known = _require_idle(run)
        text = script.read_text(encoding="utf-8")
        return _send(run, text, place_options(run.path), None if site is None else site.login_host, known)


def last_job(run: RunDir) -> str | None:
    """Id of the job that was submitted last; None: none ever was."""
    ids = [str(e["job_id"]) for e in read_events(run) if e.get("event") == "submitted"]
    return ids[-1] if ids else None


@contextmanager
def _guard(run: RunDir) -> Iterator[None]:
    """Keep a second submission of the same run out while one looks, writes and waits for sbatch."""
    path = run.path / _GUARD
    with output_faults(path.parent, bytes_needed=0):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        guard = path.open("ab")
    with guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{run.path}: another submission of this run is under way; try again later") from error
        except OSError:
            # A file system without locks: the look into the queue has to do.
            pass
        yield


def _require_idle(run: RunDir) -> set[str]:
    """Refuse a second job at once, which the run's lock would refuse after its wait in the queue.

    Worker jobs that a driver left behind, when it was killed, would join the new one: they are ended.

    Returns:
        Ids of the jobs of this run that Slurm knows.
    """
    holder = read_lock(run.lock_file)
    here = holder is not None and holder.job_id is None and holder.host == socket.gethostname()
    if holder is not None and here and is_alive(holder):
        raise OutputError(f"{run.path}: process {holder.pid} works on this run; wait for it, or stop it first")
    jobs = list_run_jobs(run)
    require_no_job(run, jobs)
    slurm.cancel_jobs([job.job_id for job in jobs if not job.ended])
    return {job.job_id for job in jobs}


def _send(run: RunDir, script: str, options: Sequence[str], login_host: str | None, known: Collection[str]) -> str:
    """Give a script to sbatch and record the job; a job that cannot be recorded is cancelled again."""
    login = login_host or _last_login_host(run) or socket.getfqdn()
    try:
        job_id = slurm.submit(script, options)
    except SlurmError as error:
        job_id = _find_unreported(run, known, error)
    try:
        append_event(run, "submitted", job_id=job_id, host=socket.gethostname(), login_host=login)
    except OutputError as error:
        try:
            slurm.cancel(job_id)
        except SlurmError as silence:
            raise OutputError(
                f"{error}; job {job_id} is in the queue without a record, and Slurm does not cancel it ({silence}): "
                f"do it with `scancel {job_id}`"
            ) from error
        raise OutputError(f"{error}; job {job_id} was cancelled, since this run cannot record it") from error
    return job_id


def _require_writable(run: RunDir) -> None:
    """Refuse a run directory in which neither the record of a job nor its log could be written."""
    for path in (run.path / "jobs" / "events.jsonl", run.logs / ".writable"):
        with output_faults(path.parent, bytes_needed=0):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.open("ab").close()
    (run.logs / ".writable").unlink(missing_ok=True)


def _find_unreported(run: RunDir, known: Collection[str], error: SlurmError) -> str:
    """Id of a job that sbatch submitted although it reported none: a busy controller may answer too late."""
    try:
        new = [job.job_id for job in list_run_jobs(run) if job.job_id not in known and not is_worker(job)]
    except SlurmError:
        new = []
    if not new:
        raise error
    return new[-1]


def _last_login_host(run: RunDir) -> str | None:
    hosts = [e.get("login_host") for e in read_events(run) if e.get("event") == "submitted"]
    return str(hosts[-1]) if hosts and hosts[-1] else None


def _require_partition(submission: Submission) -> None:
    faults = partition_faults(submission.site, submission.request, submission.size, slurm.partitions())
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"site {submission.site.name}: such a job would never start:\n{lines}")


def _require_inputs(names: Sequence[str]) -> None:
    """Look at each name; nothing is opened."""
    missing = [name for name in names if not _exists(name)]
    if missing:
        lines = "\n".join(f"  {name}" for name in missing)
        raise InputFileError(f"input not found:\n{lines}\ngive files, folders or patterns that exist")


def _exists(name: str) -> bool:
    # Path.glob has no absolute patterns.
    return os.path.lexists(name) or next(glob.iglob(name, recursive=True), None) is not None  # noqa: PTH207
