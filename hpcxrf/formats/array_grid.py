"""Rows and columns of spectra that are stored as a list of points: as given, else by the positions beside them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container, Entry
from hpcxrf.formats.array_scan import ArrayScan, find_unit_um, read_map
from hpcxrf.formats.grid import MOST_POINTS, Grid, find_raster, make_grid
from hpcxrf.formats.scan import FloatMap, ReadOptions
from hpcxrf.notes import Note

_POSITION_NAME: Final = re.compile(
    r"(?i)^(s|sam|samp|sample|stage|motor|pos|position|coarse|fine|nano|piezo|p)?_?[xyz]\d?(_?(pos|position|um|mm))?$"
)
_MOST_VECTORS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the points of a list lie."""

    grid: Grid | None = None
    read_positions: Callable[[], Mapping[str, FloatMap]] = dict
    """`x_um` and `y_um` (y, x), where the file has positions with a unit."""
    notes: tuple[Note, ...] = ()


def find_placement(
    scan: ArrayScan,
    options: ReadOptions,
    *,
    vectors: Mapping[str, Entry] | None = None,
    shape: tuple[int, int] | None = None,
) -> Placement:
    """Rows and columns of a list of points; nothing to do for an array that has both axes.

    Args:
        scan: its arrays, not laid out yet.
        options: the map shape and the positions that were given; they come first.
        vectors: position arrays by their path, where the layout tells; else those of the right length and name.
        shape: rows and columns that the file states.

    Raises:
        InputFileError: a map shape or positions that do not fit.
    """
    _, n_points, n_columns, _ = scan.shape
    if scan.axes.x is not None or scan.axes.y is None:
        _refuse_shape(scan, (n_points, n_columns), options)
        return Placement()
    if vectors is None or options.positions is not None:
        vectors = _find_vectors(scan, n_points, options)
    raster = _find_raster(scan, vectors, n_points)
    stated = shape if options.map_shape is None else (options.map_shape[0], options.map_shape[1])
    if raster is not None:
        ordered = {path: vectors[path] for path in raster[1:]}
        vectors = vectors if options.positions is not None else _order_positions(ordered)
    if stated is not None:
        grid = make_grid(scan.where, n_points, stated)
        turned = raster is not None and raster[0].shape == grid.shape and raster[0].turned
        grid = Grid(n_points=n_points, shape=grid.shape, turned=turned)
        note = f"{n_points} points laid out as {grid.shape[0]} x {grid.shape[1]} (y, x), as the file states"
        return _place(scan, grid, vectors, options, [] if options.map_shape else [Note("fact", note)])
    if raster is None:
        return _place_column(scan, vectors, n_points, options)
    grid, fast, slow = raster
    height, width = grid.shape
    backwards = ", every second row turned round" if grid.turned else ""
    note = f"{n_points} points laid out as {height} x {width} (y, x) by {fast} and {slow}{backwards} (input.map_shape)"
    return _place(scan, grid, vectors, options, [Note("fact", note)])


def _refuse_shape(scan: ArrayScan, found: tuple[int, int], options: ReadOptions) -> None:
    if options.map_shape is not None and tuple(options.map_shape) != found:
        raise InputFileError(
            f"{scan.where}: input.map_shape {list(options.map_shape)}, but its shape {scan.counts[0].shape} is a map "
            f"of {found[0]} x {found[1]} (y, x); input.map_shape is for lists of points"
        )


def _find_vectors(scan: ArrayScan, n_points: int, options: ReadOptions) -> dict[str, Entry]:
    """Position arrays, one value a point, by their path: those that were named, else by name."""
    container = scan.container
    if options.positions is not None:
        return {path.strip("/"): _require_vector(container, path, n_points) for path in options.positions}
    if not 4 <= n_points <= MOST_POINTS:
        return {}
    top = scan.counts[0].path.partition("/")[0]
    found = {
        e.path: e
        for e in container.entries.values()
        if e.shape == (n_points,) and e.dtype.kind in "iuf" and e.path.partition("/")[0] in {top, e.path}
    }
    named = {path: e for path, e in found.items() if is_position(e)}
    return dict(list(named.items())[:_MOST_VECTORS])


def is_position(entry: Entry) -> bool:
    """Whether an array is one of positions: by its unit of length, or by its name."""
    return find_unit_um(entry) is not None or _POSITION_NAME.match(name_motor(entry)) is not None


def name_motor(entry: Entry) -> str:
    """Name of a motor: of the group, where the array itself is called value or data."""
    return entry.path.split("/")[-2] if entry.name in {"value", "data"} and "/" in entry.path else entry.name


def _require_vector(container: Container, path: str, n_points: int) -> Entry:
    entry = container.entries.get(path.strip("/"))
    if entry is None:
        raise InputFileError(f"{container.path}: input.positions names {path}, which the file does not have")
    if entry.dtype.kind not in "iuf" or int(np.prod(entry.shape)) != n_points:
        raise InputFileError(
            f"{container.path}: input.positions names {path} of {entry.dtype} {entry.shape}; must be {n_points} numbers"
        )
    return entry


def _order_positions(vectors: Mapping[str, Entry]) -> dict[str, Entry]:
    """X first: the fast one, unless the names say the opposite."""
    (fast, one), (slow, other) = vectors.items()
    swapped = "y" in name_motor(one).lower() and "x" in name_motor(other).lower()
    return {slow: other, fast: one} if swapped else {fast: one, slow: other}


def _find_raster(scan: ArrayScan, vectors: Mapping[str, Entry], n_points: int) -> tuple[Grid, str, str] | None:
    values: dict[str, NDArray[np.float64]] = {
        path: read_map(scan.container, e, e.shape[0], None).reshape(-1)[:n_points] for path, e in vectors.items()
    }
    return find_raster(values)


def _place_column(scan: ArrayScan, vectors: Mapping[str, Entry], n_points: int, options: ReadOptions) -> Placement:
    if scan.axes.notes and not vectors:
        # Said already, with the array's shape.
        return Placement()
    vectors = _order_positions(vectors) if len(vectors) == 2 and options.positions is None else vectors
    note = (
        f"{n_points} points as one column: their rows and columns were not found; give input.map_shape, as in "
        "--set input.map_shape=[6,10] (rows, columns)"
    )
    return _place(scan, None, vectors, options, [Note("warning", note)])


def _place(
    scan: ArrayScan, grid: Grid | None, vectors: Mapping[str, Entry], options: ReadOptions, notes: list[Note]
) -> Placement:
    """Attach two position arrays, x first."""
    n_points = scan.shape[1]
    pairs = dict(zip(("x_um", "y_um"), vectors.values(), strict=True)) if len(vectors) == 2 else {}
    factors = {name: find_unit_um(entry) for name, entry in pairs.items()}
    assumed = [pairs[name].path for name, factor in factors.items() if factor is None]
    if options.positions is not None and assumed:
        notes = [*notes, Note("warning", f"{', '.join(assumed)} without a unit of length: taken as micrometres")]
        factors = {name: factor or 1.0 for name, factor in factors.items()}

    def read_positions() -> dict[str, FloatMap]:
        return {
            name: factor * read_map(scan.container, pairs[name], min(n_points, pairs[name].shape[0]), grid)
            for name, factor in factors.items()
            if factor is not None
        }

    return Placement(grid=grid, read_positions=read_positions, notes=tuple(notes))
