"""What people see of a run: its progress, its table, its notes, and the elements that it suggests."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.cli.notes import print_notes
from hpcxrf.cli.progress import RunDisplay, show_run
from hpcxrf.cluster.local.cluster import LocalClusterHandle
from hpcxrf.cluster.local.run import RunCallbacks, RunResult
from hpcxrf.pipeline.report import describe_ending
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.runner.workload import Workload
from hpcxrf.store.rundir import RunDir

_SHOWN_DATASETS: Final = 50


@contextmanager
def watching(out: Console, workload: Workload) -> Iterator[RunCallbacks]:
    """Show a run on this machine while the block runs."""
    with show_run(out, workload.stages) as display:
        yield _connect(out, display)


def _connect(out: Console, display: RunDisplay) -> RunCallbacks:
    def show_cluster(handle: LocalClusterHandle) -> None:
        display.say(f"{handle.device}, {handle.n_workers} workers x {handle.threads_per_worker} threads")
        if handle.dashboard_url is not None:
            display.say(f"dashboard: {handle.dashboard_url}")

    return RunCallbacks(
        opened=display.opened,
        note=lambda text: print_notes(out, {"": [text]}),
        units=display.begin,
        started=show_cluster,
        progress=display.advance,
        reporting=lambda n: display.say(f"writing the report, {n} {'dataset' if n == 1 else 'datasets'}"),
    )


def print_result(out: Console, result: RunResult, argv: Sequence[str], *, as_json: bool = False) -> None:
    """Print what a run of any workload found.

    Args:
        out: console on standard error.
        result: how the run ended.
        argv: the command line.
        as_json: print the tables of a benchmark as JSON on standard output, too.
    """
    if result.workload.name == "benchmark":
        from hpcxrf.cli.benchmark_display import benchmark_json, print_benchmark
        from hpcxrf.cli.terminal import print_json

        print_benchmark(out, result)
        if as_json:
            print_json(benchmark_json(result))
    elif result.workload.name == "case-study":
        from hpcxrf.cli.case_study_display import print_study

        print_study(out, result)
    else:
        print_run(out, result, argv)


def print_run(out: Console, result: RunResult, argv: Sequence[str]) -> None:
    """Print the final table, the notes, the suggested elements, and where the report is.

    Args:
        out: console on standard error.
        result: how the run ended.
        argv: the command line, for the command that adds the suggested elements.
    """
    table = Table(title=f"run {escape(str(result.run.path))}", title_justify="left")
    for column in ("dataset", "status", "R2", "pixels", "seconds", "note"):
        table.add_column(column, overflow="fold")
    shown = list(islice(read_datasets(result.run), _SHOWN_DATASETS))
    for record in shown:
        r2 = ", ".join(f"{d}: {v:.5f}" for d, v in record.facts.get("r2", {}).items())
        pixels = f"{record.shape[1] * record.shape[2]:,}" if record.shape else ""
        seconds = f"{sum(record.seconds.values()):.1f}" if record.seconds else ""
        colour = "green" if record.state == "done" else "red"
        status = f"[{colour}]{record.state}[/]"
        table.add_row(escape(record.name), status, r2, pixels, seconds, escape(describe_ending(record)))
    out.print(table)
    if result.ended.total > len(shown):
        out.print(f"and {result.ended.total - len(shown)} more datasets: see the report")
    print_notes(out, {record.name: record.notes for record in shown})
    _print_suggestions(out, result, shown, argv)
    done, total = result.ended.done, result.ended.total
    out.print(f"{done} of {total} datasets done in {result.wall_s:.1f} s, report included")
    out.print(f"report: {escape(str(result.page))}", soft_wrap=True)


def _print_suggestions(out: Console, result: RunResult, shown: Sequence[DatasetRecord], argv: Sequence[str]) -> None:
    suggested: dict[str, int] = {}
    for record in shown:
        for name in record.facts.get("suggested", ()):
            suggested[name] = suggested.get(name, 0) + 1
    if not suggested:
        return
    many = len(shown) > 1
    names = ", ".join(f"{name} ({n} of {len(shown)} datasets)" if many else name for name, n in suggested.items())
    listed: Sequence[str] = result.run.effective()["sample"]["elements"]
    command = suggest_command(argv, listed, list(suggested), result.run)
    out.print(f"suggested elements (not in your list, but present in the residual): {escape(names)}", soft_wrap=True)
    out.print(f"to add them:  {command}", markup=False, soft_wrap=True)


def suggest_command(argv: Sequence[str], listed: Sequence[str], suggested: Sequence[str], run: RunDir) -> str:
    """Write the command that runs the same with the suggested elements, into a new folder.

    Args:
        argv: command line of the run, the program first.
        listed: elements of the run; none: they were those of override files, and the program adds to them itself.
        suggested: elements to add.
        run: the run directory.
    """
    output = next_folder(run.path)
    if len(argv) > 1 and argv[1] == "run":
        kept = _without(argv[1:], ("--elements", "-o", "--output", "--auto-elements"))
    else:
        kept = ["run", str(run.run_file)]
    chosen = ["--elements", ",".join([*listed, *suggested])] if listed else ["--auto-elements"]
    return shlex.join(["hpcxrf", *kept, *chosen, "-o", str(output)])


def next_folder(path: Path) -> Path:
    """Name a folder beside one that is not there yet: `out` -> `out-2`."""
    return next(p for n in range(2, 10_000) if not (p := path.with_name(f"{path.name}-{n}")).exists())


def _without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Drop options with their values."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in names:
            skip = argument != "--auto-elements"
        elif not argument.startswith(tuple(f"{name}=" for name in names if name.startswith("--"))):
            kept.append(argument)
    return kept
