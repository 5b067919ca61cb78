"""Maps of derived groups that are not stored, computed when they are read: counts times a number a pixel and component.

A scan of several detectors has the maps of one entry in its groups `normalised` and `areal_density`, that which stands
for all. Those of every single detector follow from the group `maps`, live times, I0 and responses, to the digits of
float32; to store them, too, took longer than half the fit of the pixels. Stores whose groups hold all maps are left as
they are.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from hpcxrf.quantify.densities import DensityScale, combine_density_sigma, scale_rates
from hpcxrf.quantify.normalise import PixelFlag, add_i0_error, compute_factor
from hpcxrf.results.store import areal_density, normalised
from hpcxrf.results.store.derived import STORED_ATTRIBUTE
from hpcxrf.store.schema import AREAL_DENSITY_VARIABLES

Floats = NDArray[Any]
Compute = Callable[[int, slice, slice, slice], Floats]
"""Maps (component, y, x) of a place on the detector axis, of some components, rows and columns."""

_RATES: Final = ("rate", "sigma", "detection_limit")


class PartlyStored(BackendArray):
    """Maps (detector, component, y, x), some rows of the first axis stored and the others computed, for xarray."""

    def __init__(self, stored: xr.Variable, rows: Container[int], compute: Compute) -> None:
        self.shape = stored.shape
        self.dtype = stored.dtype
        self._stored, self._rows, self._compute = stored, rows, compute

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Floats:
        found: Floats = indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)
        return found

    def _read(self, key: tuple[int | slice, ...]) -> Floats:
        ranges = [range(size)[one] for size, one in zip(self.shape, key, strict=True)]
        rows, *inside = (_as_slice(one) for one in ranges)
        values = np.empty([1 if isinstance(one, int) else len(one) for one in ranges], dtype=self.dtype)
        for place, row in enumerate(range(self.shape[0])[rows]):
            if row in self._rows:
                values[place] = self._stored[(row, *inside)].values
            else:
                values[place] = self._compute(row, *inside)
        picked: Floats = values[tuple(0 if isinstance(one, int) else slice(None) for one in ranges)]
        return picked


def add_computed_maps(tree: xr.DataTree) -> None:
    """Put maps that are computed when they are read in the place of those that derived groups do not store.

    Args:
        tree: an open results store; its groups `normalised` and `areal_density` are replaced.
    """
    for group, build in ((normalised.GROUP, _build_rates), (areal_density.GROUP, _build_densities)):
        node = tree.children.get(group)
        if node is None or STORED_ATTRIBUTE not in node.attrs or normalised.GROUP not in tree.children:
            continue
        derived = node.to_dataset(inherit=False)
        names = _texts(derived["detector"])
        rows = frozenset(names.index(name) for name in node.attrs[STORED_ATTRIBUTE])
        found = {
            name: _replace(derived[name].variable, rows, compute) for name, compute in build(tree, derived).items()
        }
        node.dataset = derived.assign(found)


def _replace(stored: xr.Variable, rows: Container[int], compute: Compute) -> xr.Variable:
    lazy = indexing.LazilyIndexedArray(PartlyStored(stored, rows, compute))
    # As xarray has what it opens: read once where all is wanted, and never written through.
    data = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))  # type: ignore[arg-type, no-untyped-call]
    return xr.Variable(stored.dims, data, stored.attrs, stored.encoding, fastpath=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RateSource:
    """What rates of single detectors are made of."""

    maps: Mapping[str, xr.Variable]
    """Arrays of the group `maps`."""
    derived: Mapping[str, xr.Variable]
    """Arrays of the group `normalised` as they are stored."""
    places: Sequence[int]
    """Place on the detector axis of `maps` by that of `normalised`."""
    reference: float


def _build_rates(tree: xr.DataTree, derived: xr.Dataset) -> dict[str, Compute]:
    maps = tree["maps"].to_dataset()
    names = _texts(maps["detector"])
    source = _RateSource(
        maps={name: maps[name].variable for name in ("amplitude", "sigma", "detection_limit")},
        derived={name: derived[name].variable for name in ("flag", "live_time_s", "i0", "i0_sigma") if name in derived},
        places=tuple(names.index(name) if name in names else -1 for name in _texts(derived["detector"])),
        reference=float(derived.attrs.get("reference", 1.0)),
    )
    return {name: partial(_compute_rate, source, name) for name in _RATES}


def _compute_rate(source: _RateSource, name: str, row: int, components: slice, y: slice, x: slice) -> Floats:
    def read_counts(quantity: str) -> Floats:
        values: Floats = source.maps[quantity][source.places[row], components, y, x].values
        return values

    def read_pixels(quantity: str) -> Floats | None:
        one = source.derived.get(quantity)
        return None if one is None else one[..., y, x].values if one.ndim == 2 else one[row, y, x].values

    live, i0 = read_pixels("live_time_s"), read_pixels("i0")
    good = np.asarray(read_pixels("flag") == np.uint8(PixelFlag.NORMALISED))
    factor = compute_factor(good, np.asarray(live), i0, source.reference).astype(np.float32)
    if name == "detection_limit":
        return read_counts(name) * factor
    rate = read_counts("amplitude") * factor
    if name == "rate":
        return rate
    error = np.zeros_like(factor) if i0 is None else np.where(good, np.asarray(read_pixels("i0_sigma")) / i0, np.nan)
    return add_i0_error(rate, read_counts("sigma") * factor, error)


def _build_densities(tree: xr.DataTree, derived: xr.Dataset) -> dict[str, Compute]:
    rates = tree[normalised.GROUP].to_dataset()
    names = _texts(rates["component"])
    places = np.array([names.index(name) for name in _texts(derived["component"])])
    scales = areal_density.read_scales(derived)
    variables = {name: rates[name].variable for name in _RATES}
    return {name: partial(_compute_density, variables, places, scales, name) for name in AREAL_DENSITY_VARIABLES}


def _compute_density(
    rates: Mapping[str, xr.Variable],
    places: NDArray[np.intp],
    scales: Sequence[DensityScale],
    name: str,
    row: int,
    components: slice,
    y: slice,
    x: slice,
) -> Floats:
    scale = scales[row].select(components)

    def read_scaled(quantity: str) -> Floats:
        return scale_rates(rates[quantity][row, places[components], y, x].values, scale)

    if name == "sigma":
        return combine_density_sigma(read_scaled("rate"), read_scaled("sigma"), scale)
    return read_scaled({"areal_density": "rate", "counting_sigma": "sigma", "detection_limit": "detection_limit"}[name])


def _as_slice(values: int | range) -> slice:
    if isinstance(values, int):
        return slice(values, values + 1)
    return slice(values.start, None if values.stop < 0 else values.stop, values.step)


def _texts(labels: xr.DataArray) -> list[str]:
    return [str(one) for one in labels.values]
