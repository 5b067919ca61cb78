"""Sums of the counts of any pixels of a scan: exactly those that are stored, and as few of them read as can be.

Whole numbers have one sum, whatever the order. So tiles of 16 x 16 pixels that lie wholly inside a selection are taken
from their sums, where the store has these, and only what is left is added up from the counts, chunk by chunk.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.explore.kept import KeptArrays
from hpcxrf.store.schema import TILE_SIDE
from hpcxrf.store.spectra import SpectraStore

Mask = NDArray[np.bool_]

_TILE_ROWS: Final = 8
"""Rows of tiles that are read at once: of a large scan some megabytes."""
_FEW_BLOCKS: Final = 4
"""Chunks of one selection that are kept for the next one: more of them would push each other out."""
_MOST_THREADS: Final = 3
"""Threads that decode chunks: decoding is most of a large sum, and lets other threads work."""
_THREAD_COUNTS: Final = 1 << 27
"""Counts that are worth a thread: a tenth of a second of decoding; threads take a fifth more in all."""
_SUM_BYTES: Final = 16 << 20
"""Sums of chunks that are kept: of 2048 channels a thousand."""
_SUMMED: Final = {1: (1 << 8, np.uint16), 2: (1 << 16, np.uint32)}
"""By bytes of a count: so many pixels of the largest of them have no larger sum than this type, and the narrowest type
is the fastest."""


class NobodyWaitsError(Exception):
    """A sum was given up: who asked for it has gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCounts:
    """Counts of a scan, of which the chunks and tiles that were read last are kept in memory."""

    store: SpectraStore
    blocks: KeptArrays
    tiles: KeptArrays
    sums: KeptArrays = field(default_factory=lambda: KeptArrays(most_bytes=_SUM_BYTES))
    """Sums of selected pixels of one chunk: of a selection that changes at one side, the other chunks are known."""

    def read_block(self, detector: int, y: slice, x: slice, *, keep: bool) -> NDArray[Any]:
        """Read a whole chunk of one detector as it is stored, (y, x, channel)."""

        def read() -> NDArray[Any]:
            return self.store.read_stored(detector, y, x)

        return self.blocks.get((detector, y.start, x.start), read) if keep else read()

    def read_tiles(self, detectors: Sequence[int], group: int) -> NDArray[Any]:
        """Read a group of rows of tiles, detectors added up, (tile_y, tile_x, channel)."""
        rows = slice(group * _TILE_ROWS, (group + 1) * _TILE_ROWS)

        def read() -> NDArray[Any]:
            first, *others = detectors
            total = self.store.tile_sums(first, rows)
            for one in others:
                # Tiles of 256 pixels of two bytes have room for 256 detectors.
                total = total + self.store.tile_sums(one, rows)
            return total

        return self.tiles.get((tuple(detectors), group), read)


