"""Outliers and steps in a parameter of a detector over an archive, by statistics that a few wild fits do not move."""

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LEAST_POINTS: Final = 12
"""Datasets below which a series is drawn and not judged."""
_WINDOW: Final = 11
"""Datasets of the running median that an outlier is measured against."""
_OUTLIER: Final = 6.0
"""Sigmas beyond which a point is an outlier."""
_WIDTHS: Final = (4, 12, 24)
"""Datasets on either side of a place whose medians are compared, where there are so many; the first is the fewest
that a step leaves on either side."""
_LIMIT: Final = 6.8
"""Standard errors of a difference of medians: a normal series of any length has none above it."""
_LINE: Final = 0.85
"""Deviations that a step leaves, over those of a straight line: what drifts slowly is no step."""
_BESIDE: Final = 8
"""Datasets on either side that the size of a step is measured between."""
_TO_SIGMA: Final = 1.4826
"""Sigma of a normal law over its median absolute deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A place where a series changes from one dataset to the next, and stays."""

    position: int
    """Index of the first point after it."""
    size: float
    """Median of the points that follow minus that of those before, in the unit of the series."""
    sigma: float
    """Standard error of `size`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What is found in a series."""

    steps: tuple[Step, ...]
    away: FloatArray
    """(point,) value minus the median of its neighbours on its side of the steps; NaN where it is not judged."""
    is_outlier: NDArray[np.bool_]
    """(point,)."""
    noise: float
    """Standard deviation of a point about its neighbours; NaN where the series is too short to tell."""


def find_drift(values: FloatArray, sigma: FloatArray) -> Drift:
    """Find steps and outliers of one parameter over datasets in their order.

    A step is a place whose two sides have medians that differ by more than chance explains, and which a straight line
    does not describe as well. An outlier is far from the median of its neighbours on its side of the steps, by the
    spread of the series and by its own error together.

    Args:
        values: (point,), finite, in the order of time.
        sigma: (point,), standard error of each from its fit; NaN where it is not known.

    Returns:
        Steps in their order; a series of fewer than `LEAST_POINTS` has none, and no outlier.
    """
    n = len(values)
    if n < LEAST_POINTS:
        return Drift(steps=(), away=np.full(n, np.nan), is_outlier=np.zeros(n, bool), noise=math.nan)
    noise = estimate_noise(values, sigma)
    places = _find_steps(values, noise, 0, n)
    ends = [0, *places, n]
    away = np.zeros(n)
    for first, stop in itertools.pairwise(ends):
        away[first:stop] = values[first:stop] - _running_median(values[first:stop])
    outlier = np.abs(away) > _OUTLIER * np.hypot(noise, np.nan_to_num(sigma))
    steps = tuple(_measure_step(values, ~outlier, at, ends[i], ends[i + 2], noise) for i, at in enumerate(places))
    return Drift(steps=steps, away=away, is_outlier=outlier, noise=noise)


def estimate_noise(values: FloatArray, sigma: FloatArray) -> float:
    """Standard deviation of a point about its neighbours: by the differences of neighbours, at least the fits' errors.

    Args:
        values: (point,), at least two.
        sigma: (point,), standard errors; NaN where they are not known.

    Returns:
        A positive number: of values that are all alike the smallest step of float64 there.
    """
    by_differences = _TO_SIGMA * float(np.median(np.abs(np.diff(values)))) / math.sqrt(2.0)
    known = sigma[np.isfinite(sigma)]
    by_fits = float(np.median(known)) if len(known) else 0.0
    return max(by_differences, by_fits, float(np.spacing(np.abs(values).max())))


def _find_steps(values: FloatArray, noise: float, first: int, stop: int) -> list[int]:
    """Places of the steps within a part of a series: the clearest one, and those of the parts on either side of it."""
    part = values[first:stop]
    scores = _score_places(part, noise)
    while scores.max(initial=0.0) > 1.0:
        which, near = (int(i) for i in np.unravel_index(np.argmax(scores), scores.shape))
        width = _WIDTHS[which]
        at = _place_step(part, near, width)
        if _is_abrupt(part, at, width):
            before, after = _find_steps(values, noise, first, first + at), _find_steps(values, noise, first + at, stop)
            return [*before, first + at, *after]
        scores[which, max(0, near - width) : near + width + 1] = 0.0
    return []


def _score_places(part: FloatArray, noise: float) -> FloatArray:
    """Difference of the medians beside each place over its limit, (width, point); 0 where too few are beside it."""
    scores = np.zeros((len(_WIDTHS), len(part)))
    for score, width in zip(scores, _WIDTHS, strict=True):
        if len(part) >= 2 * width:
            medians = np.median(np.lib.stride_tricks.sliding_window_view(part, width), axis=-1)
            limit = _LIMIT * noise * _error_of_medians(width, width)
            score[width : len(part) - width + 1] = np.abs(medians[width:] - medians[:-width]) / limit
    return scores


def _place_step(part: FloatArray, near: int, width: int) -> int:
    """The place about `near` that leaves the least absolute deviations from the medians of its two sides."""
    window = slice(max(0, near - width), near + width)
    places = range(max(_WIDTHS[0], near - width // 2), min(len(part) - _WIDTHS[0], near + width // 2) + 1)
    return min(places, key=lambda at: (_leave_step(part[window], at - window.start), abs(at - near)))


def _leave_step(part: FloatArray, at: int) -> float:
    return sum(float(np.abs(side - np.median(side)).sum()) for side in (part[:at], part[at:]))


def _is_abrupt(part: FloatArray, at: int, width: int) -> bool:
    """Whether a step describes the points beside a place better than a straight line."""
    start, stop = max(0, at - width), at + width
    beside = part[start:stop]
    x = np.arange(len(beside)) - 0.5 * (len(beside) - 1)
    slope = float(x @ beside) / float(x @ x)
    from_line = beside - slope * x
    return _leave_step(beside, at - start) < _LINE * float(np.abs(from_line - np.median(from_line)).sum())


def _error_of_medians(n_before: int, n_after: int) -> float:
    """Standard error of a difference of medians of normal values of sigma 1.

    A median has pi / 2 times the variance of a mean.
    """
    return math.sqrt(0.5 * math.pi * (1.0 / n_before + 1.0 / n_after))


def _measure_step(values: FloatArray, good: NDArray[np.bool_], at: int, first: int, stop: int, noise: float) -> Step:
    """Size of a step between the points up to the steps beside it, at most some beside it."""
    sides = []
    for part in (slice(max(first, at - _BESIDE), at), slice(at, min(stop, at + _BESIDE))):
        kept = values[part][good[part]]
        sides.append(kept if len(kept) else values[part])
    error = noise * _error_of_medians(len(sides[0]), len(sides[1]))
    return Step(position=at, size=float(np.median(sides[1]) - np.median(sides[0])), sigma=error)


def _running_median(part: FloatArray) -> FloatArray:
    """Median of the points about each, of as many at the ends as in the middle."""
    width = min(_WINDOW, len(part))
    windows = np.lib.stride_tricks.sliding_window_view(part, width)
    middle = np.median(windows, axis=-1)
    at = np.clip(np.arange(len(part)) - width // 2, 0, len(middle) - 1)
    return np.asarray(middle[at], dtype=np.float64)
