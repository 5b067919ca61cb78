"""Maps (channel, y, x) of HDF5 files, turned into spectra: by slices, or spectrum by spectrum as XRF-Maps packs them.

A slice of chunks of one spectrum each costs 70 us a spectrum, most of it for finding, caching and scattering chunks of
a few hundred bytes. Here the places of all chunks are asked for once, and each spectrum is read and unpacked by itself.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import InputFileError

_SHUFFLE: Final = h5py.h5z.FILTER_SHUFFLE
_GZIP: Final = h5py.h5z.FILTER_DEFLATE
_MORE_PACKED: Final = 1024
"""Bytes by which a spectrum may be longer packed than unpacked: a file of more is damaged."""
PIECE_BYTES: Final = 8 << 20
"""Bytes of counts that are held twice, as stored and as returned, where they are not in chunks."""
_GAPS: Final = 2
"""A row whose spectra lie within so many times their bytes is read in one go."""
_NOWHERE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumChunks:
    """Where the spectra of a dataset (channel, y, x) lie in its file; made by `index_chunks`."""

    file: Path
    name: str
    channels: int
    dtype: np.dtype[Any]
    filters: tuple[int, ...]
    """Filters in the order in which they were applied."""
    fill: float
    """Value of spectra that were never written."""
    offset: NDArray[np.int64]
    """(y, x): byte of the file; -1 where the spectrum was never written."""
    size: NDArray[np.int64]
    """(y, x): bytes in the file."""
    skipped: NDArray[np.uint32]
    """(y, x): filters, by their bit, that were not applied."""


def read_slices(dataset: h5py.Dataset, rows: slice, out: NDArray[Any]) -> None:
    """Read spectra by slices: whole chunks, so that none is unpacked twice, and as few as turn within the cache.

    Args:
        dataset: (channel, y, x).
        rows: contiguous rows.
        out: (row, x, channel), filled.
    """
    row_bytes = dataset.shape[0] * dataset.shape[2] * dataset.dtype.itemsize
    step = dataset.chunks[1] if dataset.chunks else max(1, PIECE_BYTES // row_bytes)
    for first in range(rows.start - rows.start % step, rows.stop, step):
        piece = slice(max(first, rows.start), min(first + step, rows.stop))
        out[piece.start - rows.start : piece.stop - rows.start] = np.moveaxis(dataset[:, piece, :], 0, 2)


def has_spectrum_chunks(dataset: h5py.Dataset) -> bool:
    """Whether a dataset (channel, y, x) says that its chunks are one spectrum each, packed by nothing but gzip.

    Bytes may be shuffled before. Numbers are stored as NumPy has them, and no user's block shifts the file.
    """
    if dataset.ndim != 3 or dataset.chunks != (dataset.shape[0], 1, 1) or dataset.file.userblock_size:
        return False
    plain = dataset.dtype.kind in "iuf" and h5py.h5t.py_create(dataset.dtype) == dataset.id.get_type()
    return plain and set(_list_filters(dataset)) <= {_SHUFFLE, _GZIP}


def _list_filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    plan = dataset.id.get_create_plist()
    return tuple(int(plan.get_filter(i)[0]) for i in range(plan.get_nfilters()))


def index_chunks(dataset: h5py.Dataset) -> SpectrumChunks:
    """Find where the spectra of a dataset lie that `has_spectrum_chunks`.

    Raises:
        InputFileError: spectra lie beyond the end of the file, or are longer than they can be.
    """
    channels, height, width = dataset.shape
    file = Path(os.fsdecode(dataset.file.filename))
    found: list[Any] = []
    # The chunks one by one, by their number, would take time with the square of their number.
    dataset.id.chunk_iter(found.append)
    places = np.array([chunk.chunk_offset for chunk in found], dtype=np.int64).reshape(-1, 3)
    stored = np.array([chunk[1:] for chunk in found], dtype=np.int64).reshape(-1, 3)
    (_, y, x), (mask, at, size) = places.T, stored.T
    largest = channels * dataset.dtype.itemsize + _MORE_PACKED
    wrong = (at < 0) | (size < 0) | (size > largest) | (at + size > file.stat().st_size)
    wrong |= (y < 0) | (y >= height) | (x < 0) | (x >= width)
    if wrong.any():
        raise InputFileError(
            f"{file}: {show_name(str(dataset.name))}: {int(wrong.sum())} spectra lie beyond the end of the file or are "
            f"longer than {largest} bytes; the file is damaged: copy it again"
        )
    offsets = np.full((height, width), _NOWHERE, dtype=np.int64)
    sizes, skipped = np.zeros((height, width), dtype=np.int64), np.zeros((height, width), dtype=np.uint32)
    offsets[y, x], sizes[y, x], skipped[y, x] = at, size, mask
    return SpectrumChunks(
        file=file,
        name=show_name(str(dataset.name)),
        channels=channels,
        dtype=dataset.dtype,
        filters=_list_filters(dataset),
        fill=float(dataset.fillvalue),
        offset=offsets,
        size=sizes,
        skipped=skipped,
    )


def read_spectra(chunks: SpectrumChunks, rows: slice, out: NDArray[Any]) -> None:
    """Read the spectra of some rows.

    Args:
        chunks: where they lie.
        rows: contiguous rows.
        out: (row, x, channel), filled.

    Raises:
        InputFileError: a spectrum is damaged.
        OSError: the file cannot be read.
    """
    own = out if out.dtype == chunks.dtype and out.flags.c_contiguous else np.empty(out.shape, chunks.dtype)
    view = own.reshape(-1).view(np.uint8).data
    wanted = chunks.channels * chunks.dtype.itemsize
    with chunks.file.open("rb", buffering=0) as stream:
        for number, row in enumerate(range(rows.start, rows.stop)):
            spectra = _read_row(chunks, row, stream.fileno())
            for at, spectrum in zip(range(number * out.shape[1] * wanted, view.nbytes, wanted), spectra, strict=False):
                view[at : at + wanted] = spectrum
    if own is not out:
        out[...] = own


def _read_row(chunks: SpectrumChunks, row: int, descriptor: int) -> Iterator[bytes]:
    """Bytes of the spectra of a row, as they are in memory."""
    wanted = chunks.channels * chunks.dtype.itemsize
    skipped = chunks.skipped[row].tolist()
    only_gzip = chunks.filters == (_GZIP,) and not any(skipped)
    for content, mask in zip(_read_packed(chunks, row, descriptor), skipped, strict=True):
        if content is None:
            yield np.full(chunks.channels, chunks.fill, chunks.dtype).tobytes()
            continue
        spectrum = _inflate(content, wanted) if only_gzip else _undo_filters(chunks, content, mask)
        if len(spectrum) != wanted:
            raise InputFileError(
                f"{chunks.file}: {chunks.name}: a spectrum of row {row} cannot be unpacked; the file is damaged: "
                "copy it again"
            )
        yield spectrum


def _read_packed(chunks: SpectrumChunks, row: int, descriptor: int) -> Iterator[bytes | None]:
    """Bytes of the spectra of a row as they are in the file; None for those that were never written."""
    offset, size = chunks.offset[row], chunks.size[row]
    start, stop = int(offset.min()), int((offset + size).max())
    places = zip(offset.tolist(), size.tolist(), strict=True)
    if start != _NOWHERE and stop - start <= _GAPS * int(size.sum()):
        whole = os.pread(descriptor, stop - start, start)
        yield from (whole[at - start : at - start + length] for at, length in places)
    else:
        yield from (None if at == _NOWHERE else os.pread(descriptor, length, at) for at, length in places)


def _undo_filters(chunks: SpectrumChunks, content: bytes, skipped: int) -> bytes:
    wanted = chunks.channels * chunks.dtype.itemsize
    for number in reversed(range(len(chunks.filters))):
        if skipped >> number & 1:
            continue
        if chunks.filters[number] == _GZIP:
            content = _inflate(content, wanted)
        elif len(content) == wanted:
            content = np.frombuffer(content, np.uint8).reshape(chunks.dtype.itemsize, -1).T.tobytes()
    return content


def _inflate(content: bytes, wanted: int) -> bytes:
    """So many bytes at most, since a few can be unpacked into gigabytes; nothing where they are others than wanted."""
    stream = zlib_ng.decompressobj()
    try:
        unpacked = stream.decompress(content, wanted)
    except zlib_ng.error:
        return b""
    return bytes(unpacked) if stream.eof else b""
