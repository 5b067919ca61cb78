"""Counts read from the shards themselves: index, chunk, decoder, and the region; what `zarr` reads, sooner.

Zarr decodes each chunk into memory of its own, joins chunks, and copies the part that was asked for, through its event
loop. Here a chunk is decoded into a buffer that is kept, or where the rows of the scan allow it into the result.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import DamagedStoreError
from hpcxrf.store.chunk_codec import ShardFormat, read_format
from hpcxrf.store.packed import StoreFiles
from hpcxrf.store.shard_index import NO_CHUNK, Part, Places, read_index

_READ_BYTES: Final = 2 << 20
"""Encoded bytes beyond which a read is not made longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReader:
    """Counts of one store; made by `open_shards`. Threads may read at once."""

    form: ShardFormat
    dtype: np.dtype[Any]
    """Type of the stored counts."""
    shards: tuple[Part, ...]
    """Shard of each y-band."""
    _indices: dict[int, Places] = field(default_factory=dict)
    _kept: threading.local = field(default_factory=threading.local)

    def read_into(self, target: NDArray[Any], detector: int, rows: range, columns: range) -> None:
        """Read a region of one detector.

        Args:
            target: (row, column, channel), C order, of a type that holds the counts.
            detector: number from 0.
            rows: of the scan.
            columns: of the scan.

        Raises:
            ValueError: an index or a chunk is damaged.
            RuntimeError: a chunk is damaged.
            OSError: a shard cannot be read.
        """
        _, height, width, _ = self.form.chunk
        direct = target.dtype == self.dtype and len(columns) == width
        for y in _steps(rows, height):
            for x, content in self._read_chunks(detector, y, _steps(columns, width)):
                part, within = _meet(y, rows, height), _meet(x, columns, width)
                into = target[part.start - rows.start : part.stop - rows.start]
                if direct and len(part) == height and len(within) == width:
                    self._decode((detector, y, x), content, into)
                    continue
                whole = self._buffer()
                self._decode((detector, y, x), content, whole)
                into[:, within.start - columns.start : within.stop - columns.start] = whole[
                    part.start - y * height : part.stop - y * height, within.start - x * width : within.stop - x * width
                ]

    def _buffer(self) -> NDArray[Any]:
        if not hasattr(self._kept, "chunk"):
            self._kept.chunk = np.empty(self.form.chunk[1:], dtype=self.dtype)
        kept: NDArray[Any] = self._kept.chunk
        return kept

    def _read_chunks(self, detector: int, y: int, steps: range) -> Iterator[tuple[int, memoryview | None]]:
        """Encoded chunks of a detector in the row `y` of chunks, those beside each other in the file at once.

        Opening a file for each of them would cost a remote file system more than reading them.
        """
        rows = self.form.grid[1]
        shard, places = self.shards[y // rows], self._index(y // rows)[detector, y % rows, :, 0]
        for run in _join(places, steps):
            first, last = places[run.start], places[run.stop - 1]
            start, stop = int(first[0]), int(last[0]) + int(last[1])
            if start == NO_CHUNK:
                yield run.start, None
                continue
            content = memoryview(shard.within(start, stop - start).read())
            for x in run:
                offset, size = map(int, places[x])
                yield x, content[offset - start : offset - start + size]

    def _decode(self, place: tuple[int, int, int], content: memoryview | None, target: NDArray[Any]) -> None:
        """Decode the chunk at (detector, y, x), counted in chunks, into memory of its size."""
        if content is None:
            target[...] = 0
            return
        try:
            self.form.decode(content, target)
        except (ValueError, RuntimeError) as error:
            where = ", ".join(map(str, place))
            raise ValueError(f"chunk {where} of {self.shards[place[1] // self.form.grid[1]].file}: {error}") from error

    def _index(self, band: int) -> Places:
        """(detector, y, x, 1, 2): offset and bytes of each chunk of a band's shard."""
        if band not in self._indices:
            self._indices[band] = read_index(self.shards[band], self.form.grid)
        return self._indices[band]


def open_shards(path: Path, metadata: Mapping[str, Any], names: Sequence[str], dtype: np.dtype[Any]) -> ShardReader:
    """Find the shards of a finished store of spectra.

    Args:
        path: the store.
        metadata: of its counts.
        names: paths of the shards within the store, by y-band.
        dtype: of the stored counts.

    Raises:
        DamagedStoreError: shards are gone, or counts are encoded as this program never did.
    """
    files = StoreFiles(path)
    lost = [str(band) for band, name in enumerate(names) if not files.has(name)]
    if lost:
        raise DamagedStoreError(
            f"{path}: y-bands {', '.join(lost)} of {len(names)} are gone; the next run or resume ingests the scan again"
        )
    return ShardReader(form=read_format(path, metadata), dtype=dtype, shards=tuple(files.part(name) for name in names))


def _join(places: Places, steps: range) -> Iterator[range]:
    """Chunks (offset, size) that follow each other in the file, as many as are read at once."""
    start = steps.start
    for x in steps:
        offset, size = map(int, places[x])
        following = int(places[x + 1][0]) if x + 1 < steps.stop else NO_CHUNK
        length = offset + size - int(places[start][0])
        if offset == NO_CHUNK or following != offset + size or length > _READ_BYTES:
            yield range(start, x + 1)
            start = x + 1


def _steps(wanted: range, step: int) -> range:
    return range(wanted.start // step, -(-wanted.stop // step))


def _meet(number: int, wanted: range, step: int) -> range:
    """Part of what is wanted that lies in chunk `number` of so many."""
    return range(max(wanted.start, number * step), min(wanted.stop, (number + 1) * step))
