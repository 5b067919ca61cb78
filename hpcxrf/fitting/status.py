"""Outcome of a fit, as stores keep it; no torch here: pages and tables need it without the fit."""

from enum import IntEnum


class FitStatus(IntEnum):
    """Outcome of one fit; stored as uint8 with CF `flag_values` and `flag_meanings`.

    0 is what an unwritten chunk reads as, so it can only mean that nothing ran.
    """

    NOT_RUN = 0
    CONVERGED = 1
    MAX_ITERATIONS = 2
    """The steps found no end, though the counts tell that there is one: the numbers are those of the last step."""
    EMPTY = 3
    """No counts in the fit range."""
    NONFINITE = 4
    """A count or the solution is not finite."""
    SINGULAR = 5
    """The normal equations have no unique solution."""
    BEYOND_TANGENT = 6
    """Theta of the pixel lies farther from that of the scan than the tangent dictionary can follow."""
    SATURATED = 7
    """A channel in the fit range holds the largest number that it can."""
    NOT_MEASURED = 8
    """The pixel was never measured: no spectrum in the file, or one of NaN; of a sum, by one of its detectors."""
    OUTLIER = 9
    """Channels in the fit range hold what no detector can have counted, as neither their neighbours nor other pixels
    do."""
    THETA_KEPT = 10
    """The pixel's counts do not tell a theta of its own: amplitudes are those at the theta of the scan, which it keeps,
    uncertain by the prior."""
