"""Numbers that the kernels of the pixels share with what prepares their data, and with the tensors; without numba."""

from typing import Final

FOUR: Final = 0
EIGHT: Final = 1
"""Kinds of strips: 4 columns or 8."""
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
FAINT: Final = 64
"""Counts of a pixel below which it is fitted by its own counts alone."""
SMALLEST_SIGMA: Final = 1e-6
FEW_COUNTS: Final = 5.0
"""Counts a channel from which the moments of a deviance's term are a series in 1 / mu."""
NEAR_SCALE: Final = 6.0
NEAR: Final = (
    (4.159008502960205, -1.0230635404586792, -0.046629082411527634, 0.5315186977386475, 0.8612529635429382),
    (8.316513061523438, -7.177816867828369, 1.3138478994369507, 5.365532875061035, -2.4208319187164307),
    (5.756381988525391, 36.61940383911133, -49.974449157714844, 27.817689895629883, 10.850817680358887),
    (8.319409370422363, -22.782108306884766, 19.598957061767578, 10.968695640563965, -18.867351531982422),
)
"""Below that: E[log(y + 1)]; its derivative by mu, times mu, added; var(y log y) / mu; 1 + mu E''/2: as polynomials
without constant in mu / (mu + NEAR_SCALE)."""
FAR_OUT: Final = (
    (0.16903240978717804, 0.06493333727121353, 1.2908598184585571),
    (-0.11328727751970291, -1.020743727684021, -0.5660400390625),
    (0.5754817724227905, 2.6212010383605957, 6.170407295227051),
    (-0.010184007696807384, 0.2948096692562103, 0.9838172197341919),
)
"""Beyond: E - 1, E' mu, V - 2 and mu E''/2 as polynomials without constant in 1 / mu. Fitted at Chebyshev points to
sums over the law of Poisson; E to 1e-4, V to 2e-3."""
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
