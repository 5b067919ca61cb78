"""Layers of maps: what a results store has to show of every pixel, read as one kind of array."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.limits import decision_limit
from hpcxrf.results.detectors import take_detector
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.report import misfits
from hpcxrf.results.report.thumbnails import SOLVED
from hpcxrf.store.schema import BLOCK_Y

Cube = NDArray[np.float32]
"""(component, y, x); of a layer that has one map a detector, the first axis has length 1."""

SHIFT: Final = "shift:"
COUNTS: Final = "counts"
"""Group of the layers that are made of the counts themselves."""
_BAND_VALUES: Final = 2_000_000
"""Values of one array that are read at once."""
# As the pages have them: theta moves by electronvolts.
_SCALES: Final = {"keV": (1000.0, "eV"), "keV/channel": (1000.0, "eV/channel")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kind of map."""

    name: str
    label: str
    unit: str
    each: bool
    """One map a component; False: one a detector, or one a scan."""
    group: str
    """Group of the results store that it is read from."""
    detectors: tuple[str, ...]
    components: tuple[str, ...]
    """Names that it has maps of; none where it has one a detector."""
    meanings: Mapping[int, str]
    """Meanings of its values, where they are codes."""

    def describe(self) -> dict[str, Any]:
        """Give the layer as JSON values."""
        return {
            "name": self.name,
            "label": self.label,
            "unit": self.unit,
            "each": self.each,
            "detectors": list(self.detectors),
            "components": list(self.components),
            "meanings": {str(value): text for value, text in self.meanings.items()},
        }


def list_layers(groups: Mapping[str, xr.Dataset]) -> dict[str, Layer]:
    """List the layers of a results store by name.

    Args:
        groups: groups of the store by name: `maps`, and as far as they are there `regions`, `normalised`,
            `areal_density`.
    """
    maps = groups["maps"]
    named: list[tuple[str, str, str, str, bool]] = [
        ("amplitude", "counts", "counts", "maps", True),
        ("sigma", "uncertainty of the counts", "counts", "maps", True),
        ("decision", "found in the pixel", "", "maps", True),
    ]
    if "deviance_z" in maps:
        named.append(("misfit", misfits.TITLE, misfits.UNIT, "maps", False))
    named.append(("status", "outcome of the fit", "", "maps", False))
    if "theta_shift" in maps:
        shown = [_SCALES.get(unit, (1.0, unit))[1] for unit in _texts(maps["parameter_unit"])]
        pairs = zip(_texts(maps["parameter"]), shown, strict=True)
        named += [(SHIFT + name, f"shift of {name}", unit, "maps", False) for name, unit in pairs]
    if "regions" in groups:
        named.append(("regions", "regions", "", "regions", False))
    if "areal_density" in groups:
        named.append(("areal_density", "areal density", "µg/cm²", "areal_density", True))
        named.append(("areal_density_sigma", "uncertainty of the areal density", "µg/cm²", "areal_density", True))
    if "normalised" in groups:
        named.append(("normalised", "normalised rate", "counts/s", "normalised", True))
    return {row[0]: _make_layer(row, groups) for row in named}


def _make_layer(row: tuple[str, str, str, str, bool], groups: Mapping[str, xr.Dataset]) -> Layer:
    name, label, unit, group, each = row
    of = groups["maps"] if group == "regions" else groups[group]
    return Layer(
        name=name,
        label=label,
        unit=unit,
        each=each,
        group=group,
        detectors=_texts(of["detector"]),
        components=_texts(of["component"]) if each else (),
        meanings=_read_meanings(of["status"]) if name == "status" else {},
    )


def list_window_layers(detectors: tuple[str, ...], windows: tuple[str, ...]) -> dict[str, Layer]:
    """List the layers of a scan that was not fitted: all counts of a pixel, and those in windows of energy.

    Args:
        detectors: names on the detector axis.
        windows: names of the families around whose lines the windows are.
    """
    counts = Layer(
        name="counts",
        label="all counts",
        unit="counts",
        each=False,
        group=COUNTS,
        detectors=detectors,
        components=(),
        meanings={},
    )
    window = replace(counts, name="window", label="counts around the line", each=True, components=windows)
    return {"window": window, "counts": counts} if windows else {"counts": counts}


