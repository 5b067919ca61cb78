"""How many tasks a run has, counted before anything of it is done."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcxrf.config.run import RunConfig
from hpcxrf.notes import Note
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.runner.workload import PlanRequest, Workload
from hpcxrf.store.rundir import create_or_resume


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCounts:
    """What a plan adds up to, whatever its workload."""

    items: int
    """Datasets, or the steps of a study."""
    tasks: dict[str, int]
    """Known tasks by stage."""
    unforeseen: int
    """Items whose tasks are known only when others are done."""
    refusals: tuple[Refusal, ...]
    notes: tuple[Note, ...]


def count_tasks(
    workload: Workload, config: RunConfig, run_text: str, opened: Callable[[int, int], None] = lambda _n, _of: None
) -> TaskCounts:
    """Make the plan of a run in a folder that is gone afterwards, and count.

    Args:
        workload: what is to be run.
        config: a checked run file.
        run_text: its text.
        opened: called with (files opened, files) as it goes.

    Raises:
        InputFileError: no scan was found.
    """
    tasks: dict[str, int] = {}
    refusals: list[Refusal] = []
    notes: list[Note] = []
    items = unforeseen = 0
    with tempfile.TemporaryDirectory(prefix="hpcxrf-plan-") as folder:
        run = create_or_resume(Path(folder, "run"), run_text, workload.lasting(config))
        request = PlanRequest(config=config, run_dir=run.path, kept={}, note=notes.append, opened=opened)
        for one in workload.plan(request):
            if isinstance(one, Refusal):
                refusals.append(one)
            elif not isinstance(one, Kept):
                items += 1
                unforeseen += not workload.foresees(one)
                for unit in workload.units_of(one) if workload.foresees(one) else ():
                    tasks[unit.stage] = tasks.get(unit.stage, 0) + 1
    return TaskCounts(items=items, tasks=tasks, unforeseen=unforeseen, refusals=tuple(refusals), notes=tuple(notes))
