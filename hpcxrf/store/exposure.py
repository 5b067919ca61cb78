"""Spectra that were never exposed: by their live time, and by their counts, nothing was measured."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hpcxrf.notes import Note

ReadRows = Callable[[slice], NDArray[np.generic]]


def find_unexposed(
    live_time_s: NDArray[np.floating] | None,
    read_rows: ReadRows,
    *,
    rows_per_read: int = 1,
    measured: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_] | None:
    """Find spectra without a count whose live time is 0 or not known, of detectors that have live times elsewhere.

    A spectrum with counts was measured whatever its live time says: then only that time is not known. A detector
    without any live time says nothing of single pixels.

    Args:
        live_time_s: (detector, y, x) seconds; None: the file gives none.
        read_rows: gives the counts (detector, row, x, channel) of some rows; only those with such live times are read.
        rows_per_read: rows that are read at a time.
        measured: (y, x): False where it is known that nothing was measured; None: everywhere something was.

    Returns:
        (detector, y, x); None where there are none.
    """
    if live_time_s is None:
        return None
    timed = live_time_s > 0
    unexposed = ~timed & timed.any(axis=(1, 2), keepdims=True)
    if measured is not None:
        unexposed &= measured
    n_rows = unexposed.shape[1]
    for rows in (slice(y, min(y + rows_per_read, n_rows)) for y in range(0, n_rows, rows_per_read)):
        if unexposed[:, rows].any():
            unexposed[:, rows] &= ~np.asarray(read_rows(rows)).any(axis=-1)
    return unexposed if unexposed.any() else None


def describe_unexposed(unexposed: NDArray[np.bool_] | None) -> tuple[Note, ...]:
    """Say in a warning how many spectra were not exposed; nothing where there are none."""
    if unexposed is None:
        return ()
    number = int(unexposed.sum())
    what = "1 spectrum has" if number == 1 else f"{number} spectra have"
    text = (
        f"{what} neither counts nor a live time, though its detector has live times elsewhere: not measured, without "
        "values in the maps (status not_measured), and no part of a region"
    )
    return (Note("warning", text),)
