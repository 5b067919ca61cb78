"""Places of the phases: densities row by row, so that a scan of any size needs memory for one row.

Places are (x, y) in units of the scan's shorter side. A row depends on the seed and its own y alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.simulate.spec import Region, StructureKind, StructureSpec

Row = NDArray[np.float64]

WAVES: Final = 24
MAX_POINTS: Final = 400
LEAF_TILT_RAD: Final = 0.42
WALL_OVER_SIZE: Final = 0.12
"""Width of the wall between two cells or grains over their size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A structure with its random numbers drawn."""

    spec: StructureSpec
    points: NDArray[np.float64]
    """(point, 2): centres of grains, cells or spots; wave vectors of a smooth field."""
    levels: NDArray[np.float64]
    """(point,): density of each; phases of the waves."""
    extent: tuple[float, float]
    """(x, y) size of the scan in units of its shorter side."""


def draw_layout(structure: StructureSpec, rng: np.random.Generator, extent: tuple[float, float]) -> Layout:
    """Draw the random numbers of one structure; `extent` is (x, y) over the shorter side."""
    if structure.kind in ("smooth", "uniform", "veins"):
        points = rng.normal(0.0, 1.0 / structure.size, (WAVES, 2))
        levels = rng.uniform(0.0, 2 * math.pi, WAVES)
    else:
        count = _point_count(structure, extent)
        points = rng.uniform(-0.1, 1.1, (count, 2)) * extent
        levels = np.exp(rng.normal(0.0, structure.contrast, count))
        if structure.kind == "grains":
            levels = np.where(rng.uniform(size=count) < structure.cover, levels, 0.0)
    return Layout(spec=structure, points=points, levels=levels, extent=extent)


def _point_count(structure: StructureSpec, extent: tuple[float, float]) -> int:
    area = 1.44 * extent[0] * extent[1]
    wanted = structure.cover * area if structure.kind == "spots" else area / structure.size**2
    return int(min(max(round(wanted), 3), MAX_POINTS))


def density_row(layout: Layout, x: Row, y: float) -> Row:
    """Density of the phase along one row, shape (x,), not negative; 1 is a pixel full of it."""
    inside = _REGIONS[layout.spec.region](layout, x, y)
    return _KINDS[layout.spec.kind](layout, x, y) * inside


def _waves(layout: Layout, x: Row, y: float) -> Row:
    """Gaussian random field of zero mean and unit variance, smooth over `size`."""
    angle = layout.points[:, :1] * x + (layout.points[:, 1] * y + layout.levels)[:, None]
    field: Row = np.cos(angle).sum(axis=0) * math.sqrt(2.0 / WAVES)
    return field


def _uniform(layout: Layout, x: Row, y: float) -> Row:
    return np.ones_like(x)


def _smooth(layout: Layout, x: Row, y: float) -> Row:
    return np.exp(layout.spec.contrast * _waves(layout, x, y))


def _nearest_two(layout: Layout, x: Row, y: float) -> tuple[NDArray[np.intp], Row]:
    """Index of the nearest centre, and by how much the second nearest is farther."""
    distance = np.hypot(layout.points[:, :1] - x, layout.points[:, 1:] - y)
    nearest = distance.argmin(axis=0)
    two = np.partition(distance, 1, axis=0)
    return nearest, two[1] - two[0]


def _cells(layout: Layout, x: Row, y: float) -> Row:
    """Voronoi cells, poor inside and rich in their walls."""
    nearest, lead = _nearest_two(layout, x, y)
    wall = np.exp(-((lead / (WALL_OVER_SIZE * layout.spec.size)) ** 2))
    density: Row = layout.levels[nearest] * (0.8 + 0.7 * wall)
    return density


def _grains(layout: Layout, x: Row, y: float) -> Row:
    """Voronoi grains with gaps between them, thickest in the middle."""
    nearest, lead = _nearest_two(layout, x, y)
    size = layout.spec.size
    thickness = np.clip((lead - 0.5 * WALL_OVER_SIZE * size) / (0.4 * size), 0.0, 1.0)
    density: Row = layout.levels[nearest] * np.sqrt(thickness)
    return density


def _spots(layout: Layout, x: Row, y: float) -> Row:
    """Compact hot particles of unequal strength."""
    distance2 = (layout.points[:, :1] - x) ** 2 + (layout.points[:, 1:] - y) ** 2
    width = layout.spec.size / 2.3548 * np.clip(layout.levels, 0.4, 2.0)[:, None] ** 0.5
    density: Row = (layout.levels[:, None] * np.exp(-0.5 * distance2 / width**2)).sum(axis=0)
    return density


def _leaf_frame(layout: Layout, x: Row, y: float) -> tuple[Row, Row]:
    """Coordinates along (0 stalk, 1 tip) and across the leaf, whose midrib is slightly bent."""
    cos, sin = math.cos(LEAF_TILT_RAD), math.sin(LEAF_TILT_RAD)
    dx, dy = x - 0.5 * layout.extent[0], y - 0.5 * layout.extent[1]
    length = 0.98 * math.hypot(*layout.extent)
    along = 0.5 + (cos * dx + sin * dy) / length
    bend = 0.06 * np.sin(math.pi * np.clip(along, 0.0, 1.0))
    return along, -sin * dx + cos * dy + bend


def _leaf(layout: Layout, x: Row, y: float) -> Row:
    along, across = _leaf_frame(layout, x, y)
    inside = np.clip(along, 1e-9, 1.0)
    half_width = 0.40 * np.sin(math.pi * inside**0.8) ** 0.8
    ripple = 1.0 + 0.03 * np.sin(46.0 * inside)
    room = half_width * ripple - np.abs(across)
    return np.where((along > 0) & (along < 1), 1.0 / (1.0 + np.exp(np.clip(-room / 0.008, -60, 60))), 0.0)


def _around(layout: Layout, x: Row, y: float) -> Row:
    return 1.0 - _leaf(layout, x, y)


def _everywhere(layout: Layout, x: Row, y: float) -> Row:
    return np.ones_like(x)


def _veins(layout: Layout, x: Row, y: float) -> Row:
    """Midrib and the side veins that leave it, thinning outwards."""
    along, across = _leaf_frame(layout, x, y)
    size, side = layout.spec.size, np.abs(across)
    midrib = np.exp(-0.5 * (across / (size * (0.9 - 0.6 * np.clip(along, 0.0, 1.0)))) ** 2)
    wobble = 0.08 * _waves(layout, x, y) * layout.spec.contrast
    order = (along - 0.55 * side**0.9 + 0.04 * (across > 0)) * 9.0 + wobble
    off_vein = np.abs(order - np.round(order)) / 9.0
    reach = np.exp(-((side / 0.3) ** 2))
    secondary = 0.65 * reach * np.exp(-0.5 * (off_vein / (0.28 * size * (0.4 + reach))) ** 2)
    return midrib + secondary


_KINDS: Final[Mapping[StructureKind, Callable[[Layout, Row, float], Row]]] = {
    "uniform": _uniform,
    "smooth": _smooth,
    "cells": _cells,
    "grains": _grains,
    "veins": _veins,
    "spots": _spots,
}
_REGIONS: Final[Mapping[Region, Callable[[Layout, Row, float], Row]]] = {
    "everywhere": _everywhere,
    "leaf": _leaf,
    "around": _around,
}
