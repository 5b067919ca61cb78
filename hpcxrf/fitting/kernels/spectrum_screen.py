"""Kernel: how well energy axes explain a spectrum, by columns that are read from a table over energy."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part
from hpcxrf.fitting.kernels.spectrum_amplitudes import multiply_spans, solve_member
from hpcxrf.fitting.kernels.spectrum_columns import find_channel

SCREEN_AXES: Final = (
    "void(float64[:,::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[:,::1], uint64[:,::1], "
    "int64, float64[:,::1], uint64[:,::1], float64[::1], float64[:,::1], float64[:,:,::1], float64[:,::1], "
    "uint64[:,::1], float64[:,::1], float64[::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64


@part
def _read_columns(
    axis: Array, centre: Array, grid: Array, table: Array, reach: Array, columns: Array, spans: Array, energy: Array
) -> None:
    """The columns of an axis over the bins where they are not nothing, from the nearest energies of the table."""
    n, per_kev = _U(centre.shape[0]), 1.0 / grid[1]
    for b in range(n):
        energy[b] = axis[0] + axis[1] * centre[b]
    first, top = find_channel(energy, n, grid[0]), find_channel(energy, n, grid[2])
    if top < n and energy[top] <= grid[2]:
        top += _U(1)
    for c in range(_U(table.shape[0])):
        begin, end = first, top
        while begin < end and _place(energy[begin], grid[0], per_kev) < reach[c, 0]:
            begin += _U(1)
        while begin < end and _place(energy[end - _U(1)], grid[0], per_kev) >= reach[c, 1]:
            end -= _U(1)
        spans[c, 0], spans[c, 1] = begin, end
        for b in range(begin, end):
            columns[c, b] = table[c, _place(energy[b], grid[0], per_kev)]


@part
def _place(energy: Number, lowest_kev: Number, per_kev: Number) -> Number:
    """The row of the table nearest to an energy, which is not below the lowest."""
    return _U((energy - lowest_kev) * per_kev + 0.5)


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
    energy: Array,
    weighted: Array,
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
        energy: (bin,), room.
        weighted: (column, bin), room.
        square: (3, column, column), room.
        vectors: (3, column), room.
        numbers: (4, column), room.
        linear: (axis, column) written.
        explained: (axis,) written: what of the weighted square of the counts the columns explain.
    """
    n, gram, rhs, free = _U(table.shape[0]), square[2], vectors[2], numbers[3]
    for i in range(_U(axes.shape[0])):
        _read_columns(axes[i], centre, grid, table, reach, columns, spans, energy)
        multiply_spans(n, weights, counts, columns, spans, weighted, gram, rhs)
        for c in range(n):
            free[c] = _U(1)
        solve_member(gram, rhs, most, free, square, vectors, numbers, linear[i])
        explained[i] = _leave(gram, rhs, linear[i])
