"""Maps of a page: 8 bit between two limits, each with its colour bar and the length of its scale bar."""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import NOT_FITTED, VIRIDIS, colour_limits
from hpcxrf.results.report.page.data import pack_png
from hpcxrf.results.report.scales import list_ticks, nice_length
from hpcxrf.results.report.thumbnails import MapSummary, panel_aspect
from hpcxrf.results.report.views import format_number

FloatArray = NDArray[np.float64]

LEVELS: Final = 255
"""Levels of a map: 1 at or below its lower limit, 255 at or above its upper one; 0 was not fitted."""
PAGE_POINTS: Final = 1_000_000
"""Points of all maps of one detector together, which its share of the page allows."""
LARGEST_SIDE: Final = 400
"""Points of a map along its longer side."""
_STEPS_PER_SIGMA: Final = 4
"""Levels within one sigma of a pixel: finer ones would show noise alone, which does not compress."""
NOT_FITTED_COLOUR: Final = bytes.fromhex(NOT_FITTED[1:])
"""Red, green and blue of what was not fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A number beside a colour bar."""

    percent: float
    """Height above the low end."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Colours that mean the same in every scan."""

    limits: tuple[float, float]
    ticks: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageMap:
    """One map."""

    name: str
    image: str
    """`data:` address of a PNG whose index is the level."""
    limits: tuple[float, float]
    ticks: tuple[Tick, ...]
    found: bool
    fitted: bool
    """False where no pixel has a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapGrid:
    """The maps of one detector."""

    maps: tuple[PageMap, ...]
    aspect: float
    """Width over height of a panel."""
    cover_percent: tuple[float, float]
    """Width and height of a picture, percent of its panel: the last points may reach beyond the scan."""
    bar_percent: float
    """Length of the scale bar, percent of the width."""
    bar_text: str


def choose_side(shape_yx: tuple[int, int], n_maps: int) -> int:
    """Points of a map along its longer side, so that all maps of a detector have at most `PAGE_POINTS`.

    Args:
        shape_yx: pixels of the scan.
        n_maps: number of maps.
    """
    pixels = shape_yx[0] * shape_yx[1] * n_maps
    return max(1, min(LARGEST_SIDE, int(max(shape_yx) / max(1.0, sqrt(pixels / PAGE_POINTS)))))


def to_levels(picture: FloatArray, limits: tuple[float, float], sigma: float = 0.0) -> NDArray[np.uint8]:
    """Levels of a map (y, x), from 1 at the lower to 255 at the upper limit; 0 where it is NaN.

    Args:
        picture: (y, x).
        limits: lower and upper.
        sigma: uncertainty of a point. Where 255 levels are finer than a quarter of it, fewer of them are used.
    """
    low, high = limits
    step = (high - low) / (LEVELS - 1)
    fine = max(1, int(sigma / _STEPS_PER_SIGMA / step)) if np.isfinite(sigma) else 1
    level = np.rint((picture - low) / (step * fine)) * fine
    return np.where(np.isfinite(level), np.clip(level, 0, LEVELS - 1) + 1, 0).astype(np.uint8)


def build_map_grid(summary: MapSummary, *, unit: str, scale: Scale | None = None) -> MapGrid:
    """All maps of a summary, each between its own percentiles unless there is a scale for all.

    Args:
        summary: of one detector.
        unit: of the values, empty where the names have their own.
        scale: scale of the colours of all.
    """
    width = summary.shape_yx[1] * (summary.step_um or (1.0, 1.0))[1]
    length = nice_length(width)
    # A point of the picture is the mean of factor x factor pixels.
    sigmas = summary.median_sigma / summary.factor if unit else np.zeros(len(summary.components))
    maps = tuple(_build_map(summary, index, float(sigmas[index]), scale) for index in range(len(summary.components)))
    return MapGrid(
        maps=maps,
        aspect=panel_aspect(summary),
        cover_percent=cover_percent(summary),
        bar_percent=100 * length / width,
        bar_text=_write_length(length, known=summary.step_um is not None),
    )


def cover_percent(summary: MapSummary) -> tuple[float, float]:
    """Width and height of a picture, percent of the scan's: the last points may reach beyond it."""
    (high, wide), (n_y, n_x) = summary.pictures.shape[-2:], summary.shape_yx
    return 100 * wide * summary.factor / n_x, 100 * high * summary.factor / n_y


def _build_map(summary: MapSummary, index: int, sigma: float, scale: Scale | None) -> PageMap:
    picture = summary.pictures[index]
    limits = colour_limits(picture) if scale is None else scale.limits
    low, high = limits
    return PageMap(
        name=shown_name(summary.components[index]),
        image=pack_png(to_levels(picture, limits, sigma), NOT_FITTED_COLOUR + VIRIDIS[: 3 * LEVELS]),
        limits=limits,
        ticks=tuple(
            Tick(percent=100 * (value - low) / (high - low), text=format_number(value))
            for value in (list_ticks(low, high) if scale is None else scale.ticks)
        ),
        found=bool(summary.found[index]),
        fitted=bool(np.isfinite(picture).any()),
    )


def _write_length(length: float, *, known: bool) -> str:
    if not known:
        return f"{length:g} px"
    return f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
