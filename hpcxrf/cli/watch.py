"""`hpcxrf status`, `logs`, `list`, `dashboard`: what looks at runs, from files and squeue alone."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.cli.jobs import RunFolder

if TYPE_CHECKING:
    from hpcxrf.cluster.login.status import RunStatus

_LOOK_S: Final = 2.0
# The controller is everybody's: it is asked less often than files are read.
_ASK_SLURM_S: Final = 20.0


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(epilog="Examples:  hpcxrf status out --watch   |   hpcxrf status out --json")(status)
    app.command(epilog="Examples:  hpcxrf logs out --follow   |   hpcxrf logs out --failed")(logs)
    app.command("list", epilog="Example:  hpcxrf list /data/runs")(list_runs)
    app.command(epilog="Example:  hpcxrf dashboard out")(dashboard)


def status(
    run: RunFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again until the run has ended; Ctrl-C stops looking.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Say how far a run is: datasets, stages, rate, what Slurm says, failures by reason."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cli.watch_display import print_status, status_json
    from hpcxrf.cluster.login.status import run_status
    from hpcxrf.cluster.slurm import job_state
    from hpcxrf.errors import ConfigError

    if watch and as_json:
        raise ConfigError("status: --watch is for people, --json for scripts; give one of them")
    found = run_status(run, job_state)
    if as_json:
        print_json(status_json(found))
    elif watch:
        _watched(run, found)
    else:
        print_status(console(), found)


def _watched(run: Path, first: "RunStatus") -> None:
    from rich.console import Console
    from rich.live import Live

    from hpcxrf.cli.watch_display import print_status, status_table
    from hpcxrf.cluster.login.status import GOING_ON, asked_seldom, run_status
    from hpcxrf.cluster.slurm import job_state

    out, found = Console(stderr=True, highlight=False), first
    ask = asked_seldom(job_state, _ASK_SLURM_S)
    with Live(status_table(found), console=out, transient=True) as live:
        while found.verdict in GOING_ON:
            time.sleep(_LOOK_S)
            found = run_status(run, ask)
            live.update(status_table(found))
    print_status(out, found)


def logs(
    run: RunFolder,
    failed: Annotated[bool, typer.Option("--failed", help="What failed, with reasons and tracebacks.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run has ended.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="From the end.")] = 100,
) -> None:
    """Print the log of a run's latest job, or what failed."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.failures import failures
    from hpcxrf.cluster.login.logs import follow_log, latest_log, tail
    from hpcxrf.cluster.login.status import GOING_ON, asked_seldom, run_status
    from hpcxrf.cluster.slurm import job_state
    from hpcxrf.store.rundir import open_run

    opened = open_run(run)
    if failed:
        for failure in failures(opened):
            sys.stdout.write(f"{failure.dataset_id} {failure.task}: {failure.reason}\n")
            sys.stdout.write(failure.traceback)
        return
    log, others = latest_log(opened)
    if others:
        names = ", ".join(path.name for path in others)
        console().print(f"{log.name}; others in {opened.logs}: {names}", markup=False, soft_wrap=True)
    if not follow:
        sys.stdout.write(tail(log, lines))
        return
    ask = asked_seldom(job_state, _ASK_SLURM_S)
    for text in follow_log(log, lines, lambda: run_status(run, ask).verdict in GOING_ON):
        sys.stdout.write(text)
        sys.stdout.flush()


def list_runs(
    folder: Annotated[Path, typer.Argument(help="Looked through two levels deep.")] = Path(),
    as_json: opt.AsJson = False,
) -> None:
    """List the runs in a folder, and how each is."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cli.watch_display import runs_table, status_json
    from hpcxrf.cluster.login.logs import runs_in
    from hpcxrf.cluster.login.status import run_status
    from hpcxrf.cluster.slurm import job_state

    found = [run_status(path, job_state) for path in runs_in(folder)]
    if as_json:
        print_json({"runs": [status_json(one) for one in found]})
    elif found:
        console().print(runs_table(found))
    else:
        console().print(f"no run in {folder} or the folders in it", markup=False, soft_wrap=True)


def dashboard(run: RunFolder, as_json: opt.AsJson = False) -> None:
    """Say how to reach the Dask dashboard of a run that goes on, and whether it answers.

    Whoever knows the address can look at it: it is a secret, of this run alone.
    """
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.tunnel import way_to_dashboard

    way = way_to_dashboard(run)
    if as_json:
        print_json({"ssh": way.ssh, "url": way.url, "answers": way.answers, "said": way.said})
        return
    out = console()
    if way.ssh is not None:
        out.print("on your own machine, and leave it open:", markup=False)
        sys.stdout.write(f"{way.ssh}\n")
        out.print("then open in a browser:", markup=False)
    sys.stdout.write(f"{way.url}\n")
    out.print(way.said, markup=False, soft_wrap=True)
