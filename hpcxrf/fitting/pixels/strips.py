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

from hpcxrf.fitting.kernels.layout import EIGHT, FOUR, LAST, PITCH
from hpcxrf.fitting.pixels.single import to_single

TILE: Final = 32
"""Channels in a row that are taken or left together: as many as a loop of the widest vectors takes at once."""
MOST_ROWS: Final = PITCH // TILE * TILE
"""Longest strip, and the largest size of a small matrix."""
# Time of a strip of n channels and r columns, in multiplications: n (r + _PASS) to read what they meet, and a call.
_PASS: Final = 3
_CALL: Final = 500

StripArrays = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float32]]
SparseRows = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float32]]
"""Where the fours of each row begin, then their columns and numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tiles `start` to `stop`, and the columns that are kept there."""

    start: int
    stop: int
    columns: tuple[int, ...]


def padded(n_channels: int) -> int:
    """Channels up to the end of the last tile."""
    return -(-n_channels // TILE) * TILE


def by_tile(values: Tensor) -> Tensor:
    """Values (channel, column) as (tile, channel, column), with zeros to the end of the last tile."""
    missing = padded(len(values)) - len(values)
    return torch.nn.functional.pad(values, (0, 0, 0, missing)).reshape(-1, TILE, values.shape[1])


def cut_into_runs(present: Tensor, *, complete: bool) -> tuple[Run, ...]:
    """The cuts of least time, by the shortest way from the first tile to the last.

    Args:
        present: (tile, column) bool: where a column is kept.
        complete: whether each run ends with a strip of 8, as an expectation that is used at once.
    """
    best, before = [0.0], [0]
    # Tiles above each that hold something of a column.
    filled = np.zeros((len(present) + 1, present.shape[1]), dtype=np.int64)
    np.cumsum(present.numpy(), axis=0, out=filled[1:])
    for j in range(1, len(present) + 1):
        first = max(0, j - MOST_ROWS // TILE)
        kept = np.count_nonzero(filled[j] - filled[first:j], axis=1).tolist()
        ways = [(best[i] + _time(j - i, kept[i - first], complete=complete), i) for i in range(first, j)]
        time, last = min(ways)
        best.append(time)
        before.append(last)
    cuts = [len(present)]
    while cuts[0] > 0:
        cuts.insert(0, before[cuts[0]])
    return tuple(
        Run(start=i, stop=j, columns=tuple(torch.nonzero(present[i:j].any(dim=0))[:, 0].tolist()))
        for i, j in pairwise(cuts)
    )


def strips_of(values: Tensor, runs: tuple[Run, ...], *, complete: bool) -> StripArrays:
    """Places (strip, 4: first channel, channels, first number, kind), columns (strip, 8), and numbers.

    Args:
        values: (channel, column).
        runs: runs of `cut_into_runs`.
        complete: whether each run ends with a strip of 8.
    """
    tiles = by_tile(values)
    blocks: list[Tensor] = []
    places, columns = [], []
    for run in runs:
        rows = tiles[run.start : run.stop].flatten(0, 1)
        for kind, kept in _split(run.columns, complete=complete):
            block = torch.zeros((4 if kind == FOUR else 8, PITCH))
            block[: len(kept), : len(rows)] = rows[:, list(kept)].T
            places.append((TILE * run.start, len(rows), sum(len(b) for b in blocks), kind))
            # What fills a strip up goes to, or is taken from, a place after the last column.
            columns.append([*kept, *[values.shape[1]] * (8 - len(kept))])
            blocks.append(block.flatten())
    return np.array(places, np.uint64), np.array(columns, np.uint64), to_single(torch.cat(blocks)).numpy()


def strips_of_rows(matrix: Tensor, size: int) -> StripArrays:
    """A small matrix (row, column) as strips of 8 of its rows, its columns filled up to `size`.

    Args:
        matrix: (row, column), at most `MOST_ROWS` of each.
        size: multiple of 8.
    """
    filled = torch.nn.functional.pad(matrix, (0, size - matrix.shape[1], 0, size - matrix.shape[0]))
    groups = [range(i, i + 8) for i in range(0, size, 8)]
    blocks = to_single(torch.nn.functional.pad(filled, (0, PITCH - size)))
    places = [(0, size, group.start * PITCH, EIGHT) for group in groups]
    return np.array(places, np.uint64), np.array(groups, np.uint64), blocks.flatten().numpy()


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


def _split(columns: tuple[int, ...], *, complete: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Kinds and columns of the strips of a run."""
    n = max(len(columns) - 8, 0) if complete else len(columns)
    for i in range(0, n, 8):
        kept = columns[i : min(i + 8, n)]
        yield (FOUR if len(kept) <= 4 else EIGHT), kept
    if complete:
        yield LAST, columns[n:]


@lru_cache(maxsize=4096)
def _time(tiles: int, n_columns: int, *, complete: bool) -> float:
    kinds = [kind for kind, _ in _split(tuple(range(n_columns)), complete=complete)]
    return sum(TILE * tiles * ((4 if kind == FOUR else 8) + _PASS) + _CALL for kind in kinds)
