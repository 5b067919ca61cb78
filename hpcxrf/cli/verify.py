"""`hpcxrf verify`: whether what a run wrote is still what it wrote."""

from typing import Annotated, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Examples:  hpcxrf verify out   |   hpcxrf verify out --redo && hpcxrf resume out"
_SHOWN: Final = 20


def verify(
    run_directory: opt.RunFolder,
    redo: Annotated[
        bool, typer.Option("--redo", help="Mark what is damaged, so that the next run or resume does it again.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Compare every file of a run with the checksum that was recorded when it was written.

    A resumed run trusts its journals and looks at no contents; this command does. It reads all stores of the run.
    """
    from contextlib import nullcontext
    from dataclasses import asdict

    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json, results_console
    from hpcxrf.cluster.slurm import job_ended
    from hpcxrf.errors import OutputError
    from hpcxrf.runner.verify import JOURNAL, do_again, find_damage
    from hpcxrf.store.lock import refuse_at_work, run_lock
    from hpcxrf.store.rundir import open_run

    run = open_run(run_directory)
    # An archive of finished runs may be read-only: only marking needs to write.
    refuse_at_work(run)
    with run_lock(run, job_ended=job_ended) if redo else nullcontext():
        with show_step(console(), "compare", "datasets") as advance:
            found = list(find_damage(run, advance))
        for damage in found if redo else ():
            do_again(run, damage)
    many = "1 file is" if len(found) == 1 else f"{len(found)} files are"
    if as_json:
        print_json({"run": str(run.path), "damaged": [asdict(damage) for damage in found], "marked": redo})
    else:
        out = results_console()
        for damage in found[:_SHOWN]:
            how = "cannot be read" if damage.task == JOURNAL else f"not as {damage.task} wrote it"
            out.print(f"{damage.path}: {how} ({damage.dataset_id})", markup=False)
        if len(found) > _SHOWN:
            out.print(f"and {len(found) - _SHOWN} more")
        out.print(f"{many} damaged" if found else "every file is as it was written", markup=False)
    if found and not redo:
        raise OutputError(
            f"{run.path}: {many} damaged; `hpcxrf verify {run.path} --redo`, then `hpcxrf resume`, makes what was lost "
            "again"
        )
