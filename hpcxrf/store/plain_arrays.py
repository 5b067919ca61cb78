"""Arrays of results stores as Zarr would write them, a chunk at a time: Zarr takes 1 to 4 ms for each, of hundreds.

Numbers are encoded by Zstandard, strings of variable length, too; no chunk is in a shard, and one that holds nothing
but the fill value has no file. What is read here is what was written here; everything else is left to Zarr.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from hpcxrf.store.array_writer import METADATA, TEXT, describe_array, describe_first_codec, pack_texts, unpack_texts

# Defaults of Zarr, so that an array is the same whoever makes it.
_ZSTD: Final = {"level": 0, "checksum": False}


def create_plain_array(
    folder: Path,
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: np.dtype[Any] | str,
    dims: Sequence[str],
    attributes: Mapping[str, Any],
    *,
    dots: bool,
    level: int = 0,
) -> None:
    """Make an array that is all fill value: NaN of floats, 0 of integers, False, empty strings.

    Args:
        folder: of the array, which is not there yet; that of its group is.
        shape: length of every axis.
        chunk: shape of a chunk.
        dtype: of the numbers, or `TEXT`.
        dims: names of the axes.
        attributes: of the array.
        dots: the chunks' files are named with dots, and make no folders.
        level: of Zstandard; below 0 it is ten times as fast, and hardly makes numbers smaller.

    Raises:
        OSError: the folder cannot be written.
    """
    codecs = [describe_first_codec(dtype), {"name": "zstd", "configuration": {**_ZSTD, "level": level}}]
    metadata = describe_array(
        shape, dtype, chunk, codecs, dims=dims, attributes=attributes, separator="." if dots else "/"
    )
    folder.mkdir()
    (folder / METADATA).write_text(json.dumps(metadata, indent=2))


def write_plain_chunk(folder: Path, metadata: Mapping[str, Any], number: Sequence[int], values: NDArray[Any]) -> None:
    """Write a chunk in one rename; one of nothing but the fill value has no file afterwards.

    Args:
        folder: of the array.
        metadata: of the array, of `is_plain`.
        number: place of the chunk along every axis.
        values: the chunk, in the array's type; strings as objects.

    Raises:
        OSError: the folder cannot be written.
    """
    separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
    file = folder / separator.join(["c", *map(str, number)])
    level = int(metadata["codecs"][1]["configuration"]["level"])
    content = _pack_texts(values) if metadata["data_type"] == TEXT else _pack_numbers(values, level)
    if content is None:
        file.unlink(missing_ok=True)
        return
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
    partial.replace(file)


def read_plain_chunk(folder: Path, metadata: Mapping[str, Any], number: Sequence[int]) -> NDArray[Any]:
    """Read a chunk of numbers, which may be written into; the fill value where there is no file.

    Args:
        folder: of the array.
        metadata: of the array, of `is_plain`.
        number: place of the chunk along every axis.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
        RuntimeError: it is damaged.
    """
    separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
    dtype = np.dtype(metadata["data_type"])
    shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    file = folder / separator.join(["c", *map(str, number)])
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return np.full(shape, metadata["fill_value"], dtype=dtype)
    values = np.empty(shape, dtype=dtype)
    zstd.decompress(content, values)
    return values


def read_plain_texts(folder: Path, metadata: Mapping[str, Any]) -> list[str]:
    """Read strings of one axis and one chunk.

    Args:
        folder: of the array.
        metadata: of the array, of `is_plain`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or has several chunks.
        RuntimeError: it is damaged.
    """
    (size,), (chunk,) = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    if chunk < size:
        raise ValueError("its strings are in several chunks")
    separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
    file = folder / separator.join(["c", "0"])
    texts = unpack_texts(zstd.decompress(file.read_bytes())) if file.is_file() else [""] * size
    return texts[:size]


def is_plain(metadata: Mapping[str, Any]) -> bool:
    """Whether the chunks of an array are as `create_plain_array` has them."""
    codecs = metadata.get("codecs") or []
    return (
        metadata.get("node_type") == "array"
        and [one.get("name") for one in codecs] in (["bytes", "zstd"], ["vlen-utf8", "zstd"])
        and codecs[0].get("configuration", {}).get("endian", "little") == "little"
        and metadata["chunk_key_encoding"].get("name") == "default"
    )


def _pack_numbers(values: NDArray[Any], level: int) -> bytes | None:
    nothing = np.isnan(values) if values.dtype.kind == "f" else values == 0
    if nothing.all():
        return None
    return bytes(zstd.compress(np.ascontiguousarray(values), level, _ZSTD["checksum"]))


def _pack_texts(values: NDArray[Any]) -> bytes | None:
    texts = [str(text) for text in values.ravel().tolist()]
    if not any(texts):
        return None
    return bytes(zstd.compress(pack_texts(texts), _ZSTD["level"], _ZSTD["checksum"]))
