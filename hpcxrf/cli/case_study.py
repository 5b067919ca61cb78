"""`hpcxrf case-study`: `hpcxrf run` of a run file with a section `case_study`."""

from typing import Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf case-study workflows/case_study.yaml -o case-study --workers 2"


def case_study(
    context: typer.Context,
    run_file: opt.RunFile,
    output: opt.Output,
    workers: opt.Workers = None,
    settings: opt.Set = None,
) -> None:
    """Simulate a plant-like scan and fit it as the published case study was, with every method beside the truth.

    First pass from random starts, regions, single pixels, maps of Mn, Cu and Pt, and further trials. The same
    command on the same folder goes on where it stopped. Writes case_study.html, pictures and tables.
    """
    from hpcxrf.cli.run import run_on_this_machine

    config, text = opt.read_request([run_file], context.params, workload="case-study")
    run_on_this_machine(config, text, output)
