"""Damage to the stores of a finished run."""

import json
from pathlib import Path

from hpcxrf.store.gather import list_chunks, shard_name
from hpcxrf.store.shard_index import Part


def spoil_chunks(array: Path, start: str) -> list[Path]:
    """Flip a byte in every chunk of a gathered array whose name begins so; the names they had while being written."""
    metadata = json.loads((array / "zarr.json").read_bytes())
    shard = array / shard_name(metadata)
    content = bytearray(shard.read_bytes())
    chunks = list_chunks(metadata, Part(file=shard, offset=0, size=len(content)))
    spoiled = {name: part for name, part in chunks.items() if name.startswith(start)}
    for part in spoiled.values():
        content[part.offset] ^= 0xFF
    shard.write_bytes(content)
    return [array / name for name in spoiled]
