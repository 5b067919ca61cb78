"""How two maps of one component agree: ratio, correlation, and differences against means (Bland and Altman 1986)."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LIMIT_SD: Final = 1.959963984540054
"""Standard deviations that hold 95 % of a normal distribution: the limits of agreement."""
FEWEST_PIXELS: Final = 3
"""Pixels below which nothing is said of a scatter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Figures of one component; differences are theirs less ours, in recorded counts of the family."""

    component: str
    pixels: int
    """Pixels that both have a number for."""
    ours_counts: float
    """Sum over those pixels."""
    theirs_counts: float
    """The same of the other program, converted to counts of the family."""
    ratio: float
    """Theirs over ours, of the sums; NaN where ours are not above 0."""
    ratio_sigma: float
    """Standard uncertainty of `ratio` by the sigma of our pixels alone; both fits saw the same counts, so that two
    right fits agree better than that."""
    correlation: float
    """Pearson's; NaN where one of the maps is constant."""
    mean_difference: float
    """Counts a pixel."""
    lower_limit: float
    """Counts a pixel: 95 % of the pixels lie between this and `upper_limit` where differences are normal."""
    upper_limit: float
    """Counts a pixel."""
    rms_in_sigma: float
    """Root mean square of difference / sigma; NaN without sigma."""
    strongest_share: float
    """Share of the strongest line in the family, by which theirs were divided; 1 where nothing was converted."""


def compare_component(
    component: str, ours: FloatArray, sigma: FloatArray, theirs: FloatArray, *, strongest_share: float = 1.0
) -> Agreement:
    """Compare two maps of one component.

    Args:
        component: its name.
        ours: (y, x) counts of the family; NaN where nothing was fitted.
        sigma: (y, x) their standard uncertainties.
        theirs: (y, x) as the other program has them, counts of the family or of its strongest line.
        strongest_share: 0 to 1, above 0: share of that line where theirs count it alone, else 1.

    Returns:
        The figures; NaN where they have no meaning for so few pixels.
    """
    converted = theirs / strongest_share
    both = np.isfinite(ours) & np.isfinite(converted)
    a, b, s = ours[both], converted[both], sigma[both]
    n, total, other = int(a.size), float(a.sum()), float(b.sum())
    known = np.isfinite(s) & (s > 0.0)
    difference = b - a
    bias = float(difference.mean()) if n else math.nan
    spread = float(difference.std(ddof=1)) if n >= FEWEST_PIXELS else math.nan
    return Agreement(
        component=component,
        pixels=n,
        ours_counts=total,
        theirs_counts=other,
        ratio=other / total if total > 0.0 else math.nan,
        ratio_sigma=abs(other) / total**2 * math.sqrt(float((s[known] ** 2).sum())) if total > 0.0 else math.nan,
        correlation=_correlate(a, b),
        mean_difference=bias,
        lower_limit=bias - LIMIT_SD * spread,
        upper_limit=bias + LIMIT_SD * spread,
        rms_in_sigma=float(np.sqrt(np.mean((difference[known] / s[known]) ** 2))) if known.any() else math.nan,
        strongest_share=strongest_share,
    )


def _correlate(a: FloatArray, b: FloatArray) -> float:
    if a.size < FEWEST_PIXELS:
        return math.nan
    x, y = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((x**2).sum()) * float((y**2).sum()))
    return float((x * y).sum()) / norm if norm > 0.0 else math.nan
