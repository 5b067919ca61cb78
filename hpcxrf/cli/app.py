"""The commands. What is heavy is imported inside them, so that `--help` answers at once."""

from typing import Annotated, Final

import typer

from hpcxrf import __version__
from hpcxrf.cli import (
    benchmark,
    case_study,
    catalog,
    compare,
    dashboard,
    demo,
    diff,
    doctor,
    explore,
    export,
    fit,
    index,
    ingest,
    init,
    inspect,
    jobs,
    live,
    logs,
    pack,
    plan,
    quantify,
    report,
    rerun,
    run,
    schema,
    simulate,
    site,
    status,
    verify,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Archives of X-ray fluorescence scans into element maps, with nobody tuning parameters.",
    epilog="Start with:  hpcxrf demo",
)

_MAPS: Final = "Maps on this machine"
_FILES: Final = "Single files"
_ARCHIVES: Final = "Archives"
_CLUSTER: Final = "On a Slurm cluster"
_RUNS: Final = "Runs, wherever they work"
_OTHER: Final = "Comparisons and tests"


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


app.command(epilog=demo.EXAMPLE, rich_help_panel=_MAPS)(demo.demo)
app.command(epilog=init.EXAMPLE, rich_help_panel=_MAPS)(init.init)
app.command(epilog=run.EXAMPLE, rich_help_panel=_MAPS)(run.run)
app.command(epilog=live.EXAMPLE, rich_help_panel=_MAPS)(live.live)
app.command(epilog=report.EXAMPLE, rich_help_panel=_MAPS)(report.report)
app.command(epilog=explore.EXAMPLE, rich_help_panel=_MAPS)(explore.explore)
app.command(epilog=export.EXAMPLE, rich_help_panel=_MAPS)(export.export)
app.command(epilog=inspect.EXAMPLE, rich_help_panel=_FILES)(inspect.inspect)
app.command(epilog=fit.EXAMPLE, rich_help_panel=_FILES)(fit.fit)
app.command(epilog=ingest.EXAMPLE, rich_help_panel=_FILES)(ingest.ingest)
app.command(epilog=catalog.EXAMPLE, rich_help_panel=_ARCHIVES)(catalog.catalog)
app.add_typer(site.app, name="site", rich_help_panel=_CLUSTER)
app.command(epilog=plan.EXAMPLE, rich_help_panel=_CLUSTER)(plan.plan)
app.command(epilog=jobs.SUBMIT_EXAMPLE, rich_help_panel=_CLUSTER)(jobs.submit)
app.command(epilog=jobs.CANCEL_EXAMPLE, rich_help_panel=_CLUSTER)(jobs.cancel)
app.command(epilog=status.STATUS_EXAMPLE, rich_help_panel=_RUNS)(status.status)
app.command("list", epilog=status.LIST_EXAMPLE, rich_help_panel=_RUNS)(status.list_runs)
app.command(epilog=logs.EXAMPLE, rich_help_panel=_RUNS)(logs.logs)
app.command(epilog=dashboard.EXAMPLE, rich_help_panel=_RUNS)(dashboard.dashboard)
app.command(epilog=jobs.RESUME_EXAMPLE, rich_help_panel=_RUNS)(jobs.resume)
app.command(epilog=jobs.RETRY_EXAMPLE, rich_help_panel=_RUNS)(jobs.retry)
app.command(epilog=quantify.EXAMPLE, rich_help_panel=_RUNS)(quantify.quantify)
app.command(epilog=index.EXAMPLE, rich_help_panel=_RUNS)(index.index)
app.command(epilog=pack.PACK_EXAMPLE, rich_help_panel=_RUNS)(pack.pack)
app.command(epilog=pack.UNPACK_EXAMPLE, rich_help_panel=_RUNS)(pack.unpack)
app.command(epilog=verify.EXAMPLE, rich_help_panel=_RUNS)(verify.verify)
app.command(epilog=rerun.EXAMPLE, rich_help_panel=_RUNS)(rerun.rerun)
app.command(epilog=diff.EXAMPLE, rich_help_panel=_OTHER)(diff.diff)
app.command(epilog=compare.EXAMPLE, rich_help_panel=_OTHER)(compare.compare)
app.command(epilog=benchmark.EXAMPLE, rich_help_panel=_OTHER)(benchmark.benchmark)
app.command("case-study", epilog=case_study.EXAMPLE, rich_help_panel=_OTHER)(case_study.case_study)
app.add_typer(simulate.app, name="simulate", rich_help_panel=_OTHER)
app.command(epilog=schema.EXAMPLE, rich_help_panel=_OTHER)(schema.schema)
app.command(epilog=doctor.EXAMPLE, rich_help_panel=_OTHER)(doctor.doctor)
