"""From blocks as the source gives them to y-bands as the store keeps them, checked and summed on the way."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.counts import MendedCounts, mend_counts
from hpcxrf.formats.scan import RawScan
from hpcxrf.store.files import file_sha256
from hpcxrf.store.schema import SpectraLayout, shard_file
from hpcxrf.store.spikes import Places, find_spikes, join_places

if TYPE_CHECKING:
    # Checking the counts of one file has no need of it.
    import zarr

Counts = NDArray[Any]

COUNT_TYPES: Final = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.float32))
"""Types of stored counts, from narrow to wide; a scan takes the first that holds all of its counts."""


MOST_COUNTS: Final = 1e15


class WiderCountsError(Exception):
    """A block does not fit the type that the store was begun with; arguments: type that it needs, counts a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSpectra:
    """Spectra of one y-band, (detector, channel), float64."""

    total: NDArray[np.float64]
    """Sum over the pixels."""
    highest: NDArray[np.float64]
    """Maximum over the pixels."""
    spikes: Places
    """(place, 4): detector, row, x, channel of suspicious channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Counts of one y-band as they are stored, and what was mended in them."""

    number: int
    counts: Counts
    """(detector, row, x, channel); the array is used again for the next band."""
    missing: NDArray[np.bool_]
    """(detector, row, x): the spectrum was not measured."""
    negative: int
    """Number of negative values, which are 0 now."""
    lowest: float
    """Lowest value before that."""


