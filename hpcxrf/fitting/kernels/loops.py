"""Types of what kernels read, and loops over the channels of a pixel that several of them are made of.

Indices are unsigned: one that may be negative is not vectorised.
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
