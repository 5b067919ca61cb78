"""`hpcxrf explore RUN --submit`: the explorer as a job, waited for until it says where it listens."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from hpcxrf.errors import EXIT_RESUMABLE, ConfigError

if TYPE_CHECKING:
    from hpcxrf.cluster.explorer_address import ExplorerAddress
    from hpcxrf.cluster.login.explorer_jobs import ExplorerJob

_PORT: Final = 8000
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Options of the job."""

    site: str | None
    time: str | None
    wait_min: float
    dry_run: bool


def submit_explorer(what: Path, options: JobOptions, *, dataset: str | None, idle_h: float, read_only: bool) -> None:
    """Submit the explorer of a run, or find the one that is there; wait for it; print the way to it.

    Raises:
        ConfigError: not a run directory, no site profile, or a dataset that is none.
        OutputError: the run directory is another user's, or the job ended before it listened.
        SlurmError: refused, or no answer.
    """
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.explorer_jobs import find_explorer_job, prepare_explorer_job, submit_explorer_job
    from hpcxrf.cluster.slurm import seconds_of

    time_limit_s = None if options.time is None else seconds_of(options.time)
    job = prepare_explorer_job(
        _require_run(what), options.site, _write_arguments(dataset, idle_h, read_only), time_limit_s
    )
    out = console()
    if options.dry_run:
        sys.stdout.write(job.script)
        out.print(f"to be submitted with: {job.command}", markup=False, soft_wrap=True)
        return
    found = find_explorer_job(job.run)
    if found is None:
        _require_dataset(job, dataset)
        job_id = submit_explorer_job(job)
        out.print(f"job {job_id} is in the queue", markup=False)
    else:
        job_id = found.job_id
        out.print(
            f"job {job_id} explores this run already, with the options that it was submitted with; for others cancel "
            f"it first: scancel {job_id}",
            markup=False,
            soft_wrap=True,
        )
    address = _wait(what, job, job_id, options.wait_min)
    if address is None:
        out.print(f"job {job_id} does not listen yet, after {options.wait_min:g} min", markup=False)
        _print_remedy(what, job_id)
        raise typer.Exit(EXIT_RESUMABLE)
    _print_way(job, address, idle_h if found is None else None)


def _wait(what: Path, job: "ExplorerJob", job_id: str, wait_min: float) -> "ExplorerAddress | None":
    """Wait for the job; Ctrl-C leaves it where it is, and says so."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.explorer_jobs import wait_for_address

    def tell(sentence: str) -> None:
        console().print(sentence, markup=False, soft_wrap=True)

    try:
        return wait_for_address(job.run, job_id, patience_s=wait_min * _MINUTE_S, tell=tell)
    except KeyboardInterrupt:
        tell(f"job {job_id} stays where it is")
        _print_remedy(what, job_id)
        raise


def _print_remedy(what: Path, job_id: str) -> None:
    from hpcxrf.cli.terminal import console

    for line in (
        f"look again with:  hpcxrf explore {shlex.quote(str(what))} --submit",
        f"cancel it with:   scancel {job_id}",
    ):
        console().print(line, markup=False, soft_wrap=True)


def _print_way(job: "ExplorerJob", address: "ExplorerAddress", idle_h: float | None) -> None:
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.explorer_jobs import write_tunnel

    out = console()
    out.print("on your own machine, and leave it open:", markup=False)
    sys.stdout.write(f"{write_tunnel(address, job.site, _PORT)}\n")
    out.print("then open in a browser:", markup=False)
    sys.stdout.write(f"http://localhost:{_PORT}/#{address.secret}\n")
    sys.stdout.flush()
    idle = "some hours" if idle_h is None else f"{idle_h:g} h"
    ends = f"it ends after {idle} without a request, at its time limit, or by: scancel {address.job_id}"
    out.print(ends, markup=False, soft_wrap=True)


def _write_arguments(dataset: str | None, idle_h: float, read_only: bool) -> tuple[str, ...]:
    chosen = () if dataset is None else ("--dataset", dataset)
    return ("--idle-h", f"{idle_h:g}", *chosen, *(["--read-only"] if read_only else []))


def _require_run(what: Path) -> Path:
    from hpcxrf.config.untrusted import show_name
    from hpcxrf.store.rundir import RunDir

    if not RunDir(path=what).effective_file.is_file():
        raise ConfigError(
            f"{show_name(str(what))}: --submit explores a run directory; a scan, or a folder of runs, is explored "
            "without it, or in a job of your own with --socket"
        )
    return what


def _require_dataset(job: "ExplorerJob", name: str | None) -> None:
    """Refuse a dataset that is none before a job waits for it."""
    from hpcxrf.explore.targets import find_target

    if name is not None and (target := find_target(job.run.path)) is not None:
        target.dataset(name)
