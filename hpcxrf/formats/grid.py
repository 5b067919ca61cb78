"""Scans that are stored as a list of points, laid out as rows and columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError

MOST_POINTS: Final = 4_000_000
"""Longest list of points whose positions are read to find its rows."""
_STEADY: Final = 0.2
"""Largest change of the slow position within a row, as a share of its step to the next."""


_RUNNING: Final = 0.9
"""Smallest share of the steps of the fast position that go in the direction of their row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Rows and columns of points that were measured row after row."""

    n_points: int
    """Number of points in the file; where they are fewer than rows times columns, the scan stopped early."""
    shape: tuple[int, int]
    """(y, x)."""
    turned: bool = False
    """Every second row ran backwards; it is turned round as it is read."""

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(y, x): True where there is a point."""
        return lay_out(np.ones(self.n_points, np.bool_), self, fill=False)


def find_points(grid: Grid, rows: slice) -> slice:
    """The points of a slice of rows."""
    width = grid.shape[1]
    return slice(min(rows.start * width, grid.n_points), min(rows.stop * width, grid.n_points))


def lay_out(
    values: NDArray[Any], grid: Grid, rows: slice | None = None, *, axis: int = 0, fill: float | bool = 0
) -> NDArray[Any]:
    """Turn an axis of points into two of rows and columns; points that were not measured get `fill`.

    Args:
        values: values of the points of these rows, all rows by default.
        grid: the rows and columns.
        rows: the rows, both ends given.
        axis: the axis of the points.
        fill: value of points that are not in the file.
    """
    first, last = (0, grid.shape[0]) if rows is None else (rows.start, rows.stop)
    n_rows, width = last - first, grid.shape[1]
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    missing = n_rows * width - values.shape[axis]
    if missing:
        padding = np.full((*before, missing, *after), fill, values.dtype)
        values = np.concatenate([values, padding], axis=axis)
    result = values.reshape(*before, n_rows, width, *after)
    if grid.turned:
        result = np.moveaxis(result, axis, 0).copy()
        backwards = slice((first + 1) % 2, None, 2)
        result[backwards] = np.flip(result[backwards], axis=axis + 1)
        result = np.moveaxis(result, 0, axis)
    return result


def make_grid(where: str, n_points: int, shape: tuple[int, int]) -> Grid:
    """Rows and columns as they were given.

    Raises:
        InputFileError: more points than the map has.
    """
    height, width = shape
    if n_points > height * width:
        raise InputFileError(
            f"{where}: {n_points} points do not fit into a map of {height} x {width} (y, x) = {height * width}; "
            "correct input.map_shape"
        )
    return Grid(n_points=n_points, shape=shape)


def find_raster(vectors: Mapping[str, NDArray[np.float64]]) -> tuple[Grid, str, str] | None:
    """The first two position vectors that make a raster scan: its grid, name of the fast one, name of the slow one.

    The map's rows are the steps of the slow one. Rows may all run forwards, or every second one backwards.
    """
    for fast, slow in permutations(vectors, 2):
        width = _find_row_length(vectors[slow])
        found = None if width is None else _describe_rows(vectors[fast], vectors[slow], width)
        if found is not None:
            return found, fast, slow
    return None


def _find_row_length(slow: NDArray[np.float64]) -> int | None:
    """Points of a row: the slow position jumps after each, always after the same number."""
    steps = np.abs(np.diff(slow))
    largest = steps.max(initial=0.0)
    if len(slow) > MOST_POINTS or not np.isfinite(slow).all() or largest == 0.0:
        return None
    ends = np.flatnonzero(steps > 0.5 * largest) + 1
    width = int(ends[0])
    if width < 2 or not np.array_equal(ends, width * np.arange(1, len(ends) + 1)) or len(slow) - ends[-1] > width:
        return None
    return width


def _describe_rows(fast: NDArray[np.float64], slow: NDArray[np.float64], width: int) -> Grid | None:
    """Check that the slow position rests within rows and the fast one runs, forwards or to and fro."""
    whole = len(slow) // width
    rows, resting = (v[: whole * width].reshape(whole, width) for v in (fast, slow))
    step = np.abs(np.diff(resting.mean(axis=1))).min(initial=np.inf)
    directions = np.sign(rows[:, -1] - rows[:, 0])
    runs = np.sign(np.diff(rows, axis=1)) == directions[:, np.newaxis]
    if np.ptp(resting, axis=1).max() > _STEADY * step or (directions == 0).any() or runs.mean() < _RUNNING:
        return None
    to_and_fro = bool(whole > 1 and (directions[1:] == -directions[:-1]).all())
    if not to_and_fro and not (directions == directions[0]).all():
        return None
    height = -(-len(slow) // width)
    return Grid(n_points=len(slow), shape=(height, width), turned=to_and_fro)
