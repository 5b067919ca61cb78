"""Numbers that the kernels of the pixels share with what prepares their data; without numba."""

from typing import Final

PITCH: Final = 528
"""Distance of a strip's columns, in numbers: whole cache lines, but no power of two, of which few lie in a cache."""
FOUR: Final = 0
EIGHT: Final = 1
LAST: Final = 2
"""Kinds of strips: 4 columns, 8 columns, 8 columns that complete the expectation of their channels."""
UINT8: Final = 0
UINT16: Final = 1
UINT32: Final = 2
FLOAT32: Final = 3
"""Types of counts."""
PULL_STEPS: Final = 128
"""Steps in a unit of the table of the normal law's hazard."""
LOWEST_PULL: Final = -5.0
HIGHEST_PULL: Final = 9.0
"""Ends of that table."""
JOINED: Final = 4
"""Neighbouring channels that are joined where only the curvature of a likelihood is wanted."""
