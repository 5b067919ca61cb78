"""Options that several commands share, and the run configuration that they add up to."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from hpcxrf.config.run import RunConfig, check_config
from hpcxrf.errors import ConfigError

Files = Annotated[list[Path], typer.Argument(help="A run file (.yaml), or scans, folders and patterns.")]
Elements = Annotated[
    str | None, typer.Option("--elements", help="Families, comma-separated: Si,Fe,Pt_L,Au_M,Ca_Ca (pile-up).")
]
Energy = Annotated[float | None, typer.Option("--energy", help="Incident energy, keV.", show_default="of the file")]
Pixels = Annotated[
    str,
    typer.Option(
        "--pixels",
        help="linear (signed, unbiased), nnls, poisson (maximum likelihood), nonlinear (offset, gain and width free in "
        "every pixel), or full (the same by the true model, for small scans).",
    ),
]
EnergyRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--energy-range", metavar="LO HI", help="Fit range, keV.", show_default="1 to 1 above the incident energy"
    ),
]
Override = Annotated[
    str | None,
    typer.Option(
        "--override",
        metavar="PATH",
        help="maps_fit_parameters_override.txt; auto: searched beside the scan, none: not used. A file of "
        "such a name is ./none.",
        show_default="auto",
    ),
]
Calibration = Annotated[
    str, typer.Option("--calibration", help="Start of the energy axis: auto, file, override, previous, or none: found.")
]
Previous = Annotated[
    Path | None,
    typer.Option(
        "--previous",
        help="Start from the fit of an earlier scan: results/<dataset_id>.zarr of its run.",
        show_default="none",
    ),
]
EnergySd = Annotated[float, typer.Option("--energy-sd", help="How well the incident energy is known, keV.")]
Method = Annotated[str, typer.Option("--method", help="separable, or the published ones: adam, sbplx.")]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="poisson (deviance), mse (mean square) or l1; adam and sbplx have mse only.",
        show_default="poisson, mse for adam and sbplx",
    ),
]
KbetaSd = Annotated[
    float,
    typer.Option("--kbeta-sd", help="K-beta free of K-alpha within this share (0.15 for thick samples); 0: tied."),
]
Suggest = Annotated[bool, typer.Option("--suggest/--no-suggest", help="Look for elements that are not listed.")]
AutoElements = Annotated[bool, typer.Option("--auto-elements", help="Add suggested elements to the fit, and say so.")]
Background = Annotated[str, typer.Option("--background", help="hats, snip or none.")]
Source = Annotated[str, typer.Option("--source", help="monochromatic, or tube (no elastic line; needs --energy).")]
DatasetPath = Annotated[str | None, typer.Option("--dataset-path", help="Array inside an HDF5, Zarr or npz file.")]
EnergyAxis = Annotated[int | None, typer.Option("--energy-axis", help="Axis of the channels in that array.")]
EnergyOffset = Annotated[float | None, typer.Option("--energy-offset", help="Energy of channel 0, keV.")]
EnergySlope = Annotated[float | None, typer.Option("--energy-slope", help="keV per channel.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]


def build_config(files: list[Path], sections: dict[str, dict[str, Any]]) -> tuple[RunConfig, str]:
    """A run configuration from options, and the run file that would say the same.

    Args:
        files: the scans.
        sections: values by section of the run file; None means not given.

    Raises:
        ConfigError: all faults at once.
    """
    raw: dict[str, Any] = {"input": {"files": [str(f.absolute()) for f in files]}}
    for name, values in sections.items():
        given = {k: v for k, v in values.items() if v is not None}
        if given:
            raw[name] = {**raw.get(name, {}), **given}
    return check_config(raw, "the command line"), yaml.safe_dump(raw, sort_keys=False)


def fit_start(calibration: str, previous: Path | None) -> dict[str, Any]:
    """Where the energy axis starts from: an earlier fit that is named needs no second word."""
    if previous is None:
        return {"calibration": calibration}
    chosen = "previous" if calibration == "auto" else calibration
    return {"calibration": chosen, "previous": str(previous.absolute())}


def override_choice(given: str | None) -> str | None:
    """`auto` and `none` as they are, anything else as an absolute path; None stays None."""
    if given is None or given in {"auto", "none"}:
        return given
    return str(Path(given).absolute())


def split_elements(text: str | None) -> list[str] | None:
    """`Si,Fe, Pt_L` -> a list; None stays None.

    Raises:
        ConfigError: a text without a name.
    """
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ConfigError(
            f"--elements: {text!r} names none; give families like Si,Fe,Pt_L, or leave it out for those of the "
            "override file"
        )
    return names
