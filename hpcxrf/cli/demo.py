"""`hpcxrf demo`: a simulated scan, and everything run on it."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf demo -o my-demo"


def demo(
    output: opt.Output = Path("hpcxrf-demo"),
    workers: opt.Workers = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated sample.")] = 7,
) -> None:
    """Simulate a small realistic scan and run everything on it: maps, report."""
    from hpcxrf.cli.run import run_on_this_machine
    from hpcxrf.cli.terminal import console
    from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

    spec = demo_spec(seed=seed)
    files = [output / "scan" / f"{spec.name}.h5{d}" for d in range(spec.shape[0])]
    if not all(f.is_file() for f in files):
        console().print(f"simulating a scan of {' x '.join(map(str, spec.shape))} (detector, y, x, channel)")
        write_scan(simulate_scan(spec), output / "scan")
    config, text = opt.build_config(
        [files[0]], {"sample": {"elements": list(spec.listed_elements)}, "execution": {"workers": workers}}
    )
    run_on_this_machine(config, text, output / "run")
