"""What is printed at the end of a benchmark: its tables, for people and for scripts."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from hpcxrf.runner.printout import FinishedRun, Line, Printout, TextTable, list_failures
from hpcxrf.studies.benchmark.gather import BenchmarkResult
from hpcxrf.studies.benchmark.tables import Distribution, Pair, SearchStep

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
_SHARED_COLUMNS: Final = ("method", "n", "fail", "median", "5 %", "> 0.9", "> 0.99", "CPU")
_STEP_COLUMNS: Final = ("search", "n", "as good", "median", "5 %", "lowest", "> 0.99", "CPU")
_PAIR_COLUMNS: Final = ("task", "method", "against", "n", "better or equal", "CPU ratio")
_TEXTS: Final = frozenset({"task", "method", "against", "search"})


def describe_benchmark(finished: FinishedRun) -> Printout:
    """The tables, the failures with their reasons, and where the page is.

    Raises:
        TypeError: the run was not a benchmark.
    """
    result = finished.summary
    if not isinstance(result, BenchmarkResult):
        raise TypeError(f"{finished.run.path}: the run was not a benchmark")
    pairs = [make_pair_table(result.tables.pairs)] if result.tables.pairs else []
    failures = [(f"{failure.source} {failure.task}", failure.reason) for failure in result.failures]
    return Printout(
        parts=(
            *make_distribution_tables(result.tables.distributions),
            *make_shared_tables(result.tables.shared),
            *make_search_tables(result.tables.ablation),
            *pairs,
            *list_failures(failures),
            Line((f"{result.n_datasets} datasets in {finished.wall_s:.1f} s, {finished.workers} workers",)),
            Line((f"page: {finished.page}",)),
        ),
        values=_list_values(finished, result),
    )


def make_distribution_tables(rows: Sequence[Distribution]) -> list[TextTable]:
    """R2 and CPU seconds by method, a table for each task, narrow enough for 80 columns."""
    return [
        TextTable(
            title=f"{task}: R2, shares of all fits in %, CPU seconds",
            columns=_DISTRIBUTION_COLUMNS,
            numbers=frozenset(_DISTRIBUTION_COLUMNS) - _TEXTS,
            rows=tuple(_list_cells(row) for row in rows if row.task == task),
            compact=True,
        )
        for task in dict.fromkeys(row.task for row in rows)
    ]


def _list_cells(row: Distribution) -> tuple[str, ...]:
    shares = (row.above_080, row.above_090, row.above_099)
    return (
        row.method,
        str(row.n),
        str(row.failures),
        *(f"{v:.4f}" for v in (row.median, row.q05)),
        *(f"{100 * v:.1f}" for v in shares),
        f"{row.excess_median:.1e}",
        *(f"{v:.2g}" for v in (row.cpu_median_s, row.cpu_q95_s)),
    )


def make_shared_tables(rows: Sequence[Distribution]) -> list[TextTable]:
    """One range, one background, the same datasets; a table for each task."""
    return [
        TextTable(
            title=f"{task}: one range, one background, the same datasets; product as it comes",
            columns=_SHARED_COLUMNS,
            numbers=frozenset(_SHARED_COLUMNS) - _TEXTS,
            rows=tuple(
                (
                    row.method,
                    str(row.n),
                    str(row.failures),
                    f"{row.median:.4f}",
                    f"{row.q05:.4f}",
                    *(f"{100 * share:.1f}" for share in (row.above_090, row.above_099)),
                    f"{row.cpu_median_s:.2g}",
                )
                for row in rows
                if row.task == task
            ),
            compact=True,
        )
        for task in dict.fromkeys(row.task for row in rows)
    ]


def make_search_tables(rows: Sequence[SearchStep]) -> list[TextTable]:
    """What each part of the search of `separable` is for; a table for each task."""
    return [
        TextTable(
            title=f"{task}: parts of the search; R2 as good as that of the whole (1e-4), in %",
            columns=_STEP_COLUMNS,
            numbers=frozenset(_STEP_COLUMNS) - _TEXTS,
            rows=tuple(
                (
                    row.method,
                    str(row.n),
                    f"{100 * row.as_good:.1f}",
                    *(f"{value:.4f}" for value in (row.median, row.q05, row.lowest)),
                    f"{100 * row.above_099:.1f}",
                    f"{row.cpu_median_s:.2g}",
                )
                for row in rows
                if row.task == task
            ),
            compact=True,
        )
        for task in dict.fromkeys(row.task for row in rows)
    ]


def make_pair_table(rows: Sequence[Pair]) -> TextTable:
    """The program's methods against the others."""
    return TextTable(
        title="R2 better or equal (1e-4); CPU of the other over ours",
        columns=_PAIR_COLUMNS,
        numbers=frozenset(_PAIR_COLUMNS) - _TEXTS,
        rows=tuple(
            (r.task, r.method, r.other, str(r.n), f"{100 * r.better_or_equal:.1f} %", f"{r.cpu_ratio:.3g}")
            for r in rows
        ),
        compact=True,
    )


def _list_values(finished: FinishedRun, result: BenchmarkResult) -> dict[str, Any]:
    """The tables as scripts get them."""
    return {
        "run": str(finished.run.path),
        "page": str(finished.page),
        "datasets": result.n_datasets,
        "failed_datasets": len({failure.dataset_id for failure in result.failures}),
        "wall_s": finished.wall_s,
        "workers": finished.workers,
        **dataclasses.asdict(result.tables),
        "failures": [dataclasses.asdict(failure) for failure in result.failures],
    }
