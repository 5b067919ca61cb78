"""Maps that were made of the amplitudes, for the viewer: areal densities and normalised rates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.results.names import SUM
from hpcxrf.results.report.thumbnails import block_mean
from hpcxrf.results.store.areal_density import GROUP as DENSITIES
from hpcxrf.store.schema import BLOCK_Y

FloatArray = NDArray[np.float64]

_COMBINED: Final = "combined"
# Group, variable, layer, label, unit.
_DERIVED: Final = (
    (DENSITIES, "areal_density", "areal_density", "areal density", "µg/cm²"),
    ("normalised", "rate", "normalised", "normalised rate", "counts/s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedMaps:
    """One quantity, of the detector that stands for all."""

    layer: str
    label: str
    unit: str
    detector: str
    components: tuple[str, ...]
    values: FloatArray
    """(component, y, x), means of squares of pixels."""
    sigma: FloatArray
    """(component, y, x) standard uncertainty of a pixel, mean of the squares: what pixels have in common stays."""

    def describe(self) -> dict[str, Any]:
        """The layer as the viewer knows it."""
        return {
            "name": self.layer,
            "label": self.label,
            "unit": self.unit,
            "each": True,
            "detectors": [self.detector],
            "components": list(self.components),
        }


def read_derived(tree: xr.DataTree, factor: int) -> Iterator[DerivedMaps]:
    """Read the quantities that a results store has, in squares of `factor` pixels."""
    for group, variable, layer, label, unit in _DERIVED:
        if group not in tree.children:
            continue
        maps = tree[group].to_dataset()
        names = [str(name) for name in maps["detector"].values]
        chosen = str(maps.attrs.get("primary", "")) or next((n for n in (_COMBINED, SUM) if n in names), names[0])
        one = maps[[variable, "sigma"]].isel(detector=names.index(chosen))
        rows = factor * max(1, BLOCK_Y // factor)
        bands = [one.isel(y=slice(y, y + rows)) for y in range(0, one.sizes["y"], rows)]
        values, sigma = (
            np.concatenate([block_mean(band[name].values, factor) for band in bands], axis=-2)
            for name in (variable, "sigma")
        )
        yield DerivedMaps(
            layer=layer,
            label=label,
            unit=unit,
            detector=chosen,
            components=tuple(str(name) for name in maps["component"].values),
            values=values,
            sigma=sigma,
        )
