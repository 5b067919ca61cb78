"""Memory of a GPU while pixels are fitted, known before anything runs; needs neither torch nor a GPU.

A task holds the counts of two tiles (one is fitted, the next is copied), the float32 arrays of the pixels that are
fitted at a time, and the results of its block. How many pixels that is adapts to the memory that is free: from
`LEAST_BATCH`, below which a task fails, to a whole map block.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpcxrf.methods import METHODS, PixelMethodName
from hpcxrf.pipeline.memory import COUNT_BYTES, components_of
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.store.schema import BLOCK_X, BLOCK_Y

LEAST_BATCH: Final = 256
MOST_BATCH: Final = 16384
# Context, kernels and workspaces of the libraries, before the first tile; a rounded-up estimate.
_CONTEXT: Final = 1 << 30
_TILES: Final = 2
# Those of the parts and those of the whole block.
_RESULTS: Final = 2
# Columns of the background beyond the few among the components.
_MORE_BACKGROUND: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of one worker's GPU, in bytes; upper bounds."""

    least: int
    """Bytes with `LEAST_BATCH` pixels at a time; on a smaller device nothing works."""
    most: int
    """Bytes with a whole block at a time; a larger device is not filled."""


def bytes_of_a_pixel(n_channels: int, n_columns: int, n_with_changes: int, method: PixelMethodName) -> int:
    """Device memory of one pixel while it is fitted, about.

    Args:
        n_channels: channels of the fit range.
        n_columns: columns of the design matrix.
        n_with_changes: number of columns and of their changes with theta, where pixels are followed; else `n_columns`.
        method: method of the pixels.
    """
    return 4 * (METHODS[method].gpu_copies * n_channels + 8 * n_with_changes + 4 * n_columns**2)


def device_memory(job: DatasetJob) -> DeviceMemory:
    """Memory that the pixels of a dataset take of a GPU."""
    n_channels, n_columns = job.shape[3], components_of(job) + _MORE_BACKGROUND
    remap = job.config.regions.remap
    methods: set[PixelMethodName] = {job.config.pixels.method, *([] if isinstance(remap, bool) else [remap])}
    block = BLOCK_Y * BLOCK_X
    fixed = _CONTEXT + _TILES * block * n_channels * COUNT_BYTES
    fixed += _RESULTS * block * (3 * n_columns + 2) * 4
    # As many derivatives as columns times the parameters that drift, a few of them.
    pixel = max(bytes_of_a_pixel(n_channels, n_columns, 4 * n_columns, method) for method in methods)
    return DeviceMemory(least=fixed + LEAST_BATCH * pixel, most=fixed + MOST_BATCH * pixel)


def largest_device_memory(jobs: Iterable[DatasetJob]) -> DeviceMemory | None:
    """Memory of the dataset which takes most; None: none of them is fitted on a GPU."""
    found = [device_memory(job) for job in jobs if job.config.execution.device != "cpu"]
    return max(found, key=lambda memory: memory.least, default=None)


def device_fault(memory: DeviceMemory, device_bytes: int) -> str | None:
    """Reason why a GPU of so much memory cannot do it, with both numbers; None: it can."""
    if memory.least <= device_bytes:
        return None
    return (
        f"pixels need {memory.least / 1e9:.2f} GB of a GPU with {LEAST_BATCH} at a time, a GPU has "
        f"{device_bytes / 1e9:.2f} GB; name a site with larger ones, or set execution.device: cpu"
    )
