"""`hpcxrf simulate`: one scan with known truth, or a whole archive of them."""

from pathlib import Path
from typing import Annotated, Final

import typer

_BYTES_OF_MAPS: Final = 400
"""Bytes a pixel that the maps of a scan take while it is made."""

app = typer.Typer(
    invoke_without_command=True,
    epilog="Examples:  hpcxrf simulate -o sim --format maps-v10 --seed 3 --size 64 128   |   "
    "hpcxrf simulate archive --n 1200 --seed 3 -o archive",
)


@app.callback()
def simulate(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the scan and its truth.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same counts.")] = 7,
    size: Annotated[tuple[int, int], typer.Option(help="Rows and columns.")] = (96, 128),
    channels: Annotated[int, typer.Option(help="Channels of a spectrum.")] = 2048,
    detectors: Annotated[int, typer.Option(min=1, max=4, help="Detectors, 1 to 4.")] = 2,
    counts_scale: Annotated[float, typer.Option(min=0.01, max=30.0, help="Exposure relative to the preset.")] = 1.0,
    file_format: Annotated[str, typer.Option("--format", help="maps-v10 or array.")] = "maps-v10",
    name: Annotated[str, typer.Option(help="Scan name.")] = "leaf_on_soil",
) -> None:
    """Write a simulated scan with its known truth beside it; `archive`: many varied ones."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.errors import ConfigError
    from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

    if context.invoked_subcommand is not None:
        _refuse_before_subcommand(context)
        return
    if output is None:
        raise ConfigError("simulate: no output folder; name one with -o")
    if file_format not in {"maps-v10", "array"}:
        raise ConfigError(f"--format {file_format!r}: not a format that can be written; use maps-v10 or array")
    _refuse_size(output, (detectors, *size, channels))
    spec = demo_spec(seed=seed, shape=(detectors, *size, channels), name=name, counts_scale=counts_scale)
    files = write_scan(simulate_scan(spec), output, scan_format=file_format)  # type: ignore[arg-type]
    out = console()
    for path in (*files, output / f"{spec.name}.truth.json"):
        out.print(str(path), markup=False, soft_wrap=True)


def _refuse_size(output: Path, shape: tuple[int, int, int, int]) -> None:
    """Refuse a scan that fits neither on the disk nor, its maps, into memory, before anything is made for it."""
    from hpcxrf.errors import ConfigError
    from hpcxrf.formats.room import memory_bytes
    from hpcxrf.store.files import free_bytes

    detectors, rows, columns, channels = shape
    if min(shape) < 1:
        raise ConfigError(f"simulate: {shape} (detectors, rows, columns, channels): each must be at least 1")
    # Counts compress well; maps of densities are made in memory.
    counts, maps = detectors * rows * columns * channels * 4, rows * columns * _BYTES_OF_MAPS
    free, memory = 20 * free_bytes(output), memory_bytes() // 2
    if counts > free or maps > memory:
        raise ConfigError(
            f"simulate: a scan of {shape} (detectors, rows, columns, channels) needs {counts} bytes of counts and "
            f"{maps} bytes of maps, possible are {free} and {memory}; choose a smaller --size"
        )


def _refuse_before_subcommand(context: typer.Context) -> None:
    """Refuse options of the one scan before `archive`, where they mean nothing."""
    from hpcxrf.errors import ConfigError

    given = [
        "--" + name.removeprefix("file_").replace("_", "-")
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(
            f"simulate: {', '.join(given)} before {context.invoked_subcommand!r}: "
            f"options of {context.invoked_subcommand!r} come after it"
        )


@app.command(epilog="Example:  hpcxrf simulate archive --n 1200 --seed 3 -o archive")
def archive(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder: new, or of the same archive.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Datasets; a larger number extends.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same archive.")],
    shape: Annotated[tuple[int, int], typer.Option(help="Rows and columns of every scan, at least 4.")] = (8, 8),
    channels: Annotated[int, typer.Option(help="Channels of a spectrum, 512 to 8192.")] = 2048,
    detectors: Annotated[
        int | None, typer.Option(min=1, max=4, help="Detectors of every scan.", show_default="1 to 4, drawn")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one a core")] = None,
) -> None:
    """Write a synthetic archive as varied as five years of a beamline, its truth beside it. Resumable.

    Incident energies of 8-20 keV, 3-25 families, 1e3-1e8 counts; some families are not listed, some listed
    ones are not there; an override file beside each scan gives the elements and the nominal energy.
    """
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console
    from hpcxrf.simulate import write_archive

    out = console()
    with show_step(out, "simulate") as advance:
        index = write_archive(
            output, n, seed, shape_yx=shape, channels=channels, detectors=detectors, jobs=jobs, progress=advance
        )
    out.print(f"index: {index}", markup=False, soft_wrap=True)
