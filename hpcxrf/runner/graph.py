"""The Dask graph of one dataset: ingest -> integrated fit -> pixel tasks -> regions -> refinements -> finalise."""

from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client, Future

from hpcxrf.pipeline.records import STAGES, DatasetJob, Stage, TaskRecord
from hpcxrf.pipeline.units import Unit, units_of
from hpcxrf.runner.worker import keep_record, kept_record


def run_unit(job: DatasetJob, unit: Unit, after: Sequence[TaskRecord]) -> TaskRecord:
    """What a worker runs for a unit; one that was finished under this driver is not run again.

    Args:
        job: the dataset.
        unit: of `units_of`.
        after: records of the units that it needs.
    """
    known = kept_record(job, unit.task)
    if known is not None:
        return known
    record = _work(job, unit, after)
    keep_record(job, record)
    return record


def _work(job: DatasetJob, unit: Unit, after: Sequence[TaskRecord]) -> TaskRecord:
    # Torch, and all that reads and writes: for the workers, never for the driver that submits this.
    from hpcxrf.pipeline import tasks
    from hpcxrf.pipeline.regions import tasks as regions_tasks

    if unit.blocks is not None:
        return tasks.run_pixels(job, unit.blocks, after)
    if unit.slot is not None:
        return regions_tasks.run_refine(job, *unit.slot, after)
    if unit.stage == "ingest":
        return tasks.run_ingest(job)
    work = {"integrated": tasks.run_integrated, "regions": regions_tasks.run_regions, "finalise": tasks.run_finalise}
    return work[unit.stage](job, after)


def submit(client: Client, job: DatasetJob, finished: Mapping[str, TaskRecord], attempt: int) -> dict[str, Future]:
    """Submit what is missing of a dataset.

    Args:
        client: of the cluster.
        job: the dataset.
        finished: records of the tasks that need not run again.
        attempt: distinguishes the keys of a second submission.

    Returns:
        Futures by task, in the order of the graph. Keys carry counters, never the sample's name: they are
        visible on the dashboard.
    """
    futures: dict[str, Future] = {}
    done: dict[Stage, list[Any]] = {stage: [] for stage in STAGES}
    for index, unit in enumerate(units_of(job)):
        known: Any = finished.get(unit.task)
        if known is None:
            key = f"{unit.stage}-{job.number:06}-{index:05}-{attempt}"
            known = futures[unit.task] = client.submit(
                run_unit, job, unit, _needed(unit.stage, done), key=key, pure=False
            )
        done[unit.stage].append(known)
    return futures


def _needed(stage: Stage, done: Mapping[Stage, list[Any]]) -> list[Any]:
    """What the stage before produces; the last stage waits for everything, and reads what the pixels say."""
    earlier = STAGES[: STAGES.index(stage)]
    if stage == "finalise":
        return [record for name in earlier for record in done[name]]
    return list(done[earlier[-1]]) if earlier else []
