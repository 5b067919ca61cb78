"""`hpcxrf submit`, `cancel`, `resume`, `retry`: what changes a run on a cluster.

What is heavy is imported inside the commands; `submit` loads neither torch nor dask at all.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hpcxrf.cli import options as opt

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")]
Site = Annotated[str, typer.Option("--site", help="Name or file of a site profile; `hpcxrf site list`.")]


def add_commands(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(
        epilog="Examples:  hpcxrf submit run.yaml --site generic-gpu -o out   |   "
        "hpcxrf submit run.yaml --site generic-gpu --nodes 2 --time 4:00:00 --dry-run"
    )(submit)
    app.command(epilog="Example:  hpcxrf cancel out")(cancel)
    app.command(epilog="Example:  hpcxrf resume out")(resume)
    app.command(epilog="Example:  hpcxrf retry out --failed --reason 'out of memory'")(retry)


def submit(
    run_file: Annotated[Path, typer.Argument(metavar="RUNFILE", help="The run file (.yaml).")],
    site: Site,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run directory.", show_default="RUNFILE's name-run")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="In all.", show_default="as many as the nodes hold")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Of the job.", show_default="of the profile")] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Limit of the job, as Slurm takes it: 90, 4:00:00, 1-12.", show_default="of the profile"),
    ] = None,
    mode: Annotated[
        Literal["allocation", "elastic"], typer.Option(help="allocation: one job; elastic: a job for every worker.")
    ] = "allocation",
    after: Annotated[str | None, typer.Option(metavar="JOBID", help="Begin when this job has ended.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script; make and submit nothing.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS: whoever reaches the ports runs code as you.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Run the whole pipeline on Slurm: submit, print how to watch, and return."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.sites import find_site
    from hpcxrf.cluster.login.submission import Asked, prepare_submission, submit_prepared
    from hpcxrf.cluster.slurm import seconds_of
    from hpcxrf.config.run import load_run_file

    config, text = load_run_file(run_file)
    asked = Asked(
        workers=workers,
        nodes=nodes,
        time_limit_s=None if time is None else seconds_of(time),
        mode=mode,
        after=after,
        insecure=insecure,
    )
    folder = output or Path(f"{run_file.stem}-run")
    prepared = prepare_submission(config, text, folder, find_site(site), asked)
    out = console()
    if insecure:
        out.print(
            "[bold red]--insecure: scheduler and workers will speak plain TCP. Everybody who reaches their ports can "
            "run code as you and read your data.[/]"
        )
    if dry_run:
        sys.stdout.write(prepared.script)
        out.print(f"would be given to: {prepared.command}", markup=False, soft_wrap=True)
        return
    _told(submit_prepared(prepared), prepared.folder, as_json=as_json)


def _told(job_id: str, folder: Path, *, as_json: bool) -> None:
    import shlex

    from hpcxrf.cli.terminal import console, print_json

    log = folder / "logs" / f"job-{job_id}.log"
    if as_json:
        print_json({"job_id": job_id, "run": str(folder), "log": str(log)})
        return
    run = shlex.quote(str(folder))
    lines = (
        f"job {job_id} is in the queue; run directory: {folder}",
        f"watch it with:   hpcxrf status {run} --watch",
        f"its log:         hpcxrf logs {run} --follow",
        f"stop it with:    hpcxrf cancel {run}",
    )
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)


def cancel(run: RunFolder, as_json: opt.AsJson = False) -> None:
    """Cancel the job of a run. What is finished is kept; `hpcxrf resume` goes on."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.steering import cancel_run

    result = cancel_run(run)
    if as_json:
        print_json({"cancelled": result.job_ids, "unknown": result.unknown})
        return
    for job_id in result.job_ids:
        console().print(f"job {job_id} is cancelled; `hpcxrf resume` goes on with what is missing")
    for job_id in result.unknown:
        console().print(f"job {job_id}: Slurm does not know it (any more)")


def resume(run: RunFolder, as_json: opt.AsJson = False) -> None:
    """Go on with what is missing: on Slurm if the run was submitted, else here."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster import slurm
    from hpcxrf.cluster.login.status import run_status
    from hpcxrf.cluster.login.submission import last_job, submit_again
    from hpcxrf.store.rundir import open_run

    opened = open_run(run)
    if last_job(opened) is None:
        _here(run)
        return
    if run_status(run, slurm.job_state).verdict == "done":
        if as_json:
            print_json({"job_id": None, "run": str(run), "log": None})
        console().print(f"{run}: is done, nothing is missing", markup=False, soft_wrap=True)
        return
    _told(submit_again(opened), run.absolute(), as_json=as_json)


def _here(folder: Path) -> None:
    from hpcxrf.cli.run import run_on_this_machine
    from hpcxrf.errors import OutputError
    from hpcxrf.pipeline.request import config_of_run
    from hpcxrf.store.rundir import open_run

    run = open_run(folder)
    for section, kind in (("case_study", "case-study"), ("benchmark", "benchmark")):
        if section in run.effective():
            raise OutputError(f"{folder}: holds a {kind}; `hpcxrf {kind} RUNFILE -o {folder}` goes on with it")
    config, text = config_of_run(run)
    run_on_this_machine(config, text, folder)


def retry(
    run: RunFolder,
    failed: Annotated[bool, typer.Option("--failed", help="Everything that failed.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Only failures with this text in their reason; the others stay as they are.")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Mark what failed to be tried again, then go on as `hpcxrf resume` does."""
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.steering import retry_failed
    from hpcxrf.errors import ConfigError

    if not failed:
        raise ConfigError("retry: say what, with --failed (and --reason TEXT for some of it)")
    chosen = retry_failed(run, reason)
    if not chosen:
        console().print("nothing of the kind has failed", markup=False)
        return
    console().print(f"{len(chosen)} failed tasks are to be tried again", markup=False)
    resume(run, as_json=as_json)
