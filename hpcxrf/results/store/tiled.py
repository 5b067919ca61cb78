"""Maps that several tasks fill, each its own blocks, in a store that is not closed."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.errors import OutputError
from hpcxrf.results.store.storage import dtype_of, read_chunk, read_json
from hpcxrf.store.array_writer import METADATA
from hpcxrf.store.plain_arrays import is_plain, write_plain_chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledMap:
    """A map (first, *, y, x), or (y, x), whose metadata are read once."""

    folder: Path
    metadata: Mapping[str, Any]

    def write(self, first: int | None, y: slice, x: slice, values: NDArray[Any]) -> None:
        """Write whole blocks.

        Args:
            first: place on the first axis; None: the array has no axes but y and x.
            y: rows, from the beginning of a block to the end of one, or of the scan.
            x: columns, likewise.
            values: (*, y, x).

        Raises:
            OSError: the folder cannot be written.
        """
        lead = () if first is None else (first,)
        *before, height, width = chunk = self._chunk
        middle = before[len(lead) :]
        if not self._is_whole(lead):
            zarr.open_array(self.folder, mode="r+")[(*lead, ..., y, x)] = values
            return
        dtype = self.dtype
        for row, column in itertools.product(range(y.start, y.stop, height), range(x.start, x.stop, width)):
            part = values[..., row - y.start : row - y.start + height, column - x.start : column - x.start + width]
            if part.shape[-2:] == (height, width) and part.dtype == dtype:
                whole = part.reshape(chunk)
            else:
                whole = np.full(chunk, np.nan if dtype.kind == "f" else self.metadata["fill_value"], dtype=dtype)
                whole[..., : part.shape[-2], : part.shape[-1]] = part
            number = (*lead, *(0 for _ in middle), row // height, column // width)
            write_plain_chunk(self.folder, self.metadata, number, whole)

    def read(self, first: int | None, y: slice, x: slice) -> NDArray[Any]:
        """Read one block.

        Args:
            first: place on the first axis; None: the array has no axes but y and x.
            y: rows of the block.
            x: columns of the block.

        Returns:
            (*, y, x).

        Raises:
            OutputError: the array is damaged.
        """
        lead = () if first is None else (first,)
        *before, height, width = self._chunk
        within = y.start % height == x.start % width == 0 and y.stop - y.start <= height and x.stop - x.start <= width
        if not self._is_whole(lead) or not within:
            values: NDArray[Any] = np.asarray(zarr.open_array(self.folder, mode="r")[(*lead, ..., y, x)])
            return values
        number = (*lead, *(0 for _ in before[len(lead) :]), y.start // height, x.start // width)
        found = read_chunk(self.folder, self.metadata, number)
        return (found[0] if lead else found)[..., : y.stop - y.start, : x.stop - x.start]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its values."""
        return dtype_of(self.metadata)

    @property
    def _chunk(self) -> tuple[int, ...]:
        return tuple(self.metadata["chunk_grid"]["configuration"]["chunk_shape"])

    def _is_whole(self, lead: tuple[int, ...]) -> bool:
        """Whether a chunk is one block of one place on the first axis, with all of the axes between."""
        before = [*(1 for _ in lead), *self.metadata["shape"][len(lead) : -2]]
        return is_plain(self.metadata) and list(self._chunk[:-2]) == before


def open_map(folder: Path) -> TiledMap:
    """Open a map to read or write its blocks.

    Args:
        folder: of the array.

    Raises:
        OutputError: the array is missing, or its metadata are damaged.
    """
    if not (folder / METADATA).is_file():
        raise OutputError(f"{folder}: missing from the store; remove the store, and run again")
    return TiledMap(folder=folder, metadata=read_json(folder / METADATA))