def read_layer(
    groups: Mapping[str, xr.Dataset],
    layer: Layer,
    detector: str,
    components: Sequence[str],
    factors: Mapping[str, float],
) -> Cube:
    """Read maps of one detector.

    Args:
        groups: groups of the results store by name.
        layer: which of its layers.
        detector: name on the layer's detector axis.
        components: names of some of the layer's components, in the order of the result; not used where the layer has
            one map a detector.
        factors: variance over mean of the counts by detector, of stores that do not say what a count adds.

    Returns:
        (component, y, x), NaN where a pixel was not fitted or has no value.

    Raises:
        ConfigError: the layer does not have this detector or component.
    """
    faults = [] if detector in layer.detectors else [f"detector {detector!r}: there are {', '.join(layer.detectors)}"]
    unknown = [one for one in components if one not in layer.components] if layer.each else []
    faults += [f"component {one!r}: layer {layer.name} has no map of it" for one in unknown]
    if faults:
        raise ConfigError("; ".join(faults))
    if layer.name == "regions":
        return _read_regions(groups["regions"])
    one = take_detector(groups[layer.group], detector)
    if layer.each:
        one = one.isel(component=_as_index([layer.components.index(name) for name in components]))
    read = _find_reader(layer, one, detector, factors)
    height = len(components) if layer.each else 1
    n_y, n_x = one.sizes["y"], one.sizes["x"]
    cube = np.empty((height, n_y, n_x), dtype=np.float32)
    for rows in _bands(n_y, n_x * max(1, len(layer.components))):
        cube[:, rows] = read(one.isel(y=rows))
    return cube


def _find_reader(
    layer: Layer, one: xr.Dataset, detector: str, factors: Mapping[str, float]
) -> Callable[[xr.Dataset], NDArray[Any]]:
    """How a band of rows of one detector is read."""
    if layer.name == "decision":
        photon = read_photon_variance(one, detector, factors.get(detector, 1.0))[:, None, None]
        return lambda band: _decide(band, photon)
    if layer.name.startswith(SHIFT):
        place = _texts(one["parameter"]).index(layer.name.removeprefix(SHIFT))
        scale = _SCALES.get(_texts(one["parameter_unit"])[place], (1.0, ""))[0]
        return lambda band: band["theta_shift"].isel(parameter=place).values[None] * np.float32(scale)
    if layer.name in {"misfit", "status"}:
        array = {"misfit": "deviance_z", "status": "status"}[layer.name]
        return lambda band: band[array].values[None]
    if layer.group == "maps":
        return lambda band: _blank(band[layer.name].values, band["status"].values)
    array = {"areal_density": "areal_density", "areal_density_sigma": "sigma", "normalised": "rate"}[layer.name]
    return lambda band: band[array].values


def _decide(band: xr.Dataset, photon: NDArray[np.float64]) -> Cube:
    """1 where the amplitude is above its decision limit, 0 where it is not, NaN where there is none."""
    amplitude, limit = band["amplitude"].values, band["detection_limit"].values
    above = (amplitude > decision_limit(limit.astype(np.float64), photon)).astype(np.float32)
    above[~np.isfinite(amplitude + limit)] = np.nan
    return _blank(above, band["status"].values)


def _blank(values: Cube, status: NDArray[np.uint8]) -> Cube:
    """The values with NaN in pixels without a solution."""
    solved = np.isin(status, SOLVED)
    return values if solved.all() else np.where(solved, values, np.float32(np.nan))


def _read_regions(regions: xr.Dataset) -> Cube:
    """Number of the region of every pixel, 0 outside; where regions overlap, that of the first layer."""
    layers = regions["label"].values
    label = np.zeros(layers.shape[1:], dtype=np.float32)
    for layer in layers[::-1]:
        label[layer > 0] = layer[layer > 0]
    return label[None]


def _read_meanings(status: xr.DataArray) -> dict[int, str]:
    values = np.atleast_1d(status.attrs.get("flag_values", []))
    texts = str(status.attrs.get("flag_meanings", "")).split()
    return {int(value): text.replace("_", " ") for value, text in zip(values.tolist(), texts, strict=True)}


def _bands(n_y: int, values_a_row: int) -> Iterator[slice]:
    """Rows in bands of whole blocks of the store."""
    step = max(1, _BAND_VALUES // (values_a_row * BLOCK_Y)) * BLOCK_Y
    return (slice(y, min(y + step, n_y)) for y in range(0, n_y, step))


def _as_index(places: list[int]) -> slice | list[int]:
    """Places as a slice where they follow each other: then nothing is copied."""
    return slice(places[0], places[-1] + 1) if places == list(range(places[0], places[0] + len(places))) else places


def _texts(coordinate: xr.DataArray) -> tuple[str, ...]:
    return tuple(str(one) for one in np.atleast_1d(coordinate.values))
