"""From blocks as the source gives them to y-bands as the store keeps them, checked and summed on the way."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.counts import MendedCounts, mend_counts
from hpcxrf.formats.scan import RawScan
from hpcxrf.store.schema import BAND_BUFFERS
from hpcxrf.store.spikes import NO_PLACES, Places, can_have_spikes, find_spikes, join_places
from hpcxrf.store.tile_sums import TileSums, sum_tiles

Counts = NDArray[Any]

COUNT_TYPES: Final = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.float32))
"""Types of stored counts, from narrow to wide; a scan takes the first that holds all of its counts."""

MOST_COUNTS: Final = 1e15
_PIECE_VALUES: Final = 1 << 17
"""Counts that are copied in one go: they stay in the cache of a core from one step to the next."""


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
    """(detector, row, x, channel) of the stored type; the array is used again when `BAND_BUFFERS` bands were given."""
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
        A band; the array of its counts is used again when `BAND_BUFFERS` bands were given.

    Raises:
        InputFileError: the source cannot be read, or holds values that are not counts.
        WiderCountsError: a count does not fit `dtype`.
    """
    detectors, rows, columns, channels = scan.shape
    shape = (detectors, min(band_rows, rows), columns, channels)
    buffers = deque(np.empty(shape, dtype=dtype) for _ in range(BAND_BUFFERS))
    missing = np.zeros((detectors, rows, columns), dtype=np.bool_)
    negative, lowest = np.zeros(rows, dtype=np.int64), 0.0
    for first, block in _read_blocks(scan, band_rows, pending):
        last = first + block.shape[1]
        mended = None
        for band in range(first // band_rows, (last - 1) // band_rows + 1):
            within = band_slice(band, band_rows, rows)
            start, stop = max(first, within.start), min(last, within.stop)
            here = slice(start - first, stop - first)
            target = buffers[0][:, start - within.start : stop - within.start]
            if mended is None and not copy_exactly(block[:, here], target):
                mended = _mend(scan, block, first, dtype)
                missing[:, first:last], negative[first:last] = mended.missing, mended.negative
                lowest = min(lowest, mended.lowest)
            if mended is not None:
                np.copyto(target, mended.counts[:, here], casting="unsafe")
            if stop == within.stop and band in pending:
                yield Band(
                    number=band,
                    counts=buffers[0][:, : stop - within.start],
                    missing=missing[:, within],
                    negative=int(negative[within].sum()),
                    lowest=lowest,
                )
                buffers.rotate(-1)
        del block, mended  # else two blocks are held while the next is read


def _read_blocks(scan: RawScan, band_rows: int, pending: Collection[int]) -> Iterator[tuple[int, Counts]]:
    rows, step = scan.shape[1], max(scan.rows_per_read, 1)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        if any(start // band_rows <= band <= (stop - 1) // band_rows for band in pending):
            yield start, _read_block(scan, slice(start, stop))


def _mend(scan: RawScan, block: Counts, first: int, dtype: np.dtype[Any]) -> MendedCounts:
    where = f"{scan.files[0]}, rows {first}..{first + block.shape[1] - 1}"
    mended = mend_counts(block, where)
    _check_fits(mended.counts, dtype, where)
    return mended


def copy_exactly(source: Counts, target: Counts) -> bool:
    """Copy counts into a whole-number type where every one is a count that it holds.

    Args:
        source: (detector, row, x, channel), of any real type.
        target: of the same shape; what is in it if some count does not fit is undefined.

    Returns:
        Whether all were finite, whole, not negative, and fitted.
    """
    if target.dtype.kind != "u":
        return False
    step = max(1, _PIECE_VALUES // max(1, source.shape[2] * source.shape[3]))
    return all(
        _copy_piece(detector[start : start + step], into[start : start + step])
        for detector, into in zip(source, target, strict=True)
        for start in range(0, len(detector), step)
    )


def _copy_piece(source: Counts, target: Counts) -> bool:
    if source.dtype.kind == "f":
        # Whatever a fraction, a NaN or a number that is too large becomes, it is not equal to what it was.
        with np.errstate(invalid="ignore"):
            np.copyto(target, source, casting="unsafe")
        return bool((target == source).all())
    # A negative number is a large one without its sign.
    whole = source.view(source.dtype.str.replace("i", "u"))
    if int(whole.max()) > np.iinfo(target.dtype).max:
        return False
    np.copyto(target, whole, casting="unsafe")
    return True


def read_mended(scan: RawScan, rows: slice) -> MendedCounts:
    """Read some rows of a scan, and mend what is not a count in them.

    Raises:
        InputFileError: the file ends early, or holds values that are infinite or a single NaN.
    """
    return mend_counts(_read_block(scan, rows), f"{scan.files[0]}, rows {rows.start}..{rows.stop - 1}")


def _read_block(scan: RawScan, rows: slice) -> Counts:
    block = scan.read_counts(rows)
    expected = (scan.shape[0], rows.stop - rows.start, *scan.shape[2:])
    if block.shape != expected:
        raise InputFileError(
            f"{scan.files[0]}: counts of shape {block.shape} where its header promises {expected}; copy it again"
        )
    return block


def _check_fits(block: Counts, dtype: np.dtype[Any], where: str) -> None:
    needed = find_narrowest_type(block, where)
    if COUNT_TYPES.index(needed) > COUNT_TYPES.index(dtype):
        raise WiderCountsError(needed, float(block.sum(dtype=np.float64)) / (block.size / block.shape[-1]))


def sum_band(values: Counts, first_row: int = 0, tiles: TileSums | None = None) -> BandSpectra:
    """Sum and maximum over the pixels of a band, in an order that no memory layout changes, and suspicious channels.

    Args:
        values: (detector, row, x, channel), of a stored type.
        first_row: row of the scan at which the band begins.
        tiles: what the sums of the band's tiles are added to; None: nothing.
    """
    if values.dtype.kind == "f":
        totals, tops = zip(*(_sum_fractions(detector) for detector in values), strict=True)
    else:
        sums, tops = zip(*(sum_tiles(detector, first_row) for detector in values), strict=True)
        totals = tuple(one.sum(axis=(0, 1)).astype(np.float64) for one in sums)
        if tiles is not None:
            tiles.add(first_row, np.stack(sums))
    highest = np.stack(tops)
    spikes = NO_PLACES
    if can_have_spikes(values.dtype, float(highest.max())):
        spikes = find_spikes(values) + np.array([0, first_row, 0, 0])
    return BandSpectra(total=np.stack(totals), highest=highest.astype(np.float64), spikes=spikes)


def _sum_fractions(rows: Counts) -> tuple[NDArray[np.float64], Counts]:
    """Sum and maximum (channel,) over the pixels of a detector whose counts are not whole."""
    total = np.zeros(rows.shape[-1])
    for row in rows:
        total += row.sum(axis=0, dtype=np.float64)
    return total, rows.max(axis=(0, 1))


def combine(parts: Iterable[BandSpectra]) -> BandSpectra:
    """Spectra of the scan from those of all its bands, given in ascending order."""
    first, *others = parts
    total, highest = first.total.copy(), first.highest.copy()
    for part in others:
        total += part.total
        np.maximum(highest, part.highest, out=highest)
    return BandSpectra(total=total, highest=highest, spikes=join_places([first.spikes, *(p.spikes for p in others)]))
