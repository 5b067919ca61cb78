"""The commands. What is heavy is imported inside them, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf import __version__
from hpcxrf.cli import jobs, simulate, site, watch
from hpcxrf.cli import options as opt
from hpcxrf.cli.benchmark import benchmark
from hpcxrf.cli.case_study import case_study
from hpcxrf.cli.plan import EXAMPLE as PLAN_EXAMPLE
from hpcxrf.cli.plan import plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Archives of X-ray fluorescence scans into element maps, with nobody tuning parameters.",
    epilog="Start with:  hpcxrf demo",
)

_RUN_FILE_SUFFIXES: Final = {".yaml", ".yml"}

File = Annotated[Path, typer.Argument(help="The scan.", show_default=False)]
Files = Annotated[
    list[Path], typer.Argument(help="A run file (.yaml), or scans, folders and patterns.")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="The run directory.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hpcxrf {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


@app.command(epilog="Example:  hpcxrf demo -o my-demo")
def demo(
    output: Output = Path("hpcxrf-demo"),
    workers: Annotated[
        int | None, typer.Option(help="Processes.", show_default="one a core")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulated sample.")] = 7,
) -> None:
    """Simulate a small realistic scan and run everything on it: maps, report."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

    out = console()
    spec = demo_spec(seed=seed)
    files = [output / "scan" / f"{spec.name}.h5{d}" for d in range(spec.shape[0])]
    if not all(f.is_file() for f in files):
        out.print(
            f"simulating a scan of {' x '.join(map(str, spec.shape))} (detector, y, x, channel)"
        )
        write_scan(simulate_scan(spec), output / "scan")
    sections: dict[str, dict[str, Any]] = {
        "sample": {"elements": list(spec.listed_elements)},
        "pixels": {"detectors": "both"},
        "execution": {"workers": workers},
    }
    config, text = opt.build_config([files[0]], sections)
    run_on_this_machine(config, text, output / "run")


@app.command(
    epilog="Examples:  hpcxrf run workflows/scan.yaml -o out   |   "
    "hpcxrf run scan.h50 --elements Si,Fe,Zn --energy 12 -o out"
)
def run(
    files: Files,
    output: Output,
    elements: opt.Elements = None,
    energy: opt.Energy = None,
    energy_range: opt.EnergyRange = None,
    calibration: opt.Calibration = "auto",
    override: opt.Override = None,
    source: opt.Source = "monochromatic",
    background: opt.Background = "hats",
    method: opt.Method = "separable",
    objective: opt.Objective = None,
    kbeta_sd: opt.KbetaSd = 0.0,
    energy_sd: opt.EnergySd = 0.3,
    previous: opt.Previous = None,
    auto_elements: opt.AutoElements = False,
    suggest: opt.Suggest = True,
    pixels: opt.Pixels = "linear",
    detectors: Annotated[str, typer.Option(help="each, sum, or both.")] = "each",
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes.", show_default="one a core")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Run the whole pipeline here. The same command on the same folder goes on where it stopped."""
    from hpcxrf.config import load_run_file
    from hpcxrf.errors import ConfigError

    if len(files) == 1 and files[0].suffix in _RUN_FILE_SUFFIXES:
        given = [a for a in sys.argv[2:] if a.startswith("--") and a.split("=")[0] != "--output"]
        if given:
            raise ConfigError(
                f"{files[0]} is a run file; say there what {', '.join(given)} should say"
            )
        config, text = load_run_file(files[0])
    else:
        sections: dict[str, dict[str, Any]] = {
            "input": {"dataset_path": dataset_path, "energy_axis": energy_axis,
                      "energy_offset_kev": energy_offset, "energy_slope_kev": energy_slope},
            "sample": {"elements": opt.split_elements(elements), "incident_energy_kev": energy,
                       "source": source},
            "fit": {"energy_range_kev": energy_range, **opt.fit_start(calibration, previous),
                    "override": opt.override_choice(override),
                    "background": background, "method": method, "objective": objective,
                    "kbeta_sd": kbeta_sd, "incident_energy_sd_kev": energy_sd,
                    "auto_elements": auto_elements, "suggest": suggest},
            "pixels": {"method": pixels, "detectors": detectors},
            "execution": {"workers": workers, "device": device},
        }  # fmt: skip
        config, text = opt.build_config(files, sections)
    run_on_this_machine(config, text, output)


def run_on_this_machine(config: Any, text: str, output: Path) -> None:  # noqa: ANN401 (RunConfig, imported late)
    """The whole pipeline on a local cluster, with bars and a table at the end.

    Raises:
        DatasetsFailedError: the run went to its end, but some failed.
    """
    from hpcxrf.cli.display import print_run, watching
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.run import run_here
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.pipeline.request import check_request

    check_request(config)
    out = console()
    with watching(out) as watch:
        result = run_here(config, text, output, watch, command=" ".join(sys.argv))
    print_run(out, result)
    if result.failed:
        raise DatasetsFailedError(
            f"{len(result.failed)} datasets failed, the others are done; the report and state/*.jsonl in {output} "
            "give the reasons. Mend them and give the same command again"
        )


@app.command(epilog="Example:  hpcxrf fit scan.h50 --elements Si,Fe,Zn --energy 12 --json")
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
        "input": {"dataset_path": dataset_path, "energy_axis": energy_axis,
                  "energy_offset_kev": energy_offset, "energy_slope_kev": energy_slope},
        "sample": {"elements": opt.split_elements(elements), "incident_energy_kev": energy,
                   "source": source},
        "fit": {"energy_range_kev": energy_range, **opt.fit_start(calibration, previous),
                "override": opt.override_choice(override), "background": background,
                "method": method, "objective": objective, "kbeta_sd": kbeta_sd,
                "incident_energy_sd_kev": energy_sd, "auto_elements": auto_elements, "suggest": suggest},
    }  # fmt: skip
    config, _ = opt.build_config([file], sections)
    out = console()
    with progress_bars(out) as bars:
        reading = bars.add_task("read", total=None, rate="rows")
        result = fit_file(
            file, config, detector, lambda n, of: bars.update(reading, completed=n, total=of)
        )
    if plot is not None:
        _plot(result, plot)
    if as_json:
        print_json(fit_json(result))
    else:
        print_fit(out, result)


