"""Where the kernels of `axis_scores` find what: this module imports no numba."""

from typing import Final

# Rows of the peaks.
CHANNEL: Final = 0
AREA: Final = 1
Z: Final = 2
STRANGE: Final = 3
"""Density of what no table knows, 1/keV."""
ABOVE: Final = 4
"""Density that is added above the incident energy, 1/keV."""
PEAK_ROWS: Final = 5
# Numbers of the table, and of the spectrum.
LOWEST_KEV: Final = 0
STEP_KEV: Final = 1
INCIDENT_KEV: Final = 2
SPAN_KEV: Final = 3
N_CHANNELS: Final = 4
IS_ELASTIC: Final = 5
NUMBERS: Final = 6

ROOM_ROWS: Final = 5
"""Rows that the kernels use for themselves."""
ABOVE_KEV: Final = 0.5
"""Above the incident energy by this much there is nothing but pile-up."""
