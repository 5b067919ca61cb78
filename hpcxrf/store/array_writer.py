"""Arrays beside the counts as Zarr would write them: a spectra store has a dozen, and Zarr takes 5 ms for each."""

import itertools
import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.store.chunk_codec import ShardFormat
from hpcxrf.store.files import write_blocks
from hpcxrf.store.schema import MAP_CHUNK_PIXELS, VariableSpec
from hpcxrf.store.shard_index import INDEX_CODECS, SHARDING
from hpcxrf.store.shard_writer import cut_chunks, encode_shard

METADATA: Final = "zarr.json"
TEXT: Final = "string"
"""Type of an array of strings of variable length."""
ZSTD_OPTIONS: Final[Mapping[str, Any]] = {"level": 1, "checksum": False}
"""A checksum of the encoded bytes follows: Zstandard's own, of the counts, takes a seventh of the time of a read."""
_LENGTH: Final = struct.Struct("<I")


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make a group; its folder is made, too.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_metadata(folder, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})


def write_counts_metadata(folder: Path, dtype: np.dtype[Any], form: ShardFormat, spec: VariableSpec) -> None:
    """Make the empty array of the counts.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir()
    codecs = [_describe_sharding(dtype, form)]
    about = describe_array(form.shape, dtype, form.shard, codecs, dims=spec.dims, attributes=_attributes_of(spec))
    _write_metadata(folder, about | {"fill_value": 0})


def write_numbers(folder: Path, values: NDArray[Any], spec: VariableSpec) -> None:
    """Write an array anew, in square tiles of 2048; those of the last two axes of one tile are one file.

    Tiles that are nothing but the fill value, NaN or 0, have no file.

    Args:
        folder: of the array; what was there is removed.
        values: numbers, of two axes or more.
        spec: its type and meaning.

    Raises:
        OSError: the folder cannot be written.
    """
    *lead, rows, columns = values.shape
    tile = (min(rows, MAP_CHUNK_PIXELS), min(columns, MAP_CHUNK_PIXELS))
    dtype = np.dtype(spec.dtype)
    form = ShardFormat(
        shape=values.shape, chunk=(*(1 for _ in lead), *tile), shard=(*lead, *tile), codec="zstd", options=ZSTD_OPTIONS
    )
    codecs = [_describe_sharding(dtype, form)] if lead else _describe_codecs(dtype, form)
    remove_array(folder)
    folder.mkdir()
    _write_metadata(
        folder, describe_array(values.shape, dtype, form.shard, codecs, dims=spec.dims, attributes=_attributes_of(spec))
    )
    for y, x in itertools.product(range(0, rows, tile[0]), range(0, columns, tile[1])):
        part = values[..., y : y + tile[0], x : x + tile[1]].astype(dtype, copy=False)
        if not (np.isnan(part) if dtype.kind == "f" else part == 0).all():
            name = ".".join(["c", *("0" for _ in lead), str(y // tile[0]), str(x // tile[1])])
            blocks = encode_shard(part, form) if lead else (form.encode(chunk) for _, chunk in cut_chunks(part, form))
            write_blocks(folder / name, blocks)


def write_texts(folder: Path, texts: Sequence[str], spec: VariableSpec) -> None:
    """Write strings anew, of one axis.

    Raises:
        OSError: the folder cannot be written.
    """
    remove_array(folder)
    folder.mkdir()
    size, codecs = (len(texts),), [describe_first_codec(TEXT)]
    _write_metadata(folder, describe_array(size, TEXT, size, codecs, dims=spec.dims, attributes=_attributes_of(spec)))
    write_blocks(folder / "c.0", [pack_texts(texts)])


def consolidate(members: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the entry `consolidated_metadata` of a root, as Zarr's `consolidate_metadata` does in ten times the time.

    Args:
        members: metadata of every group and array below the root, by path.
    """
    empty = {"kind": "inline", "must_understand": False, "metadata": {}}
    inside = {
        name: {**metadata, "consolidated_metadata": empty} if metadata.get("node_type") == "group" else metadata
        for name, metadata in members.items()
    }
    return {**empty, "metadata": inside}


def remove_array(folder: Path) -> None:
    """Remove an array, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def describe_array(
    shape: Sequence[int],
    dtype: np.dtype[Any] | str,
    grid: Sequence[int],
    codecs: Sequence[Mapping[str, Any]],
    *,
    dims: Sequence[str],
    attributes: Mapping[str, Any],
    separator: str = ".",
) -> dict[str, Any]:
    """Metadata of an array that is NaN, 0, False or empty where nothing was written.

    Args:
        shape: length of every axis.
        dtype: of the numbers, or `TEXT`.
        grid: shape of a chunk, or of a shard.
        codecs: of a chunk, or of a shard.
        dims: names of the axes.
        attributes: of the array.
        separator: in the keys of chunks; dots make no folders.
    """
    fill: object = "" if isinstance(dtype, str) else {"f": "NaN", "b": False}.get(dtype.kind, 0)
    return {
        "shape": list(shape),
        "data_type": dtype if isinstance(dtype, str) else dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": fill,
        "codecs": list(codecs),
        "attributes": dict(attributes),
        "dimension_names": list(dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def describe_first_codec(dtype: np.dtype[Any] | str) -> dict[str, Any]:
    """The codec that makes bytes of numbers, or of strings of variable length."""
    if isinstance(dtype, str):
        return {"name": "vlen-utf8", "configuration": {}}
    return {"name": "bytes", **({"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {})}


def unpack_texts(content: bytes) -> list[str]:
    """Strings that `pack_texts` has packed.

    Raises:
        ValueError: the bytes are not those of strings.
    """
    try:
        (count,), at, texts = _LENGTH.unpack_from(content), _LENGTH.size, []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(content, at)
            at += _LENGTH.size + length
            texts.append(content[at - length : at].decode())
    except (struct.error, UnicodeDecodeError) as fault:
        raise ValueError(f"not strings of variable length: {fault}") from fault
    if at != len(content):
        raise ValueError("not strings of variable length: of another size")
    return texts


def pack_texts(texts: Sequence[str]) -> bytes:
    """Strings of variable length as Zarr's codec `vlen-utf8` writes them."""
    encoded = [text.encode() for text in texts]
    return _LENGTH.pack(len(encoded)) + b"".join(_LENGTH.pack(len(text)) + text for text in encoded)


def _attributes_of(spec: VariableSpec) -> dict[str, str]:
    return {"units": spec.units, "long_name": spec.long_name}


def _describe_sharding(dtype: np.dtype[Any], form: ShardFormat) -> dict[str, Any]:
    inner = {
        "chunk_shape": list(form.chunk),
        "codecs": _describe_codecs(dtype, form),
        "index_codecs": list(INDEX_CODECS),
        "index_location": "end",
    }
    return {"name": SHARDING, "configuration": inner}


def _describe_codecs(dtype: np.dtype[Any], form: ShardFormat) -> list[dict[str, Any]]:
    return [describe_first_codec(dtype), *form.describe()]


def _write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    write_blocks(folder / METADATA, [json.dumps(metadata).encode()])
