"""Values and bounds of theta that a user sets by hand, against what a detector can have.

This module loads no torch: the server of the explorer checks requests with it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from hpcxrf.fitting.spectrum.theta import AXIS_LIMITS
from hpcxrf.physics.parameters import PARAMETERS, Parameter

Bounds = tuple[float | None, float | None]

_MOST: Final = {p.name: AXIS_LIMITS.get(p.name, (min(p.lower, 0.0), p.upper)) for p in PARAMETERS}


def find_theta_faults(
    values: Mapping[str, float],
    fixed: Collection[str],
    free: Collection[str],
    bounds: Mapping[str, Bounds],
    rows: Sequence[Parameter],
) -> list[str]:
    """Find names, values and bounds that cannot be fitted: sentences with the remedy.

    Args:
        values: starting values by name.
        fixed: names of parameters that are held.
        free: names of parameters that are fitted.
        bounds: lower and upper bound by name; None: that of the row.
        rows: rows of theta; their bounds are allowed where they are wider than those of the table.
    """
    by_name = {row.name: row for row in rows}
    named = dict.fromkeys((*values, *fixed, *free, *bounds))
    faults = [f"no parameter is called {name}; there are {', '.join(by_name)}" for name in named if name not in by_name]
    faults += [f"{name} is both held and fitted; choose one" for name in sorted(set(fixed) & set(free))]
    for name in (name for name in named if name in by_name):
        faults += _row_faults(by_name[name], values.get(name), bounds.get(name, (None, None)), held=name in fixed)
    return faults


def _row_faults(row: Parameter, value: float | None, bounds: Bounds, *, held: bool) -> list[str]:
    low, high = min(_MOST[row.name][0], row.lower), max(_MOST[row.name][1], row.upper)
    numbers = (("value", value), ("lower bound", bounds[0]), ("upper bound", bounds[1]))
    faults = [
        f"{row.name}: {what} {number:g} is not a number; give one between {low:g} and {high:g} {row.unit}"
        for what, number in numbers
        if number is not None and not math.isfinite(number)
    ]
    faults += [
        f"{row.name}: {what} {number:g} {row.unit} is beyond what a detector has; give one between {low:g} and {high:g}"
        for what, number in numbers
        if number is not None and math.isfinite(number) and not low <= number <= high
    ]
    if faults:
        return faults
    lower = row.lower if bounds[0] is None else bounds[0]
    upper = row.upper if bounds[1] is None else bounds[1]
    if lower >= upper:
        return [f"{row.name}: lower bound {lower:g} is not below upper bound {upper:g}; exchange or widen them"]
    given = bounds != (None, None) and not held
    if value is not None and given and not lower <= value <= upper:
        return [f"{row.name}: value {value:g} lies outside of its bounds {lower:g} to {upper:g}; move one of them"]
    return []
