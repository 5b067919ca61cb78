"""The Dask graph of one dataset: ingest -> integrated fit -> pixel tasks -> regions -> refinements -> finalise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future

from hpcxrf.config_regions import RegionsConfig, refine_tasks
from hpcxrf.pipeline.blocks import pixel_ranges
from hpcxrf.pipeline.records import STAGES, BlockRange, DatasetJob, Stage, TaskRecord
from hpcxrf.pipeline.regions_tasks import refine_task_name, run_refine, run_regions
from hpcxrf.pipeline.tasks import (
    pixel_task_name,
    run_finalise,
    run_ingest,
    run_integrated,
    run_pixels,
)
from hpcxrf.pipeline.worker import keep_record, kept_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One task of a dataset, in the order of the graph."""

    task: str
    stage: Stage
    blocks: BlockRange | None = None
    slot: tuple[int, int] | None = None
    """Of a refinement: which of how many."""


def units_of(job: DatasetJob) -> list[Unit]:
    """All tasks of a dataset; each needs the stages before its own."""
    pixels = [Unit(task=pixel_task_name(r), stage="pixels", blocks=r) for r in pixel_ranges(job)]
    return [
        Unit(task="ingest", stage="ingest"),
        Unit(task="integrated", stage="integrated"),
        *pixels,
        *_region_units(job.config.regions),
        Unit(task="finalise", stage="finalise"),
    ]


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
    if unit.blocks is not None:
        return run_pixels(job, unit.blocks, after)
    if unit.slot is not None:
        return run_refine(job, *unit.slot, after)
    if unit.stage == "ingest":
        return run_ingest(job)
    work = {"integrated": run_integrated, "regions": run_regions, "finalise": run_finalise}
    return work[unit.stage](job, after)


def _region_units(config: RegionsConfig) -> list[Unit]:
    if not config.wanted:
        return []
    # Regions are found when the graph is already submitted: so many tasks share them, however many there are.
    slots = refine_tasks(config)
    refine = [Unit(task=refine_task_name(i), stage="refine", slot=(i, slots)) for i in range(slots)]
    return [Unit(task="regions", stage="regions"), *refine]


def submit(
    client: Client, job: DatasetJob, finished: Mapping[str, TaskRecord], attempt: int
) -> dict[str, Future]:
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
