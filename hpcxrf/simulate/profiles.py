"""Peak shapes, integrated over each channel; sharing nothing with the shapes that the fit uses.

Every function takes the channel edges in keV, shape (channel + 1,), ascending, and gives the share of the
peak's counts in each channel, shape (channel,); over an unlimited axis the shares sum to 1.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.float64]

_FAR: Final = 8.3
"""Standard deviations above which the normal distribution is 1 in double precision."""


def normal_cdf(u: Spectrum, *, deepest: float = _FAR) -> Spectrum:
    """Cumulative standard normal distribution, any shape; 0 where u is below -deepest."""
    result = np.where(u > 0, 1.0, 0.0)
    near = (u > -deepest) & (u < _FAR)
    result[near] = [0.5 * math.erfc(-value / math.sqrt(2)) for value in u[near].tolist()]
    return result


def gaussian_profile(edges_kev: Spectrum, center_kev: float, sigma_kev: float) -> Spectrum:
    """Normal distribution."""
    return np.diff(normal_cdf((edges_kev - center_kev) / sigma_kev))


def low_tail_profile(edges_kev: Spectrum, center_kev: float, sigma_kev: float, gamma: float) -> Spectrum:
    """Normal variable less an exponential one of mean `gamma * sigma_kev` (gamma > 0.2).

    F(u) = Q(-u) + exp(u / gamma + 1 / (2 gamma^2)) Q(u + 1 / gamma) with u = (E - center) / sigma:
    Grushka, Analytical Chemistry 44 (1972) 1733, mirrored.
    """
    u = (edges_kev - center_kev) / sigma_kev
    bounded = np.clip(u, -700.0 * gamma, _FAR)
    beyond = bounded + 1.0 / gamma
    # A large exponential multiplies the last of the distribution, so it is needed that far out.
    upper = normal_cdf(-beyond, deepest=_FAR + 1.0 / gamma + 0.1)
    return np.diff(normal_cdf(u) + np.exp(bounded / gamma + 0.5 / gamma**2) * upper)


def high_tail_profile(edges_kev: Spectrum, center_kev: float, sigma_kev: float, gamma: float) -> Spectrum:
    """Mirror image of `low_tail_profile` about the centre."""
    mirrored = 2.0 * center_kev - edges_kev[::-1]
    return low_tail_profile(mirrored, center_kev, sigma_kev, gamma)[::-1].copy()


def shelf_profile(edges_kev: Spectrum, center_kev: float, sigma_kev: float) -> Spectrum:
    """Flat from 0 keV to the peak, its end smeared by the resolution; nothing below 0 keV.

    The density is Q(u) / center, whose integral is sigma / center * (u Q(u) - phi(u)).
    """
    u = (np.clip(edges_kev, 0.0, None) - center_kev) / sigma_kev
    bounded = np.clip(u, None, _FAR)
    density = np.exp(-0.5 * np.minimum(bounded**2, 1400.0)) / math.sqrt(2 * math.pi)
    integral = bounded * normal_cdf(-bounded) - density
    return np.diff(integral) * sigma_kev / center_kev
