"""Codecs of a Zarr store, checked by name before the store is opened: some of them run what the store holds."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.untrusted import read_json_object, show_name
from hpcxrf.errors import InputFileError

ALLOWED: Final = (
    *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"),
    *("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"),
    *("astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle", "transpose"),
    *("bytes", "endian", "sharding_indexed", "vlen-bytes", "vlen-utf8"),
)
"""Compressors, filters and checksums of numbers and texts. `pickle` runs code; `json2`, `msgpack2` make any object."""
METADATA_FILES: Final = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")
MAX_METADATA_BYTES: Final = 64 * 2**20
MAX_FOLDERS: Final = 20_000
MAX_DEPTH: Final = 32
_REMEDY: Final = "the store is damaged: copy it again"


def refuse_unsafe_codecs(path: Path) -> None:
    """Refuse a store that names a codec which is not on the list, or that cannot be walked through.

    Raises:
        InputFileError: the codec and its array; a loop of links, too many groups, or damaged metadata.
    """
    for file in _list_metadata(path):
        document = read_json_object(file, InputFileError, remedy=_REMEDY, largest=MAX_METADATA_BYTES)
        unknown = sorted({name for name in _list_codecs(document) if name not in ALLOWED})
        if unknown:
            raise InputFileError(
                f"{file}: names the codec {', '.join(map(show_name, unknown))}, which is not read; write the array "
                f"with one of {', '.join(sorted(ALLOWED))}"
            )


def _list_metadata(path: Path) -> Iterator[Path]:
    """Metadata of a group, and of the groups and arrays below it; chunks are not looked at."""
    waiting = [(path, 0)]
    seen = 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if seen > MAX_FOLDERS or depth > MAX_DEPTH:
            raise InputFileError(
                f"{path}: more than {MAX_FOLDERS} groups, or nested deeper than {MAX_DEPTH}; links in a loop? "
                "Name the array's own folder"
            )
        found = [folder / name for name in METADATA_FILES if (folder / name).exists()]
        yield from found
        if not any(_is_array(file) for file in found):
            waiting += [(child, depth + 1) for child in folder.iterdir() if child.is_dir()]


def _is_array(file: Path) -> bool:
    if file.name == ".zarray":
        return True
    content = read_json_object(file, InputFileError, remedy=_REMEDY, largest=MAX_METADATA_BYTES)
    return file.name == "zarr.json" and content.get("node_type") == "array"


def _list_codecs(document: Mapping[str, Any]) -> Iterator[str]:
    """Names of the codecs of one document, and of those that it consolidates."""
    for key in ("compressor", "filters", "codecs", "index_codecs"):
        value = document.get(key)
        for codec in value if isinstance(value, list) else [] if value is None else [value]:
            yield _name_codec(codec)
            inner = codec.get("configuration") if isinstance(codec, Mapping) else None
            if isinstance(inner, Mapping):
                yield from _list_codecs(inner)
    consolidated = document.get("consolidated_metadata")
    members = (consolidated or {}).get("metadata") if isinstance(consolidated, dict) else document.get("metadata")
    for member in members.values() if isinstance(members, Mapping) else ():
        if isinstance(member, Mapping):
            yield from _list_codecs(member)


def _name_codec(codec: object) -> str:
    named = codec.get("id", codec.get("name")) if isinstance(codec, Mapping) else codec
    name = named if isinstance(named, str) else json.dumps(named)
    return name.removeprefix("numcodecs.")
