"""`hpcxrf ingest`: scans into Zarr stores, without fitting. What is heavy is imported inside."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf ingest scans/*.mda -o stores"


def ingest(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="A run file (.yaml), or scans, folders and patterns.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the Zarr stores.")],
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    settings: opt.Set = None,
    as_json: opt.AsJson = False,
    help_all: opt.HelpAll = False,
) -> None:
    """Copy scans into chunked Zarr stores, without fitting. Resumable; running it twice changes nothing."""
    from hpcxrf.cli.notes import print_notes
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json, results_console
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.pipeline.inspect import ingest_files
    from hpcxrf.pipeline.prepare.inputs import read_options

    opt.refuse_sections(opt.read_settings(context.params), ("input",), "ingest")
    config, _ = opt.read_request(files, context.params)
    out = console()
    with show_step(out, "ingest") as advance:
        result = ingest_files([Path(name) for name in config.input.files], output, read_options(config), advance)
    print_notes(out, {"": result.notes})
    if as_json:
        print_json({"stores": result.stores, "failed": result.failed})
    else:
        for source, store in result.stores.items():
            results_console().print(f"{source} -> {store}", markup=False, soft_wrap=True)
    for source, reason in result.failed.items():
        out.print(f"failed: {source}: {reason}", markup=False, soft_wrap=True)
    if result.failed:
        raise DatasetsFailedError(f"{len(result.failed)} files could not be ingested")