def counted_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which stored counts are computed with: the narrowest is for the disk alone, sums of it would overflow."""
    return max(stored, COUNT_TYPES[1], key=COUNT_TYPES.index)


def band_slice(band: int, band_rows: int, rows: int) -> slice:
    """Rows of a band, clipped to the scan."""
    return slice(band * band_rows, min((band + 1) * band_rows, rows))


def find_narrowest_type(block: Counts, where: str) -> np.dtype[Any]:
    """The first of `COUNT_TYPES` that holds a block exactly, float32 where counts are not integral.

    Args:
        block: (detector, row, x, channel), of any real type.
        where: of what file and rows, for the error.

    Raises:
        InputFileError: negative, not finite, or integral and too large for uint32.
    """
    lowest, highest = float(block.min()), float(block.max())
    if not (lowest >= 0 and highest < np.inf):
        raise InputFileError(f"{where}: counts from {lowest} to {highest}; counts must be finite and not negative")
    if block.dtype.kind == "f" and not _is_integral(block):
        if highest > MOST_COUNTS:
            raise InputFileError(f"{where}: counts up to {highest}; a count must be below {MOST_COUNTS:g}")
        return COUNT_TYPES[-1]
    for integral in COUNT_TYPES[:-1]:
        if highest <= np.iinfo(integral).max:
            return integral
    raise InputFileError(f"{where}: counts up to {highest}; a count must be below 2**32")


def _is_integral(block: Counts) -> bool:
    rows = (row for detector in block for row in detector)
    return all(bool((np.rint(row) == row).all()) for row in rows)


def read_bands(scan: RawScan, band_rows: int, pending: Collection[int], dtype: np.dtype[Any]) -> Iterator[Band]:
    """Read what the pending bands need, in the blocks that the source likes, and yield band by band.

    Args:
        scan: the source.
        band_rows: rows of a band.
        pending: bands to give, in any order; they come in ascending order.
        dtype: of the stored counts.

    Yields:
        A band; the array of its counts is used again for the next.

    Raises:
        InputFileError: the source cannot be read, or holds values that are not counts.
        WiderCountsError: a count does not fit `dtype`.
    """
    detectors, rows, columns, channels = scan.shape
    buffer = np.empty((detectors, min(band_rows, rows), columns, channels), dtype=counted_type(dtype))
    missing = np.zeros((detectors, rows, columns), dtype=np.bool_)
    negative, lowest = np.zeros(rows, dtype=np.int64), 0.0
    for first, mended in _read_blocks(scan, band_rows, pending):
        last = first + mended.counts.shape[1]
        _check_fits(mended.counts, dtype, f"{scan.files[0]}, rows {first}..{last - 1}")
        missing[:, first:last], negative[first:last] = mended.missing, mended.negative
        lowest = min(lowest, mended.lowest)
        for band in range(first // band_rows, (last - 1) // band_rows + 1):
            within = band_slice(band, band_rows, rows)
            start, stop = max(first, within.start), min(last, within.stop)
            target = buffer[:, start - within.start : stop - within.start]
            np.copyto(target, mended.counts[:, start - first : stop - first], casting="unsafe")
            if stop == within.stop and band in pending:
                yield Band(
                    number=band,
                    counts=buffer[:, : stop - within.start],
                    missing=missing[:, within],
                    negative=int(negative[within].sum()),
                    lowest=lowest,
                )
        del mended  # else two blocks are held while the next is read


def _read_blocks(scan: RawScan, band_rows: int, pending: Collection[int]) -> Iterator[tuple[int, MendedCounts]]:
    rows, step = scan.shape[1], max(scan.rows_per_read, 1)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        if any(start // band_rows <= band <= (stop - 1) // band_rows for band in pending):
            yield start, read_mended(scan, slice(start, stop))


def read_mended(scan: RawScan, rows: slice) -> MendedCounts:
    """Read some rows of a scan, and mend what is not a count in them.

    Raises:
        InputFileError: the file ends early, or holds values that are infinite or a single NaN.
    """
    block = scan.read_counts(rows)
    expected = (scan.shape[0], rows.stop - rows.start, *scan.shape[2:])
    if block.shape != expected:
        raise InputFileError(
            f"{scan.files[0]}: counts of shape {block.shape} where its header promises {expected}; copy it again"
        )
    return mend_counts(block, f"{scan.files[0]}, rows {rows.start}..{rows.stop - 1}")


def _check_fits(block: Counts, dtype: np.dtype[Any], where: str) -> None:
    needed = find_narrowest_type(block, where)
    if COUNT_TYPES.index(needed) > COUNT_TYPES.index(dtype):
        raise WiderCountsError(needed, float(block.sum(dtype=np.float64)) / (block.size / block.shape[-1]))


def write_band(path: Path, counts: "zarr.Array[Any]", layout: SpectraLayout, band: int, values: Counts) -> str:
    """Write one band as one new shard.

    An old shard is removed first: over it, Zarr would merge instead of write, and a torn one would stay torn.

    Args:
        path: the store.
        counts: its counts, open for writing.
        layout: as the counts were created.
        band: number of the band.
        values: (detector, row, x, channel), all rows of the band, that fit the type of the store.

    Returns:
        SHA-256 of the shard's file.

    Raises:
        ValueError: the values are not one whole shard.
        OSError: the folder cannot be written.
    """
    rows = band_slice(band, layout.band_rows, counts.shape[1])
    height = rows.stop - rows.start
    if counts.shards != layout.shards or values.shape != (counts.shape[0], height, *counts.shape[2:]):
        raise ValueError(f"band {band} of shape {values.shape} is not one whole shard of {path}")
    file = shard_file(path, band)
    file.unlink(missing_ok=True)
    counts[:, rows] = values.astype(counts.dtype, copy=False)
    return file_sha256(file)


def sum_band(values: Counts, first_row: int = 0) -> BandSpectra:
    """Sum and maximum over the pixels of a band, in an order that no memory layout changes, and suspicious channels.

    Args:
        values: (detector, row, x, channel).
        first_row: row of the scan at which the band begins.
    """
    totals = [_sum_rows(detector) for detector in values]
    highest = values.max(axis=(1, 2)).astype(np.float64)
    spikes = find_spikes(values) + np.array([0, first_row, 0, 0])
    return BandSpectra(total=np.stack(totals), highest=highest, spikes=spikes)


def _sum_rows(rows: Counts) -> NDArray[np.float64]:
    total = np.zeros(rows.shape[-1])
    for row in rows:
        total += row.sum(axis=0, dtype=np.float64)
    return total


def combine(parts: Iterable[BandSpectra]) -> BandSpectra:
    """Spectra of the scan from those of all its bands, given in ascending order."""
    first, *others = parts
    total, highest = first.total.copy(), first.highest.copy()
    for part in others:
        total += part.total
        np.maximum(highest, part.highest, out=highest)
    return BandSpectra(total=total, highest=highest, spikes=join_places([first.spikes, *(p.spikes for p in others)]))
