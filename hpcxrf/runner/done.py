"""What of a plan an earlier driver finished, by the journals; needs neither torch nor dask."""

import json
from pathlib import Path

from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.records import STAGES, DatasetJob, Stage, TaskRecord
from hpcxrf.pipeline.units import units_of
from hpcxrf.runner.journal import made_from, record_of
from hpcxrf.store.rundir import RunDir, still_finished


def finished_tasks(run: RunDir, job: DatasetJob) -> dict[str, TaskRecord]:
    """Records of the tasks whose journal line still holds: what they wrote is there, bit for bit.

    A task counts only while everything that it was made from counts: a new ingest undoes the fits.
    """
    # The last line of a task counts; looked for once, since a scan has thousands of tasks.
    last = {line.get("task"): line for line in run.read_journal(job.dataset_id)}
    done: dict[str, TaskRecord] = {}
    complete: dict[Stage, bool] = {}
    for unit in units_of(job):
        earlier = STAGES[: STAGES.index(unit.stage)]
        line = last.get(unit.task)
        if (
            line is not None
            and all(complete.get(stage, True) for stage in earlier)
            and still_finished(run, [line], unit.task)
            and made_from(line, job)
            and (unit.stage != "integrated" or has_root(run.results_store(job.dataset_id)))
        ):
            done[unit.task] = record_of(line)
        else:
            complete[unit.stage] = False
    return done


def has_root(store: Path) -> bool:
    """Whether the metadata of a store can be read; the integrated fit makes them, and nothing else does it again."""
    try:
        json.loads((store / "zarr.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True


def all_finished(plan: Plan, run: RunDir) -> bool:
    """Whether nothing of a plan is left to do, every result being there, bit for bit."""
    return not plan.refusals and all(len(finished_tasks(run, job)) == len(units_of(job)) for job in plan.jobs)
