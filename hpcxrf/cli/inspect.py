"""`hpcxrf inspect`: what is in a file. Loads neither torch nor dask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf inspect scan.mda --json"


def inspect(
    file: Annotated[Path, typer.Argument(help="The scan.", show_default=False)],
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    as_json: opt.AsJson = False,
    help_all: opt.HelpAll = False,
) -> None:
    """Say what is in a file: format, shape, total counts, calibration, guesses."""
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.formats.scan import ReadOptions
    from hpcxrf.pipeline.inspect import inspect_file

    options = ReadOptions(
        dataset_path=dataset_path,
        energy_axis=energy_axis,
        energy_offset_kev=energy_offset,
        energy_slope_kev=energy_slope,
    )
    with show_step(console(), "read", "rows") as advance:
        facts = inspect_file(file, options, advance)
    if as_json:
        print_json(facts)
    else:
        _print_inspection(facts)


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
