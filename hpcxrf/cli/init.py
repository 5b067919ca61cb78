"""`hpcxrf init`: writes one of the commented run files that come with hpcxrf, to be edited."""

from pathlib import Path
from typing import Annotated, Final

import typer

EXAMPLE: Final = "Examples:  hpcxrf init   |   hpcxrf init scan   |   hpcxrf init scan -o leaf.yaml"


def init(
    name: Annotated[
        str | None, typer.Argument(help="Name of the run file.", show_default="list the names and what they are for")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File.", show_default="NAME.yaml")] = None,
) -> None:
    """Write a commented run file to begin with; without a name, list those that there are."""
    from hpcxrf.cli.terminal import console, results_console
    from hpcxrf.config.workflow_files import find_workflows, read_summary, read_workflow
    from hpcxrf.errors import ConfigError
    from hpcxrf.store.files import atomic_write_text

    found = find_workflows()
    if name is None:
        for one, path in found.items():
            results_console().print(f"{one}: {read_summary(path)}", markup=False, soft_wrap=True)
        return
    if name not in found:
        raise ConfigError(f"{name}: no run file of this name comes with hpcxrf; there are {', '.join(found)}")
    target = output or Path(f"{name}.yaml")
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target}: exists already; remove it, or name another file with -o")
    atomic_write_text(target, read_workflow(found[name], target))
    console().print(f"{target}\nedit it, then: hpcxrf plan {target}", markup=False, soft_wrap=True)
