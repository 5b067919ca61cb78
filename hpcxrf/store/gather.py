"""Arrays that many tasks write, chunk by chunk, become one shard each when their store is closed, and chunks again.

While a store is filled, every chunk of such an array is a file of its own (`c/0/0/1/0`), since each has one writer. A
finished store has one file instead (`c.0.0.0.0`): the bytes of the chunks, untouched, then the index that Zarr's codec
`sharding_indexed` has at its end. The two kinds of names never meet, and the array's metadata, replaced by one rename,
says which counts: a kill at any moment leaves the one or the other.
"""

import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from hpcxrf.config.untrusted import read_json_object
from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.store.files import HASH_BLOCK_BYTES, atomic_write_text, output_faults
from hpcxrf.store.shard_index import INDEX_CODECS, NO_CHUNK, SHARDING, Part, grid_of, pack_index, read_index

METADATA: Final = "zarr.json"
_REMEDY: Final = "`hpcxrf verify RUN --redo`, then resume, makes it again"


def gather_chunks(group: Path) -> None:
    """Put the chunks of every array below a group that lie in files of their own into one shard each.

    Args:
        group: folder of a store; arrays without such chunks stay as they are.

    Raises:
        OutputError: the folder cannot be written, or metadata are damaged.
    """
    for folder in _clean_folders(group):
        metadata = _read_metadata(folder)
        if (folder / "c").is_dir() and not is_gathered(metadata):
            with output_faults(folder, bytes_needed=0):
                _write_shard(folder, metadata)
        if is_gathered(_read_metadata(folder)):
            shutil.rmtree(folder / "c", ignore_errors=True)


def scatter_chunks(group: Path) -> None:
    """Undo `gather_chunks`: every chunk has a file of its own again, and one writer.

    Raises:
        OutputError: the folder cannot be written, or metadata or the index of a shard are damaged.
    """
    for folder in _clean_folders(group):
        metadata = _read_metadata(folder)
        with output_faults(folder, bytes_needed=0):
            if is_gathered(metadata):
                shutil.rmtree(folder / "c", ignore_errors=True)
                _write_chunks(folder, metadata)
            if is_gathered(metadata) or (folder / "c").is_dir():
                (folder / shard_name(metadata)).unlink(missing_ok=True)


def is_gathered(metadata: Mapping[str, Any]) -> bool:
    """Whether the array's chunks are in one shard of a name with dots."""
    codecs = metadata.get("codecs") or [{}]
    return (
        metadata.get("node_type") == "array"
        and codecs[0].get("name") == SHARDING
        and _separator(metadata) == "."
        and math.prod(grid_of(metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"])) == 1
    )


def shard_name(metadata: Mapping[str, Any]) -> str:
    """File name of the first shard of an array."""
    return ".".join(["c", *("0" for _ in metadata.get("shape", ()))])


def list_chunks(metadata: Mapping[str, Any], shard: Part) -> dict[str, Part]:
    """Chunks of a gathered array, by the names that their files have while the store is filled.

    Args:
        metadata: of the array.
        shard: its only shard.

    Raises:
        DamagedStoreError: the index is damaged.
    """
    whole = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    grid = grid_of(whole, metadata["codecs"][0]["configuration"]["chunk_shape"])
    try:
        places = read_index(shard, grid).reshape(-1, 2).tolist()
    except ValueError as error:
        raise DamagedStoreError(f"{error}; {_REMEDY}") from error
    return {
        _chunk_name(number): Part(file=shard.file, offset=shard.offset + offset, size=length)
        for number, (offset, length) in zip(_numbers(grid), places, strict=True)
        if offset != NO_CHUNK
    }


def _clean_folders(group: Path) -> list[Path]:
    """Folders of groups and arrays, without what a kill left half written in them."""
    folders = sorted(file.parent for file in group.rglob(METADATA))
    for left in (left for folder in folders for left in folder.glob("*.partial") if left.is_file()):
        left.unlink(missing_ok=True)
    return folders


def _read_metadata(folder: Path) -> dict[str, Any]:
    return read_json_object(folder / METADATA, OutputError, remedy=_REMEDY)


def _separator(metadata: Mapping[str, Any]) -> str:
    return str(metadata["chunk_key_encoding"].get("configuration", {}).get("separator", "/"))


def _numbers(grid: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, grid))


def _chunk_name(number: Sequence[int]) -> str:
    return "/".join(["c", *map(str, number)])


def _write_shard(folder: Path, metadata: Mapping[str, Any]) -> None:
    chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    grid = grid_of(metadata["shape"], chunk)
    shard = folder / shard_name(metadata)
    partial = shard.with_name(f"{shard.name}.partial")
    places = np.full((*grid, 2), NO_CHUNK, dtype=np.uint64)
    with partial.open("wb") as stream:
        for number in _numbers(grid):
            source = folder / _chunk_name(number)
            if source.is_file():
                places[number] = stream.tell(), source.stat().st_size
                _copy(source, stream)
        stream.write(pack_index(places))
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(shard)
    inner = {
        "chunk_shape": chunk,
        "codecs": metadata["codecs"],
        "index_codecs": list(INDEX_CODECS),
        "index_location": "end",
    }
    whole = [steps * step for steps, step in zip(grid, chunk, strict=True)]
    _replace_metadata(folder, metadata, whole, ".", [{"name": SHARDING, "configuration": inner}])


def _copy(source: Path, stream: BinaryIO) -> None:
    with source.open("rb") as file:
        shutil.copyfileobj(file, stream, HASH_BLOCK_BYTES)


def _write_chunks(folder: Path, metadata: Mapping[str, Any]) -> None:
    shard = folder / shard_name(metadata)
    inner = metadata["codecs"][0]["configuration"]
    if shard.is_file():
        for name, part in list_chunks(metadata, Part(file=shard, offset=0, size=shard.stat().st_size)).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("wb") as stream:
                stream.writelines(part.blocks())
                stream.flush()
                os.fsync(stream.fileno())
    _replace_metadata(folder, metadata, inner["chunk_shape"], "/", inner["codecs"])


def _replace_metadata(
    folder: Path, metadata: Mapping[str, Any], chunk: Sequence[int], separator: str, codecs: Sequence[object]
) -> None:
    changed = {
        **metadata,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "codecs": list(codecs),
    }
    atomic_write_text(folder / METADATA, json.dumps(changed, indent=2))
