"""Kernels: the best non-negative amplitudes of a spectrum's columns, and what they leave."""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part
from hpcxrf.fitting.kernels.spectrum_layout import FULL_EXCHANGES, INFEASIBLE, LEAST_DIAGONAL, NNLS_RIDGE

MULTIPLY_COLUMNS: Final = (
    "void(uint64[::1], float64[:,::1], float64[:,::1], uint64[:,::1], float64[:,::1], float64[:,::1], float64[::1])"
)
LEAVE_RESIDUAL: Final = "float64(uint64[::1], float64[:,::1], float64[:,::1], uint64[:,::1], float64[::1])"
SOLVE_MEMBERS: Final = (
    "void(float64[:,:,::1], float64[:,::1], int64, uint64[:,::1], float64[:,:,::1], float64[:,::1], uint64[:,::1], "
    "float64[:,::1], uint64[::1])"
)
"""Signatures of the kernels."""
_U: Final = np.uint64


@part
def multiply_spans(
    n: Number, weights: Array, counts: Array, columns: Array, spans: Array, weighted: Array, gram: Array, rhs: Array
) -> None:
    """Gram matrix and right-hand side of n columns, over the channels where both columns are; weighted columns."""
    for j in range(n):
        total = 0.0
        for i in range(spans[j, 0], spans[j, 1]):
            weighted[j, i] = columns[j, i] * weights[i]
            total += weighted[j, i] * counts[i]
        rhs[j] = total
        for k in range(j + _U(1)):
            product = 0.0
            for i in range(max(spans[j, 0], spans[k, 0]), min(spans[j, 1], spans[k, 1])):
                product += weighted[j, i] * columns[k, i]
            gram[j, k] = product
            gram[k, j] = product


@kernel(MULTIPLY_COLUMNS)
def multiply_columns(
    sizes: Array, data: Array, columns: Array, spans: Array, weighted: Array, gram: Array, rhs: Array
) -> None:
    """Gram matrix and right-hand side of the normal equations, over the channels where both columns are.

    Args:
        sizes: (number,).
        data: (row, channel).
        columns: (column, channel).
        spans: (column, 2).
        weighted: (column, channel) written: columns times weights.
        gram: (column, column) written.
        rhs: (column,) written.
    """
    multiply_spans(sizes[at.N_COLUMNS], data[at.WEIGHTS], data[at.COUNTS], columns, spans, weighted, gram, rhs)


@part
def factorise(matrix: Array, free: Array, ridge: Number, lower: Array, order: Array) -> Number:
    """Cholesky factor of the free rows and columns, packed; how many there are, and more than all where it fails.

    Args:
        matrix: (row, row), symmetric.
        free: (row,) 1 or 0.
        ridge: share of the diagonal that is added to it.
        lower: written, (free row, free row).
        order: (free row,) written: the rows that are free.
    """
    n, m = _U(free.shape[0]), _U(0)
    for j in range(n):
        if free[j]:
            order[m] = j
            m += _U(1)
    for i in range(m):
        for j in range(i + _U(1)):
            s = matrix[order[i], order[j]]
            if i == j:
                s += ridge * s
            for k in range(j):
                s -= lower[i, k] * lower[j, k]
            if i != j:
                lower[i, j] = s / lower[j, j]
            elif s > 0.0:
                lower[i, i] = math.sqrt(s)
            else:
                return n + _U(1)
    return m


@part
def solve_factorised(lower: Array, order: Array, m: Number, b: Array, x: Array) -> None:
    """Solution x (row,) of the factorised rows for b (row,); what is not free stays as it is."""
    for i in range(m):
        s = b[order[i]]
        for k in range(i):
            s -= lower[i, k] * x[order[k]]
        x[order[i]] = s / lower[i, i]
    for back in range(m):
        i = m - _U(1) - back
        s = x[order[i]]
        for k in range(i + _U(1), m):
            s -= lower[k, i] * x[order[k]]
        x[order[i]] = s / lower[i, i]


@part
def _scale(gram: Array, rhs: Array, scale: Array, g: Array, b: Array, usable: Array, free: Array) -> None:
    """The system of unit diagonal; a column without any weight is not usable."""
    n, most = _U(rhs.shape[0]), 0.0
    for j in range(n):
        most = max(most, gram[j, j])
    for j in range(n):
        usable[j] = gram[j, j] > LEAST_DIAGONAL * most
        scale[j] = 1.0 / math.sqrt(gram[j, j]) if usable[j] else 0.0
        b[j] = rhs[j] * scale[j]
        free[j] = free[j] and usable[j]
    for j in range(n):
        for k in range(n):
            g[j, k] = gram[j, k] * scale[j] * scale[k]
        g[j, j] += NNLS_RIDGE


