"""The explorer as a job of Slurm: a Unix socket of the compute node, and the way to it in a file of the user alone.

    python -m hpcxrf.explore.job RUN --idle-h 4 [--dataset ID] [--read-only] [--scratch FOLDER]

What it prints goes to the log of the job: the secret is not among it. It ends when nobody asked for so many hours, or
is told to (SIGTERM, a minute or two before the time limit), and takes socket and file along.
"""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from hpcxrf.cluster.explorer_address import ExplorerAddress, remove_address, write_address
from hpcxrf.config.untrusted import show_lines
from hpcxrf.errors import HpcxrfError, OutputError
from hpcxrf.store.rundir import open_run, require_own_folder

_HOUR_S: Final = 3600.0
_VARIABLE: Final = "SLURM_JOB_ID"


def main(arguments: Sequence[str]) -> int:
    """Serve a run until the end; gives the exit code."""
    signal.signal(signal.SIGTERM, _leave)
    options = _read_arguments(arguments)
    job_id = os.environ.get(_VARIABLE, "")
    try:
        if not job_id.isdecimal():
            raise OutputError(f"{_VARIABLE} is not set; submit it: `hpcxrf explore {options.run} --submit`")
        print(serve_run(options, job_id), flush=True)  # noqa: T201  the log of the job
    except HpcxrfError as error:
        sys.stderr.write(f"error: {show_lines(str(error))}\n")
        return error.exit_code
    return 0


def serve_run(options: argparse.Namespace, job_id: str) -> str:
    """Serve a run, and say where in a file; gives a sentence on why it ended.

    Raises:
        OutputError: no run of this user there, no folder for a socket, or results that cannot be read.
        ConfigError: no such dataset.
    """
    from hpcxrf.explore.access import new_access
    from hpcxrf.explore.explorer import close_explorer, make_explorer
    from hpcxrf.explore.fit_session import make_fits
    from hpcxrf.explore.listening import listen_on_socket
    from hpcxrf.explore.runs import find_runs
    from hpcxrf.explore.serving import run_server
    from hpcxrf.explore.targets import find_finished, find_target

    run = open_run(options.run)
    require_own_folder(run.path)
    access = new_access()
    runs = find_runs(run.path, access.cookie_value.encode(), read_only=options.read_only, in_job=True)
    target = find_finished(run.path) if options.dataset is None else find_target(run.path)
    scratch = None if options.scratch is None else Path(os.path.expandvars(options.scratch))
    with ExitStack() as stack:
        explorer = make_explorer(target, options.dataset, access, make_fits, runs)
        stack.callback(close_explorer, explorer)
        listening = stack.enter_context(listen_on_socket(root=scratch))
        address = ExplorerAddress(
            job_id=job_id, host=socket.gethostname(), socket=str(listening.path), secret=access.secret
        )
        stack.enter_context(_announce(options.run, address))
        terminated = run_server(
            explorer,
            listening,
            idle_s=options.idle_h * _HOUR_S,
            ready=lambda: print(f"listens on {address.host}, {address.socket}", flush=True),  # noqa: T201
        )
    return "ended: it was told to, or its time limit is near" if terminated else _explain_idle(options.idle_h)


@contextmanager
def _announce(folder: Path, address: ExplorerAddress) -> Iterator[None]:
    run = open_run(folder)
    write_address(run, address)
    try:
        yield
    finally:
        remove_address(run, address.job_id)


def _explain_idle(idle_h: float) -> str:
    return f"ended: nothing was asked for {idle_h:g} h"


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hpcxrf.explore.job")
    parser.add_argument("run", type=Path)
    parser.add_argument("--idle-h", type=float, required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--scratch")
    return parser.parse_args(arguments)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, so that socket and file are removed; only before and after the loop, which has a handler of its own."""
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
