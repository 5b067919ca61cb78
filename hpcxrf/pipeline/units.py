"""Names and order of a dataset's tasks; what is known of them without loading what runs them."""

from dataclasses import dataclass

from hpcxrf.config.regions import RegionsConfig, refine_tasks
from hpcxrf.pipeline.blocks import pixel_ranges
from hpcxrf.pipeline.records import BlockRange, DatasetJob, Stage


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


def pixel_task_name(blocks: BlockRange) -> str:
    """Identifier of a pixel task within its dataset."""
    return f"pixels-{blocks.detector}-{blocks.first:05}-{blocks.stop:05}"


def refine_task_name(slot: int) -> str:
    """Identifier of a refinement task within its dataset."""
    return f"refine-{slot:02}"


def _region_units(config: RegionsConfig) -> list[Unit]:
    if not config.wanted:
        return []
    # Regions are found when the graph is already submitted: so many tasks share them, however many there are.
    slots = refine_tasks(config)
    refine = [Unit(task=refine_task_name(i), stage="refine", slot=(i, slots)) for i in range(slots)]
    return [Unit(task="regions", stage="regions"), *refine]
