"""Places of numbers in the arrays that the kernels of the integrated spectrum share; without numba.

A profile is one peak of the detector: a Gaussian, a tail and a shelf about one energy. A line of fluorescence, of
pile-up and an elastic line are a profile each; a Compton peak is three: the wide Gaussian, the tail below with the
shelf, and the tail above, whose width is negative.
"""

from typing import Final

# Theta, in the order of `hpcxrf.physics.parameters`; the parameters of the line ratios follow.
(
    OFFSET,
    SLOPE,
    QUADRATIC,
    NOISE,
    FANO,
    INCIDENT,
    ANGLE,
    COMPTON_WIDENING,
    COMPTON_STEP,
    COMPTON_TAIL,
    COMPTON_GAMMA,
    COMPTON_HI_TAIL,
    COMPTON_HI_GAMMA,
    STEP_OFFSET,
    STEP_LINEAR,
    TAIL_OFFSET,
    TAIL_LINEAR,
    KBETA_TAIL_OFFSET,
    KBETA_TAIL_LINEAR,
    GAMMA_OFFSET,
    GAMMA_LINEAR,
    ESCAPE_FACTOR,
    N_THETA,
) = range(23)

# Columns of the table of lines: (line, property). Lines of the table come first, then elastic ones, then Compton peaks.
ENERGY_KEV: Final = 0
"""Of a Compton peak the energy before scattering."""
RATIO: Final = 1
EDGE_KEV: Final = 2
IS_ESCAPE: Final = 3
HAS_TAIL: Final = 4
IS_KBETA: Final = 5
MU_PER_UM: Final = 6
FOLLOWS_INCIDENT: Final = 7
"""1 where the energy is the fitted incident energy."""
ABSORBS: Final = 8
"""1 where the depth of the sample acts on the line."""
HEAVY: Final = 9
LIGHT: Final = 10
LINE_PROPERTIES: Final = 11

# Columns of the index of lines: (line, number), unsigned.
COLUMN: Final = 0
HAS_DRAWN_TAIL: Final = 1
IS_COMPTON: Final = 2
LINE_NUMBERS: Final = 3

# Constants: (number,).
WIDTH_FACTOR: Final = 0
FWHM_PER_SIGMA: Final = 1
REST_KEV: Final = 2
HEAVY_INCIDENT: Final = 3
LIGHT_INCIDENT: Final = 4
EDGE_WIDTH_KEV: Final = 5
SMALL_DEPTH: Final = 6
THINNEST: Final = 7
REACH: Final = 8
"""Widths from its centre at which a Gaussian ends."""
DECAYS: Final = 9
"""Decay lengths, and `TAIL_REACH` widths, below its peak at which a tail ends."""
CONSTANTS: Final = 10
TAIL_REACH: Final = 4.0

# Sizes: (number,), unsigned.
N_LINES: Final = 0
N_COMPONENTS: Final = 1
N_RATIOS: Final = 2
"""Parameters of the line ratios."""
N_CHANNELS: Final = 3
N_ROWS: Final = 4
"""Free parameters."""
N_COLUMNS: Final = 5
"""Components and hats."""
N_PROFILES: Final = 6
SIZES: Final = 7

# Terms of a profile: (profile, term).
CENTRE: Final = 0
SIGMA: Final = 1
"""keV; negative for a tail above the peak."""
GAMMA: Final = 2
GAUSS: Final = 3
"""Factor on the Gaussian, of one count of the component, 1/keV."""
TAIL: Final = 4
SHELF: Final = 5
NORM: Final = 6
TAIL_SHARE: Final = 7
STEP_SHARE: Final = 8
SWITCH: Final = 9
PLAIN: Final = 10
"""Share of the component's counts without the factor on escape lines."""
WIDENED: Final = 11
"""Derivative of the width by that of the detector."""
BY_INCIDENT: Final = 12
"""Derivative of the centre by the incident energy."""
BY_ANGLE: Final = 13
TERMS: Final = 14

# Numbers of a profile: (profile, number), unsigned. `RUNS + 3 k` to `RUNS + 3 k + 2`: first channel, channel after the
# last, and place of the first in the buffer of shapes, k being 0 Gaussian, 1 tail, 2 shelf.
LINE: Final = 0
KIND: Final = 1
DRAWS: Final = 2
"""To `DRAWS + 2`: 1 where Gaussian, tail, shelf are drawn."""
RUNS: Final = 5
PROFILE_NUMBERS: Final = 14
A_LINE: Final = 0
COMPTON_WIDE: Final = 1
COMPTON_LOW: Final = 2
COMPTON_HIGH: Final = 3

# Rows of the data: (row, channel).
COUNTS: Final = 0
WEIGHTS: Final = 1
CHANNEL: Final = 2
ENERGY: Final = 3
BIN_KEV: Final = 4
RESIDUAL: Final = 5
PEAKS: Final = 6
"""Model without background."""
ROOM: Final = 7
DATA: Final = 8

# Sums over the lines of a group: (group, sum, channel).
WHOLE: Final = 0
"""Peaks with their tails."""
SHIFTED: Final = 1
"""Derivative by a shift to lower energies, per keV."""
WIDENED_BY: Final = 2
"""Derivative by the logarithm of the width."""
TAILED: Final = 3
"""Tails in the place of Gaussians, times the error of each line's share."""
SUMS: Final = 4
# Relative errors of a line: (line, number).
ABSORPTION_SD: Final = 0
TAIL_SD: Final = 1

# Non-negative least squares, as `hpcxrf.fitting.nnls`.
NNLS_RIDGE: Final = 1e-10
INFEASIBLE: Final = 1e-11
"""Feasibility is judged on the unit-diagonal system; below this a sign is rounding."""
LEAST_DIAGONAL: Final = 1e-14
FULL_EXCHANGES: Final = 3
MOST_EXCHANGES: Final = 30

# Rows of the space of the parameters: (row, parameter).
CENTRE_OF_PRIOR: Final = 0
PRIOR_SD: Final = 1
SCALE: Final = 2
LOWER: Final = 3
UPPER: Final = 4
FREE: Final = 5
"""1 or 0."""
SPACE: Final = 6
MOST_STEP: Final = 5.0
"""Longest step of a parameter, in its scale."""
START_DAMPING: Final = 1e-2
MIN_DAMPING: Final = 1e-7
MAX_DAMPING: Final = 1e8
WEAK_DAMPING: Final = 0.1
NOTHING: Final = 1.0
"""A step that promises less than this share of the tolerance is not worth an evaluation."""
SMALL_STEPS: Final = 2
"""Successive steps that hardly improve, after which a search has found its end."""
WEIGHT_FLOOR: Final = 0.05
"""Share of a pixel's mean counts a channel, and counts, that an expectation is taken for where it is less: as a
weight, 1 / mu has no upper end."""
LEAST_COUNTS: Final = 1e-3
COVARIANCE_RIDGE: Final = 1e-12
"""Added to a unit diagonal before it is inverted for variances."""
AT_BOUND: Final = 1e-9
"""A parameter this near to a bound, in its scale, is there: the sum that has brought it to the bound rounds."""
