"""`hpcxrf doctor`: whether this installation works."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Examples:  hpcxrf doctor --json   |   hpcxrf doctor --site generic-gpu"


def doctor(
    site: Annotated[
        str | None, typer.Option("--site", help="Let Slurm test a job of this site, submitting nothing.")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Check this installation: versions, cores, memory, GPUs, a small fit, a TLS cluster, Slurm."""
    from hpcxrf.cli.terminal import print_json
    from hpcxrf.cluster.login.doctor import examine
    from hpcxrf.cluster.login.sites import find_site

    checks = examine(None if site is None else find_site(site))
    if as_json:
        print_json(checks)
    else:
        _print_checks(checks)
    if not checks["ok"]:
        raise typer.Exit(1)


def _print_checks(checks: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.terminal import results_console

    table = Table("check", "", "result")
    for check in checks["checks"]:
        mark = "[green]ok[/]" if check["ok"] else "[red]fault[/]"
        table.add_row(check["name"], mark, escape(check["found"]))
    results_console().print(table)
