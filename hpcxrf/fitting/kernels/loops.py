"""Loops over strips (`hpcxrf.fitting.pixels.strips`) that several kernels are made of, compiled with each of them.

Loops over channels sum into registers, and nothing is stored there: a compiler that cannot know which arrays overlap
would test it in every call. Indices are unsigned: one that may be negative is not vectorised.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.kernels.layout import UINT8, UINT16, UINT32
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
