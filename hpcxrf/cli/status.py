"""`hpcxrf status`, `list`: how runs are, from files and squeue alone."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hpcxrf.cli import options as opt

if TYPE_CHECKING:
    from hpcxrf.cluster.login.status import RunStatus

STATUS_EXAMPLE: Final = "Examples:  hpcxrf status out --watch   |   hpcxrf status out --json"
LIST_EXAMPLE: Final = "Example:  hpcxrf list /data/runs"
_LOOK_S: Final = 2.0
ASK_SLURM_S: Final = 20.0
"""Seconds between two questions to the controller, which is everybody's: files are read more often."""


def status(
    run: opt.RunFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again until the run has ended; Ctrl-C stops looking.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Say how far a run is: datasets, stages, rate, what Slurm says, failures by reason."""
    from hpcxrf.cli.status_display import describe_status, print_status
    from hpcxrf.cli.terminal import print_json, results_console
    from hpcxrf.cluster.login.status import run_status
    from hpcxrf.cluster.slurm import job_state
    from hpcxrf.errors import ConfigError

    if watch and as_json:
        raise ConfigError("status: --watch is for people, --json for scripts; give one of them")
    found = run_status(run, job_state)
    if as_json:
        print_json(describe_status(found))
    elif watch:
        _watch(run, found)
    else:
        print_status(results_console(), found)


def _watch(run: Path, first: "RunStatus") -> None:
    from rich.live import Live

    from hpcxrf.cli.status_display import make_status_table, print_status
    from hpcxrf.cli.terminal import console, results_console
    from hpcxrf.cluster.login.status import GOING_ON, ask_seldom, run_status
    from hpcxrf.cluster.slurm import job_state

    out, found = console(), first
    ask = ask_seldom(job_state, ASK_SLURM_S)
    with Live(make_status_table(found), console=out, transient=True) as live:
        while found.verdict in GOING_ON:
            time.sleep(_LOOK_S)
            found = run_status(run, ask)
            live.update(make_status_table(found))
    print_status(results_console(), found)


def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder to look in, two levels deep.")] = Path(),
    as_json: opt.AsJson = False,
) -> None:
    """List the runs in a folder, and how each is."""
    from hpcxrf.cli.status_display import describe_status, make_runs_table
    from hpcxrf.cli.terminal import console, print_json, results_console
    from hpcxrf.cluster.login.logs import runs_in
    from hpcxrf.cluster.login.status import ask_together, run_status

    folders = runs_in(folder)
    ask = ask_together(folders)
    found = [run_status(path, ask) for path in folders]
    if as_json:
        print_json({"runs": [describe_status(one) for one in found]})
    elif found:
        results_console().print(make_runs_table(found))
    else:
        console().print(f"no run in {folder} or the folders in it", markup=False, soft_wrap=True)
