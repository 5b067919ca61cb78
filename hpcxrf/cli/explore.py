"""`hpcxrf explore`: a run in the browser."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hpcxrf.cli.explore_job import JobOptions, submit_explorer
from hpcxrf.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hpcxrf.explore.listening import Listening
    from hpcxrf.explore.runs import Runs
    from hpcxrf.explore.targets import Target

EXAMPLE: Final = (
    "Example:  hpcxrf explore out   |   hpcxrf explore out --dataset leaf-1a2b3c4d --port 8000   |   "
    "hpcxrf explore out --socket   |   hpcxrf explore my-runs   |   hpcxrf explore out --submit --site my-cluster"
)
_HOUR_S: Final = 3600.0


def explore(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Run directory, a folder of run directories, a store of results, or a scan.",
            show_default=False,
        ),
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the run.", show_default="the first that is finished")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of 127.0.0.1.", show_default="any that is free")
    ] = None,
    socket: Annotated[
        bool, typer.Option("--socket", help="Listen on a Unix socket, to be reached through ssh.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    idle_h: Annotated[
        float, typer.Option(min=0.01, max=720.0, help="Hours without a request after which it stops.")
    ] = 4.0,
    read_only: Annotated[bool, typer.Option("--read-only", help="Begin and stop no runs.")] = False,
    submit: Annotated[
        bool, typer.Option("--submit", help="Run it as a job of one core on Slurm, and print the way to it.")
    ] = False,
    site: Annotated[
        str | None,
        typer.Option(
            help="Name or file of a site profile, with --submit.", show_default="that with which the run was submitted"
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time limit of the job: 90, 4:00:00, 1-12.", show_default="that of the profile")
    ] = None,
    wait_min: Annotated[
        float | None, typer.Option(min=0.0, help="Minutes to wait here for the job to listen.", show_default="30")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script of the job; write and submit nothing.")
    ] = False,
) -> None:
    """Look at the maps of a run in the browser: the spectra of any pixels, and fits by eye.

    A scan that was not fitted is read first, and shown with the counts around the lines of elements. Of a folder of
    runs: how each is, its report and log, and a form for the run file of a new one, which is begun here or on Slurm
    once its script was confirmed.

    With --submit a job of Slurm does the work, and listens on a socket of its node; the same command again finds the
    job that is there.

    Results are never changed. Who opens the printed address can look at the run, and begin runs as you unless it is
    --read-only: it holds a secret that is new with every start. On a machine that others use, too, the explorer listens
    on a socket of your own instead of a port.
    """
    if submit:
        if port is not None:
            raise ConfigError("--submit and --port: a job listens on a socket; the tunnel's near end may be any port")
        options = JobOptions(site=site, time=time, wait_min=30.0 if wait_min is None else wait_min, dry_run=dry_run)
        submit_explorer(what, options, dataset=dataset, idle_h=idle_h, read_only=read_only)
        return
    if site is not None or time is not None or wait_min is not None or dry_run:
        raise ConfigError("--site, --time, --wait-min and --dry-run are options of a job; give --submit with them")
    _serve_here(what, dataset, port, socket, no_browser, idle_h, read_only)


def _serve_here(
    what: Path, dataset: str | None, port: int | None, socket: bool, no_browser: bool, idle_h: float, read_only: bool
) -> None:
    from hpcxrf.explore.access import explain_sharing, new_access
    from hpcxrf.explore.explorer import close_explorer, make_explorer
    from hpcxrf.explore.fit_session import make_fits
    from hpcxrf.explore.listening import listen_on_port, listen_on_socket
    from hpcxrf.explore.runs import find_runs
    from hpcxrf.explore.serving import run_server

    if socket and port is not None:
        raise ConfigError("--socket and --port: choose one; without either the machine decides")
    access = new_access()
    runs = find_runs(what, access.cookie_value.encode(), read_only=read_only)
    with ExitStack() as stack:
        explorer = make_explorer(_find(what, runs, dataset, stack), dataset, access, make_fits, runs)
        stack.callback(close_explorer, explorer)
        sharing = "" if socket or port is not None else explain_sharing()
        door: AbstractContextManager[Listening] = listen_on_socket() if socket or sharing else listen_on_port(port)
        listening = stack.enter_context(door)
        stack.enter_context(_browser(listening, explorer.access.secret, no_browser))
        terminated = run_server(
            explorer,
            listening,
            idle_s=idle_h * _HOUR_S,
            ready=lambda: _print_way(listening, explorer.access.secret, sharing),
        )
    if terminated:
        signal.raise_signal(signal.SIGTERM)
    sys.stderr.write(f"stopped: nothing was asked for {idle_h:g} h\n")


def _find(what: Path, runs: "Runs | None", dataset: str | None, stack: ExitStack) -> "Target | None":
    """The scans of what is named; a file is read for as long as the stack is open. None: there are runs to look at."""
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console
    from hpcxrf.config.untrusted import show_name
    from hpcxrf.errors import InputFileError
    from hpcxrf.explore.files import read_file
    from hpcxrf.explore.targets import find_finished, find_target
    from hpcxrf.formats.registry import is_zarr

    if runs is not None and dataset is None:
        return find_finished(what) if runs.alone else None
    target = find_target(what)
    if target is not None:
        return target
    if what.is_dir() and not is_zarr(what):
        raise InputFileError(
            f"{show_name(str(what))}: is not a run directory and holds none; name the folder that `hpcxrf run -o` "
            "made, a scan, or an empty folder to begin runs in"
        )
    with show_step(console(), "read", "rows") as advance:
        return stack.enter_context(read_file(what, advance))


def _browser(listening: "Listening", secret: str, no_browser: bool) -> "AbstractContextManager[None]":
    """Open a browser where there is a display, and where the address is on this machine."""
    from contextlib import nullcontext

    from hpcxrf.explore.listening import open_in_browser

    has_display = sys.platform == "darwin" or any(os.environ.get(one) for one in ("DISPLAY", "WAYLAND_DISPLAY"))
    if no_browser or not has_display or listening.path is not None:
        return nullcontext()
    return open_in_browser(f"{listening.address}#{secret}")


def _print_way(listening: "Listening", secret: str, sharing: str) -> None:
    from hpcxrf.cli.terminal import console

    out = console()
    if sharing:
        out.print(f"this machine is shared ({sharing}): it listens on a socket of your own", markup=False)
    if listening.tunnel is not None:
        out.print("on your own machine, and leave it open:", markup=False)
        sys.stdout.write(f"{listening.tunnel}\n")
    out.print("open in a browser:" if listening.tunnel is None else "then open in a browser:", markup=False)
    sys.stdout.write(f"{listening.address}#{secret}\n")
    sys.stdout.flush()
    out.print("Ctrl-C stops it", markup=False)
