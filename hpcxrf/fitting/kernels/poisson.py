"""Maximum likelihood of one pixel after the other, as `hpcxrf.fitting.pixels.poisson` describes it.

In single precision by projected Newton steps, of which the length is that of a self-concordant function instead of a
search along the line. Where counts are so few that the curvature jumps about, so many that single precision does not
tell the deviance to a tenth, or where it finds no end: in double precision, by `exact_poisson`.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.exact_poisson import climb_exactly
from hpcxrf.fitting.kernels.layout import (
    CURVATURE_FLOOR,
    DARK,
    ERROR_FLOOR,
    FOUR,
    JOINED,
    JOINED_STEPS,
    NEAR_BOUND,
    RIDGE,
    ROUNDING,
    TOLERANCE,
)
from hpcxrf.fitting.kernels.loops import STRIPS, Array, Number, Strips, add_4, add_8, add_up, project, read_counts
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_DARK: Final = np.float32(DARK)
_CURVATURE_FLOOR: Final = np.float32(CURVATURE_FLOOR)
_ERROR_FLOOR: Final = np.float32(ERROR_FLOOR)
_RIDGE: Final = np.float32(RIDGE)
_NEAR_BOUND: Final = np.float32(NEAR_BOUND)
_TOLERANCE: Final = np.float32(TOLERANCE)
_ROUNDING: Final = np.float32(ROUNDING)
_LONG: Final = np.float32(0.5)
_STEPS: Final = 24
_FEWEST_COUNTS: Final = np.float32(50.0)
_MOST_COUNTS: Final = np.float32(1e5)
Grids = tuple[Strips, Strips, Strips]
Room = tuple[Array, Array, Array, Array]
_GRIDS: Final = f"Tuple(({STRIPS}, {STRIPS}, {STRIPS}))"


@part
def _expect(x: Array, strips: Strips, mu: Array) -> None:
    """Expected counts of all channels, none of them dark."""
    place, columns, c = strips
    for i in range(_U(mu.shape[0])):
        mu[i] = _DARK
    for j in range(_U(place.shape[0])):
        if place[j, 3] == FOUR:
            add_4(x, place[j], columns[j], c, mu)
        else:
            add_8(x, place[j], columns[j], c, mu)


@part
def _join(y: Array, joined: Array) -> None:
    """Sums over neighbouring channels."""
    for i in range(_U(y.shape[0]) // _U(JOINED)):
        k = _U(JOINED) * i
        joined[i] = (y[k] + y[k + _U(1)]) + (y[k + _U(2)] + y[k + _U(3)])


@part
def _divide(y: Array, mu: Array, ratio: Array) -> None:
    for i in range(_U(y.shape[0])):
        ratio[i] = y[i] / mu[i]


@part
def _weigh(joined: Array, mu: Array, floor: Number, weight: Array) -> None:
    """Curvature of joined channels: the mean of the observed and the expected information."""
    for i in range(_U(joined.shape[0])):
        floored = mu[i] + floor
        weight[i] = _F(0.5) * (joined[i] + mu[i]) / (floored * floored)


@part
def _factorise(packed: Array, kept: Array, n: Number, lower: Array) -> Number:
    """Cholesky factor of the kept rows and columns of a packed symmetric matrix; whether there is one."""
    for i in range(n):
        row = kept[i] * (kept[i] + _U(1)) // _U(2)
        for j in range(i):
            lower[i, j] = packed[row + kept[j]]
        lower[i, i] = packed[row + kept[i]] * (_ONE + _RIDGE) + _F(1e-30)
    for j in range(n):
        if not lower[j, j] > _ZERO:
            return False
        root = np.sqrt(lower[j, j])
        lower[j, j] = root
        inverse = _ONE / root
        for i in range(j + _U(1), n):
            lower[i, j] *= inverse
        for i in range(j + _U(1), n):
            v = lower[i, j]
            for k in range(j + _U(1), i + _U(1)):
                lower[i, k] -= v * lower[k, j]
    return True


@part
def _solve(lower: Array, n: Number, b: Array) -> Number:
    """Solve in place; `|L^-1 b|^2`."""
    size = _ZERO
    for i in range(n):
        s = b[i]
        for k in range(i):
            s -= lower[i, k] * b[k]
        b[i] = s / lower[i, i]
        size += b[i] * b[i]
    for back in range(n):
        i = n - _U(1) - back
        s = b[i]
        for k in range(i + _U(1), n):
            s -= lower[k, i] * b[k]
        b[i] = s / lower[i, i]
    return size


@part
def _step(x: Array, slope: Array, packed: Array, usable: Array, room: Strips) -> Number:
    """One projected Newton step, in place; the deviance that it promises to take off, or -1 where there is none.

    Columns at 0 whose slope points below it take steps of their own, the others one together.
    """
    kept, b, lower = room
    n, free = _U(usable.shape[0]), _U(0)
    promised = _ZERO
    for j in range(n):
        if usable[j] > _ZERO and (x[j] > _NEAR_BOUND or slope[j] <= _ZERO):
            kept[free] = j
            b[free] = slope[j]
            free += _U(1)
        elif usable[j] > _ZERO:
            own = packed[j * (j + _U(1)) // _U(2) + j]
            down = min(slope[j] / max(own, _F(1e-30)), x[j])
            promised += slope[j] * down
            x[j] -= down
    if not _factorise(packed, kept, free, lower):
        return _F(-1.0)
    size = _solve(lower, free, b)
    promised += size
    length = np.sqrt(size)
    share = _ONE / (_ONE + length) if length > _LONG else _ONE
    for i in range(free):
        x[kept[i]] = max(x[kept[i]] - share * b[i], _ZERO)
    return _F(2.0) * promised


@part
def _climb(
    y: Array, joined: Array, n_joined: Number, x: Array, grids: Grids, units: Array, scratch: Strips, room: Room
) -> Number:
    """Steps to the most likely coefficients; whether they came to an end."""
    fine, coarse, pairs = grids
    mu, weight, slope = scratch
    packed = room[3]
    n = _U(units.shape[1])
    total = add_up(y, _U(0), _U(y.shape[0]))
    floor = max(total / n_joined, _F(JOINED) * _DARK) * _CURVATURE_FLOOR
    near, some = mu[: joined.shape[0]], weight[: joined.shape[0]]
    wholes = False
    for step in range(_STEPS):
        wholes = wholes or step >= JOINED_STEPS
        if wholes:
            strips, counts, expected, ratio = fine, y, mu, weight
        else:
            strips, counts, expected, ratio = coarse, joined, near, some
        _expect(x, strips, expected)
        _divide(counts, expected, ratio)
        project(ratio, strips, slope)
        if wholes:
            # In place: every sum stands before what is still to be added.
            _join(mu, near)
        for j in range(n):
            slope[j] = units[0, j] - slope[j]
        _weigh(joined, near, floor, some)
        project(some, pairs, packed)
        promised = _step(x, slope, packed, units[1], (room[0], room[1], room[2]))
        if promised < _ZERO:
            return False
        if promised <= _TOLERANCE + _ROUNDING * total:
            if wholes:
                return True
            wholes = True
    return False


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, {_GRIDS}, float32[:,::1], float32[:,::1], float64[::1], "
    "float32[:,::1], uint8[::1])"
)
def maximise(
    data: Array,
    kind: int,
    stride: int,
    n_channels: int,
    grids: Grids,
    units: Array,
    rows: Array,
    totals: Array,
    x: Array,
    solved: Array,
) -> None:
    """Find the most likely coefficients of pixels.

    Args:
        data: bytes of the counts of all pixels.
        kind: type of the counts.
        stride: counts from one pixel to the next.
        n_channels: channels of a pixel.
        grids: strips of the columns over channels, over joined channels, and of products of two over joined channels.
        units: (2, column): counts of one unit, and 1 where a column has counts at all.
        rows: (channel, column).
        totals: (column,) counts of one unit.
        x: (pixel, column): start, and result.
        solved: (pixel,): 1 where the end was found.
    """
    n = _U(x.shape[1])
    width = (n_channels + _U(127)) // _U(128) * _U(128)
    y, mu, weight = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    joined, n_joined = np.zeros(width // _U(JOINED), np.float32), _F((n_channels + _U(JOINED - 1)) // _U(JOINED))
    at = np.zeros(n + _U(8), np.float32)
    slope = np.zeros(n + _U(8), np.float32)
    packed = np.zeros(n * (n + _U(1)) // _U(2) + _U(8), np.float32)
    room = (np.zeros(n, np.uint64), np.zeros(n, np.float32), np.zeros((n, n), np.float32), packed)
    for p in range(_U(x.shape[0])):
        read_counts(data, kind, p * stride, n_channels, y)
        _join(y, joined)
        for j in range(n):
            at[j] = x[p, j]
        total = add_up(y, _U(0), n_channels)
        done = False
        if total >= _FEWEST_COUNTS and total <= _MOST_COUNTS:
            done = _climb(y, joined, n_joined, at, grids, units, (mu, weight, slope), room)
            if not done:
                for j in range(n):
                    at[j] = max(at[j], _ZERO) if at[j] < _F(1e30) else _ZERO
        if not done:
            done = climb_exactly(y, n_channels, at, rows, totals, units[1])
        for j in range(n):
            x[p, j] = at[j]
        solved[p] = 1 if done else 0


@part
def _inverse_diagonal(lower: Array, j: Number, n: Number, b: Array) -> Number:
    """`(L L')^-1` at (j, j): squares of column j of L^-1."""
    total = _ZERO
    for i in range(j, n):
        v = _ONE if i == j else _ZERO
        for k in range(j, i):
            v -= lower[i, k] * b[k]
        b[i] = v / lower[i, i]
        total += b[i] * b[i]
    return total


@kernel(f"void(float32[:,::1], {STRIPS}, {STRIPS}, float32, float32[::1], float32[:,::1])")
def invert_information(
    x: Array, coarse: Strips, pairs: Strips, n_joined: float, usable: Array, variance: Array
) -> None:
    """Diagonal of the inverse of the expected information, with the floor of the shared weights; NaN: singular.

    Args:
        x: (pixel, column) expected coefficients.
        coarse: strips of the columns over joined channels.
        pairs: strips of products of two columns over joined channels.
        n_joined: joined channels, without those that fill strips up.
        usable: (column,) 1 where a column has counts.
        variance: (pixel, column).
    """
    n = _U(x.shape[1])
    width = _U(0)
    for j in range(_U(coarse[0].shape[0])):
        width = max(width, coarse[0][j, 0] + coarse[0][j, 1])
    mu, weight = np.zeros(width, np.float32), np.zeros(width, np.float32)
    at = np.zeros(n + _U(8), np.float32)
    packed = np.zeros(n * (n + _U(1)) // _U(2) + _U(8), np.float32)
    kept, lower, b = np.zeros(n, np.uint64), np.zeros((n, n), np.float32), np.zeros(n, np.float32)
    for p in range(_U(x.shape[0])):
        free = _U(0)
        for j in range(n):
            at[j] = x[p, j]
            variance[p, j] = np.nan
            if usable[j] > _ZERO:
                kept[free] = j
                free += _U(1)
        _expect(at, coarse, mu)
        mean = max(add_up(mu, _U(0), width) / n_joined, _ONE / n_joined)
        for i in range(width):
            weight[i] = _ONE / (mu[i] + _ERROR_FLOOR * mean)
        project(weight, pairs, packed)
        if _factorise(packed, kept, free, lower):
            for j in range(free):
                variance[p, kept[j]] = _inverse_diagonal(lower, j, free, b)
