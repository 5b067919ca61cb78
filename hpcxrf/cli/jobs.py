"""`hpcxrf submit`, `cancel`, `resume`, `retry`: what changes a run on a cluster.

What is heavy is imported inside the commands; `submit` loads neither torch nor dask at all.
"""

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from hpcxrf.cli import options as opt

SUBMIT_EXAMPLE: Final = (
    "Examples:  hpcxrf submit run.yaml --site generic-gpu -o out   |   "
    "hpcxrf submit run.yaml --site generic-gpu --nodes 2 --time 4:00:00 --dry-run"
)
CANCEL_EXAMPLE: Final = "Example:  hpcxrf cancel out"
RESUME_EXAMPLE: Final = "Example:  hpcxrf resume out"
RETRY_EXAMPLE: Final = "Example:  hpcxrf retry out --failed --reason 'out of memory'"

Site = Annotated[str, typer.Option("--site", help="Name or file of a site profile; `hpcxrf site list`.")]


def submit(
    context: typer.Context,
    files: opt.Files,
    site: Site,
    output: opt.PlannedOutput = None,
    elements: opt.Elements = None,
    energy: opt.Energy = None,
    pixels: opt.Pixels = None,
    detectors: opt.Detectors = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Total number of workers.", show_default="as many as the nodes hold")
    ] = None,
    settings: opt.Set = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Number of nodes.", show_default="that of the profile")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Time limit of the job, as Slurm takes it: 90, 4:00:00, 1-12.", show_default="that of the profile"
        ),
    ] = None,
    mode: Annotated[
        Literal["allocation", "elastic"], typer.Option(help="allocation: one job; elastic: one job per worker.")
    ] = "allocation",
    after: Annotated[str | None, typer.Option(metavar="JOBID", help="Start when this job has ended.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script; write and submit nothing.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Run without TLS: whoever reaches the ports runs code as you.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Run on Slurm whatever the run file describes: submit, print how to watch, and return."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.sites import find_site
    from hpcxrf.cluster.login.submission import SubmitOptions, prepare_submission, submit_run
    from hpcxrf.cluster.slurm import seconds_of

    config, text = opt.read_request(files, context.params)
    options = SubmitOptions(
        workers=workers,
        nodes=nodes,
        time_limit_s=None if time is None else seconds_of(time),
        mode=mode,
        after=after,
        insecure=insecure,
    )
    folder = output or opt.name_output(files)
    submission = prepare_submission(config, text, folder, find_site(site), options)
    out = console()
    if insecure:
        out.print(
            "[bold red]--insecure: scheduler and workers will speak plain TCP. Everybody who reaches their ports can "
            "run code as you and read your data.[/]"
        )
    if dry_run:
        if as_json:
            print_json({"script": submission.script, "command": submission.command, "run": str(submission.folder)})
            return
        sys.stdout.write(submission.script)
        out.print(f"to be submitted with: {submission.command}", markup=False, soft_wrap=True)
        return
    _print_job(submit_run(submission), submission.folder, as_json=as_json)


def _print_job(job_id: str, folder: Path, *, as_json: bool) -> None:
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


def cancel(run: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Cancel the job of a run, or end its process here. What is finished is kept; `hpcxrf resume` goes on."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.steering import cancel_run

    result = cancel_run(run)
    if as_json:
        print_json({"cancelled": result.job_ids, "unknown": result.unknown, "process": result.process})
        return
    if result.process is not None:
        console().print(f"process {result.process} was told to end; `hpcxrf resume` goes on with what is missing")
    for job_id in result.job_ids:
        console().print(f"job {job_id} is cancelled; `hpcxrf resume` goes on with what is missing")
    for job_id in result.unknown:
        console().print(f"job {job_id}: Slurm has no record of it")
    if not result.job_ids and not result.unknown and result.process is None:
        console().print("no job of this run is in the queue")


def resume(run: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Go on with what is missing: on Slurm if the run was submitted, else here."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster import slurm
    from hpcxrf.cluster.login.status import run_status
    from hpcxrf.cluster.login.submission import last_job, submit_again
    from hpcxrf.store.rundir import open_run

    opened = open_run(run)
    if last_job(opened) is None:
        _resume_here(run, as_json=as_json)
        return
    if run_status(run, slurm.job_state).verdict == "done":
        if as_json:
            print_json({"job_id": None, "run": str(run), "log": None})
        console().print(f"{run}: already finished; nothing is missing", markup=False, soft_wrap=True)
        return
    _print_job(submit_again(opened), run.absolute(), as_json=as_json)


def _resume_here(folder: Path, *, as_json: bool) -> None:
    from hpcxrf.cli.run import run_on_this_machine
    from hpcxrf.cli.terminal import print_json
    from hpcxrf.pipeline.request import config_of_run
    from hpcxrf.store.rundir import open_run

    config, text = config_of_run(open_run(folder))
    if as_json:
        # Of a run on this machine there is no job; what it found is in its run directory.
        print_json({"job_id": None, "run": str(folder.absolute()), "log": None})
    run_on_this_machine(config, text, folder)


def retry(
    run: opt.RunFolder,
    failed: Annotated[bool, typer.Option("--failed", help="Try everything that failed again.")] = False,
    reason: Annotated[
        str | None,
        typer.Option(help="Select only failures whose reason contains this text; the others stay as they are."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Mark what failed to be tried again, then go on as `hpcxrf resume` does."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.steering import retry_failed
    from hpcxrf.errors import ConfigError

    if not failed:
        raise ConfigError("retry: nothing selected; use --failed, optionally with --reason TEXT")
    chosen = retry_failed(run, reason)
    if not chosen:
        console().print("no failed dataset matches --reason" if reason else "no dataset has failed", markup=False)
        if as_json:
            print_json({"job_id": None, "run": str(run.absolute()), "log": None})
        return
    console().print(f"{len(chosen)} failed tasks will be tried again", markup=False)
    resume(run, as_json=as_json)
