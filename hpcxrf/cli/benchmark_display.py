"""What people see of a benchmark: bars, the tables, and the JSON of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.cluster.local.run import RunResult
from hpcxrf.studies.benchmark.gather import BenchmarkResult
from hpcxrf.studies.benchmark.tables import Distribution, Pair

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


def print_benchmark(out: Console, run: RunResult) -> None:
    """Print the tables, the failures with their reasons, and where the page is."""
    result = require_result(run)
    for table in distribution_tables(result.tables.distributions):
        out.print(table)
    if result.tables.pairs:
        out.print(pair_table(result.tables.pairs))
    for failure in result.failures[:_SHOWN_FAILURES]:
        out.print(f"[red]failed[/] {escape(failure.source)} {failure.task}: {escape(failure.reason)}", soft_wrap=True)
    if len(result.failures) > _SHOWN_FAILURES:
        out.print(f"and {len(result.failures) - _SHOWN_FAILURES} more failures: see the page")
    out.print(f"{result.n_datasets} datasets in {run.wall_s:.1f} s, {run.workers} workers")
    out.print(f"page: {escape(str(run.page))}", soft_wrap=True)


def require_result(run: RunResult) -> BenchmarkResult:
    """What a benchmark found.

    Raises:
        TypeError: the run was not a benchmark.
    """
    if not isinstance(run.summary, BenchmarkResult):
        raise TypeError(f"{run.run.path}: holds a {run.workload.name}, not a benchmark")
    return run.summary


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


def benchmark_json(run: RunResult) -> dict[str, Any]:
    """The tables as scripts get them."""
    result = require_result(run)
    return {
        "run": str(run.run.path),
        "page": str(run.page),
        "datasets": result.n_datasets,
        "failed_datasets": len({failure.dataset_id for failure in result.failures}),
        "wall_s": run.wall_s,
        "workers": run.workers,
        **dataclasses.asdict(result.tables),
        "failures": [dataclasses.asdict(failure) for failure in result.failures],
    }
