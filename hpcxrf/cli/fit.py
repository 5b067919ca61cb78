"""`hpcxrf fit`: the integrated spectrum of one file. What is heavy is imported inside."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf fit scan.h50 --elements Si,Fe,Zn --energy 12 --json"
_USED: Final = ("input", "sample", "detector", "detectors", "fit")


def fit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The scan.", show_default=False)],
    elements: opt.Elements = None,
    energy: opt.Energy = None,
    detector: Annotated[str, typer.Option(help="Number of the detector, counted from 0, or 'sum'.")] = "0",
    energy_range: opt.EnergyRange = None,
    calibration: opt.Calibration = None,
    override: opt.Override = None,
    method: opt.Method = None,
    background: opt.Background = None,
    source: opt.Source = None,
    anode: opt.Anode = None,
    kv: opt.Kv = None,
    objective: opt.Objective = None,
    kbeta_sd: opt.KbetaSd = None,
    energy_sd: opt.EnergySd = None,
    previous: opt.Previous = None,
    auto_elements: opt.AutoElements = None,
    suggest: opt.Suggest = None,
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Write a picture of the fit.")] = None,
    settings: opt.Set = None,
    strict: opt.Strict = False,
    as_json: opt.AsJson = False,
    help_all: opt.HelpAll = False,
) -> None:
    """Fit the integrated spectrum of one file, without a run directory."""
    from hpcxrf.cli.fit_display import describe_fit, print_fit
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json, results_console
    from hpcxrf.pipeline.single import fit_file

    opt.refuse_sections(opt.read_settings(context.params), _USED, "fit")
    config, _ = opt.read_request([file], context.params)
    with show_step(console(), "read", "rows") as advance:
        result = fit_file(file, config, detector, advance)
    if plot is not None:
        from hpcxrf.results.report.picture import draw_fit
        from hpcxrf.store.files import atomic_write_bytes

        atomic_write_bytes(plot, draw_fit(result.fit, result.detector, result.line_markers))
    if as_json:
        print_json(describe_fit(result))
    else:
        print_fit(results_console(), console(), result)
    if strict:
        refuse_verdict(file, result.fit)


def refuse_verdict(file: Path, fit: Any) -> None:  # noqa: ANN401 (SpectrumFit)
    """Turn a fit that is not good into the exit code that says so.

    Raises:
        DatasetsFailedError: the fit is doubtful or wrong.
    """
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.fitting.verdict import Verdict

    if fit.verdict is not Verdict.GOOD:
        raise DatasetsFailedError(f"{file}: the fit is {fit.verdict.word}: {'; '.join(fit.verdict_reasons)}")
