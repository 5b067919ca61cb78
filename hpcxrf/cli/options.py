"""Options that several commands share, and the run configuration that they add up to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.errors import ConfigError
from hpcxrf.methods import methods_text

# What checks a run file is imported where it is used: `hpcxrf inspect` has none.
if TYPE_CHECKING:
    from hpcxrf.config.run import RunConfig, WorkloadName
    from hpcxrf.config.settings import Setting

RUN_FILE_SUFFIXES: Final = {".yaml", ".yml"}


def _show_all(context: typer.Context, wanted: bool) -> None:
    """Print the help with the options that the short one leaves out."""
    if not wanted:
        return
    for parameter in context.command.params:
        if hasattr(parameter, "hidden"):
            parameter.hidden = False
    typer.echo(context.get_help())
    raise typer.Exit


Files = Annotated[
    list[Path], typer.Argument(metavar="FILES", help="A run file (.yaml), or scans, folders and patterns.")
]
RunFile = Annotated[Path, typer.Argument(metavar="RUNFILE", help="The run file (.yaml).")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Run directory.")]
PlannedOutput = Annotated[
    Path | None, typer.Option("-o", "--output", help="Run directory.", show_default="RUNFILE's name-run")
]
Elements = Annotated[
    str | None,
    typer.Option(
        "--elements",
        help="Families, comma-separated: Si,Fe,Pt_L,Au_M,Ca_Ca (pile-up); 'auto' finds them in the spectrum.",
        show_default="those of the override file, else auto",
    ),
]
Energy = Annotated[
    float | None,
    typer.Option("--energy", help="Incident energy, keV.", show_default="that of the scan or override file"),
]
Pixels = Annotated[str | None, typer.Option("--pixels", help=f"Pixel method: {methods_text()}.", show_default="linear")]
Detectors = Annotated[
    str | None,
    typer.Option(
        "--detectors",
        help="Maps of each detector, their sum, or both; auto: both where the method can.",
        show_default="auto",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of processes.", show_default="one a core")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.", show_default="auto")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Set any value of the run file, as in --set fit.kbeta_sd=0.15; the value is YAML. Repeatable.",
        show_default=False,
    ),
]
EnergyRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--energy-range",
        metavar="LO HI",
        help="Fit range, keV.",
        show_default="1 to 1 above the incident energy",
        hidden=True,
    ),
]
Override = Annotated[
    str | None,
    typer.Option(
        "--override",
        metavar="PATH",
        help="Path of a MAPS override file. 'auto' looks beside the scan and one folder up; 'none' ignores it.",
        show_default="auto",
        hidden=True,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        help="Initial energy calibration: auto, file, override, previous; 'none' determines it from the spectrum.",
        show_default="auto",
        hidden=True,
    ),
]
Previous = Annotated[
    Path | None,
    typer.Option(
        "--previous",
        help="Start from the fit of an earlier scan: results/<dataset_id>.zarr of its run.",
        show_default="none",
        hidden=True,
    ),
]
EnergySd = Annotated[
    float | None,
    typer.Option(
        "--energy-sd", help="Standard deviation of the nominal incident energy, keV.", show_default="0.3", hidden=True
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Fit method: separable, or the published adam and sbplx.",
        show_default="separable",
        hidden=True,
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="poisson (deviance), mse (mean square) or l1; adam and sbplx have mse only.",
        show_default="poisson, mse for adam and sbplx",
        hidden=True,
    ),
]
KbetaSd = Annotated[
    float | None,
    typer.Option(
        "--kbeta-sd",
        help="K-beta of each family free of K-alpha within this share; 0: 5 %.",
        show_default="0",
        hidden=True,
    ),
]
Suggest = Annotated[
    bool | None,
    typer.Option(
        "--suggest/--no-suggest", help="Look for elements that are not listed.", show_default="suggest", hidden=True
    ),
]
AutoElements = Annotated[
    bool | None,
    typer.Option(
        "--auto-elements", help="Add suggested elements to the fit, and say so.", show_default="no", hidden=True
    ),
]
Background = Annotated[
    str | None, typer.Option("--background", help="hats, snip or none.", show_default="hats", hidden=True)
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="monochromatic, or tube (give --anode and --kv, or an effective --energy).",
        show_default="monochromatic",
        hidden=True,
    ),
]
Anode = Annotated[str | None, typer.Option("--anode", help="Element of the tube's anode, such as Rh.", hidden=True)]
Kv = Annotated[float | None, typer.Option("--kv", help="High voltage of the tube, kV.", hidden=True)]
DatasetPath = Annotated[
    str | None,
    typer.Option(
        "--dataset-path",
        help="Path of the array inside an HDF5, Zarr or npz file; several (a,b) or a pattern (det*/counts) are the "
        "detectors.",
        hidden=True,
    ),
]
EnergyAxis = Annotated[
    int | None, typer.Option("--energy-axis", help="Axis of the channels in that array.", hidden=True)
]
EnergyOffset = Annotated[float | None, typer.Option("--energy-offset", help="Energy of channel 0, keV.", hidden=True)]
EnergySlope = Annotated[float | None, typer.Option("--energy-slope", help="Energy per channel, keV.", hidden=True)]
HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all", callback=_show_all, is_eager=True, help="Show this help with the rare options, and exit."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="End with exit code 6 where the verdict on a fit is not good.", hidden=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]


def split_elements(text: str | None) -> list[str] | None:
    """Split `Si,Fe, Pt_L` at its commas; None stays None.

    Raises:
        ConfigError: a text without a name.
    """
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ConfigError(
            f"--elements {text!r}: names no element; give families like Si,Fe,Pt_L, or leave the option out to use "
            "those of the override file"
        )
    return names


_PLACES: Final = {
    "elements": ("sample", "elements"),
    "energy": ("sample", "incident_energy_kev"),
    "source": ("sample", "source"),
    "anode": ("sample", "anode"),
    "kv": ("sample", "tube_kv"),
    "energy_range": ("fit", "energy_range_kev"),
    "calibration": ("fit", "calibration"),
    "previous": ("fit", "previous"),
    "override": ("fit", "override"),
    "background": ("fit", "background"),
    "method": ("fit", "method"),
    "objective": ("fit", "objective"),
    "kbeta_sd": ("fit", "kbeta_sd"),
    "energy_sd": ("fit", "incident_energy_sd_kev"),
    "auto_elements": ("fit", "auto_elements"),
    "suggest": ("fit", "suggest"),
    "pixels": ("pixels", "method"),
    "detectors": ("pixels", "detectors"),
    "dataset_path": ("input", "dataset_path"),
    "energy_axis": ("input", "energy_axis"),
    "energy_offset": ("input", "energy_offset_kev"),
    "energy_slope": ("input", "energy_slope_kev"),
    "workers": ("execution", "workers"),
    "device": ("execution", "device"),
}
"""Where the value of each named option belongs in the run file."""
_READ: Final[dict[str, Callable[[Any], Any]]] = {"elements": split_elements, "previous": str, "energy_range": list}


def read_settings(parameters: Mapping[str, Any]) -> "list[Setting]":
    """Gather the values of the run file that a command line gives, by named options and by `--set`.

    Args:
        parameters: what the command was called with, by the names of its parameters; None: not given.

    Raises:
        ConfigError: a value of `--set` that is not `section.key=value`.
    """
    from hpcxrf.config.settings import Setting, parse_setting

    settings = [
        Setting(place=_PLACES[name], value=_READ.get(name, _keep)(value), origin=f"--{name.replace('_', '-')}")
        for name, value in parameters.items()
        if name in _PLACES and value is not None
    ]
    settings += [parse_setting(text) for text in parameters.get("settings") or ()]
    return _with_calibration(settings)


def _keep(value: object) -> object:
    return value


def _with_calibration(settings: "list[Setting]") -> "list[Setting]":
    """Start from an earlier fit that is named, without a second word."""
    from hpcxrf.config.settings import Setting

    place = ("fit", "calibration")
    named = any(s.place == ("fit", "previous") and s.value is not None for s in settings)
    chosen = [s for s in settings if s.place == place and s.value != "auto"]
    if not named or chosen:
        return settings
    return [*(s for s in settings if s.place != place), Setting(place=place, value="previous", origin="--previous")]


def read_request(
    files: Sequence[Path], parameters: Mapping[str, Any], *, workload: "WorkloadName | None" = None
) -> "tuple[RunConfig, str]":
    """Read the run configuration that a command line asks for: a run file with changes, or scans with options.

    Args:
        files: a run file, with scans after it that replace its own; or scans.
        parameters: what the command was called with, by the names of its parameters.
        workload: workload whose section has its defaults where the run file lacks it.

    Returns:
        The configuration, and the text of the run file; of options, that of the run file which would say the same.

    Raises:
        ConfigError: all faults at once.
    """
    from hpcxrf.config.run import load_run_file
    from hpcxrf.config.settings import Setting

    settings = read_settings(parameters)
    if not any(file.suffix in RUN_FILE_SUFFIXES for file in files):
        return _build_config(files, settings)
    run_file, scans = files[0], files[1:]
    if run_file.suffix not in RUN_FILE_SUFFIXES or any(file.suffix in RUN_FILE_SUFFIXES for file in scans):
        raise ConfigError(f"{', '.join(map(str, files))}: give one run file, first; scans after it replace its own")
    if scans:
        names = [str(file) for file in scans]
        settings.append(Setting(place=("input", "files"), value=names, origin=f"the scans after {run_file.name}"))
    return load_run_file(run_file, settings, workload=workload)


def name_output(files: Sequence[Path]) -> Path:
    """Name the run directory of a command line that names none, after the run file or the first scan."""
    return Path(f"{files[0].stem}-run")


def build_config(files: list[Path], sections: dict[str, dict[str, Any]]) -> "tuple[RunConfig, str]":
    """Build a run configuration from values, and the run file that would say the same.

    Args:
        files: the scans.
        sections: values by section of the run file; None means not given.

    Raises:
        ConfigError: all faults at once.
    """
    from hpcxrf.config.settings import Setting

    settings = [
        Setting(place=(section, key), value=value, origin=f"{section}.{key}")
        for section, values in sections.items()
        for key, value in values.items()
        if value is not None
    ]
    return _build_config(files, settings)


def _build_config(files: Sequence[Path], settings: "Sequence[Setting]") -> "tuple[RunConfig, str]":
    import yaml

    from hpcxrf.config.run import check_config
    from hpcxrf.config.settings import Setting, apply_settings

    names = Setting(place=("input", "files"), value=[str(f.absolute()) for f in files], origin="the scans")
    raw = apply_settings({}, [names, *settings])
    return check_config(raw, "the command line"), yaml.safe_dump(raw, sort_keys=False)


def refuse_sections(settings: "Sequence[Setting]", used: Sequence[str], command: str) -> None:
    """Refuse values of sections that a command does not use.

    Raises:
        ConfigError: all of them by name.
    """
    unused = [s.origin for s in settings if s.place[0] not in used]
    if unused:
        raise ConfigError(
            f"{', '.join(unused)}: `hpcxrf {command}` uses the sections {', '.join(used)} only; remove it"
        )
