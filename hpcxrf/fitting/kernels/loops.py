"""Loops over strips (`hpcxrf.fitting.pixels.strips`) that several kernels are made of, compiled with each of them.

Loops over channels sum into registers, and nothing is stored there: a compiler that cannot know which arrays overlap
would test it in every call. Indices are unsigned: one that may be negative is not vectorised.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.kernels.layout import FOUR, PITCH, UINT8, UINT16, UINT32
from hpcxrf.fitting.kernels.machine_code import part

Array = NDArray[Any]
Number = Any
"""Scalar of a machine type: float32 or uint64."""
Strips = tuple[Array, Array, Array]
"""Places, columns and numbers."""
STRIPS: Final = "Tuple((uint64[:,::1], uint64[:,::1], float32[::1]))"
"""Their type in signatures."""
Rows = tuple[Array, Array, Array]
"""Starts of sparse rows, their columns and numbers."""
ROWS: Final = "Tuple((uint64[::1], uint64[::1], float32[::1]))"
"""Their type in signatures."""
TABLES: Final = "Tuple((float32[::1], float32[::1], float32[::1]))"
"""Type of hazard of the normal law, least variance and variance by the own count (component,)."""
LARGEST: Final = np.float32(3.4028235e38)
"""What is not finite is beyond it."""
TINY: Final = np.float32(1.1754944e-38)
"""Smallest normal number."""

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
COLUMN_1: Final = np.uint64(PITCH)
COLUMN_2: Final = np.uint64(2 * PITCH)
COLUMN_3: Final = np.uint64(3 * PITCH)
COLUMN_4: Final = np.uint64(4 * PITCH)
COLUMN_5: Final = np.uint64(5 * PITCH)
COLUMN_6: Final = np.uint64(6 * PITCH)
COLUMN_7: Final = np.uint64(7 * PITCH)


@part
def read_counts(data: Array, kind: Number, begin: Number, n: Number, y: Array) -> None:
    """The counts of a pixel as float32."""
    if kind == UINT8:
        for i in range(n):
            y[i] = _F(data[begin + i])
    elif kind == UINT16:
        pairs = data.view(np.uint16)
        for i in range(n):
            y[i] = _F(pairs[begin + i])
    elif kind == UINT32:
        words = data.view(np.uint32)
        for i in range(n):
            y[i] = _F(words[begin + i])
    else:
        numbers = data.view(np.float32)
        for i in range(n):
            y[i] = numbers[begin + i]


@part
def add_up(y: Array, begin: Number, n: Number) -> Number:
    """Sum of a run of numbers."""
    total = _ZERO
    for i in range(n):
        total += y[begin + i]
    return total


@part
def log(x: Number) -> Number:
    """Natural logarithm of a positive number, to 1e-7; a library's is a call for each number.

    x = 2^e (1 + f), 2/3 <= 1 + f < 4/3; f^2 q(f) is log(1 + f) - f, fitted at Chebyshev points.
    """
    bits = _F(x).view(np.int32)
    e = _I(_I(bits - _I(0x3F2AAAAB)) & _I(-8388608))
    f = _I(bits - e).view(np.float32) - _F(1.0)
    q = _F(-0.1565677970647812)
    q = q * f + _F(0.17200186848640442)
    q = q * f + _F(-0.16358855366706848)
    q = q * f + _F(0.19783316552639008)
    q = q * f + _F(-0.2501148283481598)
    q = q * f + _F(0.3333808481693268)
    q = q * f + _F(-0.49999868869781494)
    return _F(e) * _F(8.262958424e-08) + (q * f * f + f)


@part
def take_pixels(values: Array, first: Number, n: Number, lanes: Array) -> None:
    """Some pixels of (column, pixel) into (column, lane)."""
    for k in range(_U(values.shape[0])):
        for lane in range(n):
            lanes[k, lane] = values[k, first + lane]


@part
def put_pixels(lanes: Array, first: Number, n: Number, values: Array) -> None:
    """Lanes (column, lane) into (column, pixel), row by row: columns lie whole pages apart."""
    for k in range(_U(values.shape[0])):
        for lane in range(n):
            values[k, first + lane] = lanes[k, lane]


@part
def clear(x: Array) -> None:
    """Zeros."""
    for i in range(_U(x.shape[0])):
        x[i] = _ZERO


@part
def _project_4(y: Array, place: Array, columns: Array, t: Array, b: Array) -> None:
    begin, o = place[0], place[2]
    s0 = s1 = s2 = s3 = _ZERO
    for i in range(place[1]):
        v = y[begin + i]
        k = o + i
        s0 += v * t[k]
        s1 += v * t[k + COLUMN_1]
        s2 += v * t[k + COLUMN_2]
        s3 += v * t[k + COLUMN_3]
    b[columns[0]] += s0
    b[columns[1]] += s1
    b[columns[2]] += s2
    b[columns[3]] += s3


@part
def _project_8(y: Array, place: Array, columns: Array, t: Array, b: Array) -> None:
    begin, o = place[0], place[2]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _ZERO
    for i in range(place[1]):
        v = y[begin + i]
        k = o + i
        s0 += v * t[k]
        s1 += v * t[k + COLUMN_1]
        s2 += v * t[k + COLUMN_2]
        s3 += v * t[k + COLUMN_3]
        s4 += v * t[k + COLUMN_4]
        s5 += v * t[k + COLUMN_5]
        s6 += v * t[k + COLUMN_6]
        s7 += v * t[k + COLUMN_7]
    b[columns[0]] += s0
    b[columns[1]] += s1
    b[columns[2]] += s2
    b[columns[3]] += s3
    b[columns[4]] += s4
    b[columns[5]] += s5
    b[columns[6]] += s6
    b[columns[7]] += s7


@part
def project(y: Array, strips: Strips, b: Array) -> None:
    """`y @ matrix` (column,), b with one more place for what fills strips up."""
    place, columns, t = strips
    clear(b)
    for j in range(_U(place.shape[0])):
        if place[j, 3] == FOUR:
            _project_4(y, place[j], columns[j], t, b)
        else:
            _project_8(y, place[j], columns[j], t, b)


@part
def add_4(x: Array, place: Array, columns: Array, c: Array, out: Array) -> None:
    """Add a strip of 4 columns times their numbers."""
    begin, o = place[0], place[2]
    x0, x1, x2, x3 = x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]
    for i in range(place[1]):
        k = o + i
        out[begin + i] += x0 * c[k] + x1 * c[k + COLUMN_1] + x2 * c[k + COLUMN_2] + x3 * c[k + COLUMN_3]


@part
def add_8(x: Array, place: Array, columns: Array, c: Array, out: Array) -> None:
    """Add a strip of 8 columns times their numbers."""
    begin, o = place[0], place[2]
    x0, x1, x2, x3 = x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]
    x4, x5, x6, x7 = x[columns[4]], x[columns[5]], x[columns[6]], x[columns[7]]
    for i in range(place[1]):
        k = o + i
        first = x0 * c[k] + x1 * c[k + COLUMN_1] + x2 * c[k + COLUMN_2] + x3 * c[k + COLUMN_3]
        second = x4 * c[k + COLUMN_4] + x5 * c[k + COLUMN_5] + x6 * c[k + COLUMN_6] + x7 * c[k + COLUMN_7]
        out[begin + i] += first + second
