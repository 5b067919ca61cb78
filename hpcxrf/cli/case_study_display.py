"""What people see of a case study: the table of the first passes."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.cluster.local.run import RunResult
from hpcxrf.studies.case_study.gather import StudyResult
from hpcxrf.studies.case_study.tables import list_fit_rows


def print_study(out: Console, run: RunResult) -> None:
    """Print R2 of the first pass and of the trials, and where the page is.

    Raises:
        TypeError: the run was not a case study.
    """
    result = run.summary
    if not isinstance(result, StudyResult):
        raise TypeError(f"{run.run.path}: holds a {run.workload.name}, not a case study")
    table = Table(title="R2 and CPU seconds", title_justify="left")
    columns = ("spectrum", "method", "n", "failed", "median", "lowest", ">= 0.99", "CPU s")
    for name in columns:
        table.add_column(name, justify="left" if name in columns[:2] else "right")
    for row in list_fit_rows(result.data, ("first-pass", "trials")):
        table.add_row(
            row.group,
            row.method,
            str(row.n),
            str(row.failed),
            f"{row.median:.5f}",
            f"{row.lowest:.5f}",
            str(row.good),
            f"{row.cpu_s:.3g}",
        )
    out.print(table)
    for task, reason in list(result.failures.items())[:20]:
        out.print(f"[red]failed[/] {task}: {escape(reason)}", soft_wrap=True)
    out.print(f"{result.n_tasks} tasks in {run.wall_s:.1f} s")
    out.print(f"page: {escape(str(run.page))}", soft_wrap=True)
