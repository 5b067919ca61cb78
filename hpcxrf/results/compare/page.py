"""The page of a comparison: a table, and of every component differences against means and both maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.results.compare.agreement import Agreement
from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import VIRIDIS, colour_limits
from hpcxrf.results.report.page.data import pack_png
from hpcxrf.results.report.page.look import load_page_look, load_templates
from hpcxrf.results.store.storage import replace_file

FloatArray = NDArray[np.float64]

_CELLS: Final = (120, 200)
"""Cells of the picture of differences (difference, mean)."""
_LARGEST_SIDE: Final = 400
_SHOWN_SHARE: Final = 0.998
"""Share of the pixels whose means the picture spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPictures:
    """Pictures of one component, as addresses of data."""

    agreement: Agreement
    label: str
    ours: str
    theirs: str
    differences: str
    """Density of pixels: mean of both to the right, theirs less ours upwards."""
    mean_range: tuple[float, float]
    """Counts a pixel at the left and right edge of `differences`."""
    half_height: float
    """Counts a pixel at its upper edge; minus that at its lower one."""
    lines: tuple[tuple[str, float], ...]
    """Name and height (0 at the top to 1) of the mean difference and of the limits of agreement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was compared with what."""

    ours: str
    theirs: str
    program: str
    method: str
    detector: str
    quantity: str
    remarks: tuple[str, ...]
    only_ours: tuple[str, ...]
    only_theirs: tuple[str, ...]
    agreements: tuple[Agreement, ...]


def write_comparison_page(comparison: Comparison, maps: Sequence[tuple[FloatArray, FloatArray]], path: Path) -> None:
    """Write the page of a comparison; replaces an earlier one at once.

    Args:
        comparison: figures and names.
        maps: ours and theirs (y, x), converted, of each of `comparison.agreements`.
        path: the page.

    Raises:
        OutputError: `path` cannot be written.
    """
    drawn = [draw_component(one, *pair) for one, pair in zip(comparison.agreements, maps, strict=True)]
    page = (
        load_templates(Path(__file__).parent)
        .get_template("comparison.html.j2")
        .render(comparison=comparison, drawn=drawn, **load_page_look())
    )
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def draw_component(agreement: Agreement, ours: FloatArray, theirs: FloatArray) -> ComponentPictures:
    """Draw both maps on one colour scale, and their differences against their means.

    Args:
        agreement: figures of the component.
        ours: (y, x) counts.
        theirs: (y, x) counts, converted.
    """
    low, high = colour_limits(ours)
    mean, difference = (ours + theirs) / 2, theirs - ours
    both = np.isfinite(mean)
    mean, difference = mean[both], difference[both]
    outside = (1 - _SHOWN_SHARE) / 2
    left, right = np.quantile(mean, (outside, 1 - outside)) if mean.size else (0.0, 1.0)
    right = right if right > left else left + 1.0
    figures = (agreement.mean_difference, agreement.lower_limit, agreement.upper_limit)
    reach = max((abs(x) for x in figures if math.isfinite(x)), default=0.0)
    half = 1.5 * reach if reach > 0.0 else 1.0
    density, _, _ = np.histogram2d(-difference, mean, bins=_CELLS, range=((-half, half), (left, right)))
    names = ("mean", "lower limit", "upper limit")
    return ComponentPictures(
        agreement=agreement,
        label=shown_name(agreement.component),
        ours=draw_map(ours, low, high),
        theirs=draw_map(theirs, low, high),
        differences=_draw_values(np.log1p(density), 0.0, float(np.log1p(density.max())) or 1.0),
        mean_range=(float(left), float(right)),
        half_height=half,
        lines=tuple((n, (half - x) / (2 * half)) for n, x in zip(names, figures, strict=True) if math.isfinite(x)),
    )


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values; what has no number is null."""
    return {
        **{name: getattr(comparison, name) for name in ("ours", "theirs", "program", "method", "detector", "quantity")},
        **{name: list(getattr(comparison, name)) for name in ("remarks", "only_ours", "only_theirs")},
        "components": [
            {name: _plain(getattr(one, name)) for name in Agreement.__dataclass_fields__}
            for one in comparison.agreements
        ],
    }


def _plain(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw_map(values: FloatArray, low: float, high: float) -> str:
    """Draw a map (y, x) between two limits, at most 400 points along a side; the `data:` address."""
    step = max(1, -(-max(values.shape) // _LARGEST_SIDE))
    return _draw_values(values[::step, ::step], low, high)


def _draw_values(values: FloatArray, low: float, high: float) -> str:
    scale = 255.0 / (high - low) if high > low else 0.0
    index = np.nan_to_num((values - low) * scale).clip(0, 255).astype(np.uint8)
    return pack_png(index, VIRIDIS)
