"""The accessor `ds.xrf` of a Dataset of maps: one map by name, pictures of all, three of them as colours.

Loading this module registers nothing; `register_accessor` does, and so do the functions of `hpcxrf.api` that give
maps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.limits import decision_limit
from hpcxrf.results.photon_variance import read_photon_variance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcxrf.results.conversion import Calibrations


_AMPLITUDE: Final = "amplitude"
_RATE: Final = "rate"
_DENSITY: Final = "areal_density"


class XrfAccessor:
    """What is done with maps: `ds.xrf.map("Fe")`, `ds.xrf.plot()`, `ds.xrf.rgb("Fe", "Ca", "Si")`."""

    def __init__(self, maps: xr.Dataset) -> None:
        self._maps = maps

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components, in their order."""
        return component_names(self._maps)

    def map(self, component: str, variable: str | None = None) -> xr.DataArray:
        """Choose the map of one component.

        Args:
            component: name such as `Fe`, `Pt_L`, `COMPTON_AMPLITUDE`.
            variable: `amplitude`, `sigma` or `detection_limit`, all in counts; of normalised maps `rate`, `sigma` or
                `detection_limit`, all in counts per second; `areal_density` .. in ug/cm2. None: the first of these.

        Returns:
            (y, x), or (detector, y, x) where there are several detectors.

        Raises:
            ConfigError: no such component or variable; the names that there are.
        """
        faults = _missing("component", component, self.components)
        layered = [str(n) for n, array in self._maps.data_vars.items() if "component" in array.dims]
        variable = _name_values(self._maps) if variable is None else variable
        faults += _missing("variable", variable, layered)
        if faults:
            raise ConfigError("map: " + "; ".join(faults))
        found: xr.DataArray = self._maps[variable].isel(component=self.components.index(component))
        return found

    def found(self, component: str) -> xr.DataArray:
        """Where a component was found: its amplitude exceeds Currie's decision limit, 5 % of false alarms.

        Args:
            component: name such as `Fe`, `Pt_L`, `COMPTON_AMPLITUDE`.

        Returns:
            Bool (y, x), or (detector, y, x) where there are several detectors; False where a pixel was not fitted.

        Raises:
            ConfigError: no such component; the names that there are. Normalised maps, whose limits are those of counts.
        """
        _require_counts(self._maps, "found")
        limit = self.map(component, "detection_limit")
        index = self.components.index(component)
        names = [str(name) for name in np.atleast_1d(limit["detector"].values)] if "detector" in limit.coords else ["0"]
        photon = np.array([read_photon_variance(self._maps, name)[index] for name in names])
        values = limit.values.astype(np.float64)
        decision = decision_limit(values, photon.reshape(-1, *(1,) * (values.ndim - 1)) if len(names) > 1 else photon)
        above: xr.DataArray = self.map(component) > limit.copy(data=decision)
        return above.rename("found")

    def plot(self, components: Sequence[str] | None = None, *, detector: str | None = None) -> "Figure":
        """Draw the maps of one detector, each on its own colour scale.

        Args:
            components: names of the maps; None: all.
            detector: name on the detector axis; None: the first.

        Returns:
            A matplotlib figure.

        Raises:
            ConfigError: no such component or detector.
        """
        return draw_maps(self._maps, components, detector)

    def quantify(self, calibration: "Calibrations") -> xr.Dataset:
        """Convert normalised maps to areal densities, ug/cm2, of thin samples.

        Args:
            calibration: calibration of the detector, or by name of the detector as
                `open_results("out").areal_density().attrs["calibration"]` has them; `hpcxrf.quantify.calibration` makes
                one of any standards.

        Returns:
            `areal_density`, `sigma`, `counting_sigma`, `detection_limit` of the families of single elements.

        Raises:
            ConfigError: maps that are not normalised, or a detector without a calibration.
            FitError: a family that the calibration's energy does not excite.
        """
        from hpcxrf.results.conversion import convert_maps

        return convert_maps(self._maps, calibration)

    def to(self, form: str, path: str | Path, *, force: bool = False) -> tuple[Path, ...]:
        """Write the maps for another program: `nexus`, `pymca`, `tiff`, `png` or `ome-zarr`.

        Formats that hold spectra or parameters are those of `open_results(...).to(...)`.

        Args:
            form: name of the format.
            path: name of the file; formats of several files take it as the stem of their names.
            force: replace what is there.

        Returns:
            The files.

        Raises:
            ConfigError: no such format, one that needs more than maps, or maps without pixels in rows and columns.
            OutputError: something of that name is there, or it cannot be written.
        """
        from hpcxrf.results.export.source import source_of_maps
        from hpcxrf.results.export.write import export_source

        if not {"y", "x"} <= set(self._maps.dims):
            raise ConfigError(f"axes {', '.join(map(str, self._maps.dims))} are not those of a map; give y and x")
        place = Path(path)
        return export_source(source_of_maps(self._maps, place.name), form, place, force=force)

    def rgb(self, red: str, green: str, blue: str, *, detector: str | None = None) -> xr.DataArray:
        """Put the maps of three components together as red, green and blue.

        Each colour runs from 0 to the 99th percentile of its map.

        Args:
            red: name of a component.
            green: name of a component.
            blue: name of a component.
            detector: name on the detector axis; None: the first.

        Returns:
            (y, x, colour) from 0 to 1, 0 where a pixel was not fitted: `ds.xrf.rgb("Fe", "Ca", "Si").plot.imshow()`
            draws it.

        Raises:
            ConfigError: no such component or detector.
        """
        names = (red, green, blue)
        faults = [fault for name in names for fault in _missing("component", name, self.components)]
        if faults:
            raise ConfigError("rgb: " + "; ".join(dict.fromkeys(faults)))
        one = select_detector(self._maps, detector)
        layers = [_scale_to_one(XrfAccessor(one).map(name).values) for name in names]
        dims = (*XrfAccessor(one).map(red).dims, "colour")
        colours = {"colour": ["red", "green", "blue"], "component": ("colour", list(names))}
        return xr.DataArray(np.stack(layers, axis=-1), dims=dims, coords=colours, name="rgb")


