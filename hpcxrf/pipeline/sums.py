"""A scan read once, outside of a run: sums and maxima of its spectra, and what was wrong in its counts."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.counts import CountFaults, MendedCounts
from hpcxrf.formats.scan import RawScan
from hpcxrf.notes import Note
from hpcxrf.store.bands import COUNT_TYPES, counted_type, find_narrowest_type, read_mended
from hpcxrf.store.spikes import find_spikes, join_places

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSums:
    """Sums over the pixels of a scan."""

    total: NDArray[np.float64]
    """(detector, channel): sum over the pixels."""
    highest: NDArray[np.float64]
    """(detector, channel): maximum over the pixels."""
    dtype: np.dtype[Any]
    """Narrowest of uint16, uint32 and float32 that holds every count."""
    missing: NDArray[np.bool_]
    """(detector, y, x): the spectrum was not measured."""
    spikes: NDArray[np.int64]
    """(place, 4): detector, y, x, channel of suspicious channels."""
    notes: tuple[Note, ...]
    """Warnings of counts that were mended."""


def sum_scan(scan: RawScan, advance: Advance | None = None) -> ScanSums:
    """Read a scan once, by bands of rows.

    Args:
        scan: the scan.
        advance: called with (rows read, rows).

    Raises:
        InputFileError: the file ends early, or holds values that are not counts.
    """
    total = np.zeros((scan.shape[0], scan.shape[3]))
    highest, dtype = np.zeros_like(total), counted_type(COUNT_TYPES[0])
    missing, spikes = np.zeros(scan.shape[:3], dtype=np.bool_), []
    faults = CountFaults(size=math.prod(scan.shape))
    for rows, mended in read_rows_mended(scan):
        where, counts = f"{scan.files[0]}, rows {rows.start}..{rows.stop - 1}", mended.counts
        faults.add(int(mended.negative.sum()), mended.lowest, int(mended.missing.sum()), where)
        dtype = max(dtype, find_narrowest_type(counts, where), key=COUNT_TYPES.index)
        total += counts.sum(axis=(1, 2), dtype=np.float64)
        np.maximum(highest, counts.max(axis=(1, 2)), out=highest)
        missing[:, rows] = mended.missing
        spikes.append(find_spikes(counts) + np.array([0, rows.start, 0, 0]))
        if advance is not None:
            advance(rows.stop, scan.shape[1])
    return ScanSums(
        total=total,
        highest=highest,
        dtype=dtype,
        missing=missing,
        spikes=join_places(spikes),
        notes=tuple(faults.notes()),
    )


def read_rows_mended(scan: RawScan) -> Iterator[tuple[slice, MendedCounts]]:
    """Read a scan by bands of rows, each mended."""
    step = max(scan.rows_per_read, 1)
    for start in range(0, scan.shape[1], step):
        rows = slice(start, min(start + step, scan.shape[1]))
        yield rows, read_mended(scan, rows)
