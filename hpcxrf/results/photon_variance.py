"""Variance that one recorded count of a component adds to its amplitude.

With it, a detection limit gives back the sigma of an absent component, and with that the decision limit. The groups
`maps` and `spectrum` have it as the attribute `photon_variance`, numbers by component by detector.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # A fit of one file has no need of it.
    import xarray as xr
    from torch import Tensor

PHOTON_VARIANCE: Final = "photon_variance"


def name_components(components: Sequence[str], photon_variance: "Tensor") -> dict[str, float]:
    """Values of one detector as the attribute has them.

    Args:
        components: names.
        photon_variance: (component,).
    """
    return dict(zip(components, photon_variance.tolist(), strict=True))


def read_photon_variance(group: "xr.Dataset", detector: str, otherwise: float = 1.0) -> NDArray[np.float64]:
    """The variances (component,) of a detector, in the order of the group's components.

    Args:
        group: group `maps` or `spectrum` of a results store, or maps of `fit_map`.
        detector: name of the detector, or `sum`.
        otherwise: variance over mean of the counts: it stands in the limits of stores that were written before the
            variances were kept.
    """
    return unpack_components(group.attrs, [str(name) for name in group["component"].values], detector, otherwise)


def unpack_components(
    attributes: Mapping[str, Any], components: Sequence[str], detector: str, otherwise: float = 1.0
) -> NDArray[np.float64]:
    """The same from the attributes of the group and the names of its components."""
    stored = attributes.get(PHOTON_VARIANCE, {}).get(detector, {})
    return np.array([float(stored.get(name, otherwise)) for name in components])
