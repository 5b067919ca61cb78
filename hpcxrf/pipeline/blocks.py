"""Map blocks: how a scan is cut into chunks of the maps, and how many of them make a task.

Both follow from the scan and the method alone, never from the machine: results are the same to the bit wherever they
are made, and a run that goes on elsewhere keeps the tasks that it has done.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

from hpcxrf.methods import METHODS, PixelMethodName
from hpcxrf.pipeline.records import BlockRange, DatasetJob
from hpcxrf.store.schema import BLOCK_X, BLOCK_Y

_TASK_S: Final = 10.0
"""Longest task, about: short against a node's remaining time."""
_TASKS: Final = 256
"""Tasks that a scan has if that makes them long enough: two for every core of a large node."""
_LEAST_TASK_S: Final = 0.125
"""Shortest task, about: each pays some 20 ms for what it shares with others of its dataset, and for its last block."""
_LEAST_ROWS: Final = 16
_LEAST_COLUMNS: Final = 16
_FEWEST_ROWS: Final = 4
"""Blocks lose rows first, down to the rows of a chunk of the counts, then columns, and then rows again."""

TILE_BYTES: Final = 8 << 20
"""Largest size of a tile, the unit in which pixels are read and fitted, unless one chunk is more."""

SAMPLE_PIXELS: Final = 1024
"""Number of a scan's pixels in which weight classes are looked for, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One chunk of the maps."""

    y: slice
    x: slice


def pixels_of(block: Block) -> int:
    """Number of pixels of a block."""
    return int((block.y.stop - block.y.start) * (block.x.stop - block.x.start))


def blocks_of(shape_yx: tuple[int, int], block_yx: tuple[int, int] = (BLOCK_Y, BLOCK_X)) -> list[Block]:
    """All blocks of a scan, row by row, clipped to it.

    Args:
        shape_yx: pixels of the scan.
        block_yx: rows and columns of a block.
    """
    n_y, n_x = shape_yx
    return [
        Block(y=slice(y, min(y + block_yx[0], n_y)), x=slice(x, min(x + block_yx[1], n_x)))
        for y in range(0, n_y, block_yx[0])
        for x in range(0, n_x, block_yx[1])
    ]


def tile_shape(chunk_yx: tuple[int, int], pixel_bytes: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole chunks, as wide as a block where that is not too much.

    Args:
        chunk_yx: rows and columns of a chunk of the counts in their store.
        pixel_bytes: bytes of one spectrum.
    """
    rows = min(chunk_yx[0], BLOCK_Y)
    columns = min(chunk_yx[1], BLOCK_X)
    across = TILE_BYTES // (rows * columns * pixel_bytes)
    columns = min(columns * max(across, 1), BLOCK_X)
    down = TILE_BYTES // (rows * columns * pixel_bytes)
    return min(rows * max(down, 1), BLOCK_Y), columns


def count_tasks(
    shape_yx: tuple[int, int],
    n_channels: int,
    method: PixelMethodName,
    *,
    n_detectors: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
) -> int:
    """Number of tasks that the pixels of each detector should be, by the rate of the method.

    Args:
        shape_yx: pixels of the scan.
        n_channels: channels of a spectrum.
        method: method of the pixels.
        n_detectors: detectors of the results, whose tasks run beside one another.
        device: kind of device.
    """
    rate = METHODS[method].cpu_rate if device == "cpu" else METHODS[method].gpu_rate
    work_s = shape_yx[0] * shape_yx[1] * n_channels / rate
    wanted = min(max(work_s / _TASK_S, _TASKS / n_detectors), work_s / _LEAST_TASK_S)
    # A power of two, as cores are: of three tasks on two workers, one is what the other worker waits for.
    return int(2 ** max(0, round(math.log2(wanted))))


def block_shape(
    shape_yx: tuple[int, int], n_channels: int, method: PixelMethodName, n_detectors: int = 1
) -> tuple[int, int]:
    """Rows and columns of the blocks of a scan: 64 x 256, or smaller ones where it is to be more tasks than that.

    Args:
        shape_yx: pixels of the scan.
        n_channels: channels of a spectrum.
        method: method of the pixels.
        n_detectors: detectors of the results.
    """
    wanted = count_tasks(shape_yx, n_channels, method, n_detectors=n_detectors)
    rows, columns = BLOCK_Y, BLOCK_X
    while len(blocks_of(shape_yx, (rows, columns))) < wanted and rows > _FEWEST_ROWS:
        if rows > _LEAST_ROWS or columns <= _LEAST_COLUMNS:
            rows //= 2
        else:
            columns //= 2
    return rows, columns


def block_of_job(job: DatasetJob) -> tuple[int, int]:
    """Rows and columns of the blocks of a dataset."""
    return block_shape(job.shape[1:3], job.shape[3], job.config.pixels.method, len(job.detectors))


def pixel_ranges(job: DatasetJob) -> list[BlockRange]:
    """The pixel tasks of a dataset: every detector's blocks, cut; how they are cut changes no result."""
    n_blocks = len(blocks_of(job.shape[1:3], block_of_job(job)))
    each = job.config.pixels.blocks_per_task
    if each is None:
        device: Literal["cpu", "cuda"] = "cuda" if job.config.execution.device == "cuda" else "cpu"
        method, n_detectors = job.config.pixels.method, len(job.detectors)
        tasks = count_tasks(job.shape[1:3], job.shape[3], method, n_detectors=n_detectors, device=device)
        each = -(-n_blocks // tasks)
    return [
        BlockRange(detector=d, first=i, stop=min(i + each, n_blocks))
        for d in job.detectors
        for i in range(0, n_blocks, each)
    ]
