"""Parts of a kernel: variances of amplitudes and of the free parameters of theta, each with the other unknown.

The information of columns and parameters together, with the priors of the parameters, is inverted.
"""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import part
from hpcxrf.fitting.kernels.spectrum_amplitudes import factorise, solve_factorised

_U: Final = np.uint64
_TINY: Final = 1e-300


@part
def _add_parameters(space: Array, wanted: Array, small: Array, cross: Array, n: Number, matrix: Array) -> Number:
    """Rows of the free parameters after those of n columns, in steps of the parameters; how many there are in all."""
    k = n
    for r in range(_U(wanted.shape[0])):
        p = wanted[r]
        if space[at.FREE, p] > 0.0:
            for j in range(n):
                matrix[k, j] = cross[r, j]
            o = n
            for s in range(r + _U(1)):
                if space[at.FREE, wanted[s]] > 0.0:
                    matrix[k, o] = small[r, s]
                    o += _U(1)
            ratio = space[at.SCALE, p] / space[at.PRIOR_SD, p]
            matrix[k, k] += ratio * ratio
            k += _U(1)
    return k


@part
def _scale(k: Number, matrix: Array, scale: Array) -> None:
    """Give the lower triangle a diagonal of 1."""
    for i in range(k):
        scale[i] = 1.0 / math.sqrt(max(matrix[i, i], _TINY))
    for i in range(k):
        for j in range(i + _U(1)):
            matrix[i, j] *= scale[i] * scale[j]
        matrix[i, i] += at.COVARIANCE_RIDGE


@part
def _add_own(
    column: Array,
    span: Array,
    covariance: Array,
    data: Array,
    columns: Array,
    spans: Array,
    rows: Array,
    row_spans: Array,
    free: Array,
) -> Number:
    """What one count of a component adds to its own variance: its column times the square of its estimator.

    The estimator, in the data's room, is the weights times all columns and rows times `covariance` (all,).
    """
    begin, end, k = span[0], span[1], _U(columns.shape[0])
    for i in range(begin, end):
        data[at.ROOM, i] = 0.0
    for j in range(k):
        for i in range(max(begin, spans[j, 0]), min(end, spans[j, 1])):
            data[at.ROOM, i] += covariance[j] * columns[j, i]
    for r in range(_U(rows.shape[0])):
        if free[r]:
            for i in range(max(begin, row_spans[r, 0]), min(end, row_spans[r, 1])):
                data[at.ROOM, i] += covariance[k] * rows[r, i]
            k += _U(1)
    total = 0.0
    for i in range(begin, end):
        estimator = data[at.ROOM, i] * data[at.WEIGHTS, i]
        total += column[i] * estimator * estimator
    return total


@part
def find_variances(
    sizes: Array,
    data: Array,
    space: Array,
    wanted: Array,
    columns: Array,
    spans: Array,
    gram: Array,
    rows: Array,
    row_spans: Array,
    cross: Array,
    small: Array,
    linear: Array,
    square: Array,
    vectors: Array,
    numbers: Array,
) -> Number:
    """Variances of columns and free parameters; whether the information can be inverted.

    Args:
        sizes: (number,).
        data: (row, channel), with weights.
        space: (row, parameter).
        wanted: (row,).
        columns: (column, channel).
        spans: (column, 2).
        gram: (column, column) of the columns.
        rows: (row, channel) counts per step of a parameter.
        row_spans: (row, 2).
        cross: (row, column) products of rows and columns.
        small: (row, row) products of rows, the lower triangle.
        linear: (column,) coefficients.
        square: (2, all, all), room.
        vectors: (5, all) written: scale, a unit vector and its solution; variances, those of the parameters in steps;
            variances in the absence of the component (component,).
        numbers: (3, all), room.
    """
    n = sizes[at.N_COLUMNS]
    for i in range(n):
        for j in range(n):
            square[0, i, j] = gram[i, j]
    k = _add_parameters(space, wanted, small, cross, n, square[0])
    _scale(k, square[0], vectors[0])
    for i in range(k):
        numbers[0, i], vectors[1, i] = _U(1), 0.0
    for r in range(_U(wanted.shape[0])):
        numbers[2, r] = space[at.FREE, wanted[r]] > 0.0
    if factorise(square[0], numbers[0], 0.0, square[1], numbers[1]) != k:
        return False
    for j in range(k):
        vectors[1, j] = 1.0
        solve_factorised(square[1], numbers[1], k, vectors[1], vectors[2])
        vectors[1, j] = 0.0
        for i in range(k):
            vectors[2, i] *= vectors[0, i] * vectors[0, j]
        vectors[3, j] = vectors[2, j]
        if j < sizes[at.N_COMPONENTS]:
            own = _add_own(columns[j], spans[j], vectors[2], data, columns, spans, rows, row_spans, numbers[2])
            vectors[4, j] = max(vectors[3, j] - linear[j] * own, 0.0)
    return True
