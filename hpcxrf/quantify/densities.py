"""Maps of rates to maps of areal densities, many components at once, by their responses and common errors.

`convert_rates` does the same of one family with a calibration at hand.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
"""Numbers of 4 or 8 bytes; what is calculated keeps the type of the rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityScale:
    """How the rates of one detector become areal densities; NaN of components without a response."""

    density_of_rate: NDArray[np.float64]
    """(component,) ug/cm2 of one count per second."""
    relative_error: NDArray[np.float64]
    """(component,) standard uncertainty that all pixels have in common, relative."""
    floor_ug_cm2: NDArray[np.float64]
    """(component,) standard uncertainty that is the same in every pixel."""

    def select(self, components: slice) -> "DensityScale":
        """Take some of the components."""
        return DensityScale(
            density_of_rate=self.density_of_rate[components],
            relative_error=self.relative_error[components],
            floor_ug_cm2=self.floor_ug_cm2[components],
        )


def scale_rates(rate: Floats, scale: DensityScale) -> Floats:
    """Turn rates, their counting errors or detection limits (component, y, x) into ug/cm2."""
    return rate * _column(scale.density_of_rate, rate)


def combine_density_sigma(density: Floats, counting_sigma: Floats, scale: DensityScale) -> Floats:
    """Combine what differs from pixel to pixel with what all pixels have in common.

    Args:
        density: (component, y, x) ug/cm2.
        counting_sigma: (component, y, x) ug/cm2, standard uncertainty by the pixel's rate.
        scale: errors of the components.

    Returns:
        (component, y, x) ug/cm2.
    """
    total = density * _column(scale.relative_error, density)
    total *= total
    total += counting_sigma * counting_sigma
    total += _column(scale.floor_ug_cm2**2, density)
    root: Floats = np.sqrt(total, out=total)
    return root


def _column(values: NDArray[np.float64], like: Floats) -> Floats:
    return values.astype(like.dtype)[:, None, None]