def register_accessor() -> None:
    """Let every xarray Dataset have `.xrf`; a second call changes nothing."""
    if not hasattr(xr.Dataset, "xrf"):
        xr.register_dataset_accessor("xrf")(XrfAccessor)  # type: ignore[no-untyped-call]


def component_names(maps: xr.Dataset) -> tuple[str, ...]:
    """Read the names of the components of a Dataset of maps.

    Raises:
        ConfigError: a Dataset without components and amplitudes.
    """
    if "component" not in maps.coords or not {_AMPLITUDE, _RATE, _DENSITY} & set(maps.data_vars):
        raise ConfigError(
            "not a Dataset of maps: it has no component axis with amplitudes; take the result of fit_map, or "
            'open_results("out").maps()'
        )
    return tuple(str(name) for name in maps["component"].values)


def select_detector(maps: xr.Dataset, detector: str | None) -> xr.Dataset:
    """Choose one detector of a Dataset of maps, the first by default; one without detector axis stays as it is.

    Raises:
        ConfigError: no such detector; those that there are.
    """
    if "detector" not in maps.dims:
        return maps
    names = [str(name) for name in maps["detector"].values]
    if detector is not None and (faults := _missing("detector", detector, names)):
        raise ConfigError("; ".join(faults))
    return maps.isel(detector=0 if detector is None else names.index(detector))


def draw_maps(maps: xr.Dataset, components: Sequence[str] | None, detector: str | None) -> "Figure":
    """Draw the maps of one detector, each on its own colour scale.

    Raises:
        ConfigError: no such component or detector, or spectra that have no place in a map.
    """
    from hpcxrf.results.report.plots import draw_map_grid
    from hpcxrf.results.report.thumbnails import summarise_maps

    names = component_names(maps)
    _require_counts(maps, "plot")
    wanted = list(names if components is None else components)
    if faults := [fault for name in wanted for fault in _missing("component", name, names)]:
        raise ConfigError("; ".join(faults))
    one = select_detector(maps, detector)
    if not {"y", "x"} <= set(one.dims):
        raise ConfigError(f"axes {', '.join(map(str, one['status'].dims))} are not those of a map; give y and x")
    label = str(one["detector"].item()) if "detector" in one.coords else "0"
    one = one.drop_vars("detector", errors="ignore").isel(component=[names.index(name) for name in wanted])
    one = one.expand_dims(detector=[label])
    return draw_map_grid(summarise_maps(one, label, photon_variance=read_photon_variance(one, label)))


def _name_values(maps: xr.Dataset) -> str:
    """Name what is mapped: amplitudes, rates of normalised maps, or areal densities."""
    return next(name for name in (_AMPLITUDE, _RATE, _DENSITY) if name in maps)


def _require_counts(maps: xr.Dataset, what: str) -> None:
    if _AMPLITUDE not in maps:
        raise ConfigError(
            f'{what}: these maps are normalised; take those in counts, open_results("out").maps(), or one of these, '
            'ds.xrf.map("Fe")'
        )


def _missing(what: str, name: str, names: Sequence[str]) -> list[str]:
    return [] if name in names else [f"{name!r} is not a {what}; there are {', '.join(names)}"]


def _scale_to_one(values: NDArray[Any]) -> NDArray[np.float64]:
    finite = values[np.isfinite(values)]
    top = float(np.percentile(finite, 99.0)) if finite.size else 0.0
    scaled = np.nan_to_num(values.astype(np.float64)) / (top if top > 0.0 else 1.0)
    clipped: NDArray[np.float64] = scaled.clip(0.0, 1.0)
    return clipped
