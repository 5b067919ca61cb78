"""Kernel: what a spectrum would tell of all columns if one component after the other were absent."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

ADD_INFORMATION: Final = (
    "void(float64[:,::1], uint64[:,::1], float64[:,::1], uint64[:,::1], float64[:,::1], float64[::1], float64[:,:,::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64


@part
def _multiply(one: Array, other: Array, begin: Number, n: Number) -> Number:
    total = 0.0
    for i in range(n):
        total += one[begin + i] * other[begin + i]
    return total


@kernel(ADD_INFORMATION)
def add_information(
    rows: Array, spans: Array, changed: Array, runs: Array, shared: Array, room: Array, information: Array
) -> None:
    """Write `shared + sum over channels of changed * row_i * row_j` of every case.

    Columns are nothing outside of their spans, and changes outside of their runs.

    Args:
        rows: (column, channel).
        spans: (column, 2) first channel, channel after the last.
        changed: (case, channel) weights less those that `shared` has.
        runs: (case, 2) first channel in which they differ, channel after the last.
        shared: (column, column).
        room: (channel,).
        information: (case, column, column) written.
    """
    n = _U(rows.shape[0])
    for case in range(_U(changed.shape[0])):
        for i in range(n):
            begin, end = max(spans[i, 0], runs[case, 0]), min(spans[i, 1], runs[case, 1])
            for k in range(begin, end):
                room[k] = rows[i, k] * changed[case, k]
            for j in range(i + _U(1)):
                first, last = max(begin, spans[j, 0]), min(end, spans[j, 1])
                total = shared[i, j]
                if first < last:
                    total += _multiply(room, rows[j], first, last - first)
                information[case, i, j] = total
                information[case, j, i] = total
