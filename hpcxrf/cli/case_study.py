"""`hpcxrf case-study`: what is heavy is imported inside, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def case_study(
    run_file: Annotated[Path, typer.Argument(help="The run file (.yaml); its section `case_study` says what.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the study.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="of the run file, else one a core")
    ] = None,
) -> None:
    """Simulate a plant-like scan and fit it as the published case study was, with every method beside the truth.

    First pass from random starts, regions, single pixels, maps of Mn, Cu and Pt, and further trials. The same
    command on the same folder goes on where it stopped. Writes case_study.html, pictures and tables.
    """
    from dataclasses import replace

    from hpcxrf.cli.case_study_display import print_study, study_watch
    from hpcxrf.cli.terminal import console
    from hpcxrf.config.run import load_run_file
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.studies.case_study.plan import check_case_study
    from hpcxrf.studies.case_study.run import case_study_here

    config, text = load_run_file(run_file)
    check_case_study(config)
    if workers is not None:
        config = replace(config, execution=replace(config.execution, workers=workers))
    out = console()
    result = case_study_here(config, text, output, study_watch(out), command=" ".join(sys.argv))
    print_study(out, result)
    if result.failures:
        raise DatasetsFailedError(
            f"{len(result.failures)} of {result.n_tasks} tasks failed; {result.page} gives the reasons. Mend them and "
            "give the same command again"
        )
