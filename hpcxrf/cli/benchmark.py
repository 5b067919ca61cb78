"""`hpcxrf benchmark`: what is heavy is imported inside, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hpcxrf.cli import options as opt


def benchmark(
    run_file: Annotated[Path, typer.Argument(help="The run file (.yaml); its section `benchmark` says what.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The run directory.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="of the run file, else one a core")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Fit an archive as published, from random values, with several methods, and compare them.

    The spectrum of every scan and of a region in it, one task per dataset and method. The same command on the
    same folder goes on where it stopped. Writes benchmark.html, benchmark.csv, table.csv and benchmark.zarr.
    """
    from dataclasses import replace

    from hpcxrf.cli.benchmark_display import benchmark_json, print_benchmark, watching_benchmark
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.config.run import load_run_file
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.pipeline.request import check_request
    from hpcxrf.studies.benchmark.plan import check_benchmark
    from hpcxrf.studies.benchmark.run import benchmark_here

    config, text = load_run_file(run_file)
    check_request(config)
    check_benchmark(config)
    if workers is not None:
        config = replace(config, execution=replace(config.execution, workers=workers))
    out = console()
    with watching_benchmark(out) as watch:
        result = benchmark_here(config, text, output, watch, command=" ".join(sys.argv))
    print_benchmark(out, result)
    if as_json:
        print_json(benchmark_json(result))
    if result.failed_datasets:
        raise DatasetsFailedError(
            f"{result.failed_datasets} of {result.n_datasets} datasets failed, in {len(result.failures)} tasks; "
            f"{result.page} and state/*.jsonl give the reasons. Mend them and give the same command again"
        )
