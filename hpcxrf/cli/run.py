"""`hpcxrf demo`, `run`, `report`: the whole pipeline on this machine.

What is heavy is imported inside the commands, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

_RUN_FILE_SUFFIXES: Final = {".yaml", ".yml"}

Output = Annotated[Path, typer.Option("-o", "--output", help="The run directory.")]
Workers = Annotated[int | None, typer.Option(help="Processes.", show_default="one a core")]


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(epilog="Example:  hpcxrf demo -o my-demo")(demo)
    app.command(
        epilog="Examples:  hpcxrf run workflows/scan.yaml -o out   |   "
        "hpcxrf run scan.h50 --elements Si,Fe,Zn --energy 12 -o out"
    )(run)
    app.command(epilog="Example:  hpcxrf report out")(report)


def demo(
    output: Output = Path("hpcxrf-demo"),
    workers: Workers = None,
    seed: Annotated[int, typer.Option(help="Of the simulated sample.")] = 7,
) -> None:
    """Simulate a small realistic scan and run everything on it: maps, report."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

    out = console()
    spec = demo_spec(seed=seed)
    files = [output / "scan" / f"{spec.name}.h5{d}" for d in range(spec.shape[0])]
    if not all(f.is_file() for f in files):
        out.print(f"simulating a scan of {' x '.join(map(str, spec.shape))} (detector, y, x, channel)")
        write_scan(simulate_scan(spec), output / "scan")
    sections: dict[str, dict[str, Any]] = {
        "sample": {"elements": list(spec.listed_elements)},
        "pixels": {"detectors": "both"},
        "execution": {"workers": workers},
    }
    config, text = opt.build_config([files[0]], sections)
    run_on_this_machine(config, text, output / "run")


def run(
    files: opt.Files,
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
    workers: Workers = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Run the whole pipeline here. The same command on the same folder goes on where it stopped."""
    from hpcxrf.config.run import load_run_file
    from hpcxrf.errors import ConfigError

    if len(files) == 1 and files[0].suffix in _RUN_FILE_SUFFIXES:
        given = [a for a in sys.argv[2:] if a.startswith("--") and a.split("=")[0] != "--output"]
        if given:
            raise ConfigError(f"{files[0]} is a run file; say there what {', '.join(given)} should say")
        config, text = load_run_file(files[0])
    else:
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
            "pixels": {"method": pixels, "detectors": detectors},
            "execution": {"workers": workers, "device": device},
        }
        config, text = opt.build_config(files, sections)
    run_on_this_machine(config, text, output)


def run_on_this_machine(config: Any, text: str, output: Path) -> None:  # noqa: ANN401 (RunConfig, imported late)
    """The whole pipeline on a local cluster, with bars and a table at the end.

    Raises:
        DatasetsFailedError: the run went to its end, but some failed.
    """
    from hpcxrf.cli.display import print_run, watching
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.local.run import run_here
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.pipeline.request import check_request

    check_request(config)
    out = console()
    with watching(out) as watch:
        result = run_here(config, text, output, watch, command=" ".join(sys.argv))
    print_run(out, result)
    if result.failed:
        number = len(result.failed)
        raise DatasetsFailedError(
            f"{number} dataset{'s' * (number > 1)} failed, all others are done; the report and state/*.jsonl in "
            f"{output} give the reasons. Mend them and give the same command again"
        )


def report(run_directory: Annotated[Path, typer.Argument(help="Of `hpcxrf run`.")]) -> None:
    """Write the report of a run directory again, from its stores and journals."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.local.run import report_again

    path = report_again(run_directory)
    console().print(f"report: {path}", markup=False, soft_wrap=True)
