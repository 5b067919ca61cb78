"""How much work a plan is: tasks, pixels, bytes. From headers alone; neither torch nor dask is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.regions import refine_tasks
from hpcxrf.config.sample import AUTO
from hpcxrf.methods import METHODS
from hpcxrf.pipeline.blocks import pixel_ranges
from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.records import DatasetJob, Stage
from hpcxrf.store.packed import MOST_PACKED_BYTES
from hpcxrf.store.schema import MODEL_VARIABLES, TILE_SIDE, TILED_PIXELS, band_count, spectra_layout

# Of a scan whose elements are in its override file, which nobody has read yet.
_USUAL_COMPONENTS: Final = 20
_BEYOND_ELEMENTS: Final = 2
_COUNTS_BYTES: Final = 2
_TIMES_BYTES: Final = 4 * 8
# Amplitude, sigma and detection limit of a component; status, deviance and deviance_z of a pixel.
_COMPONENT_BYTES: Final = 3 * 4
_PIXEL_BYTES: Final = 9
# Theta's shift and its sigma, of as many parameters as `pixel_model.free_parameters` names, which loads torch.
_SHIFT_BYTES: Final = 2 * 4
_SHIFTS: Final = 3
# An array in a folder is that folder, its metadata and one file of numbers; a group is two.
_ARRAY_INODES: Final = 3
_GROUP_INODES: Final = 2
_TILE_BYTES: Final = 4
_SPECTRA_ARRAYS: Final = 16
_RESULTS_ARRAYS: Final = 44
_REGION_ARRAYS: Final = 26
# Normalised maps with their coordinates.
_NORMALISED_ARRAYS: Final = 13
_DENSITY_ARRAYS: Final = 14
# Where pixels have a theta of their own: shifts and tangents, and the model of each detector.
_FREE_ARRAYS: Final = 9
_MODEL_ARRAYS: Final = len(MODEL_VARIABLES) + 2
# Run file, configurations, logs, report, records, lock, and the folders of all that.
_RUN_INODES: Final = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSize:
    """What a plan adds up to."""

    datasets: int
    tasks: dict[Stage, int]
    spectra: int
    """Integrated spectra to be fitted: detectors of all scans; their sum takes the fits of its detectors."""
    pixels: int
    """Pixel spectra to be fitted, of all detectors of the results and of their sum."""
    bytes_read: int
    """Of the scans' files."""
    bytes_written: int
    """Before compression, which takes sparse counts to a fifth or less."""
    inodes: int
    """Files and folders that the run leaves at most."""


def measure_plan(plan: Plan) -> PlanSize:
    """Add a plan up."""
    tasks: dict[Stage, int] = {}
    for job in plan.jobs:
        for stage, number in task_counts(job).items():
            tasks[stage] = tasks.get(stage, 0) + number
    return PlanSize(
        datasets=len(plan.jobs),
        tasks=tasks,
        spectra=sum(job.shape[0] for job in plan.jobs),
        pixels=sum(pixel_spectra(job) for job in plan.jobs),
        bytes_read=sum(_bytes_read(job) for job in plan.jobs),
        bytes_written=sum(bytes_written(job) for job in plan.jobs),
        inodes=_RUN_INODES + sum(count_inodes(job) for job in plan.jobs),
    )


def task_counts(job: DatasetJob) -> dict[Stage, int]:
    """Tasks of a dataset by stage."""
    counts: dict[Stage, int] = {"ingest": 1, "integrated": 1, "pixels": len(pixel_ranges(job))}
    if job.config.normalise.wanted:
        counts["normalise"] = 1
    if job.config.quantify.wanted:
        counts["quantify"] = 1
    if job.config.regions.wanted:
        counts["regions"] = 1
    if number := refine_tasks(job.config.regions):
        counts["refine"] = number
    return {**counts, "finalise": 1}


def pixel_spectra(job: DatasetJob) -> int:
    """Pixel spectra of a dataset that are fitted."""
    return len(job.detectors) * job.shape[1] * job.shape[2]


def count_inodes(job: DatasetJob) -> int:
    """Files and folders that a dataset leaves at most: stores, journal, page and table of regions."""
    regions = job.config.regions.wanted
    beside = 2 + regions
    if job.pack and bytes_written(job) <= MOST_PACKED_BYTES:
        return beside + 2
    bands = band_count(job.shape[1], spectra_layout(job.shape, _COUNTS_BYTES).band_rows)
    arrays, groups = _SPECTRA_ARRAYS + _RESULTS_ARRAYS + _REGION_ARRAYS * regions, 6 + regions
    if job.config.normalise.wanted:
        arrays, groups = arrays + _NORMALISED_ARRAYS, groups + 1
    if job.config.quantify.wanted:
        arrays, groups = arrays + _DENSITY_ARRAYS, groups + 1
    if METHODS[job.config.pixels.method].free:
        arrays, groups = arrays + _FREE_ARRAYS, groups + 1 + len(job.detectors)
        arrays += _MODEL_ARRAYS * len(job.detectors)
    return beside + _ARRAY_INODES * arrays + _GROUP_INODES * groups + bands - 1


def _bytes_read(job: DatasetJob) -> int:
    # The stamps name every file of the scan, and the few that steer its fit.
    return sum(path.stat().st_size for path in _files(job.stamps) if path.is_file())


def _files(stamps: Sequence[tuple[str, str]]) -> list[Path]:
    return [Path(name) for name, stamp in stamps if not stamp.startswith("sha256")]


def bytes_written(job: DatasetJob) -> int:
    """Of a dataset, before compression."""
    n_detectors, n_y, n_x, n_channels = job.shape
    listed = 0 if job.config.sample.elements == AUTO else len(job.config.sample.elements)
    components = listed + _BEYOND_ELEMENTS if listed else _USUAL_COMPONENTS
    shifts = _SHIFTS if METHODS[job.config.pixels.method].free else 0
    tiles = n_channels * _TILE_BYTES // TILE_SIDE**2 if n_y * n_x > TILED_PIXELS else 0
    spectra = n_detectors * n_y * n_x * (n_channels * _COUNTS_BYTES + tiles + _TIMES_BYTES)
    pixel = components * _COMPONENT_BYTES + shifts * _SHIFT_BYTES + _PIXEL_BYTES
    combined = len([name for name in job.detectors if name != SUM]) > 1
    # Live times and flags of every entry, I0, and the maps of the entry that stands for all.
    derived = components * 12 + 5 * (len(job.detectors) + combined) + 8 if job.config.normalise.wanted else 0
    derived += components * 16 if job.config.quantify.wanted else 0
    return spectra + pixel_spectra(job) * pixel + n_y * n_x * derived
