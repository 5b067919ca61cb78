"""A y-band of counts into its shard: the file that Zarr would write, chunk after chunk from memory that is there."""

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcxrf.store.chunk_codec import ShardFormat
from hpcxrf.store.files import sync_folder
from hpcxrf.store.shard_index import NO_CHUNK, pack_index


def write_shard(file: Path, values: NDArray[Any], form: ShardFormat) -> str:
    """Write one shard, by a temporary file and a rename, and wait until it is on the disk.

    Chunks that lie wholly beyond the scan are left out, as Zarr leaves them out; what of a chunk lies beyond it is 0.

    Args:
        file: the shard; one that is there is replaced.
        values: (detector, row, x, channel), all rows that the scan has in this band, of the stored type.
        form: how the store's counts are cut and encoded.

    Returns:
        SHA-256 of the file.

    Raises:
        ValueError: the values are not all of a shard.
        OSError: the folder cannot be written.
    """
    detectors, rows, columns, channels = values.shape
    if (detectors, columns, channels) != (form.shape[0], *form.shape[2:]) or not 0 < rows <= form.shard[1]:
        raise ValueError(f"counts of shape {values.shape} are not one whole shard {form.shard} of {file}")
    places = np.full((*form.grid, 2), NO_CHUNK, dtype=np.uint64)
    digest = hashlib.sha256()
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb", buffering=0) as stream:
        at = 0
        for number, chunk in _cut(values, form):
            content = form.encode(chunk)
            places[number] = at, len(content)
            at += _write(stream.fileno(), content)
            digest.update(content)
        index = pack_index(places)
        _write(stream.fileno(), index)
        digest.update(index)
        os.fsync(stream.fileno())
    partial.replace(file)
    sync_folder(file.parent)
    return digest.hexdigest()


def _cut(values: NDArray[Any], form: ShardFormat) -> Iterator[tuple[tuple[int, int, int, int], NDArray[Any]]]:
    """Chunks (1, y, x, channel) of a band and their numbers in its shard, contiguous and filled up with 0."""
    _, height, width, _ = form.chunk
    detectors, rows, columns, _ = values.shape
    for d, y, x in itertools.product(range(detectors), range(0, rows, height), range(0, columns, width)):
        chunk = values[d : d + 1, y : y + height, x : x + width]
        if chunk.shape != form.chunk:
            part, chunk = chunk, np.zeros(form.chunk, dtype=values.dtype)
            chunk[:, : part.shape[1], : part.shape[2]] = part
        yield (d, y // height, x // width, 0), np.ascontiguousarray(chunk)


def _write(descriptor: int, content: bytes) -> int:
    """Write all of it; a disk that fills up takes a part, and only the next write says so."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
    return len(content)
