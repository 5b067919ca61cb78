"""Round numbers for axes, colour bars and scale bars."""

import math

import numpy as np


def nice_length(span: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is at most a third of `span`, which is positive."""
    target = span / 3
    decade = 10.0 ** np.floor(np.log10(target))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= target * (1 + 1e-9)))


def list_ticks(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """Round numbers from `low` to `high`, at most `most` of them and at least one where one is inside.

    >>> list_ticks(0.0, 1.0), list_ticks(3.0, 118.0), list_ticks(-0.4, 0.3)
    ((0.0, 0.25, 0.5, 0.75, 1.0), (20.0, 40.0, 60.0, 80.0, 100.0), (-0.4, -0.2, 0.0, 0.2))
    """
    if not high > low:
        return (low,)
    decade = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (decade * size for size in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return tuple(round(i * step, 12 - math.floor(math.log10(step))) + 0.0 for i in range(first, last + 1))
    raise AssertionError(f"no step of {low} to {high} has at most {most} ticks")
