"""Map blocks: how a scan is cut, fixed by the schema, and how many of them make a task."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from hpcxrf.methods import METHODS, PixelMethodName
from hpcxrf.pipeline.records import BlockRange, DatasetJob
from hpcxrf.store.schema import BLOCK_X, BLOCK_Y

# Short against a node's remaining time.
_TASK_S: Final = 10.0
# Tasks for every core of a small machine are worth more than long ones, but not shorter ones than this: a task pays
# 50 ms for opening the stores, its first tile, which nothing overlaps, and its last block.
_LEAST_TASKS: Final = 8
_LEAST_TASK_S: Final = 1.0

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


def blocks_of(shape_yx: tuple[int, int]) -> list[Block]:
    """All blocks of a scan, row by row, clipped to it."""
    n_y, n_x = shape_yx
    return [
        Block(y=slice(y, min(y + BLOCK_Y, n_y)), x=slice(x, min(x + BLOCK_X, n_x)))
        for y in range(0, n_y, BLOCK_Y)
        for x in range(0, n_x, BLOCK_X)
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


def blocks_of_a_task(
    shape_yx: tuple[int, int], n_channels: int, method: PixelMethodName, device: Literal["cpu", "cuda"] = "cpu"
) -> int:
    """Number of blocks that one task should have: some seconds of work by method and device.

    Args:
        shape_yx: pixels of the scan.
        n_channels: channels of a spectrum.
        method: method of the pixels.
        device: kind of device.
    """
    rate = METHODS[method].cpu_rate if device == "cpu" else METHODS[method].gpu_rate
    work_s = shape_yx[0] * shape_yx[1] * n_channels / rate
    task_s = min(_TASK_S, max(work_s / _LEAST_TASKS, _LEAST_TASK_S))
    # A power of two, as cores are: of three tasks on two workers, one is what the other worker waits for.
    n_tasks: int = 2 ** max(0, round(math.log2(work_s / task_s)))
    return -(-len(blocks_of(shape_yx)) // n_tasks)


def block_ranges(shape_yx: tuple[int, int], detectors: tuple[str, ...], blocks_per_task: int) -> list[BlockRange]:
    """Cut every detector's blocks into tasks; how they are cut changes no result."""
    n_blocks = len(blocks_of(shape_yx))
    return [
        BlockRange(detector=d, first=i, stop=min(i + blocks_per_task, n_blocks))
        for d in detectors
        for i in range(0, n_blocks, blocks_per_task)
    ]


def pixel_ranges(job: DatasetJob) -> list[BlockRange]:
    """The pixel tasks of a dataset."""
    wanted = job.config.pixels.blocks_per_task
    if wanted is None:
        device: Literal["cpu", "cuda"] = "cuda" if job.config.execution.device == "cuda" else "cpu"
        wanted = blocks_of_a_task(job.shape[1:3], job.shape[3], job.config.pixels.method, device)
    return block_ranges(job.shape[1:3], job.detectors, wanted)
