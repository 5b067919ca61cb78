"""What people see of a benchmark: bars, the tables, and the JSON of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from hpcxrf.cli.terminal import progress_bars
from hpcxrf.cluster.local.cluster import LocalClusterHandle
from hpcxrf.runner.driver import Progress as TaskProgress
from hpcxrf.studies.benchmark.driver import totals
from hpcxrf.studies.benchmark.plan import BenchmarkPlan
from hpcxrf.studies.benchmark.run import BenchmarkResult, BenchmarkWatch
from hpcxrf.studies.benchmark.tables import Distribution, Pair

STAGE_TITLES: Final = {"sum": "sum spectra", "initial": "fit from random values", "refinement": "refine a region"}
_SHOWN_FAILURES: Final = 20
_DISTRIBUTION_COLUMNS: Final = (
    "method",
    "n",
    "fail",
    "median",
    "5 %",
    "> 0.8",
    "> 0.9",
    "> 0.99",
    "-exp.",
    "CPU",
    "95 %",
)
_TEXTS: Final = {"task", "method", "against"}


@contextmanager
def watching_benchmark(out: Console) -> Iterator[BenchmarkWatch]:
    """Bars of a benchmark while the block runs."""
    with progress_bars(out) as bars:
        yield _watch(bars, out)


def _watch(bars: Progress, out: Console) -> BenchmarkWatch:
    opening = bars.add_task("open files", total=None, rate="")
    stages: dict[str, TaskID] = {}
    failed = dict.fromkeys(STAGE_TITLES, 0)

    def planned(plan: BenchmarkPlan) -> None:
        for note in plan.notes:
            out.print(f"note: {escape(note)}")
        for stage, total in totals(plan).items():
            stages[stage] = bars.add_task(STAGE_TITLES[stage], total=total, rate="")

    def started(handle: LocalClusterHandle) -> None:
        out.print(f"{handle.device}, {handle.n_workers} workers x 1 thread")
        if handle.dashboard_url is not None:
            out.print(f"dashboard: {handle.dashboard_url}")

    def progress(event: TaskProgress) -> None:
        failed[event.stage] += not event.ok
        rate = f"{failed[event.stage]} failed" if failed[event.stage] else ""
        bars.update(stages[event.stage], advance=1, rate=rate)

    return BenchmarkWatch(
        opened=lambda done, total: bars.update(opening, completed=done, total=total),
        planned=planned,
        started=started,
        progress=progress,
        reporting=lambda: out.print("gathering the statistics"),
    )


def print_benchmark(out: Console, result: BenchmarkResult) -> None:
    """The tables, the failures with their reasons, and where the page is."""
    for table in distribution_tables(result.tables.distributions):
        out.print(table)
    if result.tables.pairs:
        out.print(pair_table(result.tables.pairs))
    for failure in result.failures[:_SHOWN_FAILURES]:
        out.print(f"[red]failed[/] {escape(failure.source)} {failure.task}: {escape(failure.reason)}", soft_wrap=True)
    if len(result.failures) > _SHOWN_FAILURES:
        out.print(f"and {len(result.failures) - _SHOWN_FAILURES} more failures: see the page")
    out.print(f"{result.n_datasets} datasets in {result.wall_s:.1f} s, {result.workers} workers")
    out.print(f"page: {escape(str(result.page))}", soft_wrap=True)


def distribution_tables(rows: Sequence[Distribution]) -> list[Table]:
    """R2 and CPU seconds by method, a table for each task, narrow enough for 80 columns."""
    tables = []
    for task in dict.fromkeys(row.task for row in rows):
        table = _table(f"{task}: R2, shares of all fits in %, CPU seconds", _DISTRIBUTION_COLUMNS)
        for row in (r for r in rows if r.task == task):
            shares = (row.above_080, row.above_090, row.above_099)
            table.add_row(
                row.method,
                str(row.n),
                str(row.failures),
                *(f"{v:.4f}" for v in (row.median, row.q05)),
                *(f"{100 * v:.1f}" for v in shares),
                f"{row.excess_median:.1e}",
                *(f"{v:.2g}" for v in (row.cpu_median_s, row.cpu_q95_s)),
            )
        tables.append(table)
    return tables


def pair_table(rows: Sequence[Pair]) -> Table:
    """The program's methods against the others."""
    title = "R2 better or equal (1e-4); CPU of the other over ours"
    table = _table(title, ("task", "method", "against", "n", "better or equal", "CPU ratio"))
    for row in rows:
        table.add_row(
            row.task, row.method, row.other, str(row.n), f"{100 * row.better_or_equal:.1f} %", f"{row.cpu_ratio:.3g}"
        )
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXTS else "right", no_wrap=True)
    return table


def benchmark_json(result: BenchmarkResult) -> dict[str, Any]:
    """The tables as scripts get them."""
    return {
        "run": str(result.run.path),
        "page": str(result.page),
        "datasets": result.n_datasets,
        "failed_datasets": result.failed_datasets,
        "wall_s": result.wall_s,
        "workers": result.workers,
        **dataclasses.asdict(result.tables),
        "failures": [dataclasses.asdict(f) for f in result.failures],
    }
