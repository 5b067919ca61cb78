"""`hpcxrf quantify`: areal densities of a run that is there."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.cli.jobs import resume

EXAMPLE: Final = "Example:  hpcxrf quantify out --standard axo_std.mda --i0 us_ic"


def quantify(
    run: opt.RunFolder,
    standard: Annotated[
        list[Path] | None,
        typer.Option("--standard", help="Scan of a thin-film standard. Repeatable.", show_default="those of the run"),
    ] = None,
    standards: Annotated[
        Path | None,
        typer.Option(
            "--standards",
            help="Certified areal densities: maps_standardinfo.txt, or a table (YAML).",
            show_default="maps_standardinfo.txt beside the scan, else the shipped table",
        ),
    ] = None,
    i0: Annotated[
        str | None,
        typer.Option(
            "--i0",
            help="Scaler of the incident flux: us_ic, ds_ic, sr_current, or a PV.",
            show_default="that of the run",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="I0 that all maps are brought to: a number, or a scan.",
            show_default="that of the run, else the standard",
        ),
    ] = None,
    relative_error: Annotated[
        float | None, typer.Option(help="Relative error of certificates that state none.", show_default="0.1")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of a table that does not say it: ug/cm2 or ng/mm2.", show_default="ug/cm2")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Set any value of normalise and quantify, as in --set 'quantify.allow=[energy]'. Repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Make areal densities (ug/cm2) of the maps of a run, by standards that are fitted as its scans were.

    Nothing is fitted again but the standards. On Slurm if the run was submitted, else here; `hpcxrf resume` goes on.
    """
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.densities import ask_for_densities
    from hpcxrf.config.settings import Setting, parse_setting

    def take(section: str, key: str, value: Any, option: str) -> list[Setting]:  # noqa: ANN401 (any YAML value)
        return [] if value is None else [Setting(place=(section, key), value=value, origin=option)]

    chosen = [
        *take("quantify", "standards", None if standard is None else [str(one) for one in standard], "--standard"),
        *take("quantify", "table", None if standards is None else str(standards), "--standards"),
        *take("normalise", "i0", i0, "--i0"),
        *take("normalise", "reference", _read_reference(reference), "--reference"),
        *take("quantify", "relative_error", relative_error, "--relative-error"),
        *take("quantify", "unit", unit, "--unit"),
        *(parse_setting(text) for text in settings or ()),
    ]
    number = ask_for_densities(run, chosen)
    console().print(f"areal densities of {number} datasets are asked for", markup=False)
    resume(run, as_json=as_json)


def _read_reference(text: str | None) -> float | str | None:
    """Read a number as one; anything else is a path."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
