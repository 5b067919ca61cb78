"""The head of a dataset's page, which other pages read: which layout it has, and its picture in small."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hpcxrf.results.report.colours import VIRIDIS, colour_limits
from hpcxrf.results.report.page.data import pack_png
from hpcxrf.results.report.page.maps import LEVELS, NOT_FITTED_COLOUR, MapGrid, to_levels
from hpcxrf.results.report.thumbnails import MapSummary, block_mean

LAYOUT: Final = "hpcxrf page 2"
"""Name of the layout of this version: a page of another one is written again when a report is."""
_THUMBNAIL_SIDE: Final = 48
_HEAD_BYTES: Final = 12_000
_GENERATOR: Final = re.compile(r'<meta name="generator" content="([^"]*)">')
_ICON: Final = re.compile(r'<link rel="icon" href="(data:[\w/;,+=]*)">')


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHead:
    """What a page says of itself."""

    is_current: bool
    """True where the page is there, in the layout of this version."""
    thumbnail: str
    """`data:` address of its picture in small; empty where it has none."""


def read_head(path: Path) -> PageHead:
    """Read the head of a dataset's page; one that is not there is not current."""
    try:
        with path.open("rb") as page:
            text = page.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return PageHead(is_current=False, thumbnail="")
    generator, icon = _GENERATOR.search(text), _ICON.search(text)
    address = icon.group(1) if icon else ""
    return PageHead(
        is_current=generator is not None and generator.group(1) == LAYOUT,
        thumbnail=address if address.startswith("data:image/png") else "",
    )


def draw_thumbnail(summary: MapSummary, maps: MapGrid) -> str:
    """Draw the map that shows most, at most 48 points along a side; the `data:` address.

    Args:
        summary: of one detector.
        maps: the same, with the limits of its maps.
    """
    spread = np.array([np.subtract(*one.limits[::-1]) for one in maps.maps])
    best = np.argmax(np.nan_to_num(spread / np.maximum(summary.median_sigma, 1e-12)))
    picture = summary.pictures[best]
    small = block_mean(picture, max(1, -(-max(picture.shape) // _THUMBNAIL_SIDE)))
    # Few levels compress to a third.
    levels = to_levels(small, colour_limits(small)).astype(np.int64)
    coarse = np.where(levels > 0, np.minimum((levels - 1) // 16 * 16 + 9, LEVELS), 0).astype(np.uint8)
    return pack_png(coarse, NOT_FITTED_COLOUR + VIRIDIS[: 3 * LEVELS])
