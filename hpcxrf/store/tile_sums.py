"""Sums of spectra over square tiles of pixels: what a selection of a million pixels is answered from.

They are written beside the counts of every scan that is large enough for it to matter. A sum of whole numbers does not
depend on its order, so that tiles and single pixels together give exactly the sum of the counts; counts with fractions
have no such sums, and no tiles.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.store.array_writer import ZSTD_OPTIONS, remove_array, write_counts_metadata
from hpcxrf.store.chunk_codec import ShardFormat
from hpcxrf.store.files import output_faults, sync_folder, write_whole
from hpcxrf.store.schema import TILE_SIDE, TILE_SUMS, TILE_VARIABLES, TILED_PIXELS, tile_grid
from hpcxrf.store.shard_index import NO_CHUNK, pack_index

_CHUNK_BYTES: Final = 1 << 20
_PIECE_VALUES: Final = 1 << 17
"""Counts that are summed in one go: they stay in the cache of a core from the sum to the maximum."""


class TileSums:
    """Writer of the sums of the tiles of one store, in the order of its bands; it holds one row of chunks."""

    def __init__(self, folder: Path, form: ShardFormat, dtype: np.dtype[Any], file: FileIO) -> None:
        """Prepare to write.

        Args:
            folder: of the array.
            form: how the sums are cut and encoded; one shard holds all.
            dtype: of the sums.
            file: open, unbuffered and empty.
        """
        self._folder = folder
        self._form = form
        self._file = file
        self._first = 0
        """Row of tiles at which the chunks that are held begin."""
        self._sums = np.zeros((form.shape[0], *form.chunk[1:]), dtype=dtype)
        self._places = np.full((*form.grid, 2), NO_CHUNK, dtype=np.uint64)

    def add(self, first_row: int, tiles: NDArray[Any]) -> None:
        """Add the sums of a band; bands come in ascending order.

        Args:
            first_row: row of the scan at which the band begins.
            tiles: (detector, tile_y, tile_x, channel) of the band, as `sum_tiles` gives them.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        for row, sums in enumerate(np.moveaxis(tiles, 1, 0), start=first_row // TILE_SIDE):
            while row >= self._first + self._sums.shape[1]:
                self._write_chunks()
            self._sums[:, row - self._first] += sums.astype(self._sums.dtype, copy=False)

    def finish(self) -> None:
        """Write what is held and the index.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        while self._first < self._form.shape[1]:
            self._write_chunks()
        with output_faults(self._folder.parent, bytes_needed=self._places.nbytes):
            write_whole(self._file, pack_index(self._places))
            os.fsync(self._file.fileno())

    def _write_chunks(self) -> None:
        with output_faults(self._folder.parent, bytes_needed=self._sums.nbytes):
            for detector, sums in enumerate(self._sums):
                content = self._form.encode(np.ascontiguousarray(sums[None]))
                self._places[detector, self._first // len(sums), 0, 0] = self._file.tell(), len(content)
                write_whole(self._file, content)
        self._first += self._sums.shape[1]
        self._sums[...] = 0


def has_tiles(shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> bool:
    """Whether the sums of tiles of a scan are written: it has many pixels, and its counts are whole numbers."""
    return shape[1] * shape[2] > TILED_PIXELS and dtype.kind == "u"


@contextmanager
def collect_tiles(path: Path, shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> Iterator[TileSums | None]:
    """Collect the sums of the tiles of a scan, and write them into its store.

    Args:
        path: the unfinished store.
        shape: (detector, y, x, channel) of the scan.
        dtype: of its stored counts.

    Yields:
        What the bands are added to; None where the scan has no tiles.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    folder = path / TILE_SUMS
    # A tile of 256 pixels of two bytes cannot exceed four.
    kind = np.dtype(np.uint32 if dtype.itemsize <= 2 else np.uint64)
    form = _cut(shape, kind)
    with output_faults(path.parent, bytes_needed=0):
        remove_array(folder)
        if has_tiles(shape, dtype):
            write_counts_metadata(folder, kind, form, TILE_VARIABLES[TILE_SUMS])
    if not has_tiles(shape, dtype):
        yield None
        return
    shard = folder / "c.0.0.0.0"
    partial = shard.with_name(f"{shard.name}.partial")
    with partial.open("wb", buffering=0) as file:
        tiles = TileSums(folder, form, kind, file)
        yield tiles
        tiles.finish()
    partial.replace(shard)
    sync_folder(folder)


def sum_tiles(rows: NDArray[Any], first_row: int) -> tuple[NDArray[np.uint64], NDArray[Any]]:
    """Sum the tiles of a band of one detector, and find the highest counts of any pixel in each channel.

    Args:
        rows: (row, x, channel), whole numbers.
        first_row: row of the scan at which the band begins.

    Returns:
        Sums (tile_y, tile_x, channel) of the tiles that the band meets, and the maximum (channel,).
    """
    n_y, n_x, channels = rows.shape
    above = first_row % TILE_SIDE
    sums = np.zeros((-(-(above + n_y) // TILE_SIDE), -(-n_x // TILE_SIDE), channels), dtype=np.uint64)
    highest = rows[0, 0].copy()
    most = max(1, _PIECE_VALUES // (TILE_SIDE * channels))
    # The narrowest type that the sum of a piece cannot exceed is the fastest.
    pixels = TILE_SIDE * min(most, TILE_SIDE)
    kind = next(k for k in (np.uint16, np.uint32, np.uint64) if pixels <= np.iinfo(k).max // np.iinfo(rows.dtype).max)
    for start, stop in _cut_rows(n_y, above, most):
        for x in range(0, n_x, TILE_SIDE):
            piece = rows[start:stop, x : x + TILE_SIDE]
            sums[(above + start) // TILE_SIDE, x // TILE_SIDE] += np.add.reduce(piece, axis=(0, 1), dtype=kind)
            np.maximum(highest, piece.max(axis=(0, 1)), out=highest)
    return sums, highest


def _cut_rows(n_y: int, above: int, most: int) -> Iterator[tuple[int, int]]:
    """Rows of a band in pieces of at most so many, none of which crosses the edge of a tile."""
    start = 0
    while start < n_y:
        edge = start + TILE_SIDE - (above + start) % TILE_SIDE
        stop = min(n_y, start + most, edge)
        yield start, stop
        start = stop


def _cut(shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> ShardFormat:
    """One shard; chunks of about 1 MB, each of whole rows of tiles of one detector."""
    grid = (shape[0], *tile_grid(shape), shape[3])
    rows = int(np.clip(_CHUNK_BYTES // (grid[2] * grid[3] * dtype.itemsize), 1, grid[1]))
    return ShardFormat(
        shape=grid,
        chunk=(1, rows, *grid[2:]),
        shard=(grid[0], -(-grid[1] // rows) * rows, *grid[2:]),
        codec="zstd",
        options=ZSTD_OPTIONS,
    )
