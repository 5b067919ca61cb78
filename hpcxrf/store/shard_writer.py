"""A part of an array into its shard: the file that Zarr would write, chunk after chunk from memory that is there."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcxrf.store.chunk_codec import ShardFormat
from hpcxrf.store.files import sync_folder, write_blocks
from hpcxrf.store.shard_index import NO_CHUNK, pack_index


def write_shard(file: Path, values: NDArray[Any], form: ShardFormat) -> str:
    """Write one shard, by a temporary file and a rename, and wait until it is on the disk.

    Args:
        file: the shard; one that is there is replaced.
        values: all of it that the array has: of counts (detector, row, x, channel); of the stored type.
        form: how the array is cut and encoded.

    Returns:
        SHA-256 of the file.

    Raises:
        ValueError: the values are not all of a shard.
        OSError: the folder cannot be written.
    """
    partial = file.with_name(f"{file.name}.partial")
    checksum = write_blocks(partial, encode_shard(values, form), sync=True)
    partial.replace(file)
    sync_folder(file.parent)
    return checksum


def encode_shard(values: NDArray[Any], form: ShardFormat) -> Iterator[bytes]:
    """Encode a shard: chunk after chunk, then the index.

    Chunks that lie wholly beyond the array are left out, as Zarr leaves them out; what of a chunk lies beyond it is 0.

    Args:
        values: all of the shard that the array has, of the stored type.
        form: how the array is cut and encoded.

    Raises:
        ValueError: the values are not all of a shard.
    """
    sizes = zip(values.shape, form.shape, form.shard, strict=True)
    if not all(0 < n <= shard and (n == min(size, shard) or size > shard) for n, size, shard in sizes):
        raise ValueError(f"values of shape {values.shape} are not one whole shard {form.shard}")
    places = np.full((*form.grid, 2), NO_CHUNK, dtype=np.uint64)
    at = 0
    for number, chunk in cut_chunks(values, form):
        content = form.encode(chunk)
        places[number] = at, len(content)
        at += len(content)
        yield content
    yield pack_index(places)


def cut_chunks(values: NDArray[Any], form: ShardFormat) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Chunks of a shard and their numbers in it, contiguous and filled up with 0."""
    steps = [range(0, n, step) for n, step in zip(values.shape, form.chunk, strict=True)]
    for corner in itertools.product(*steps):
        chunk = values[tuple(slice(at, at + step) for at, step in zip(corner, form.chunk, strict=True))]
        if chunk.shape != form.chunk:
            part, chunk = chunk, np.zeros(form.chunk, dtype=values.dtype)
            chunk[tuple(slice(0, n) for n in part.shape)] = part
        yield tuple(at // step for at, step in zip(corner, form.chunk, strict=True)), np.ascontiguousarray(chunk)
