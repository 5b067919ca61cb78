"""The Dask graph of one dataset: ingest -> integrated fit -> pixel tasks -> finalise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future

from hpcxrf.pipeline.blocks import block_ranges
from hpcxrf.pipeline.records import BlockRange, DatasetJob, Stage, TaskRecord
from hpcxrf.pipeline.tasks import (
    pixel_task_name,
    run_finalise,
    run_ingest,
    run_integrated,
    run_pixels,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One task of a dataset, in the order of the graph."""

    task: str
    stage: Stage
    blocks: BlockRange | None = None


def units_of(job: DatasetJob) -> list[Unit]:
    """All tasks of a dataset; each needs the stages before its own."""
    ranges = block_ranges(
        job.shape[1:3], job.shape[3], job.detectors, job.config.pixels.blocks_per_task
    )
    pixels = [Unit(task=pixel_task_name(r), stage="pixels", blocks=r) for r in ranges]
    return [
        Unit(task="ingest", stage="ingest"),
        Unit(task="integrated", stage="integrated"),
        *pixels,
        Unit(task="finalise", stage="finalise"),
    ]


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
    before: dict[Stage, list[Any]] = {"ingest": [], "integrated": [], "pixels": [], "finalise": []}
    functions = {"ingest": run_ingest, "integrated": run_integrated, "finalise": run_finalise}
    previous: dict[Stage, Stage] = {
        "integrated": "ingest",
        "pixels": "integrated",
        "finalise": "pixels",
    }
    for index, unit in enumerate(units_of(job)):
        known: Any = finished.get(unit.task)
        if known is None:
            after = [before[previous[unit.stage]]] if unit.stage in previous else []
            work = functions.get(unit.stage, run_pixels)
            middle = [unit.blocks] if unit.blocks is not None else []
            key = f"{unit.stage}-{job.number:06}-{index:05}-{attempt}"
            known = futures[unit.task] = client.submit(
                work, job, *middle, *after, key=key, pure=False
            )
        before[unit.stage].append(known)
    return futures