def sum_selection(
    counts: KeptCounts, detectors: Sequence[int], mask: Mask, is_gone: Callable[[], bool] = lambda: False
) -> NDArray[Any]:
    """Add up the spectra of the selected pixels of some detectors.

    Args:
        counts: of the scan.
        detectors: numbers from 0, at least one.
        mask: (y, x) of the scan.
        is_gone: asked before every chunk whether nobody waits any more.

    Returns:
        (channel,) uint64, exactly the sum of the stored counts; float64 where these are not whole numbers.

    Raises:
        DamagedStoreError: counts or sums that are needed cannot be read.
        NobodyWaitsError: nobody waits any more.
    """
    store = counts.store
    whole_numbers = store.dtype.kind == "u"
    if mask.all():
        # The store has this sum; whole numbers are exact in it.
        integrated = np.sum([store.integrated(one) for one in detectors], axis=0)
        return np.asarray(np.rint(integrated).astype(np.uint64) if whole_numbers else integrated)
    total = np.zeros(store.shape[3], dtype=np.uint64 if whole_numbers else np.float64)
    rest = mask
    if counts.store.has_tiles and int(np.count_nonzero(mask)) >= TILE_SIDE**2:
        inner = find_inner_tiles(mask)
        total += _sum_tiles(counts, detectors, inner)
        rest = mask & ~np.kron(inner, np.ones((TILE_SIDE, TILE_SIDE), dtype=np.bool_))[: mask.shape[0], : mask.shape[1]]
    met = [(one, *place) for place in _list_blocks(rest, store.chunks[1:3]) for one in detectors]
    few = len(met) <= _FEW_BLOCKS

    def add_up(block: tuple[int, slice, slice]) -> NDArray[Any]:
        detector, y, x = block
        if is_gone():
            raise NobodyWaitsError
        if few:
            return _sum_pixels(counts.read_block(detector, y, x, keep=True), rest[y, x])
        pixels = hashlib.blake2b(np.packbits(rest[y, x]).tobytes(), digest_size=16).digest()
        key = (detector, y.start, x.start, pixels)
        known = counts.sums.find(key)
        if known is None:
            known = _sum_pixels(counts.read_block(detector, y, x, keep=False), rest[y, x])
            counts.sums.keep(key, known)
        return known

    threads = min(_MOST_THREADS, os.cpu_count() or 1, len(met) * math.prod(store.chunks) // _THREAD_COUNTS)
    if threads <= 1:
        return sum(map(add_up, met), start=total)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(add_up, met), start=total)


def find_inner_tiles(mask: Mask) -> Mask:
    """Find the tiles all of whose pixels are selected, (tile_y, tile_x); the last ones may be smaller."""
    n_y, n_x = mask.shape
    tiles_y, tiles_x = -(-n_y // TILE_SIDE), -(-n_x // TILE_SIDE)
    padded = np.ones((tiles_y * TILE_SIDE, tiles_x * TILE_SIDE), dtype=np.bool_)
    padded[:n_y, :n_x] = mask
    return np.asarray(padded.reshape(tiles_y, TILE_SIDE, tiles_x, TILE_SIDE).all(axis=(1, 3)))


def _sum_tiles(counts: KeptCounts, detectors: Sequence[int], inner: Mask) -> NDArray[np.uint64]:
    total = np.zeros(counts.store.shape[3], dtype=np.uint64)
    for row in np.flatnonzero(inner.any(axis=1)).tolist():
        sums = counts.read_tiles(detectors, row // _TILE_ROWS)[row % _TILE_ROWS]
        total += np.add.reduce(sums[_as_slice(inner[row])], axis=0, dtype=np.uint64)
    return total


def _as_slice(chosen: NDArray[np.bool_]) -> slice | NDArray[np.bool_]:
    """The same places as a slice where they are one run, which saves copying them."""
    places = np.flatnonzero(chosen)
    first, stop = int(places[0]), int(places[-1]) + 1
    return slice(first, stop) if stop - first == places.size else chosen


def _list_blocks(mask: Mask, step_yx: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Chunks of the counts, clipped to the scan, in which a pixel is selected."""
    n_y, n_x = mask.shape
    step_y, step_x = step_yx
    for y in range(0, n_y, step_y):
        rows = slice(y, min(y + step_y, n_y))
        for first in np.unique(np.flatnonzero(mask[rows].any(axis=0)) // step_x).tolist():
            yield rows, slice(first * step_x, min((first + 1) * step_x, n_x))


def _sum_pixels(block: NDArray[Any], inside: Mask) -> NDArray[Any]:
    """Sum of the spectra (y, x, channel) of some pixels (y, x)."""
    pixels = block.reshape(-1, block.shape[-1]) if inside.all() else block[inside]
    if block.dtype.kind == "f":
        return np.asarray(pixels.sum(axis=0, dtype=np.float64))
    piece, kind = _SUMMED.get(block.dtype.itemsize, (len(pixels), np.uint64))
    total = np.zeros(block.shape[-1], dtype=np.uint64)
    for start in range(0, len(pixels), piece):
        total += np.add.reduce(pixels[start : start + piece], axis=0, dtype=kind)
    return total
