"""The pixels of a task: the next tile is read while one is fitted, and finished blocks are written meanwhile.

Tiles are whole chunks of the store inside a map block, small enough for several of them to lie in memory. How a block
is cut follows from the store alone, never from the worker or the task, and so do the numbers.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor

from hpcxrf.fitting.result import PixelFit
from hpcxrf.pipeline.blocks import Block, tile_shape

Read = TypeVar("Read")
Pending = Callable[[], PixelFit]
"""Wait for a fit that was begun; called in the thread that writes, so that a device goes on with the next tile."""
_IN_MEMORY: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCallbacks(Generic[Read]):
    """Functions called with every tile, and with every block of which all tiles are fitted."""

    read: Callable[[Block], Read]
    """Reader of a tile, called in a thread of its own, at most one tile ahead."""
    fit: Callable[[Read], Pending]
    """Fit of a tile, begun in the calling thread."""
    write: Callable[[Block, PixelFit], None]
    """Writer of a block, called in a thread of its own, at most one block behind."""


def tiles_of(block: Block, chunks: Sequence[int], pixel_bytes: int) -> list[Block]:
    """Cut a block into tiles, row by row, clipped to it.

    Args:
        block: block of the maps.
        chunks: (detector, y, x, channel) of the store.
        pixel_bytes: bytes of one spectrum.
    """
    rows, columns = tile_shape((chunks[1], chunks[2]), pixel_bytes)
    return [
        Block(y=slice(y, min(y + rows, block.y.stop)), x=slice(x, min(x + columns, block.x.stop)))
        for y in range(block.y.start, block.y.stop, rows)
        for x in range(block.x.start, block.x.stop, columns)
    ]


def run_overlapped(blocks: Sequence[tuple[Block, Sequence[Block]]], callbacks: TileCallbacks[Read]) -> None:
    """Read, fit and write blocks at the same time; the first error ends it.

    Args:
        blocks: blocks, each with its tiles.
        callbacks: what to do with them.
    """
    order = [(block, tile) for block, tiles in blocks for tile in tiles]
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead = [reader.submit(callbacks.read, tile) for _, tile in order[: _IN_MEMORY - 1]]
        behind: Future[None] | None = None
        parts: list[tuple[Block, Pending]] = []
        for number, (block, tile) in enumerate(order, start=1):
            counts = ahead.pop(0).result()
            ahead += [reader.submit(callbacks.read, t) for _, t in order[number : number + 1]]
            parts.append((tile, callbacks.fit(counts)))
            del counts
            if number < len(order) and order[number][0] is block:
                continue
            if behind is not None:
                behind.result()
            behind = writer.submit(_write, block, parts, callbacks.write)
            parts = []
        if behind is not None:
            behind.result()


def _write(block: Block, parts: Sequence[tuple[Block, Pending]], write: Callable[[Block, PixelFit], None]) -> None:
    write(block, assemble(block, [(tile, wait()) for tile, wait in parts]))


def assemble(block: Block, parts: Sequence[tuple[Block, PixelFit]]) -> PixelFit:
    """The fit of a block from those of its tiles.

    Args:
        block: block whose pixels the tiles hold, all of them.
        parts: tiles and their fits, pixels row by row.
    """
    if len(parts) == 1:
        return parts[0][1]
    named: dict[str, Any] = {}
    for name in (f.name for f in fields(PixelFit)):
        given = [(tile, getattr(fit, name)) for tile, fit in parts]
        named[name] = None if given[0][1] is None else _put_in_place(block, given)
    return PixelFit(**named)


def _put_in_place(block: Block, parts: Sequence[tuple[Block, Tensor]]) -> Tensor:
    """(pixel, any) of the block, in memory as (any, pixel): as the maps are stored."""
    shape = _shape(block)
    first = parts[0][1]
    out = torch.empty((*first.shape[1:], *shape), dtype=first.dtype)
    for tile, values in parts:
        y = slice(tile.y.start - block.y.start, tile.y.stop - block.y.start)
        x = slice(tile.x.start - block.x.start, tile.x.stop - block.x.start)
        out[..., y, x] = values.movedim(0, -1).reshape(*first.shape[1:], *_shape(tile))
    return out.flatten(-2).movedim(-1, 0)


def _shape(block: Block) -> tuple[int, int]:
    return block.y.stop - block.y.start, block.x.stop - block.x.start
