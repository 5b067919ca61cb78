"""Shards of Zarr's codec `sharding_indexed`: chunks one after the other, then the index that says where each lies."""

import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from hpcxrf.store.files import HASH_BLOCK_BYTES

SHARDING: Final = "sharding_indexed"
NO_CHUNK: Final = 2**64 - 1
"""Offset and size of a chunk that the shard does not have: it is the fill value throughout."""
CHECKSUM: Final = struct.Struct("<I")
INDEX_CODECS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
)
"""Codecs of the index as the array's metadata name them."""
_ENTRY: Final = np.dtype("<u8")

Places = NDArray[np.uint64]
"""(*grid, 2): offset and size of each chunk of a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file: all of a chunk or of a file within a store, wherever it lies."""

    file: Path
    offset: int
    size: int

    def within(self, offset: int, size: int) -> "Part":
        """Part of this part.

        Raises:
            ValueError: it ends beyond this one.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"{self.file}: ends too early")
        return Part(file=self.file, offset=self.offset + offset, size=size)

    def blocks(self) -> Iterator[bytes]:
        """Read it in blocks.

        Raises:
            OSError: the file cannot be read, or ends before.
        """
        left = self.size
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            while left:
                block = stream.read(min(left, HASH_BLOCK_BYTES))
                if not block:
                    raise OSError(f"{self.file}: ends {left} bytes too early")
                left -= len(block)
                yield block

    def read(self) -> bytes:
        """Read all of it.

        Raises:
            OSError: the file cannot be read, or ends before.
        """
        descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)
        # The kernel gives 2 GB at a time.
        return content if len(content) == self.size else b"".join(self.blocks())


def grid_of(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """Number of chunks along each axis."""
    return tuple(-(-size // step) for size, step in zip(shape, chunk, strict=True))


def read_index(shard: Part, grid: Sequence[int]) -> Places:
    """Read where the chunks of a shard lie.

    Args:
        shard: all of it; its index is at its end.
        grid: number of its chunks along each axis.

    Raises:
        ValueError: the index is damaged.
        OSError: the shard cannot be read.
    """
    size = 2 * _ENTRY.itemsize * math.prod(grid) + CHECKSUM.size
    content = shard.within(shard.size - size, size).read()
    index, stored = content[: -CHECKSUM.size], content[-CHECKSUM.size :]
    if google_crc32c.value(index) != CHECKSUM.unpack(stored)[0]:
        raise ValueError(f"{shard.file}: the index of its chunks is damaged")
    return np.frombuffer(index, dtype=_ENTRY).reshape(*grid, 2)


def pack_index(places: Places) -> bytes:
    """The bytes at the end of a shard whose chunks lie there."""
    index = places.astype(_ENTRY, copy=False).tobytes()
    return index + CHECKSUM.pack(google_crc32c.value(index))
