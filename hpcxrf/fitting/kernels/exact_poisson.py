"""Maximum likelihood of a pixel in double precision, by steps to the exact minimum among what is not negative.

The curvature is the observed information of the channels with counts; a step is cut to `1 / (1 + its length)`, which
a self-concordant function allows without a search along the line (Tran-Dinh, Kyrillidis and Cevher 2015, J. Mach.
Learn. Res. 16, 371).
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.layout import DARK
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import glue, part

_U: Final = np.uint64
_STEPS: Final = 100
_LONG: Final = 0.25
# Square of the length of the last step, twice: about the deviance that is left before it.
_TOLERANCE: Final = 1e-4
_PIVOTS: Final = 60
_PATIENCE: Final = 3
_ROUNDING: Final = 1e-9
Room = tuple[Array, Array, Array, Array, Array]
"""Two matrices, five vectors, two rows of flags, and a list of channels."""


@part
def _solve_free(h: Array, c: Array, free: Array, lower: Array, b: Array, z: Array) -> None:
    """Solve `H z = c` among the free columns, by Cholesky; the others are 0."""
    n, m = _U(c.shape[0]), _U(0)
    for j in range(n):
        if free[j]:
            b[m], r = c[j], _U(0)
            for k in range(j + _U(1)):
                if free[k]:
                    lower[m, r] = h[j, k]
                    r += _U(1)
            m += _U(1)
    _factorise_and_solve(lower, m, b)
    m = _U(0)
    for j in range(n):
        z[j] = 0.0
        if free[j]:
            z[j] = b[m]
            m += _U(1)


@part
def _factorise_and_solve(lower: Array, m: Number, b: Array) -> None:
    for i in range(m):
        for j in range(i + _U(1)):
            s = lower[i, j]
            for k in range(j):
                s -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(max(s, 1e-300)) if i == j else s / lower[j, j]
        s = b[i]
        for k in range(i):
            s -= lower[i, k] * b[k]
        b[i] = s / lower[i, i]
    for back in range(m):
        i = m - _U(1) - back
        s = b[i]
        for k in range(i + _U(1), m):
            s -= lower[k, i] * b[k]
        b[i] = s / lower[i, i]


@part
def _find_wrong(h: Array, c: Array, z: Array, free: Array, wrong: Array) -> Number:
    """Mark free columns below 0, and held ones that would rise; how many there are."""
    n, count = _U(c.shape[0]), 0
    for j in range(n):
        if free[j]:
            wrong[j] = z[j] < 0.0
        else:
            slope = -c[j]
            for k in range(n):
                slope += h[j, k] * z[k]
            wrong[j] = slope < -_ROUNDING * (abs(c[j]) + h[j, j])
        count += wrong[j]
    return count


@part
def _exchange(free: Array, wrong: Array, single: Number) -> None:
    """Free what is held and hold what is free among the wrong ones; of the last one only, where exchanges circle."""
    n = _U(free.shape[0])
    for back in range(n):
        j = n - _U(1) - back
        if wrong[j]:
            free[j] = not free[j]
            if single:
                break


@part
def _minimise(h: Array, c: Array, free: Array, wrong: Array, lower: Array, b: Array, z: Array) -> Number:
    """The z of none below 0 that minimises `z' H z / 2 - c' z`, by block pivoting; whether it was found."""
    fewest, patience = c.shape[0] + 1, _PATIENCE
    for _ in range(_PIVOTS):
        _solve_free(h, c, free, lower, b, z)
        count = _find_wrong(h, c, z, free, wrong)
        if count == 0:
            return True
        if count < fewest:
            fewest, patience = count, _PATIENCE
        else:
            patience -= 1
        _exchange(free, wrong, patience < 0)
    return False


@part
def _expand(y: Array, seen: Array, n_seen: Number, rows: Array, at: Array, h: Array, g: Array) -> None:
    """Add the channels with counts to slope and information."""
    n = _U(g.shape[0])
    for i in range(n_seen):
        row, v, mu = rows[seen[i]], np.float64(y[seen[i]]), DARK
        for j in range(n):
            mu += row[j] * at[j]
        ratio = v / mu
        curve = ratio / mu
        for j in range(n):
            a = np.float64(row[j])
            if a != 0.0:
                g[j] -= ratio * a
                s = curve * a
                own = h[j]
                for k in range(n):
                    own[k] += s * row[k]


@part
def _begin(
    y: Array, n_channels: Number, x: Array, totals: Array, usable: Array, least: Number, seen: Array, at: Array
) -> Number:
    """List the channels with counts, and start at the least share or above; how many there are."""
    n, n_seen, total, n_usable = _U(totals.shape[0]), _U(0), 0.0, 0.0
    for i in range(n_channels):
        if y[i] > np.float32(0.0):
            seen[n_seen] = i
            n_seen += _U(1)
            total += y[i]
    for j in range(n):
        n_usable += usable[j]
    for j in range(n):
        if usable[j] > np.float32(0.0):
            at[j] = max(np.float64(x[j]), least * total / (n_usable * totals[j]))
    return n_seen


@part
def _set_up(g: Array, usable: Array, at: Array, h: Array, c: Array, free: Array) -> None:
    """The quadratic model about a point, as of the coefficients themselves."""
    n = _U(g.shape[0])
    for j in range(n):
        h[j, j] += 1e-9 * h[j, j] + 1e-12
    for j in range(n):
        s = -g[j]
        for k in range(n):
            s += h[j, k] * at[k]
        c[j] = s if usable[j] > np.float32(0.0) else -1.0
        free[j] = usable[j] > np.float32(0.0) and (at[j] > 0.0 or g[j] < 0.0)


@part
def _measure(h: Array, z: Array, at: Array) -> Number:
    """Square of the length of a step from `at` to z."""
    n, size = _U(at.shape[0]), 0.0
    for j in range(n):
        s = 0.0
        for k in range(n):
            s += h[j, k] * (z[k] - at[k])
        size += s * (z[j] - at[j])
    return max(size, 0.0)


@glue
def make_room(n: Number, n_channels: Number) -> Room:
    """Room for `climb_exactly` of n columns."""
    flags, seen = np.zeros((2, n), np.bool_), np.zeros(n_channels, np.uint64)
    return np.zeros((n, n)), np.zeros((n, n)), np.zeros((5, n)), flags, seen


@part
def climb_exactly(
    y: Array, n_channels: Number, x: Array, rows: Array, totals: Array, usable: Array, least: Number, room: Room
) -> Number:
    """Go from x to the most likely coefficients, in place; whether that was reached.

    Args:
        y: (channel,) counts.
        n_channels: channels of the pixel.
        x: (column,).
        rows: (channel, column).
        totals: (column,) counts of one unit.
        usable: (column,) 1 for a column with counts.
        least: share of an equal share of the counts, at or above which each column begins.
        room: of `make_room`.
    """
    n = _U(totals.shape[0])
    h, lower, vectors, flags, seen = room
    g, c, z, b, at = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
    free, wrong = flags[0], flags[1]
    for j in range(n):
        at[j] = 0.0
    n_seen = _begin(y, n_channels, x, totals, usable, least, seen, at)
    for _ in range(_STEPS):
        for j in range(n):
            g[j] = totals[j]
            for k in range(n):
                h[j, k] = 0.0
        _expand(y, seen, n_seen, rows, at, h, g)
        _set_up(g, usable, at, h, c, free)
        if not _minimise(h, c, free, wrong, lower, b, z):
            return False
        size = _measure(h, z, at)
        length = np.sqrt(size)
        share = 1.0 / (1.0 + length) if length > _LONG else 1.0
        for j in range(n):
            at[j] = max(at[j] + share * (z[j] - at[j]), 0.0)
            x[j] = np.float32(at[j])
        if 2.0 * size < _TOLERANCE:
            return True
    return False