def _plot(result: Any, path: Path) -> None:  # noqa: ANN401 (FileFit, imported late)
    from hpcxrf.results.picture import fit_picture
    from hpcxrf.store.files import atomic_write_bytes

    atomic_write_bytes(path, fit_picture(result.fit, result.detector, result.line_markers))


@app.command(epilog="Example:  hpcxrf inspect scan.mda --json")
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
    from hpcxrf.formats.scan import ReadOptions
    from hpcxrf.pipeline.single import inspect_file

    given = ReadOptions(
        dataset_path=dataset_path,
        energy_axis=energy_axis,
        energy_offset_kev=energy_offset,
        energy_slope_kev=energy_slope,
    )
    out = console()
    with progress_bars(out) as bars:
        reading = bars.add_task("read", total=None, rate="rows")
        facts = inspect_file(file, given, lambda n, of: bars.update(reading, completed=n, total=of))
    if as_json:
        print_json(facts)
    else:
        print_inspection(out, facts)


@app.command(epilog="Example:  hpcxrf ingest scans/*.mda -o stores")
def ingest(
    files: Files,
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
    from hpcxrf.formats.scan import ReadOptions
    from hpcxrf.pipeline.single import ingest_files

    given = ReadOptions(
        dataset_path=dataset_path,
        energy_axis=energy_axis,
        energy_offset_kev=energy_offset,
        energy_slope_kev=energy_slope,
    )
    out = console()
    with progress_bars(out) as bars:
        bar = bars.add_task("ingest", total=None, rate="")
        result = ingest_files(
            files, output, given, lambda n, of: bars.update(bar, completed=n, total=of)
        )
    if as_json:
        print_json({"stores": result.stores, "failed": result.failed})
    for source, store in result.stores.items():
        out.print(f"{source} -> {store}", markup=False, soft_wrap=True)
    for source, reason in result.failed.items():
        out.print(f"failed: {source}: {reason}", markup=False, soft_wrap=True)
    if result.failed:
        raise DatasetsFailedError(f"{len(result.failed)} files could not be ingested")


@app.command(epilog="Example:  hpcxrf report out")
def report(run_directory: Annotated[Path, typer.Argument(help="Of `hpcxrf run`.")]) -> None:
    """Write the report of a run directory again, from its stores and journals."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.run import report_again

    path = report_again(run_directory)
    console().print(f"report: {path}", markup=False, soft_wrap=True)


app.add_typer(simulate.app, name="simulate")
app.command(epilog=PLAN_EXAMPLE)(plan)
app.add_typer(site.app, name="site")
jobs.add_commands(app)
watch.add_commands(app)


_BENCHMARK_EXAMPLE: Final = (
    "Example:  hpcxrf benchmark workflows/benchmark.yaml -o bench --workers 2"
)
app.command(epilog=_BENCHMARK_EXAMPLE)(benchmark)
_CASE_STUDY_EXAMPLE: Final = (
    "Example:  hpcxrf case-study workflows/case_study.yaml -o case-study --workers 2"
)
app.command("case-study", epilog=_CASE_STUDY_EXAMPLE)(case_study)


@app.command(epilog="Examples:  hpcxrf doctor --json   |   hpcxrf doctor --site generic-gpu")
def doctor(
    site: Annotated[
        str | None,
        typer.Option("--site", help="Let Slurm try this site's job, submitting nothing."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Check this installation: versions, cores, memory, GPUs, a small fit, a TLS cluster, Slurm."""
    from hpcxrf.cli.display import print_doctor
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.doctor import examine
    from hpcxrf.cluster.sites import find_site

    checks = examine(None if site is None else find_site(site))
    if as_json:
        print_json(checks)
    else:
        print_doctor(console(), checks)
    if not checks["ok"]:
        raise typer.Exit(1)
