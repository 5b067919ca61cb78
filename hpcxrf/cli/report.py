"""`hpcxrf report`: the report of a run directory, written again."""

from typing import Final

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf report out"


def report(run_directory: opt.RunFolder) -> None:
    """Write the report of a run directory again, from its stores and journals."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.local.again import report_again

    path = report_again(run_directory)
    console().print(f"report: {path}", markup=False, soft_wrap=True)
