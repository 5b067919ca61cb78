"""Numbers that the kernels of the pixels share with what prepares their data, and with the tensors; without numba."""

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
SMALLEST_EXPECTATION: Final = 1e-3
"""Counts a channel below which an expectation does not go in a deviance."""
SMALLEST_SIGMA: Final = 1e-6
JOINED: Final = 4
"""Neighbouring channels that are joined where only the curvature of a likelihood is wanted."""
JOINED_STEPS: Final = 3
"""Steps of the joined channels alone, before those of all."""
DARK: Final = 1e-6
"""Counts a channel without which a logarithm or a weight would be infinite; far below any background."""
CURVATURE_FLOOR: Final = 1e-3
ERROR_FLOOR: Final = 0.01
"""Shares of a pixel's mean counts a channel that are added where its curvature, and its information, are weighed."""
RIDGE: Final = 1e-5
NEAR_BOUND: Final = 0.05
"""A column as near to 0 as this and going there goes alone: with the others it could turn their way uphill."""
TOLERANCE: Final = 0.005
"""Deviance that the next step promises to take off, below which a pixel is done."""
ROUNDING: Final = 3e-7
"""The same, of each count: what single precision does not tell."""
