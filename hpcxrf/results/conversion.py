"""Normalised maps in memory to areal densities, by a calibration that is at hand."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from hpcxrf.errors import ConfigError, FitError
from hpcxrf.quantify.calibration import Calibration, convert_rates
from hpcxrf.quantify.calibration_json import calibration_from_json
from hpcxrf.quantify.sensitivity import parse_family
from hpcxrf.store.schema import AREAL_DENSITY_VARIABLES

Calibrations = Calibration | Mapping[str, Any]
_ONE: Final = "kind"
"""Key that a single calibration has as JSON, and a table of them by detector has not."""


def convert_maps(maps: xr.Dataset, calibration: Calibrations) -> xr.Dataset:
    """Convert normalised maps to areal densities.

    Args:
        maps: normalised maps (detector, component, y, x), or (component, y, x) of one detector.
        calibration: calibration of that detector, or by name of the detector, as `areal_density().attrs["calibration"]`
            has them; each a `Calibration` or its JSON values.

    Returns:
        `areal_density`, `sigma`, `counting_sigma` and `detection_limit` of the families of single elements, ug/cm2.

    Raises:
        ConfigError: maps that are not normalised, or a detector without a calibration.
        FitError: a family that the calibration's energy does not excite.
    """
    if "rate" not in maps or "component" not in maps.coords:
        raise ConfigError("quantify: these maps are not normalised; take open_results(...).normalised()")
    single = isinstance(calibration, Calibration) or _ONE in calibration
    if "detector" not in maps.dims:
        label = str(maps["detector"].item()) if "detector" in maps.coords else ""
        return _convert_detector(maps, _read(calibration if single else _find(calibration, label)))
    names = [str(name) for name in maps["detector"].values]
    if single and len(names) > 1:
        raise ConfigError(
            f"quantify: one calibration, and maps of the detectors {', '.join(names)}; choose one with "
            'maps.sel(detector="sum"), or give calibrations by name'
        )
    done = [
        _convert_detector(maps.isel(detector=i), _read(calibration if single else _find(calibration, name)))
        for i, name in enumerate(names)
    ]
    return xr.concat(done, dim=maps["detector"])


def _find(calibrations: Calibrations, name: str) -> Calibrations:
    table = calibrations if isinstance(calibrations, Mapping) else {}
    if name not in table:
        raise ConfigError(f"quantify: detector {name!r} has no calibration; there are those of {', '.join(table)}")
    found: Calibrations = table[name]
    return found


def _read(calibration: Calibrations) -> Calibration:
    return calibration if isinstance(calibration, Calibration) else calibration_from_json(calibration)


def _convert_detector(maps: xr.Dataset, calibration: Calibration) -> xr.Dataset:
    """Areal densities of one detector; factors of a layer are those of the run's own group, not of this."""
    names = [str(name) for name in maps["component"].values]
    families = [name for name in names if _is_family(name)]
    columns: dict[str, list[Any]] = {name: [] for name in AREAL_DENSITY_VARIABLES}
    for family in families:
        one = maps.isel(component=names.index(family))
        values = [one[name].values.astype(np.float64) for name in ("rate", "sigma", "detection_limit")]
        found = convert_rates(calibration.find_response(family), *values)
        columns["areal_density"].append(found.areal_density_ug_cm2)
        columns["sigma"].append(found.sigma_ug_cm2)
        columns["counting_sigma"].append(found.counting_sigma_ug_cm2)
        columns["detection_limit"].append(found.detection_limit_ug_cm2)
    dims = ("component", *(dim for dim in maps["rate"].dims if dim not in {"component", "detector"}))
    arrays = {
        name: (dims, np.stack(values), {"units": spec.units, "long_name": spec.long_name})
        for (name, spec), values in zip(AREAL_DENSITY_VARIABLES.items(), columns.values(), strict=True)
    }
    coords = {name: one for name, one in maps.coords.items() if "component" not in one.dims}
    about = {key: maps.attrs[key] for key in ("title", "source", "normalisation") if key in maps.attrs}
    return xr.Dataset(arrays, coords={**coords, "component": np.array(families, dtype=object)}, attrs=about)


def _is_family(name: str) -> bool:
    try:
        parse_family(name)
    except FitError:
        return False
    return True
