"""Figures inside the page of a study."""

import base64
from dataclasses import dataclass
from typing import Final

from matplotlib.figure import Figure

from hpcxrf.results.report import plots

# (dpi, quality) of the pictures, best first; the first that fits its share of the page is taken.
_PICTURE_STEPS: Final = ((120.0, 86), (95.0, 78), (70.0, 65))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture inside the page."""

    data: str
    """data: address."""
    alt: str


def encode_picture(figure: Figure, alt: str, limit_bytes: int) -> Picture:
    """The best version of a figure that takes at most `limit_bytes` in the page, or the smallest."""
    data = b""
    for dpi, quality in _PICTURE_STEPS:
        data = plots.encode(figure, dpi=dpi, quality=quality)
        if len(data) * 4 // 3 <= limit_bytes:
            break
    return Picture(data=f"data:image/webp;base64,{base64.b64encode(data).decode()}", alt=alt)
