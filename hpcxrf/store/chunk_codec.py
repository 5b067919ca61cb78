"""Codecs of the counts' chunks: the bytes that Zarr writes and reads, without its event loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

import google_crc32c
from numcodecs import blosc, zstd
from numpy.typing import NDArray

from hpcxrf.errors import DamagedStoreError
from hpcxrf.store.shard_index import CHECKSUM, SHARDING, grid_of

_BLOSC_SIZES: Final = Struct("<4xI4xI")
"""Bytes before and after compression, in the header of Blosc."""
_ZSTD_MAGIC: Final = 4
"""Bytes before the description of a frame."""
_LEAST_FRAME: Final = 9
_SHUFFLES: Final = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
_SEAL: Final = "crc32c"
"""The last codec: a checksum of a chunk's encoded bytes, a tenth of the counts' and fewer."""
_KNOWN: Final = (("zstd",), ("zstd", _SEAL), ("blosc", _SEAL))
"""Codecs of counts, after that of the bytes; version 0.1.0 has the first, whose frames have checksums of the counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFormat:
    """How the counts of a store are cut and encoded, as the metadata of the array say."""

    shape: tuple[int, ...]
    """(detector, y, x, channel)."""
    chunk: tuple[int, ...]
    """(1, y, x, channel) of a chunk."""
    shard: tuple[int, ...]
    """(detector, y, x, channel) of a shard: one y-band."""
    codec: str
    options: Mapping[str, Any]
    """Configuration of the codec."""
    sealed: bool = True
    """Each chunk ends with a checksum of its encoded bytes."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks of a shard along each axis."""
        return grid_of(self.shard, self.chunk)

    def describe(self) -> list[dict[str, Any]]:
        """The codecs after that of the bytes, as the metadata of the array name them."""
        return [{"name": self.codec, "configuration": dict(self.options)}, *([{"name": _SEAL}] if self.sealed else [])]

    def encode(self, values: NDArray[Any]) -> bytes:
        """Encode a chunk of contiguous counts."""
        content = self._compress(values)
        return content + CHECKSUM.pack(google_crc32c.value(content)) if self.sealed else content

    def _compress(self, values: NDArray[Any]) -> bytes:
        if self.codec == "zstd":
            return bytes(zstd.compress(values, self.options["level"], self.options.get("checksum", False)))
        return bytes(
            blosc.compress(
                values,
                self.options["cname"].encode(),
                self.options["clevel"],
                _SHUFFLES[self.options["shuffle"]],
                self.options["blocksize"],
                self.options["typesize"],
            )
        )

    def decode(self, content: bytes | memoryview, target: NDArray[Any]) -> None:
        """Decode a chunk into contiguous memory of its size.

        Raises:
            ValueError: the chunk is damaged.
            RuntimeError: the chunk is damaged.
        """
        if self.sealed:
            content = _unseal(content)
        if self.codec == "zstd":
            # What is shorter would leave what was in memory before.
            if _read_frame_bytes(content) != target.nbytes:
                raise ValueError("of another size")
            zstd.decompress(content, target)
            return
        if len(content) < _BLOSC_SIZES.size:
            raise ValueError("ends too early")
        if _BLOSC_SIZES.unpack(content[: _BLOSC_SIZES.size]) != (target.nbytes, len(content)):
            raise ValueError("of another size")
        blosc.decompress(content, target)


def _unseal(content: bytes | memoryview) -> bytes:
    """The encoded bytes of a chunk without their checksum, which must be theirs."""
    if len(content) < CHECKSUM.size:
        raise ValueError("ends too early")
    # The checksum takes no view.
    encoded, stored = bytes(content[: -CHECKSUM.size]), content[-CHECKSUM.size :]
    if google_crc32c.value(encoded) != CHECKSUM.unpack(stored)[0]:
        raise ValueError("its checksum is another")
    return encoded


def _read_frame_bytes(content: bytes | memoryview) -> int | None:
    """Size before compression, as the header of a frame of Zstandard says (RFC 8878, 3.1.1.1); None: it does not."""
    if len(content) < _LEAST_FRAME:
        return None
    described = content[_ZSTD_MAGIC]
    kind, whole = described >> 6, described >> 5 & 1
    size = (1 if whole else 0, 2, 4, 8)[kind]
    at = _ZSTD_MAGIC + 1 + (0 if whole else 1) + (0, 1, 2, 4)[described & 3]
    if not size:
        return None
    return int.from_bytes(content[at : at + size], "little") + (256 if kind == 1 else 0)


def read_format(path: Path, metadata: Mapping[str, Any]) -> ShardFormat:
    """Read how counts are cut and encoded.

    Args:
        path: the store.
        metadata: of its counts.

    Raises:
        DamagedStoreError: counts are encoded as this program never did.
    """
    outer: Mapping[str, Any] = metadata["codecs"][0]
    inner: Mapping[str, Any] = outer["configuration"] if outer["name"] == SHARDING else {"codecs": [outer]}
    codecs: Sequence[Mapping[str, Any]] = inner["codecs"][1:]
    names = tuple(str(one["name"]) for one in codecs)
    if names not in _KNOWN or inner.get("index_location") != "end":
        raise DamagedStoreError(f"{path}: counts encoded by {', '.join(names)}; remove the store and ingest again")
    return ShardFormat(
        shape=tuple(metadata["shape"]),
        chunk=tuple(inner["chunk_shape"]),
        shard=tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        codec=names[0],
        options=codecs[0]["configuration"],
        sealed=_SEAL in names,
    )
