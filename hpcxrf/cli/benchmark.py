"""`hpcxrf benchmark`: `hpcxrf run` of a run file with a section `benchmark`."""

from typing import Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf benchmark workflows/benchmark.yaml -o bench --workers 2 --set benchmark.start=wide"


def benchmark(
    context: typer.Context,
    run_file: opt.RunFile,
    output: opt.Output,
    workers: opt.Workers = None,
    settings: opt.Set = None,
    as_json: opt.AsJson = False,
) -> None:
    """Fit an archive as published, from random values, with several methods, and compare them.

    The spectrum of every scan and of a region in it, one task per dataset and method. The same command on the
    same folder goes on where it stopped. Writes benchmark.html, benchmark.csv, table.csv and benchmark.zarr.
    """
    from hpcxrf.cli.run import run_on_this_machine

    config, text = opt.read_request([run_file], context.params, workload="benchmark")
    run_on_this_machine(config, text, output, as_json=as_json)
