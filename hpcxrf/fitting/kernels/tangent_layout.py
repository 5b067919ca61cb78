"""Numbers that the steps of pixels with a theta each share, by kernels and by tensors; without numba."""

from typing import Final

STEPS: Final = 10
LONGEST_STEP: Final = 0.5
"""In units of the reach, as the next."""
FARTHEST: Final = 2.0
SHORT: Final = 3e-5
"""Length of a step in units of the uncertainty of the shift, after which the kernel takes none: the next would be a few
times shorter, and no two kinds of devices agree to more."""
