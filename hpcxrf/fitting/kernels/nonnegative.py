"""Non-negative least squares of pixels that share a Gram matrix, from their unconstrained solutions, exactly.

With the inverse H of the Gram matrix known, to hold some coefficients of a at 0 takes a system of their number alone:

    x = a - H[:, held] l,   H[held, held] l = a[held],   the slope of what is held is -l

Which are held is found by block principal pivoting (Kim and Park 2011, SIAM J. Sci. Comput. 33, 3261): all that break a
condition change sides, and only the last of them where that has not helped for some turns. In double precision: few
coefficients are held, so that nothing here is long enough for vectors.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

_U: Final = np.uint64
_ONE: Final = np.uint64(1)
_PATIENCE: Final = 3
_TURNS_PER_COLUMN: Final = 20
# Of the largest coefficient: what rounding leaves of 0.
_ROUNDING: Final = 1e-12


@part
def _list_held(held: Array, rows: Array) -> Number:
    """Numbers of the columns that are held, and how many there are."""
    n = _U(0)
    for i in range(_U(held.shape[0])):
        if held[i]:
            rows[n] = i
            n += _ONE
    return n


@part
def _find_multipliers(inverse: Array, a: Array, rows: Array, n: Number, lower: Array, multipliers: Array) -> None:
    """Solve `H[held, held] l = a[held]` by Cholesky's factor."""
    for i in range(n):
        for j in range(i + _ONE):
            s = inverse[rows[i], rows[j]]
            for k in range(j):
                s -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(s) if i == j else s / lower[j, j]
        s = a[rows[i]]
        for k in range(i):
            s -= lower[i, k] * multipliers[k]
        multipliers[i] = s / lower[i, i]
    for back in range(n):
        i = n - _ONE - back
        s = multipliers[i]
        for k in range(i + _ONE, n):
            s -= lower[k, i] * multipliers[k]
        multipliers[i] = s / lower[i, i]


@part
def _subtract(inverse: Array, a: Array, rows: Array, n: Number, multipliers: Array, x: Array) -> None:
    """Coefficients with those of `rows` held at 0, and there the multipliers in their place."""
    for i in range(_U(a.shape[0])):
        x[i] = a[i]
    for k in range(n):
        for i in range(_U(a.shape[0])):
            x[i] -= inverse[rows[k], i] * multipliers[k]
    for k in range(n):
        x[rows[k]] = multipliers[k]


@part
def _change_sides(x: Array, held: Array, tolerance: Number, last_alone: Number, wrong: Array) -> Number:
    """Let those change sides that break a condition; how many they are."""
    n = _U(0)
    last: Number = _U(0)
    for i in range(_U(x.shape[0])):
        wrong[i] = x[i] > tolerance if held[i] else x[i] < -tolerance
        if wrong[i]:
            n += _ONE
            last = i
    for i in range(_U(x.shape[0])):
        if wrong[i] and (i == last or not last_alone):
            held[i] = not held[i]
    return n


@part
def _pivot(inverse: Array, a: Array, rows: Array, lower: Array, multipliers: Array, sides: Array, x: Array) -> Number:
    """Coefficients, with anything but them where one is held; whether all conditions are met."""
    held, wrong = sides[0], sides[1]
    size = 0.0
    for i in range(_U(a.shape[0])):
        held[i] = a[i] < 0.0
        size = max(size, abs(a[i]))
    fewest: Number = _U(a.shape[0]) + _ONE
    patience: Number = _PATIENCE
    for _ in range(_TURNS_PER_COLUMN * a.shape[0]):
        n = _list_held(held, rows)
        _find_multipliers(inverse, a, rows, n, lower, multipliers)
        _subtract(inverse, a, rows, n, multipliers, x)
        n_wrong = _change_sides(x, held, _ROUNDING * size, patience == 0, wrong)
        if n_wrong == 0:
            return True
        if n_wrong < fewest:
            fewest, patience = n_wrong, _PATIENCE
        elif patience > 0:
            patience -= 1
    return False


@kernel("void(float32[:,::1], float64[:,::1], float64[::1], float32[:,::1], uint8[::1])", makes_arrays=True)
def hold_at_zero(signed: Array, inverse: Array, scale: Array, found: Array, solved: Array) -> None:
    """Non-negative coefficients of all pixels.

    Args:
        signed: (column, pixel) unconstrained ones.
        inverse: (column, column) inverse of the Gram matrix with a diagonal of 1.
        scale: (column,) coefficients in its units times this are the others; 0 for a column without a count.
        found: (column, pixel).
        solved: (pixel,) 1 where all conditions are met.
    """
    n = _U(signed.shape[0])
    a, x, multipliers = np.zeros(n), np.zeros(n), np.zeros(n)
    lower, rows, sides = np.zeros((n, n)), np.zeros(n, np.uint64), np.zeros((2, n), np.bool_)
    for p in range(_U(signed.shape[1])):
        negative = False
        for i in range(n):
            found[i, p] = signed[i, p]
            negative = negative or signed[i, p] < 0.0
        solved[p] = 1
        if not negative:
            continue
        for i in range(n):
            a[i] = signed[i, p] / scale[i] if scale[i] > 0.0 else 0.0
        solved[p] = _pivot(inverse, a, rows, lower, multipliers, sides, x)
        for i in range(n):
            found[i, p] = 0.0 if sides[0, i] else max(x[i], 0.0) * scale[i]