@part
def _mark_wrong(g: Array, b: Array, usable: Array, free: Array, x: Array, wrong: Array) -> Number:
    """Columns that are free and negative, or held although the misfit would fall; how many."""
    n, count, most = _U(b.shape[0]), _U(0), 0.0
    for j in range(n):
        most = max(most, abs(b[j]))
    for j in range(n):
        if free[j]:
            wrong[j] = x[j] < -INFEASIBLE * most
        else:
            slope = -b[j]
            for k in range(n):
                if free[k]:
                    slope += g[j, k] * x[k]
            wrong[j] = usable[j] and slope < -INFEASIBLE * most
        count += _U(wrong[j])
    return count


@part
def _pivot(
    g: Array, b: Array, usable: Array, free: Array, most: Number, x: Array, lower: Array, numbers: Array
) -> Number:
    """Block principal pivoting from the columns that are free, `most` exchanges; whether it found the optimum."""
    n: Number = _U(b.shape[0])
    order, wrong, count = numbers[1], numbers[2], _U(0)
    fewest, patience = n + _U(1), FULL_EXCHANGES
    for exchange in range(most + 1):
        m = factorise(g, free, 0.0, lower, order)
        if m > n:
            for j in range(n):
                x[j] = np.nan
            return False
        solve_factorised(lower, order, m, b, x)
        count = _mark_wrong(g, b, usable, free, x, wrong)
        if count == _U(0) or exchange == most:
            break
        if count < fewest:
            fewest, patience = count, FULL_EXCHANGES
        else:
            patience -= 1
        for back in range(n):
            j = n - _U(1) - back
            if wrong[j]:
                free[j] = _U(1) - free[j]
                if patience < 0:
                    break
    return count == _U(0)


@part
def solve_member(
    gram: Array, rhs: Array, most: Number, free: Array, square: Array, vectors: Array, numbers: Array, x: Array
) -> Number:
    """Non-negative least squares of one system; whether x is the optimum.

    Args:
        gram: (column, column).
        rhs: (column,).
        most: exchanges of pivoting.
        free: (column,) 1 or 0: columns that are free, at first and in the end.
        square: (2 or more, column, column), room; two are used.
        vectors: (2 or more, column), room; two are used.
        numbers: (3 or more, column), room; three are used.
        x: (column,) written.
    """
    scale = vectors[0]
    _scale(gram, rhs, scale, square[0], vectors[1], numbers[0], free)
    found = _pivot(square[0], vectors[1], numbers[0], free, most, x, square[1], numbers)
    for j in range(_U(rhs.shape[0])):
        x[j] = (0.0 if x[j] < 0.0 else x[j]) * scale[j] if free[j] else 0.0
    return found


@kernel(LEAVE_RESIDUAL)
def leave_residual(sizes: Array, data: Array, columns: Array, spans: Array, linear: Array) -> Number:
    """Residual and peaks of the coefficients; the weighted sum of squares that is left.

    Args:
        sizes: (number,).
        data: (row, channel); residual and peaks are written.
        columns: (column, channel).
        spans: (column, 2).
        linear: (column,).
    """
    n = sizes[at.N_CHANNELS]
    for i in range(n):
        data[at.PEAKS, i] = 0.0
        data[at.RESIDUAL, i] = data[at.COUNTS, i]
    for j in range(sizes[at.N_COLUMNS]):
        if linear[j] != 0.0:
            for i in range(spans[j, 0], spans[j, 1]):
                data[at.RESIDUAL, i] -= linear[j] * columns[j, i]
                if j < sizes[at.N_COMPONENTS]:
                    data[at.PEAKS, i] += linear[j] * columns[j, i]
    misfit = 0.0
    for i in range(n):
        misfit += data[at.WEIGHTS, i] * data[at.RESIDUAL, i] * data[at.RESIDUAL, i]
    return misfit


@kernel(SOLVE_MEMBERS)
def solve_members(
    gram: Array,
    rhs: Array,
    most: Number,
    free: Array,
    square: Array,
    vectors: Array,
    numbers: Array,
    x: Array,
    found: Array,
) -> None:
    """Non-negative least squares of several systems.

    Args:
        gram: (member, column, column).
        rhs: (member, column).
        most: exchanges of pivoting.
        free: (member, column) 1 or 0: columns that are free, at first and in the end.
        square: (2, column, column), room.
        vectors: (2, column), room.
        numbers: (3, column), room.
        x: (member, column) written.
        found: (member,) written: 1 where x is the optimum.
    """
    for i in range(_U(rhs.shape[0])):
        found[i] = solve_member(gram[i], rhs[i], most, free[i], square, vectors, numbers, x[i])
