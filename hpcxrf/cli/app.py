"""The commands. What is heavy is imported inside them, so that `--help` answers at once."""

from typing import Annotated, Final

import typer

from hpcxrf import __version__
from hpcxrf.cli import jobs, run, scans, simulate, site, watch
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


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hpcxrf {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


run.add_commands(app)
scans.add_commands(app)
app.add_typer(simulate.app, name="simulate")
app.command(epilog=PLAN_EXAMPLE)(plan)
app.add_typer(site.app, name="site")
jobs.add_commands(app)
watch.add_commands(app)


_BENCHMARK_EXAMPLE: Final = "Example:  hpcxrf benchmark workflows/benchmark.yaml -o bench --workers 2"
app.command(epilog=_BENCHMARK_EXAMPLE)(benchmark)
_CASE_STUDY_EXAMPLE: Final = "Example:  hpcxrf case-study workflows/case_study.yaml -o case-study --workers 2"
app.command("case-study", epilog=_CASE_STUDY_EXAMPLE)(case_study)


@app.command(epilog="Examples:  hpcxrf doctor --json   |   hpcxrf doctor --site generic-gpu")
def doctor(
    site: Annotated[
        str | None, typer.Option("--site", help="Let Slurm try this site's job, submitting nothing.")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Check this installation: versions, cores, memory, GPUs, a small fit, a TLS cluster, Slurm."""
    from hpcxrf.cli.display import print_doctor
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.doctor import examine
    from hpcxrf.cluster.login.sites import find_site

    checks = examine(None if site is None else find_site(site))
    if as_json:
        print_json(checks)
    else:
        print_doctor(console(), checks)
    if not checks["ok"]:
        raise typer.Exit(1)
