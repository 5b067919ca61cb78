"""Map blocks: how a scan is cut, fixed by the schema, and how many of them make a task."""

from dataclasses import dataclass
from typing import Final

from hpcxrf.pipeline.records import BlockRange
from hpcxrf.store.schema import BLOCK_X, BLOCK_Y

# A task of about this many channels of pixels takes some seconds on one core: long against scheduling (5 ms),
# short against a node's remaining time.
_CHANNEL_PIXELS_PER_TASK: Final = 4e8


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One chunk of the maps."""

    y: slice
    x: slice


def blocks_of(shape_yx: tuple[int, int]) -> list[Block]:
    """All blocks of a scan, row by row, clipped to it."""
    n_y, n_x = shape_yx
    return [
        Block(y=slice(y, min(y + BLOCK_Y, n_y)), x=slice(x, min(x + BLOCK_X, n_x)))
        for y in range(0, n_y, BLOCK_Y)
        for x in range(0, n_x, BLOCK_X)
    ]


def block_ranges(
    shape_yx: tuple[int, int],
    n_channels: int,
    detectors: tuple[str, ...],
    blocks_per_task: int | None,
) -> list[BlockRange]:
    """Cut every detector's blocks into tasks; how they are cut changes no result."""
    n_blocks = len(blocks_of(shape_yx))
    if blocks_per_task is None:
        pixels = min(shape_yx[0], BLOCK_Y) * min(shape_yx[1], BLOCK_X)
        blocks_per_task = max(1, int(_CHANNEL_PIXELS_PER_TASK / (pixels * n_channels)))
    return [
        BlockRange(detector=d, first=i, stop=min(i + blocks_per_task, n_blocks))
        for d in detectors
        for i in range(0, n_blocks, blocks_per_task)
    ]
