"""What is printed at the end of a case study: tables of the first passes and of the regions."""

from collections.abc import Sequence

from hpcxrf.runner.printout import FinishedRun, Line, Printout, TextTable, list_failures
from hpcxrf.studies.case_study.gather import StudyResult
from hpcxrf.studies.case_study.tables import DrawRow, FitRow, list_draw_rows, list_fit_rows

_DRAW_COLUMNS = ("region", "component", "method", "n", "true", "bias %", "+- %", "one draw +- %")
_COLUMNS = ("spectrum", "method", "n", "failed", "median", "lowest", ">= 0.99", "CPU s")


def describe_study(finished: FinishedRun) -> Printout:
    """R2 of the first pass and of the trials, the failures with their reasons, and where the page is.

    Raises:
        TypeError: the run was not a case study.
    """
    result = finished.summary
    if not isinstance(result, StudyResult):
        raise TypeError(f"{finished.run.path}: the run was not a case study")
    table = TextTable(
        title="R2 and CPU seconds",
        columns=_COLUMNS,
        numbers=frozenset(_COLUMNS[2:]),
        rows=tuple(_list_cells(row) for row in list_fit_rows(result.data, ("first-pass", "trials"))),
    )
    traces = [row for row in list_draw_rows(result.data) if row.component in result.data.traces]
    draws = [row for row in traces if row.true >= 1.0]
    return Printout(
        parts=(
            table,
            *([make_draw_table(draws)] if draws else []),
            *list_failures(list(result.failures.items())),
            Line((f"{result.n_tasks} tasks in {finished.wall_s:.1f} s",)),
            Line((f"page: {finished.page}",)),
        )
    )


def make_draw_table(rows: Sequence[DrawRow]) -> TextTable:
    """Bias of the traces in the summed spectra of the regions that have them, with its error."""
    return TextTable(
        title="regions with noise drawn anew: bias of the traces",
        columns=_DRAW_COLUMNS,
        numbers=frozenset(_DRAW_COLUMNS[3:]),
        rows=tuple(
            (
                str(int(row.group.removeprefix("draws-")) + 1),
                row.component,
                row.method,
                str(row.n),
                f"{row.true:.0f}",
                *(f"{100 * value:.1f}" for value in (row.bias, row.bias_error, row.spread)),
            )
            for row in rows
        ),
        compact=True,
    )


def _list_cells(row: FitRow) -> tuple[str, ...]:
    return (
        row.group,
        row.method,
        str(row.n),
        str(row.failed),
        f"{row.median:.5f}",
        f"{row.lowest:.5f}",
        str(row.good),
        f"{row.cpu_s:.3g}",
    )
