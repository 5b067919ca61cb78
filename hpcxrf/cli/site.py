"""`hpcxrf site`: the profiles that there are, and a proposal for a new one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hpcxrf.cli import options as opt

app = typer.Typer(
    no_args_is_help=True,
    help="Site profiles: what a cluster is like, and how jobs are requested there.",
    epilog="Example:  hpcxrf site init --name my-cluster",
)


@app.command(epilog="Examples:  hpcxrf site init   |   hpcxrf site init --partition gpu --name beamline-gpu")
def init(
    partition: Annotated[
        str | None, typer.Option(help="Name of the partition.", show_default="one with GPUs, else the default")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Save the profile for --site NAME.", show_default="print it")] = None,
) -> None:
    """Propose a profile from what `sinfo` says, to be completed by hand."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.sites import choose_partition, propose_site, user_folder
    from hpcxrf.cluster.slurm import partitions
    from hpcxrf.errors import ConfigError
    from hpcxrf.store.catalog import is_dataset_id
    from hpcxrf.store.files import atomic_write_text, output_faults

    text = propose_site(choose_partition(partitions(), partition))
    if name is None:
        sys.stdout.write(text)
        return
    if not is_dataset_id(name):
        raise ConfigError(f"--name {name!r}: letters, digits, _ and inner - only")
    path = user_folder() / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: exists already; remove it or choose another name")
    with output_faults(path.parent, bytes_needed=len(text)):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, text)
    console().print(
        f"{path}\ncomplete it, then: hpcxrf submit RUNFILE --site {name} --dry-run", markup=False, soft_wrap=True
    )


@app.command("list", epilog="Example:  hpcxrf site list")
def list_sites(as_json: opt.AsJson = False) -> None:
    """Say which profiles there are, and where they are looked for."""
    from hpcxrf.cli.terminal import print_json, results_console
    from hpcxrf.config.site import load_site
    from hpcxrf.config.site_files import site_folders

    found: dict[str, Path] = {}
    for folder in site_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    if as_json:
        print_json({"sites": {name: str(path) for name, path in found.items()}})
        return
    for name, path in found.items():
        results_console().print(f"{name}: {load_site(path).description} ({path})", markup=False, soft_wrap=True)
