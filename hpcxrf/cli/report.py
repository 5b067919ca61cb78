"""`hpcxrf report`: the report of a run directory, written again."""

from typing import Annotated, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf report out"


def report(
    run_directory: opt.RunFolder,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Also write report-single-file.html, to send to others.")
    ] = False,
) -> None:
    """Write the report of a run directory again, from its stores and journals."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.local.again import report_again, write_in_one_file

    path = report_again(run_directory)
    console().print(f"report: {path}", markup=False, soft_wrap=True)
    if single_file:
        console().print(f"one file: {write_in_one_file(path)}", markup=False, soft_wrap=True)
