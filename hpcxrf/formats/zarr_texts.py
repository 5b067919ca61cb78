"""Texts of a Zarr store. The codec of numcodecs makes as many objects as the first four bytes of a chunk claim."""

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_TEXTS: Final = 100_000
_VARIABLE: Final = ("vlen-utf8", "vlen-bytes")
_LENGTH: Final = struct.Struct("<I")


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
    folder = Path(str(array.store_path.store.root), array.path)
    texts = np.full(array.shape, "", dtype=object)
    for place in itertools.product(*(range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True))):
        file = folder / array.metadata.encode_chunk_key(place)
        if not file.is_file():
            continue
        content = file.read_bytes()
        for codec in codecs:
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
