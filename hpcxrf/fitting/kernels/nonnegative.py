"""Non-negative least squares of pixels that share a Gram matrix, from their unconstrained solutions, exactly.

With the inverse H of the Gram matrix known, to hold some coefficients of a at 0 takes a system of their number alone:

    x = a - H[:, held] l,   H[held, held] l = a[held],   the slope of what is held is -l

Which are held is found by block principal pivoting (Kim and Park 2011, SIAM J. Sci. Comput. 33, 3261): all that break a
condition change sides, and only the last of them where that has not helped for some turns. In double precision, pixels
side by side: the system has a row for each column that one of them holds, and is the identity for those that do not.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lane_loops import substitute_back
from hpcxrf.fitting.kernels.lanes import (
    LANES,
    Lanes,
    Mask,
    both,
    either,
    holds,
    inverse,
    larger,
    load,
    root,
    size,
    smaller,
    spread,
    store,
    where,
)
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

_U: Final = np.uint64
_WIDTH: Final = np.uint64(LANES)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_PATIENCE: Final = 3.0
_TURNS_PER_COLUMN: Final = 20
# Of the largest coefficient: what rounding leaves of 0.
_ROUNDING: Final = 1e-12
Room = tuple[Array, Array, Array, Array, Array]
"""Coefficients wanted, multipliers, 1 for what is held and else 0, the factor by rows, and its diagonal's inverse."""


@part
def _list_held(held: Array, rows: Array) -> Number:
    """Numbers of the columns that are held by any, and how many there are."""
    n = _U(0)
    for i in range(_U(held.shape[0])):
        if holds(load(held, i) > 0.5):
            rows[n] = i
            n += _1
    return n


@part
def _find_multipliers(matrix: Array, a: Array, rows: Array, n: Number, room: Room) -> None:
    """Solve `H[held, held] l = a[held]` by Cholesky's factor; 0 for what is not held."""
    _, multipliers, held, lower, inverse_root = room
    row = _U(0)
    for i in range(n):
        row += i
        own, column = load(held, rows[i]), _U(0)
        wanted = own * load(a, rows[i])
        for j in range(i):
            column += j
            s = own * load(held, rows[j]) * matrix[rows[i], rows[j]]
            for k in range(j):
                s -= load(lower, row + k) * load(lower, column + k)
            s *= load(inverse_root, j)
            store(lower, row + j, s)
            wanted -= s * load(multipliers, j)
        s = own * matrix[rows[i], rows[i]] + (1.0 - own)
        for k in range(i):
            v = load(lower, row + k)
            s -= v * v
        s = 1.0 / root(s)
        store(inverse_root, i, s)
        store(multipliers, i, wanted * s)
    substitute_back(lower, inverse_root, n, multipliers)


@part
def _subtract(matrix: Array, a: Array, rows: Array, n: Number, room: Room) -> None:
    """Coefficients with what is held at 0, and there the multipliers in their place."""
    x, multipliers, held, _, _ = room
    for i in range(_U(a.shape[0])):
        s = load(a, i)
        for k in range(n):
            s -= load(multipliers, k) * matrix[rows[k], i]
        store(x, i, s)
    for k in range(n):
        i = rows[k]
        store(x, i, where(load(held, i) > 0.5, load(multipliers, k), load(x, i)))


@part
def _change_sides(tolerance: Lanes, going: Mask, last_alone: Mask, room: Room) -> Lanes:
    """Let those change sides that break a condition, in pixels that are going; how many they are."""
    x, _, held, _, _ = room
    n, count = _U(x.shape[0]), spread(0.0)
    for back in range(n):
        i = n - _1 - back
        value, own = load(x, i), load(held, i)
        inside = own > 0.5
        wrong = either(both(inside, value > tolerance), both(inverse(inside), value < 0.0 - tolerance))
        changing = both(both(wrong, going), either(count < 0.5, inverse(last_alone)))
        store(held, i, where(changing, 1.0 - own, own))
        count += where(wrong, spread(1.0), spread(0.0))
    return count


@part
def _pivot(matrix: Array, a: Array, rows: Array, room: Room) -> Lanes:
    """Coefficients, with anything but them where one is held; 1 where all conditions are met, else 0."""
    held, largest = room[2], spread(0.0)
    n = _U(a.shape[0])
    for i in range(n):
        value = load(a, i)
        store(held, i, where(value < 0.0, spread(1.0), spread(0.0)))
        largest = larger(size(value), largest)
    tolerance = largest * _ROUNDING
    fewest, patience = spread(np.float64(n) + 1.0), spread(_PATIENCE)
    going = fewest > 0.0
    for _ in range(_U(_TURNS_PER_COLUMN) * n):
        if not holds(going):
            break
        n_held = _list_held(held, rows)
        _find_multipliers(matrix, a, rows, n_held, room)
        _subtract(matrix, a, rows, n_held, room)
        count = _change_sides(tolerance, going, patience < 0.5, room)
        going = both(going, count > 0.5)
        better = count < fewest
        patience = where(better, spread(_PATIENCE), larger(patience - 1.0, spread(0.0)))
        fewest = smaller(count, fewest)
    return where(going, spread(0.0), spread(1.0))


@kernel("void(float32[:,::1], float64[:,::1], float64[::1], float32[:,::1], uint8[::1])", makes_arrays=True)
def hold_at_zero(signed: Array, matrix: Array, scale: Array, found: Array, solved: Array) -> None:
    """Non-negative coefficients of all pixels.

    Args:
        signed: (column, pixel) unconstrained ones.
        matrix: (column, column) inverse of the Gram matrix with a diagonal of 1.
        scale: (column,) coefficients in its units times this are the others; 0 for a column without a count.
        found: (column, pixel).
        solved: (pixel,) 1 where all conditions are met.
    """
    n, n_pixels = _U(signed.shape[0]), _U(signed.shape[1])
    negative = np.zeros(n_pixels, np.uint8)
    for i in range(n):
        for p in range(n_pixels):
            found[i, p] = signed[i, p]
            negative[p] |= signed[i, p] < np.float32(0.0)
    queue, n_queued = np.zeros(n_pixels, np.uint64), _U(0)
    for p in range(n_pixels):
        solved[p] = 1
        queue[n_queued] = p
        n_queued += _U(negative[p])
    a, x, multipliers = np.zeros((n, _WIDTH)), np.zeros((n, _WIDTH)), np.zeros((n, _WIDTH))
    held, lower = np.zeros((n, _WIDTH)), np.zeros((n * (n + _1) // _2, _WIDTH))
    inverse_root, met, rows = np.zeros((n, _WIDTH)), np.zeros(_WIDTH), np.zeros(n, np.uint64)
    room = (x, multipliers, held, lower, inverse_root)
    for begin in range(_U(0), n_queued, _WIDTH):
        count = min(_WIDTH, n_queued - begin)
        for i in range(n):
            unit = 1.0 / scale[i] if scale[i] > 0.0 else 0.0
            for lane in range(_WIDTH):
                a[i, lane] = unit * signed[i, queue[begin + lane]] if lane < count else 0.0
        store(met, _U(0), _pivot(matrix, a, rows, room))
        for i in range(n):
            for lane in range(count):
                found[i, queue[begin + lane]] = 0.0 if held[i, lane] > 0.5 else max(x[i, lane], 0.0) * scale[i]
        for lane in range(count):
            solved[queue[begin + lane]] = met[lane] > 0.5
