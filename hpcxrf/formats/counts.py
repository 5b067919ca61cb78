"""What stands in files instead of counts: spectra that were not measured, negative numbers, numbers beyond 32 bits."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.notes import Note

Counts = NDArray[Any]

LARGEST_UINT32: Final = 2**32 - 1
SATURATED_UINT32: Final = 2**32 - 256
"""Count from which on 32 bits are full: the last one that float32 tells from 2**32. More is kept as this."""
MOST_NEGATIVE_SHARE: Final = 1e-3
"""Share of negative numbers up to which they are taken as what a program subtracted from no counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MendedCounts:
    """A block of counts that are finite, not negative, and at most 32 bits; and what was there instead."""

    counts: Counts
    """(detector, row, x, channel)."""
    missing: NDArray[np.bool_]
    """(detector, row, x): every channel was NaN; the counts are 0 there."""
    negative: NDArray[np.int64]
    """(row,): number of negative values, which are 0 now."""
    lowest: float
    """Lowest value before that."""


@dataclass(slots=True)
class CountFaults:
    """Numbers of mended values of a scan, which grow as it is read."""

    size: int
    """Number of values of the whole scan."""
    negative: int = 0
    lowest: float = 0.0
    missing: int = 0
    """Number of spectra that were not measured."""
    places: list[str] = field(default_factory=list)

    def add(self, negative: int, lowest: float, missing: int, where: str) -> None:
        """Add those of one block.

        Args:
            negative: number of negative values.
            lowest: lowest value.
            missing: number of spectra that are NaN.
            where: file and rows, for the error.

        Raises:
            InputFileError: too many negative values.
        """
        self.negative += negative
        self.missing += missing
        self.lowest = min(self.lowest, lowest)
        if negative:
            self.places.append(where)
        if self.negative > MOST_NEGATIVE_SHARE * self.size:
            raise InputFileError(
                f"{self.places[0]}: {self.negative} of the scan's {self.size} counts are negative, down to "
                f"{self.lowest:g}; up to 0.1 % are set to 0, more are not counts: a background was subtracted, or the "
                "array is another; give the raw counts"
            )

    def notes(self) -> list[Note]:
        """Warnings of what was mended."""
        notes = []
        if self.negative:
            was, taken = ("was", "is") if self.negative == 1 else ("were", "are")
            text = (
                f"{self.negative} of {self.size} counts {was} negative, down to {self.lowest:g}, and {taken} taken as 0"
            )
            notes.append(Note("warning", text))
        if self.missing:
            text = (
                f"{self.missing} spectra are not a number throughout: they were not measured, and have no values in "
                "the maps (status not_measured)"
            )
            notes.append(Note("warning", text))
        return notes


def mend_counts(block: Counts, where: str) -> MendedCounts:
    """Take negative values as 0 and whole spectra of NaN as not measured; what is right stays the array that it is.

    Args:
        block: (detector, row, x, channel), of any real type.
        where: file and rows, for the error.

    Raises:
        InputFileError: values that are infinite, or NaN in a spectrum that has numbers.
    """
    missing = np.zeros(block.shape[:3], dtype=np.bool_)
    negative = np.zeros(block.shape[1], dtype=np.int64)
    if block.dtype.kind in "ub" or block.size == 0:
        mended = _cap(block) if block.dtype.itemsize > 4 else block
        return MendedCounts(counts=mended, missing=missing, negative=negative, lowest=0.0)
    lowest, highest = float(block.min()), float(block.max())
    if lowest >= 0 and highest <= LARGEST_UINT32:
        return MendedCounts(counts=block, missing=missing, negative=negative, lowest=0.0)
    if block.dtype.kind == "f":
        missing = find_missing(block)
        if not (np.isfinite(block).all(axis=-1) | missing).all():
            raise InputFileError(
                f"{where}: counts from {lowest} to {highest} must be finite; a spectrum that is NaN throughout was not "
                "measured, any other NaN is a fault; correct or leave out the file"
            )
    counts = np.array(block)
    counts[missing] = 0
    lowest = min(float(counts.min()), 0.0)
    below = counts < 0
    negative = below.sum(axis=(0, 2, 3), dtype=np.int64)
    counts[below] = 0
    return MendedCounts(counts=_cap(counts), missing=missing, negative=negative, lowest=lowest)


def find_missing(spectra: Counts) -> NDArray[np.bool_]:
    """Find spectra (..., channel) that are NaN throughout."""
    return np.asarray(np.isnan(spectra).all(axis=-1), dtype=np.bool_)


def _cap(counts: Counts) -> Counts:
    """The few numbers beyond 32 bits, which no detector counts, as a saturated count; many are another fault."""
    if counts.size == 0 or float(counts.max()) <= LARGEST_UINT32:
        return counts
    beyond = counts >= counts.dtype.type(SATURATED_UINT32)
    if int(beyond.sum()) > MOST_NEGATIVE_SHARE * counts.size:
        return counts
    return np.where(beyond, counts.dtype.type(SATURATED_UINT32), counts)
