"""What people see of a run: its progress, and what its workload gives to be printed at its end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.cli.notes import print_notes
from hpcxrf.cli.progress import RunDisplay, show_run
from hpcxrf.cli.terminal import print_json
from hpcxrf.cluster.local.cluster import LocalClusterHandle
from hpcxrf.cluster.local.run import RunCallbacks, RunResult
from hpcxrf.runner.printout import Coloured, FinishedRun, NoteList, TextTable
from hpcxrf.runner.workload import Workload


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
        note=lambda note: print_notes(out, {"": [note]}),
        units=display.begin,
        all_begun=display.all_begun,
        started=show_cluster,
        progress=display.advance,
        reporting=lambda n: display.say(f"writing the report, {n} {'dataset' if n == 1 else 'datasets'}"),
    )


def print_result(out: Console, result: RunResult, argv: Sequence[str], *, as_json: bool = False) -> None:
    """Print what a run found, as its workload describes it.

    Args:
        out: console on standard error.
        result: how the run ended.
        argv: the command line.
        as_json: print the values for scripts on standard output, too, where the workload has any.
    """
    printout = result.workload.describe(
        FinishedRun(
            run=result.run,
            page=result.page,
            done=result.ended.done,
            total=result.ended.total,
            reasons=result.failed,
            workers=result.workers,
            wall_s=result.wall_s,
            summary=result.summary,
            command=tuple(argv),
        )
    )
    for part in printout.parts:
        if isinstance(part, NoteList):
            print_notes(out, part.notes)
        elif isinstance(part, TextTable):
            out.print(_make_table(part))
        else:
            out.print("".join(map(_mark_up, part.parts)), soft_wrap=True)
    if as_json and printout.values is not None:
        print_json(printout.values)


def _make_table(plain: TextTable) -> Table:
    look: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": 0, "pad_edge": False} if plain.compact else {}
    table = Table(title=escape(plain.title), title_justify="left", **look)
    for column in plain.columns:
        justify: Literal["left", "right"] = "right" if column in plain.numbers else "left"
        table.add_column(escape(column), justify=justify, no_wrap=plain.compact, overflow="fold")
    for row in plain.rows:
        table.add_row(*map(_mark_up, row))
    return table


def _mark_up(part: str | Coloured) -> str:
    return escape(part) if isinstance(part, str) else f"[{part.colour}]{escape(part.text)}[/]"
