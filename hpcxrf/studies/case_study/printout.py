"""What is printed at the end of a case study: the table of the first passes."""

from hpcxrf.runner.printout import FinishedRun, Line, Printout, TextTable, list_failures
from hpcxrf.studies.case_study.gather import StudyResult
from hpcxrf.studies.case_study.tables import FitRow, list_fit_rows

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
    return Printout(
        parts=(
            table,
            *list_failures(list(result.failures.items())),
            Line((f"{result.n_tasks} tasks in {finished.wall_s:.1f} s",)),
            Line((f"page: {finished.page}",)),
        )
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
