"""Names and order of a scan's tasks; what is known of them without loading what runs them."""

from hpcxrf.config.regions import refine_tasks
from hpcxrf.pipeline.blocks import pixel_ranges
from hpcxrf.pipeline.records import BlockRange, DatasetJob
from hpcxrf.pipeline.settings_stamps import FITS, NORMALISE, QUANTIFY, READING, REGIONS, REPORT
from hpcxrf.runner.records import Unit


def units_of(job: DatasetJob) -> list[Unit]:
    """All tasks of a scan: ingest, integrated fit, pixels, what is derived of maps, regions, refinements, finalise."""
    ranges = pixel_ranges(job)
    pixels = tuple(pixel_task_name(blocks) for blocks in ranges)
    units = [
        Unit(task="ingest", stage="ingest", reads=job.reads("stamps", READING)),
        Unit(task="integrated", stage="integrated", needs=("ingest",), reads=job.reads("stamps", FITS, "donor")),
        *(Unit(task=pixel_task_name(r), stage="pixels", needs=("integrated",), work=r) for r in ranges),
    ]
    if job.config.normalise.wanted:
        units.append(
            Unit(task="normalise", stage="normalise", needs=pixels, reads=job.reads("reference_stamps", NORMALISE))
        )
    if job.config.quantify.wanted:
        reads = job.reads("standard_stamps", QUANTIFY)
        units.append(Unit(task="quantify", stage="quantify", needs=("normalise",), reads=reads))
    if job.config.regions.wanted:
        # Regions are found when the graph is already submitted: so many tasks share them, however many there are.
        slots = refine_tasks(job.config.regions)
        units.append(Unit(task="regions", stage="regions", needs=pixels, reads=job.reads("region_stamps", REGIONS)))
        units += [
            Unit(task=refine_task_name(slot), stage="refine", needs=("regions",), work=(slot, slots))
            for slot in range(slots)
        ]
    # Groups that are not wanted any more are taken out of the store when it is closed.
    reads = job.reads(NORMALISE, QUANTIFY, REGIONS, REPORT)
    return [*units, Unit(task="finalise", stage="finalise", needs=tuple(unit.task for unit in units), reads=reads)]


def pixel_task_name(blocks: BlockRange) -> str:
    """Identifier of a pixel task within its dataset."""
    return f"pixels-{blocks.detector}-{blocks.first:05}-{blocks.stop:05}"


def refine_task_name(slot: int) -> str:
    """Identifier of a refinement task within its dataset."""
    return f"refine-{slot:02}"
