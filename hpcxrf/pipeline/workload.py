"""The workload `scan`: element maps of every scan of a run file."""

from collections.abc import Mapping, Sequence
from typing import Final

from hpcxrf.config.run import RunConfig, effective
from hpcxrf.errors import OutputError
from hpcxrf.pipeline.blocks import block_of_job
from hpcxrf.pipeline.joined import is_joined
from hpcxrf.pipeline.plan import plan_scans
from hpcxrf.pipeline.printout import describe_scans
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.request import check_request
from hpcxrf.pipeline.units import units_of
from hpcxrf.runner.ending import RunEnd
from hpcxrf.runner.records import TaskRecord, Unit
from hpcxrf.runner.workload import Workload
from hpcxrf.store.packed import has_root, is_store, read_root, remove_store
from hpcxrf.store.rundir import RETRY, Record, RunDir
from hpcxrf.store.schema import BLOCK_ATTRIBUTE, BLOCK_X, BLOCK_Y

STAGE_TITLES: Final = {
    "ingest": "ingest into Zarr",
    "integrated": "integrated spectra",
    "pixels": "pixels",
    "normalise": "normalise maps",
    "quantify": "areal densities",
    "regions": "find regions",
    "refine": "refine regions",
    "finalise": "close stores, draw",
}


def run_unit(job: DatasetJob, unit: Unit, after: Sequence[TaskRecord]) -> TaskRecord:
    """Do one task of a scan on a worker.

    Args:
        job: the scan.
        unit: one of `units_of`.
        after: records of the units that it needs.
    """
    # Torch, and all that reads and writes: for the workers, never for the driver that submits this.
    from hpcxrf.pipeline import tasks
    from hpcxrf.pipeline.normalise.task import run_normalise
    from hpcxrf.pipeline.provenance import mark_task
    from hpcxrf.pipeline.quantify.task import run_quantify
    from hpcxrf.pipeline.regions import tasks as regions

    if unit.stage == "ingest":
        return tasks.run_ingest(job)
    if unit.stage in {"integrated", "finalise"}:
        return (tasks.run_integrated if unit.stage == "integrated" else tasks.run_finalise)(job, after)
    if unit.stage == "pixels":
        record = tasks.run_pixels(job, unit.work, after)
    elif unit.stage == "refine":
        slot, slots = unit.work
        record = regions.run_refine(job, slot, slots, after)
    else:
        work = {"normalise": run_normalise, "quantify": run_quantify, "regions": regions.run_regions}
        record = work[unit.stage](job, after)
    return mark_task(record, RunDir(path=job.run_dir).results_store(job.dataset_id))


def run_joined(job: DatasetJob, units: Sequence[Unit]) -> list[TaskRecord] | None:
    """Do all tasks of a small scan on a worker; None: they are to be done one by one there.

    Args:
        job: the scan.
        units: all of `units_of`.
    """
    from hpcxrf.pipeline import joined

    return joined.run_joined(job, units)


def is_there(job: DatasetJob, unit: Unit) -> bool:
    """Whether the store that a task wrote into is still there; nothing but the integrated fit makes that of results."""
    run = RunDir(path=job.run_dir)
    if unit.stage == "ingest":
        return has_root(run.spectra_store(job.dataset_id))
    return unit.stage != "integrated" or _has_blocks(job)


def _has_blocks(job: DatasetJob) -> bool:
    """Whether the results are there, with maps of the blocks that its tasks write: older versions had larger ones."""
    try:
        attributes = read_root(RunDir(path=job.run_dir).results_store(job.dataset_id)).get("attributes", {})
    except OutputError:
        return False
    return list(attributes.get(BLOCK_ATTRIBUTE, (BLOCK_Y, BLOCK_X))) == list(block_of_job(job))


def reopen(job: DatasetJob, last: Mapping[str, Record]) -> None:
    """Prepare what is there of an unfinished scan: spectra that were found damaged go, results are not complete.

    Args:
        job: the scan.
        last: the last line of each task in its journal.
    """
    run = RunDir(path=job.run_dir)
    ingest = last.get("ingest", {})
    if ingest.get("event") == RETRY and ingest.get("damaged"):
        remove_store(run.spectra_store(job.dataset_id))
    path = run.results_store(job.dataset_id)
    if is_store(path):
        # Loads zarr and xarray, which the driver of a new run has no need of.
        from hpcxrf.results.store import maps

        maps.reopen(path)


def summarise(config: RunConfig, end: RunEnd) -> None:
    """Write the report of a run from its records, and of one over a catalogue the index of its results."""
    from hpcxrf.pipeline.index import write_index
    from hpcxrf.pipeline.report import write_run_report

    write_run_report(config, end)
    if config.input.catalogue is not None:
        write_index(end.run, config)


def list_fixed(config: RunConfig) -> tuple[str, ...] | None:
    """What must be the same when a run goes on: of one over a catalogue no more than which catalogue it is."""
    return None if config.input.catalogue is None else ("input.catalogue",)


SCAN: Final = Workload(
    name="scan",
    stages=STAGE_TITLES,
    page="report.html",
    reads_files=True,
    one_core=False,
    check=check_request,
    lasting=effective,
    fixed=list_fixed,
    plan=plan_scans,
    units_of=units_of,
    run_unit=run_unit,
    joins=is_joined,
    run_joined=run_joined,
    foresees=lambda _job: True,
    is_there=is_there,
    reopen=reopen,
    summarise=summarise,
    describe=describe_scans,
)
"""Ingest, integrated fit, pixels, regions, report of every scan."""
