"""Kernel: how well energy axes explain a spectrum, by columns that are read from a table over energy."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part
from hpcxrf.fitting.kernels.spectrum_amplitudes import solve_member

SCREEN_AXES: Final = (
    "void(float64[:,::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[:,::1], uint64[:,::1], "
    "int64, float64[:,::1], uint64[:,::1], uint64[::1], float64[:,::1], float64[:,:,::1], float64[:,::1], "
    "uint64[:,::1], float64[:,::1], float64[::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64


@part
def _find_bin(axis: Array, centre: Array, wanted_kev: Number) -> Number:
    """The first bin at or above an energy, of an axis that rises."""
    low, high = _U(0), _U(centre.shape[0])
    while low < high:
        middle = (low + high) >> _U(1)
        if axis[0] + axis[1] * centre[middle] < wanted_kev:
            low = middle + _U(1)
        else:
            high = middle
    return low


@part
def _read_columns(
    axis: Array, centre: Array, grid: Array, table: Array, reach: Array, columns: Array, spans: Array, places: Array
) -> None:
    """The columns of an axis over the bins where they are not nothing, from the nearest energies of the table."""
    first, per_kev, top = _find_bin(axis, centre, grid[0]), 1.0 / grid[1], _find_bin(axis, centre, grid[2])
    if top < _U(centre.shape[0]) and axis[0] + axis[1] * centre[top] <= grid[2]:
        top += _U(1)
    for b in range(first, top):
        places[b] = _U((axis[0] + axis[1] * centre[b] - grid[0]) * per_kev + 0.5)
    for c in range(_U(table.shape[0])):
        begin, end = first, top
        while begin < end and places[begin] < reach[c, 0]:
            begin += _U(1)
        while begin < end and places[end - _U(1)] >= reach[c, 1]:
            end -= _U(1)
        spans[c, 0], spans[c, 1] = begin, end
        for b in range(begin, end):
            columns[c, b] = table[c, places[b]]


@part
def _multiply(
    weighted_counts: Array, weights: Array, columns: Array, spans: Array, row: Array, gram: Array, rhs: Array
) -> None:
    for j in range(_U(rhs.shape[0])):
        total = 0.0
        for b in range(spans[j, 0], spans[j, 1]):
            row[b] = columns[j, b] * weights[b]
            total += columns[j, b] * weighted_counts[b]
        rhs[j] = total
        for k in range(j + _U(1)):
            product = 0.0
            for b in range(max(spans[j, 0], spans[k, 0]), min(spans[j, 1], spans[k, 1])):
                product += row[b] * columns[k, b]
            gram[j, k] = product
            gram[k, j] = product


@part
def _leave(gram: Array, rhs: Array, x: Array) -> Number:
    """What the coefficients take from the weighted square of the counts."""
    n, explained = _U(rhs.shape[0]), 0.0
    for j in range(n):
        if x[j] != 0.0:
            total = 2.0 * rhs[j]
            for k in range(n):
                total -= gram[j, k] * x[k]
            explained += x[j] * total
    return explained


@kernel(SCREEN_AXES)
def screen_axes(
    axes: Array,
    centre: Array,
    counts: Array,
    weights: Array,
    grid: Array,
    table: Array,
    reach: Array,
    most: Number,
    columns: Array,
    spans: Array,
    places: Array,
    products: Array,
    square: Array,
    vectors: Array,
    numbers: Array,
    linear: Array,
    explained: Array,
) -> None:
    """Best non-negative coefficients of the columns on each of several axes.

    Args:
        axes: (axis, 2) offset, keV, and slope above 0, keV per channel.
        centre: (bin,) channel in the middle of each bin, rising.
        counts: (bin,).
        weights: (bin,).
        grid: (3,) first energy of the table and of the fit range, step of the table, last energy of the range; keV.
        table: (column, energy).
        reach: (column, 2) first row of the table where a column is not nothing, row after the last.
        most: exchanges of pivoting.
        columns: (column, bin), room.
        spans: (column, 2), room.
        places: (bin,), room.
        products: (2, bin), room.
        square: (3, column, column), room.
        vectors: (3, column), room.
        numbers: (4, column), room.
        linear: (axis, column) written.
        explained: (axis,) written: what of the weighted square of the counts the columns explain.
    """
    gram, rhs, free = square[2], vectors[2], numbers[3]
    for b in range(_U(centre.shape[0])):
        products[0, b] = counts[b] * weights[b]
    for i in range(_U(axes.shape[0])):
        _read_columns(axes[i], centre, grid, table, reach, columns, spans, places)
        _multiply(products[0], weights, columns, spans, products[1], gram, rhs)
        for c in range(_U(table.shape[0])):
            free[c] = _U(1)
        solve_member(gram, rhs, most, free, square, vectors, numbers, linear[i])
        explained[i] = _leave(gram, rhs, linear[i])
