"""What people see of a case study: bars, and the table of the first passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.cli.display import watching
from hpcxrf.cli.terminal import progress_bars
from hpcxrf.pipeline.records import STUDY_STAGES
from hpcxrf.runner.driver import Progress
from hpcxrf.studies.case_study.plan import StudyUnit
from hpcxrf.studies.case_study.run import StudyResult, StudyWatch
from hpcxrf.studies.case_study.tables import fit_rows


def study_watch(out: Console) -> StudyWatch:
    """Bars for the runs and the fits of a case study."""
    return StudyWatch(
        say=lambda words: out.print(words, markup=False, soft_wrap=True),
        running=lambda: watching(out),
        fitting=lambda units: _bars(out, units),
    )


@contextmanager
def _bars(out: Console, units: Sequence[StudyUnit]) -> Iterator[Callable[[Progress], None]]:
    """A bar a stage."""
    with progress_bars(out) as bars:
        tasks = {
            stage: bars.add_task(stage.replace("-", " "), total=sum(u.stage == stage for u in units), rate="")
            for stage in STUDY_STAGES
            if any(u.stage == stage for u in units)
        }
        yield lambda event: bars.update(tasks[event.stage], advance=1)


def print_study(out: Console, result: StudyResult) -> None:
    """R2 of the first pass and of the trials, and where the page is."""
    table = Table(title="R2 and CPU seconds", title_justify="left")
    columns = ("spectrum", "method", "n", "failed", "median", "lowest", ">= 0.99", "CPU s")
    for name in columns:
        table.add_column(name, justify="left" if name in columns[:2] else "right")
    for row in fit_rows(result.data, ("first-pass", "trials")):
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
    out.print(f"{result.n_tasks} tasks in {result.wall_s:.1f} s")
    out.print(f"page: {escape(str(result.page))}", soft_wrap=True)
