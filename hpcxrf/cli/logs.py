"""`hpcxrf logs`: the log of a run's latest job, or what failed."""

import sys
from typing import Annotated, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.cli.status import ASK_SLURM_S
from hpcxrf.config.untrusted import show_lines

EXAMPLE: Final = "Examples:  hpcxrf logs out --follow   |   hpcxrf logs out --failed"


def logs(
    run: opt.RunFolder,
    failed: Annotated[bool, typer.Option("--failed", help="Print what failed, with reasons and tracebacks.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run has ended.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="Number of lines from the end.")] = 100,
) -> None:
    """Print the log of a run's latest job, or what failed."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.failures import failures
    from hpcxrf.cluster.login.logs import follow_log, latest_log, tail
    from hpcxrf.cluster.login.status import GOING_ON, ask_seldom, run_status
    from hpcxrf.cluster.slurm import job_state
    from hpcxrf.store.rundir import open_run

    opened = open_run(run)
    if failed:
        for failure in failures(opened):
            sys.stdout.write(show_lines(f"{failure.dataset_id} {failure.task}: {failure.reason}\n{failure.traceback}"))
        return
    log, others = latest_log(opened)
    if others:
        names = ", ".join(path.name for path in others)
        console().print(f"{log.name}; others in {opened.logs}: {names}", markup=False, soft_wrap=True)
    if not follow:
        sys.stdout.write(show_lines(tail(log, lines)))
        return
    ask = ask_seldom(job_state, ASK_SLURM_S)
    for text in follow_log(log, lines, lambda: run_status(run, ask).verdict in GOING_ON):
        sys.stdout.write(show_lines(text))
        sys.stdout.flush()
