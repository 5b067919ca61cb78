"""Chunks of a Zarr store, looked at before numcodecs believes what their first bytes claim.

Its codec of texts makes as many objects as the first four bytes say, and its Blosc reads as many bytes as the header
says, beyond the end of the chunk.
"""

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_TEXTS: Final = 100_000
MOST_TEXT_BYTES: Final = 2**26
"""Bytes of one chunk of texts."""
_VARIABLE: Final = ("vlen-utf8", "vlen-bytes")
_BLOSC_HEADER: Final = struct.Struct("<BBBBIII")
"""Version, version of the compressor, flags, bytes of an item; bytes, bytes of a block, bytes compressed."""
_LENGTH: Final = struct.Struct("<I")


def read_region(array: Any, region: Sequence[slice]) -> NDArray[Any]:  # noqa: ANN401 -- zarr has no useful types
    """Read a region of an array in a folder, numbers or texts.

    Args:
        array: a `zarr.Array` in a folder.
        region: one slice an axis.

    Raises:
        ValueError: a chunk whose header does not fit, or texts that cannot be read here.
        OSError: a chunk cannot be read.
    """
    if has_texts(array):
        return read_texts(array, region)
    if _find_last_codec(array) == "blosc":
        _check_blosc(array, region)
    return np.asarray(array[tuple(region)])


def _find_last_codec(array: Any) -> str:  # noqa: ANN401 -- as above
    """Name of what a chunk was compressed with last; empty: it was not."""
    metadata = array.metadata
    if metadata.zarr_format == 2:
        return "" if metadata.compressor is None else str(metadata.compressor.get_config()["id"])
    return str(metadata.codecs[-1].to_dict()["name"]).removeprefix("numcodecs.")


def _check_blosc(array: Any, region: Sequence[slice]) -> None:  # noqa: ANN401 -- as above
    most = math.prod(array.chunks) * array.dtype.itemsize
    ranges = [
        range(taken.start // c, -(-taken.stop // c))
        for taken, c in ((range(n)[s], c) for s, n, c in zip(region, array.shape, array.chunks, strict=True))
        if len(taken)
    ]
    if len(ranges) < len(array.shape):
        return
    for place in itertools.product(*ranges):
        file = _find_chunk(array, place)
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            _require_blosc(file, stream.read(_BLOSC_HEADER.size), file.stat().st_size, most)


def _require_blosc(file: Path, head: bytes, size: int, most: int) -> None:
    """Refuse a chunk whose Blosc header is not that of its bytes.

    Args:
        file: the chunk.
        head: its first bytes.
        size: bytes of the chunk.
        most: bytes that it may have when it is unpacked.
    """
    if len(head) < _BLOSC_HEADER.size:
        raise ValueError(f"{file}: a chunk of {len(head)} bytes, which has no Blosc header")
    *_, bytes_plain, _block, bytes_packed = _BLOSC_HEADER.unpack(head[: _BLOSC_HEADER.size])
    if bytes_packed != size or bytes_plain > most:
        raise ValueError(
            f"{file}: its Blosc header claims {bytes_packed} bytes for {bytes_plain}, the chunk has {size} for {most}"
        )


def _find_chunk(array: Any, place: tuple[int, ...]) -> Path:  # noqa: ANN401 -- as above
    return Path(str(array.store_path.store.root), array.path, array.metadata.encode_chunk_key(place))


def has_texts(array: Any) -> bool:  # noqa: ANN401 -- zarr's arrays have no useful type
    """Whether an array holds texts of any length."""
    return np.dtype(array.dtype).kind in "OT"


def read_texts(array: Any, region: Sequence[slice]) -> NDArray[Any]:  # noqa: ANN401 -- as above
    """Read a region of an array of texts, each checked against the bytes that its chunk has.

    Args:
        array: a `zarr.Array` in a folder.
        region: one slice an axis.

    Raises:
        ValueError: too many texts, codecs that cannot be undone here, or a chunk whose lengths do not fit.
    """
    if math.prod(array.shape) > MOST_TEXTS or math.prod(array.chunks) > MOST_TEXTS:
        raise ValueError(f"{array.path}: an array {tuple(array.shape)} of texts, at most {MOST_TEXTS} are read")
    codecs = list(_find_codecs(array))
    texts = np.full(array.shape, "", dtype=object)
    for place in itertools.product(*(range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True))):
        file = _find_chunk(array, place)
        if not file.is_file():
            continue
        content = file.read_bytes()
        for codec in codecs:
            if codec.codec_id == "blosc":
                _require_blosc(file, content, len(content), MOST_TEXT_BYTES)
            content = bytes(codec.decode(content))
        chunk = np.array(_split_texts(content, math.prod(array.chunks)), dtype=object).reshape(array.chunks)
        first = [i * c for i, c in zip(place, array.chunks, strict=True)]
        inside = tuple(slice(f, f + c) for f, c in zip(first, array.chunks, strict=True))
        target = texts[inside]
        target[...] = chunk[tuple(slice(0, n) for n in target.shape)]
    return np.asarray(texts[tuple(region)])


def _find_codecs(array: Any) -> Iterator[Any]:  # noqa: ANN401 -- as above
    """What undoes the compression of a chunk, in the order of its reading."""
    import numcodecs

    metadata = array.metadata
    if metadata.zarr_format == 2:
        filters = [one.get_config() for one in metadata.filters or ()]
        compressor = [] if metadata.compressor is None else [metadata.compressor.get_config()]
        chain = [*filters, *compressor]
    else:
        chain = [{"id": one["name"].removeprefix("numcodecs.")} for one in (c.to_dict() for c in metadata.codecs)]
    if not chain or chain[0]["id"] not in _VARIABLE:
        names = ", ".join(str(one["id"]) for one in chain) or "none"
        raise ValueError(f"{array.path}: texts with the codecs {names}; they must begin with vlen-utf8")
    for config in reversed(chain[1:]):
        yield numcodecs.get_codec(config)


def _split_texts(content: bytes, number: int) -> list[str]:
    """Texts of a chunk: their number, then the length and the bytes of each, lengths of 32 bits."""
    if len(content) < _LENGTH.size or _LENGTH.unpack_from(content)[0] != number:
        raise ValueError(f"a chunk of {number} texts claims another number; the store is damaged")
    texts, start = [], _LENGTH.size
    for _ in range(number):
        if start + _LENGTH.size > len(content):
            raise ValueError("a chunk of texts ends early; the store is damaged")
        end = start + _LENGTH.size + _LENGTH.unpack_from(content, start)[0]
        if end > len(content):
            raise ValueError("a text is longer than its chunk; the store is damaged")
        texts.append(content[start + _LENGTH.size : end].decode("utf-8", "replace"))
        start = end
    return texts
