"""Matrices as the kernels read them: strips of 4 or 8 columns over runs of channels that hold something of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels.layout import EIGHT, FOUR
from hpcxrf.fitting.pixels.single import to_single

TILE: Final = 32
"""Channels in a row that are taken or left together."""
# Share of a column's largest number below which a whole tile of channels is left out.
_FAR: Final = 1e-8
# Longest run: its counts, its expectation and its numbers lie in a core's nearest cache.
_MOST_TILES: Final = 3
# Time of a strip of n channels and r columns, in multiplications: n (r + _PASS) to read what they meet, and a call.
_PASS: Final = 1
_CALL: Final = 40

StripArrays = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float32]]
SparseRows = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float32]]
"""Where the fours of each row begin, then their columns and numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Rows `start` to `stop`, and the columns that are kept there."""

    start: int
    stop: int
    columns: tuple[int, ...]


def by_tile(values: Tensor) -> Tensor:
    """Values (channel, column) as (tile, channel, column), with zeros to the end of the last tile."""
    missing = -len(values) % TILE
    return torch.nn.functional.pad(values, (0, 0, 0, missing)).reshape(-1, TILE, values.shape[1])


def cut_into_runs(present: Tensor) -> tuple[Run, ...]:
    """The cuts of least time, by the shortest way from the first tile to the last.

    Args:
        present: (tile, column) bool: where a column is kept.
    """
    best, before = [0.0], [0]
    # Tiles above each that hold something of a column.
    filled = np.zeros((len(present) + 1, present.shape[1]), dtype=np.int64)
    np.cumsum(present.numpy(), axis=0, out=filled[1:])
    for j in range(1, len(present) + 1):
        first = max(0, j - _MOST_TILES)
        kept = np.count_nonzero(filled[j] - filled[first:j], axis=1).tolist()
        ways = [(best[i] + _time(j - i, kept[i - first]), i) for i in range(first, j)]
        time, last = min(ways)
        best.append(time)
        before.append(last)
    cuts = [len(present)]
    while cuts[0] > 0:
        cuts.insert(0, before[cuts[0]])
    return tuple(
        Run(start=TILE * i, stop=TILE * j, columns=tuple(torch.nonzero(present[i:j].any(dim=0))[:, 0].tolist()))
        for i, j in pairwise(cuts)
    )


def find_near(columns: Tensor) -> Tensor:
    """Where a column has numbers to speak of (tile, column).

    Args:
        columns: (channel, column).
    """
    tiles = by_tile(columns).abs().amax(dim=1)
    return tiles > _FAR * tiles.amax(dim=0).clamp(min=torch.finfo(tiles.dtype).tiny)


def strips_of(values: Tensor, runs: tuple[Run, ...]) -> StripArrays:
    """Places (strip, 4: first channel, channels, first number, kind), columns (strip, 8), and numbers by channel.

    Args:
        values: (channel, column).
        runs: runs of `cut_into_runs`; each has a strip at least, of which all numbers are 0 where it has no column.
    """
    blocks: list[Tensor] = []
    places, columns, n = [], [], 0
    for run in runs:
        rows = values[run.start : run.stop]
        for kind, kept in _split(run.columns):
            width = 4 if kind == FOUR else 8
            block = torch.nn.functional.pad(rows[:, list(kept)], (0, width - len(kept)))
            places.append((run.start, len(rows), n, kind))
            # What fills a strip up goes to, or is taken from, a place after the last column.
            columns.append([*kept, *[values.shape[1]] * (8 - len(kept))])
            blocks.append(block.flatten())
            n += block.numel()
    return np.array(places, np.uint64), np.array(columns, np.uint64), to_single(torch.cat(blocks)).numpy()


def strips_of_all(matrix: Tensor) -> StripArrays:
    """A small matrix (row, column) as strips over all of its rows."""
    return strips_of(matrix, (Run(start=0, stop=len(matrix), columns=tuple(range(matrix.shape[1]))),))


def no_strips() -> StripArrays:
    """A matrix that is not there."""
    return np.zeros((0, 4), np.uint64), np.zeros((0, 8), np.uint64), np.zeros(0, np.float32)


def sparse_rows(matrix: Tensor) -> SparseRows:
    """The numbers of each row that are not 0, in fours, filled up with zeros.

    Args:
        matrix: (row, column).
    """
    starts, columns, numbers = [0], [], []
    for row in to_single(matrix).numpy():
        kept = np.flatnonzero(row)
        missing = -len(kept) % 4
        columns += [*kept.tolist(), *[0] * missing]
        numbers += [*row[kept].tolist(), *[0.0] * missing]
        starts.append(len(columns) // 4)
    return np.array(starts, np.uint64), np.array(columns, np.uint64), np.array(numbers, np.float32)


def _split(columns: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Kinds and columns of the strips of a run."""
    for i in range(0, max(len(columns), 1), 8):
        kept = columns[i : i + 8]
        yield (FOUR if len(kept) <= 4 else EIGHT), kept


@lru_cache(maxsize=4096)
def _time(tiles: int, n_columns: int) -> float:
    kinds = [kind for kind, _ in _split(tuple(range(n_columns)))]
    return sum(TILE * tiles * ((4 if kind == FOUR else 8) + _PASS) + _CALL for kind in kinds)
