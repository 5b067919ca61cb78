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
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import google_crc32c

from hpcxrf.config.untrusted import read_json_object
from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.store.files import HASH_BLOCK_BYTES, atomic_write_text, output_faults

METADATA: Final = "zarr.json"
SHARDING: Final = "sharding_indexed"
_ENTRY: Final = struct.Struct("<QQ")
_CHECKSUM: Final = struct.Struct("<I")
_NO_CHUNK: Final = (2**64 - 1, 2**64 - 1)
_REMEDY: Final = "`hpcxrf verify RUN --redo`, then resume, makes it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file: all of a chunk or of a file within a store, wherever it lies."""

    file: Path
    offset: int
    size: int

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
        """Read all of it."""
        return b"".join(self.blocks())


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
        and math.prod(_grid(metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"])) == 1
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
    grid = _grid(whole, metadata["codecs"][0]["configuration"]["chunk_shape"])
    size = math.prod(grid) * _ENTRY.size + _CHECKSUM.size
    index = b""
    if shard.size >= size:
        index = Part(file=shard.file, offset=shard.offset + shard.size - size, size=size).read()
    if not index or google_crc32c.value(index[: -_CHECKSUM.size]) != _CHECKSUM.unpack(index[-_CHECKSUM.size :])[0]:
        raise DamagedStoreError(f"{shard.file}: the index of its chunks is damaged; {_REMEDY}")
    places = _ENTRY.iter_unpack(index[: -_CHECKSUM.size])
    return {
        _chunk_name(number): Part(file=shard.file, offset=shard.offset + offset, size=length)
        for number, (offset, length) in zip(_numbers(grid), places, strict=True)
        if (offset, length) != _NO_CHUNK
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


def _grid(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // step) for size, step in zip(shape, chunk, strict=True))


def _numbers(grid: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, grid))


def _chunk_name(number: Sequence[int]) -> str:
    return "/".join(["c", *map(str, number)])


def _write_shard(folder: Path, metadata: Mapping[str, Any]) -> None:
    chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    grid = _grid(metadata["shape"], chunk)
    shard = folder / shard_name(metadata)
    partial = shard.with_name(f"{shard.name}.partial")
    index = b""
    with partial.open("wb") as stream:
        for number in _numbers(grid):
            source = folder / _chunk_name(number)
            place = (stream.tell(), source.stat().st_size) if source.is_file() else _NO_CHUNK
            if place != _NO_CHUNK:
                _copy(source, stream)
            index += _ENTRY.pack(*place)
        stream.write(index + _CHECKSUM.pack(google_crc32c.value(index)))
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(shard)
    inner = {
        "chunk_shape": chunk,
        "codecs": metadata["codecs"],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
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
