"""Maps that are in memory as an xarray Dataset, named and described as those of a results store."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.results.store.storage import describe_flags
from hpcxrf.store.schema import MAP_VARIABLES, POSITION_VARIABLES, SHIFT_VARIABLES

Arrays = Mapping[str, NDArray[Any]]
_SPECS: Final = {**MAP_VARIABLES, **SHIFT_VARIABLES}


def maps_dataset(
    maps: Sequence[Arrays],
    *,
    pixel_dims: tuple[str, ...],
    components: Sequence[str],
    parameters: Mapping[str, str],
    detectors: Sequence[str] | None,
    positions_um: Mapping[str, NDArray[np.float64]],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Put maps together.

    Args:
        maps: arrays by name of each detector: (component or parameter, y, x) or (y, x), whose last axes are those of
            `pixel_dims`.
        pixel_dims: names of the axes of a pixel, `("y", "x")` or `("spectrum",)`.
        components: names of the components.
        parameters: units by name of the parameters that every pixel has of its own.
        detectors: names on the detector axis; None: there is no such axis, and one detector.
        positions_um: stage positions `x_um`, `y_um` as far as they are known, each (y, x).
        attributes: attributes of the Dataset.
    """
    coordinates: dict[str, Any] = {"component": np.array(components, dtype=object)}
    if detectors is not None:
        coordinates["detector"] = np.array(detectors, dtype=object)
    if parameters:
        coordinates["parameter"] = np.array(list(parameters), dtype=object)
        coordinates["parameter_unit"] = ("parameter", np.array(list(parameters.values()), dtype=object))
    for name, values in positions_um.items():
        coordinates[name] = (pixel_dims, values, _describe(POSITION_VARIABLES[name].units, name, ""))
    variables = {}
    for name in maps[0]:
        spec = _SPECS[name]
        layers = tuple(dim for dim in spec.dims if dim in {"component", "parameter"})
        values = maps[0][name] if detectors is None else np.stack([one[name] for one in maps])
        values = values.reshape(*values.shape[: values.ndim - 2], *values.shape[-2:][-len(pixel_dims) :])
        dims = (*(() if detectors is None else ("detector",)), *layers, *pixel_dims)
        variables[name] = (dims, values, _describe(spec.units, spec.long_name, name))
    return xr.Dataset(variables, coords=coordinates, attrs=dict(attributes))


def _describe(units: str, long_name: str, name: str) -> dict[str, Any]:
    return {"units": units, "long_name": long_name, **describe_flags(name)}
