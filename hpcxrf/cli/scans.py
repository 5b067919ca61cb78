"""`hpcxrf fit`, `inspect`, `ingest`: one step, on files, without a run directory.

What is heavy is imported inside the commands, so that `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcxrf.cli import options as opt

if TYPE_CHECKING:
    from hpcxrf.formats.scan import ReadOptions

File = Annotated[Path, typer.Argument(help="The scan.", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(epilog="Example:  hpcxrf fit scan.h50 --elements Si,Fe,Zn --energy 12 --json")(fit)
    app.command(epilog="Example:  hpcxrf inspect scan.mda --json")(inspect)
    app.command(epilog="Example:  hpcxrf ingest scans/*.mda -o stores")(ingest)


def fit(
    file: File,
    elements: opt.Elements = None,
    detector: Annotated[str, typer.Option(help="Counted from 0, or 'sum'.")] = "0",
    energy_range: opt.EnergyRange = None,
    calibration: opt.Calibration = "auto",
    override: opt.Override = None,
    energy: opt.Energy = None,
    method: opt.Method = "separable",
    background: opt.Background = "hats",
    source: opt.Source = "monochromatic",
    objective: opt.Objective = None,
    kbeta_sd: opt.KbetaSd = 0.0,
    energy_sd: opt.EnergySd = 0.3,
    previous: opt.Previous = None,
    auto_elements: opt.AutoElements = False,
    suggest: opt.Suggest = True,
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of the fit.")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Fit the integrated spectrum of one file, without a run directory."""
    from hpcxrf.cli.display import fit_json, print_fit
    from hpcxrf.cli.terminal import console, print_json, progress_bars
    from hpcxrf.pipeline.single import fit_file

    sections: dict[str, dict[str, Any]] = {
        "input": {
            "dataset_path": dataset_path,
            "energy_axis": energy_axis,
            "energy_offset_kev": energy_offset,
            "energy_slope_kev": energy_slope,
        },
        "sample": {"elements": opt.split_elements(elements), "incident_energy_kev": energy, "source": source},
        "fit": {
            "energy_range_kev": energy_range,
            **opt.fit_start(calibration, previous),
            "override": opt.override_choice(override),
            "background": background,
            "method": method,
            "objective": objective,
            "kbeta_sd": kbeta_sd,
            "incident_energy_sd_kev": energy_sd,
            "auto_elements": auto_elements,
            "suggest": suggest,
        },
    }
    config, _ = opt.build_config([file], sections)
    out = console()
    with progress_bars(out) as bars:
        reading = bars.add_task("read", total=None, rate="rows")
        result = fit_file(file, config, detector, lambda n, of: bars.update(reading, completed=n, total=of))
    if plot is not None:
        _plot(result, plot)
    if as_json:
        print_json(fit_json(result))
    else:
        print_fit(out, result)


def _plot(result: Any, path: Path) -> None:  # noqa: ANN401 (FileFit, imported late)
    from hpcxrf.results.report.picture import fit_picture
    from hpcxrf.store.files import atomic_write_bytes

    atomic_write_bytes(path, fit_picture(result.fit, result.detector, result.line_markers))


def inspect(
    file: File,
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    as_json: opt.AsJson = False,
) -> None:
    """Say what is in a file: format, shape, total counts, calibration, guesses."""
    from hpcxrf.cli.display import print_inspection
    from hpcxrf.cli.terminal import console, print_json, progress_bars
    from hpcxrf.pipeline.single import inspect_file

    given = _read_options(dataset_path, energy_axis, energy_offset, energy_slope)
    out = console()
    with progress_bars(out) as bars:
        reading = bars.add_task("read", total=None, rate="rows")
        facts = inspect_file(file, given, lambda n, of: bars.update(reading, completed=n, total=of))
    if as_json:
        print_json(facts)
    else:
        print_inspection(out, facts)


def ingest(
    files: opt.Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the Zarr stores.")],
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    as_json: opt.AsJson = False,
) -> None:
    """Copy scans into chunked Zarr stores, without fitting. Resumable; running it twice changes nothing."""
    from hpcxrf.cli.terminal import console, print_json, progress_bars
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.pipeline.single import ingest_files

    given = _read_options(dataset_path, energy_axis, energy_offset, energy_slope)
    out = console()
    with progress_bars(out) as bars:
        bar = bars.add_task("ingest", total=None, rate="")
        result = ingest_files(files, output, given, lambda n, of: bars.update(bar, completed=n, total=of))
    if as_json:
        print_json({"stores": result.stores, "failed": result.failed})
    for source, store in result.stores.items():
        out.print(f"{source} -> {store}", markup=False, soft_wrap=True)
    for source, reason in result.failed.items():
        out.print(f"failed: {source}: {reason}", markup=False, soft_wrap=True)
    if result.failed:
        raise DatasetsFailedError(f"{len(result.failed)} files could not be ingested")


def _read_options(
    dataset_path: str | None, energy_axis: int | None, energy_offset: float | None, energy_slope: float | None
) -> "ReadOptions":
    from hpcxrf.formats.scan import ReadOptions

    return ReadOptions(
        dataset_path=dataset_path,
        energy_axis=energy_axis,
        energy_offset_kev=energy_offset,
        energy_slope_kev=energy_slope,
    )
