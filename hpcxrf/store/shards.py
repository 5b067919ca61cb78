"""Counts read from the shards themselves: index, chunk, decoder, and the region; what `zarr` reads, sooner.

Zarr decodes each chunk into memory of its own, joins chunks, and copies the part that was asked for, through its event
loop. Here a chunk is decoded into a buffer that is kept, or where the rows of the scan allow it into the result.
"""

import math
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numpy.typing import NDArray

from hpcxrf.errors import DamagedStoreError
from hpcxrf.store.gather import SHARDING, Part
from hpcxrf.store.packed import StoreFiles

_CHECKSUM: Final = struct.Struct("<I")
_BLOSC_SIZES: Final = struct.Struct("<4xI4xI")
"""Bytes before and after compression, in the header of Blosc."""
_NO_CHUNK: Final = 2**64 - 1
_KNOWN: Final = (("zstd",), ("blosc", "crc32c"))
"""Codecs of counts, after that of the bytes; version 0.1.0 has the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReader:
    """Counts of one store; made by `open_shards`. Threads may read at once."""

    shape: tuple[int, ...]
    """(detector, y, x, channel)."""
    dtype: np.dtype[Any]
    """Type of the stored counts."""
    chunk: tuple[int, ...]
    """(detector, y, x, channel) of a chunk."""
    band_rows: int
    codecs: tuple[str, ...]
    shards: tuple[Part, ...]
    """Shard of each y-band."""
    _indices: dict[int, NDArray[np.uint64]] = field(default_factory=dict)
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
        direct = target.dtype == self.dtype and len(columns) == self.chunk[2]
        for y in _steps(rows, self.chunk[1]):
            for x in _steps(columns, self.chunk[2]):
                part, within = _meet(y, rows, self.chunk[1]), _meet(x, columns, self.chunk[2])
                into = target[part.start - rows.start : part.stop - rows.start]
                if direct and len(part) == self.chunk[1] and len(within) == self.chunk[2]:
                    self._decode(detector, y, x, into)
                    continue
                whole = self._buffer()
                self._decode(detector, y, x, whole)
                into[:, within.start - columns.start : within.stop - columns.start] = whole[
                    part.start - y * self.chunk[1] : part.stop - y * self.chunk[1],
                    within.start - x * self.chunk[2] : within.stop - x * self.chunk[2],
                ]

    def _buffer(self) -> NDArray[Any]:
        if not hasattr(self._kept, "chunk"):
            self._kept.chunk = np.empty(self.chunk[1:], dtype=self.dtype)
        kept: NDArray[Any] = self._kept.chunk
        return kept

    def _decode(self, detector: int, y: int, x: int, target: NDArray[Any]) -> None:
        """Decode the chunk of a detector at (y, x), counted in chunks, into memory of its size."""
        steps = self.band_rows // self.chunk[1]
        shard = self.shards[y // steps]
        offset, size = map(int, self._index(y // steps)[detector, y % steps, x])
        if offset == _NO_CHUNK:
            target[...] = 0
            return
        content = _read(shard, offset, size)
        if self.codecs[-1] == "crc32c":
            content, stored = content[: -_CHECKSUM.size], content[-_CHECKSUM.size :]
            if google_crc32c.value(content) != _CHECKSUM.unpack(stored)[0]:
                raise ValueError(f"chunk {detector}, {y}, {x} of {shard.file}: its checksum is another")
        if self.codecs[0] == "blosc":
            if _BLOSC_SIZES.unpack(content[: _BLOSC_SIZES.size]) != (target.nbytes, len(content)):
                raise ValueError(f"chunk {detector}, {y}, {x} of {shard.file}: of another size")
            blosc.decompress(content, target)
        else:
            zstd.decompress(content, target)

    def _index(self, band: int) -> NDArray[np.uint64]:
        """(detector, y, x, 2): offset and bytes of each chunk of a band's shard."""
        if band not in self._indices:
            grid = (self.shape[0], self.band_rows // self.chunk[1], -(-self.shape[2] // self.chunk[2]), 2)
            size = 8 * math.prod(grid) + _CHECKSUM.size
            shard = self.shards[band]
            content = _read(shard, shard.size - size, size)
            index, stored = content[: -_CHECKSUM.size], content[-_CHECKSUM.size :]
            if google_crc32c.value(index) != _CHECKSUM.unpack(stored)[0]:
                raise ValueError(f"the index of {shard.file} is damaged")
            self._indices[band] = np.frombuffer(index, dtype="<u8").reshape(grid)
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
    outer = metadata["codecs"][0]
    inner = outer["configuration"] if outer["name"] == SHARDING else {"codecs": [outer], "chunk_shape": ()}
    codecs = tuple(str(one["name"]) for one in inner["codecs"])[1:]
    if codecs not in _KNOWN or inner.get("index_location") != "end":
        raise DamagedStoreError(f"{path}: counts encoded by {', '.join(codecs)}; remove the store and ingest again")
    return ShardReader(
        shape=tuple(metadata["shape"]),
        dtype=dtype,
        chunk=tuple(inner["chunk_shape"]),
        band_rows=metadata["chunk_grid"]["configuration"]["chunk_shape"][1],
        codecs=codecs,
        shards=tuple(files.part(name) for name in names),
    )


def _steps(wanted: range, step: int) -> Iterator[int]:
    return iter(range(wanted.start // step, -(-wanted.stop // step)))


def _meet(number: int, wanted: range, step: int) -> range:
    """Part of what is wanted that lies in chunk `number` of so many."""
    return range(max(wanted.start, number * step), min(wanted.stop, (number + 1) * step))


def _read(shard: Part, offset: int, size: int) -> bytes:
    if offset < 0 or offset + size > shard.size:
        raise ValueError(f"{shard.file}: ends too early")
    descriptor = os.open(shard.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, size, shard.offset + offset)
    finally:
        os.close(descriptor)
    if len(content) != size:
        raise ValueError(f"{shard.file}: ends too early")
    return content
