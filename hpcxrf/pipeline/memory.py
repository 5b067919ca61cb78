"""Peak memory of a worker by stage, known before anything runs: upper bounds above what an idle worker holds.

Every stage works in pieces whose size the stores fix, so that the bounds hardly depend on the size of a scan; only
regions are looked for on whole maps. Constants are rounded up from measured peaks.
"""

from collections.abc import Mapping
from typing import Final

from hpcxrf.config.sample import AUTO
from hpcxrf.methods import METHODS, PixelMethodName
from hpcxrf.pipeline.blocks import SAMPLE_PIXELS, tile_shape
from hpcxrf.pipeline.joined import scratch_bytes
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.records import STAGES, DatasetJob, Stage
from hpcxrf.store.schema import BAND_BUFFERS, BLOCK_X, BLOCK_Y, spectra_layout

_READ_FOR_SAMPLE: Final = 32 << 20
"""Bytes of the chunks that the sample is taken from, and of what the groups of its pixels are made of."""
IDLE_WORKER_BYTES: Final = 400 << 20
"""Resident memory of a worker that has done nothing: the libraries."""
# What a stage loads on first use, and what the allocator keeps of many sizes.
_LOADED: Final = 64 << 20
_LOADED_FOR_REGIONS: Final = 176 << 20
# The library of the pictures, and one figure in full resolution; maps are read in bands and thinned.
_LOADED_FOR_PAGE: Final = 192 << 20
# Tiles in memory: the one being fitted, the next one, what it is decoded from, and what the allocator keeps of them.
_TILES: Final = 8
_STORED_BYTES: Final = 2
COUNT_BYTES: Final = 4
"""Bytes of a count of a scan with large counts; its chunks have half as many pixels."""
_MANY_ELEMENTS: Final = 40
_BESIDE_ELEMENTS: Final = 10
# Arrays of a channel and component that a worker keeps for pixels that drift: points of expansion times what each has.
_EXPANDED: Final = 24 * 16
_SAMPLE_COPIES: Final = 4
NORMALISE_PIXELS: Final = 1 << 19
"""Pixels whose times and scalers are read at a time, unless a row of blocks has more."""
_NORMALISED_COPIES: Final = 6
_TIMES_COPIES: Final = 6
_SCALERS: Final = 12
# Freed memory is not given back at once: a scan of 8 GB took 1 % more than its bands and blocks hold on a quiet
# machine, and 20 to 28 % more where other programs kept the processors busy.
_KEPT_BY_ALLOCATOR: Final = 1.35


def stage_memory(job: DatasetJob, *, rows_per_read: int, source_itemsize: int, threads: int = 1) -> dict[Stage, int]:
    """Bytes above those of an idle worker, by stage of the run.

    Args:
        job: the dataset.
        rows_per_read: rows that its reader gives at a time.
        source_itemsize: bytes of a count in the file.
        threads: threads of the worker, on a CPU.
    """
    detectors, rows, columns, channels = job.shape
    layout = spectra_layout(job.shape, COUNT_BYTES)
    row_bytes = detectors * columns * channels
    band = min(layout.band_rows, rows) * row_bytes * COUNT_BYTES
    block = min(rows_per_read, rows) * row_bytes * max(source_itemsize, COUNT_BYTES)
    regions = job.config.regions
    found: dict[Stage, int] = {
        "ingest": _LOADED + int(_KEPT_BY_ALLOCATOR * ((BAND_BUFFERS + 1) * band + 2 * block)),
        "integrated": _LOADED + detectors * channels * components_of(job) * 256 + _sample_bytes(job),
        "pixels": _LOADED + _pixel_bytes(job, threads),
        "finalise": _LOADED_FOR_PAGE,
    }
    if job.config.normalise.wanted:
        found["normalise"] = _LOADED + _normalise_bytes(job)
    if job.config.quantify.wanted:
        # A standard is ingested and fitted as a scan is, and it is no larger than the samples, as a rule.
        found["quantify"] = max(found["ingest"], found["integrated"], found["normalise"])
    if regions.wanted:
        maps = rows * columns * (8 * components_of(job) + 48)
        found["regions"] = _LOADED_FOR_REGIONS + maps + 64 * detectors * channels * 8
        if regions.refine:
            block_counts = BLOCK_Y * BLOCK_X * channels * COUNT_BYTES
            named = [] if isinstance(regions.remap, bool) else [regions.remap]
            again = 3 * block_counts + _expansion_bytes(job, *named)
            found["refine"] = found["integrated"] + (again if regions.remap else 0)
    # A folder in memory counts as memory of the process that writes into it.
    beside = scratch_bytes(job) if job.join else 0
    return {stage: found[stage] + beside for stage in STAGES if stage in found}


def components_of(job: DatasetJob) -> int:
    """Number of elements and of what is fitted beside them, about, at most.

    An override file may list elements that the run file does not.
    """
    listed = 0 if job.config.sample.elements == AUTO else len(job.config.sample.elements)
    return (listed or _MANY_ELEMENTS) + _BESIDE_ELEMENTS


def _pixel_bytes(job: DatasetJob, threads: int) -> int:
    channels = job.shape[3]
    chunks = spectra_layout(job.shape, _STORED_BYTES).chunks
    height, width = tile_shape((chunks[1], chunks[2]), _STORED_BYTES * channels)
    tile = height * width * channels * _STORED_BYTES
    if SUM in job.detectors:
        tile *= 2
    results = BLOCK_Y * BLOCK_X * (3 * components_of(job) + 2) * 4
    method = job.config.pixels.method
    fitted = threads * METHODS[method].cpu_batch * channels * 4 * 4
    return _TILES * tile + 4 * results + fitted + _expansion_bytes(job)


def _expansion_bytes(job: DatasetJob, *others: PixelMethodName) -> int:
    """Bytes of the points of expansion, where pixels are followed by the scan's method or by another one."""
    if not any(METHODS[name].tangents for name in (job.config.pixels.method, *others)):
        return 0
    return _EXPANDED * job.shape[3] * components_of(job) * 4


def _normalise_bytes(job: DatasetJob) -> int:
    """Bytes of a block of the maps of all detectors, with what is made of them, and of the times of many rows."""
    block = len(job.detectors) * components_of(job) * BLOCK_Y * BLOCK_X * 8 * _NORMALISED_COPIES
    rows = max(NORMALISE_PIXELS, BLOCK_Y * job.shape[2])
    return block + rows * (job.shape[0] * _TIMES_COPIES + _SCALERS) * 8


def _sample_bytes(job: DatasetJob) -> int:
    """Bytes of the pixels in which scatter is measured and weight classes are looked for, and of the chunk with them.

    Half of them are taken for the scatter, in float64 with their square; all for the classes, in float32.
    """
    number = min(job.shape[1] * job.shape[2], SAMPLE_PIXELS)
    return _SAMPLE_COPIES * number * job.shape[3] * 4 + _READ_FOR_SAMPLE


def memory_fault(memory: Mapping[Stage, int], worker_bytes: int) -> str | None:
    """Reason why a worker of so much memory cannot do it, with both numbers; None: it can.

    Args:
        memory: bytes by stage, from `stage_memory`.
        worker_bytes: memory limit of one worker.
    """
    stage, most = max(memory.items(), key=lambda item: item[1])
    needed = IDLE_WORKER_BYTES + most
    if needed <= worker_bytes:
        return None
    return (
        f"stage {stage} needs {needed / 1e9:.2f} GB in one worker, a worker has {worker_bytes / 1e9:.2f} GB; "
        "set execution.workers lower, or run where there is more memory"
    )
