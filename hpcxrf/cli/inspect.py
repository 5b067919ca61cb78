"""`hpcxrf inspect`: what is in a file. Loads neither torch nor dask."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.errors import ConfigError

if TYPE_CHECKING:
    from hpcxrf.formats.scan import ReadOptions

EXAMPLE: Final = "Example:  hpcxrf inspect scan.mda --json   |   hpcxrf inspect --formats"


def inspect(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="The scan.", show_default=False)] = None,
    formats: Annotated[bool, typer.Option("--formats", help="List the formats that are read, and exit.")] = False,
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    settings: opt.Set = None,
    as_json: opt.AsJson = False,
    help_all: opt.HelpAll = False,
) -> None:
    """Say what is in a file: format, shape, total counts, calibration, guesses."""
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.formats.scan import ReadOptions
    from hpcxrf.pipeline.inspect import inspect_file

    if formats:
        _print_formats(as_json)
        return
    if file is None:
        raise ConfigError("no scan is named; give a file, or --formats for the list of formats")
    options = ReadOptions(
        dataset_path=dataset_path,
        energy_axis=energy_axis,
        energy_offset_kev=energy_offset,
        energy_slope_kev=energy_slope,
    )
    if settings:
        options = _read_settings(file, context.params)
    with show_step(console(), "read", "rows") as advance:
        facts = inspect_file(file, options, advance)
    if as_json:
        print_json(facts)
    else:
        _print_inspection(facts)


def _print_formats(as_json: bool) -> None:
    """Print the table of formats, made from the registry of the readers."""
    import dataclasses

    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.terminal import print_json, results_console
    from hpcxrf.formats.registry import list_file_formats

    rows = list_file_formats()
    if as_json:
        print_json({"formats": [dataclasses.asdict(row) for row in rows]})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("format", "files", "what is read", "needs"):
        table.add_column(title, overflow="fold")
    for row in rows:
        needs = "" if row.extra is None else f"hpcxrf[{row.extra}]"
        table.add_row(*map(escape, (row.name, row.files, row.reads, needs)))
    results_console().print(table)


def _read_settings(file: Path, parameters: Mapping[str, Any]) -> "ReadOptions":
    """Check the section `input` as a run does; without `--set` the schema need not be loaded."""
    from hpcxrf.pipeline.prepare.inputs import read_options

    opt.refuse_sections(opt.read_settings(parameters), ("input",), "inspect")
    return read_options(opt.read_request([file], parameters)[0])


def _print_inspection(facts: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.notes import label_note
    from hpcxrf.cli.terminal import results_console
    from hpcxrf.notes import unpack_notes

    table = Table.grid(padding=(0, 2))
    detectors, n_y, n_x, n_channels = facts["shape"]
    calibration, energy_kev = facts["calibration"], facts["incident_energy_kev"]
    rows = {
        "file": facts["file"],
        "format": facts["format"],
        "shape": f"{detectors} detectors, {n_y} x {n_x} pixels (y, x), {n_channels} channels",
        "counts": ", ".join(f"{total:,.0f}" for total in facts["total_counts"]) + " by detector",
        "incident energy": "unknown" if energy_kev is None else f"{energy_kev:g} keV",
        "energy axis": "unknown"
        if calibration is None
        else f"{calibration[0]['offset_kev']:g} keV + {calibration[0]['slope_kev']:g} keV per channel",
        "scalers": ", ".join(facts["scalers"][:12]) or "none",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    for note in unpack_notes(facts):
        table.add_row(label_note(note), escape(note.text))
    results_console().print(table)
