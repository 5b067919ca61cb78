"""What counts as found, and what could have been detected; no torch here: pages and tables need it without the fit."""

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Currie 1968, Anal. Chem. 40, 586: both errors at 5 %, L_C = 1.645 sigma_0 and L_D = 2.71 + 3.29 sigma_0 for counts
# that are added up; of an amplitude that is fitted, 2.71 times the variance that one of its counts adds.
CURRIE_OFFSET: Final = 2.71
CURRIE_FACTOR: Final = 3.29
CURRIE_DECISION: Final = 1.645
POISSON_DECISION: Final = 0.35
"""Counts that the decision limit lies higher because few counts scatter farther up than down: by Cornish and Fisher's
expansion (1.645^2 - 1) / 6 = 0.284 times the counts that one recorded photon adds to an amplitude. For those, the
variance that one count of the component adds stands here, a little less than it where peaks overlap."""
N = TypeVar("N", float, "Tensor", NDArray[np.float64])


def detection_limit(sigma_null: N, photon_variance: N | float = 1.0) -> N:
    """Currie's limit of detection, 95 %, counts: an amplitude of this size is missed in one of twenty spectra.

    L_D = L_C + 1.645 sigma_D with sigma_D^2 = sigma_0^2 + f L_D, which gives 3.29 sigma_0 + 2.71 f. It says what a
    measurement can do. Whether a component was found in this one is for `decision_limit` to say.

    Args:
        sigma_null: standard uncertainty of the amplitude in the absence of the component, any shape.
        photon_variance: f, variance that one recorded count of the component adds to its amplitude, count; 1 where
            counts are added up, more where other peaks overlap.
    """
    return CURRIE_OFFSET * photon_variance + CURRIE_FACTOR * sigma_null


def null_sigma(limit: N, photon_variance: N | float = 1.0) -> N:
    """The standard uncertainty in the absence of the component that a detection limit was made of, counts.

    Args:
        limit: detection limits, any shape.
        photon_variance: as they were made with.
    """
    return (limit - CURRIE_OFFSET * photon_variance) / CURRIE_FACTOR


def decision_limit(limit: N, photon_variance: N | float = 1.0) -> N:
    """Currie's decision limit, counts: an absent component exceeds it in one of twenty spectra.

    L_C = 1.645 sigma_0 + 0.35 f, sigma_0 the standard uncertainty in the absence of the component, of the background
    that the spectrum has. The 0.35 counts matter in pixels only: where sigma_0 is one count, 8 % of absent components
    exceed 1.645 sigma_0, and 5 to 6 % exceed the sum. Below half a count (a background of a quarter of a count) one
    photon may already be a find, and 4 to 7 % are.

    Args:
        limit: detection limits, any shape.
        photon_variance: f, as they were made with.
    """
    return CURRIE_DECISION * null_sigma(limit, photon_variance) + POISSON_DECISION * photon_variance
