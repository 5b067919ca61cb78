"""`hpcxrf rerun`: makes a result again, and says whether it is the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

if TYPE_CHECKING:
    from hpcxrf.archive.rerun import Rerun
    from hpcxrf.archive.same import Sameness

EXAMPLE: Final = (
    "Examples:  hpcxrf rerun out/results/leaf-1a2b3c4d.zarr   |   "
    "hpcxrf rerun out --dataset leaf-1a2b3c4d --source /data"
)
_SHOWN: Final = 40


def rerun(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="A results store (folder or zip), or a run directory.")
    ],
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="the only one")] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source",
            metavar="FOLDER",
            help="Folder in which inputs that were moved are sought, by name and checksum. Repeatable.",
            show_default="where they were",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Run directory.", show_default="a temporary one, kept where the results differ"
        ),
    ] = None,
    workers: opt.Workers = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Run although inputs, versions or constants differ.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only compare what it was made from and with.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Make a result again from what its store says of itself, and compare every array bit for bit.

    What differs beforehand (an input, a version, the processor, a constant) is listed at once and refused. Exit code 0:
    identical; 8: something differs.
    """
    from hpcxrf.archive.rerun import find_result, plan_rerun
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console
    from hpcxrf.errors import DifferentError

    store = find_result(result, dataset)
    with show_step(console(), "compare inputs") as looked_at:
        plan = plan_rerun(store, source or (), workers=workers, looked_at=looked_at)
    found, run = None, None
    refused = bool(plan.differences) and not anyway
    if not as_json:
        _print_differences(plan)
    if not check and not refused:
        found, run = _run_again(plan, output)
    if as_json:
        _print_values(plan, found, run)
    elif found is not None:
        _print_sameness(found)
    if found is None and plan.differences and (check or refused):
        remedy = "" if check else "; --anyway runs all the same"
        raise DifferentError(f"{store}: {len(plan.differences)} differ of what its bits depend on{remedy}")
    if found is not None and not found.is_identical:
        raise DifferentError(f"{store}: made again it is not the same; the new run is {run}")


def _run_again(plan: "Rerun", output: Path | None) -> "tuple[Sameness, Path | None]":
    """Run it, and compare; a temporary run directory stays where the results differ or the run failed.

    Raises:
        DatasetsFailedError: the scan could not be fitted.
    """
    import shutil
    import sys
    import tempfile

    from hpcxrf.archive.same import compare_stores
    from hpcxrf.cli.run_display import watching
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.local.run import run_here
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.pipeline.request import write_run_file
    from hpcxrf.results.opened import find_results
    from hpcxrf.workloads import choose_workload

    workload = choose_workload(plan.config)
    workload.check(plan.config)
    folder = output or Path(tempfile.mkdtemp(prefix="hpcxrf-rerun-"))
    keep = output is not None
    try:
        with watching(console(), workload) as callbacks:
            ended = run_here(plan.config, write_run_file(plan.config), folder, callbacks, command=" ".join(sys.argv))
        if ended.failed:
            keep = True
            reasons = "; ".join(ended.failed.values())
            raise DatasetsFailedError(f"{plan.store}: could not be made again: {reasons}; the new run is {folder}")
        (again,) = find_results(folder).stores.values()
        found = compare_stores(plan.store, again)
        keep = keep or not found.is_identical
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return found, folder if keep else None


def _print_differences(plan: "Rerun") -> None:
    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.terminal import results_console
    from hpcxrf.config.untrusted import show_name

    out = results_console()
    if not plan.differences:
        out.print(f"{plan.dataset}: inputs, versions, processor and constants are as they were", markup=False)
        return
    table = Table(show_edge=False)
    for title in ("kind", "what", "recorded", "here"):
        table.add_column(title, overflow="fold")
    for one in plan.differences:
        table.add_row(*(escape(show_name(text)) for text in (one.kind, one.what, one.recorded, one.here)))
    out.print(table)


def _print_sameness(found: "Sameness") -> None:
    import math

    from hpcxrf.cli.terminal import results_console

    out = results_console()
    if found.is_identical:
        out.print(f"identical: {found.compared} arrays, bit for bit", markup=False)
        return
    out.print(f"{len(found.differing)} of {found.compared} arrays differ", markup=False)
    for one in found.differing[:_SHOWN]:
        sigma = "" if math.isnan(one.largest_in_sigma) else f", at most {one.largest_in_sigma:.3g} sigma"
        size = "" if math.isnan(one.largest) else f", at most {one.largest:.3g}"
        told = one.reason or f"{one.differing} of {one.values} values{size}{sigma}"
        out.print(f"  {one.array}: {told}", markup=False)
    if len(found.differing) > _SHOWN:
        out.print(f"  and {len(found.differing) - _SHOWN} more", markup=False)
    for name in found.attributes[:_SHOWN]:
        out.print(f"  attribute {name} differs", markup=False)


def _print_values(plan: "Rerun", found: "Sameness | None", run: Path | None) -> None:
    from dataclasses import asdict

    from hpcxrf.cli.terminal import print_json

    values: dict[str, Any] = {
        "result": str(plan.store),
        "dataset": plan.dataset,
        "differences": [asdict(one) for one in plan.differences],
        "ran": found is not None,
        "identical": None if found is None else found.is_identical,
        "run": None if run is None else str(run),
    }
    if found is not None:
        values["arrays"] = {"compared": found.compared, "differing": [asdict(one) for one in found.differing]}
        values["attributes"] = list(found.attributes)
        values["most_sigma"] = found.most_sigma
    print_json(values)
