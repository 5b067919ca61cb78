"""The integrated spectrum of a page: its numbers; the page's script draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import OutputError
from hpcxrf.results.detectors import take_detector
from hpcxrf.results.names import SUM, shown_name
from hpcxrf.results.report.colours import CYCLE
from hpcxrf.results.report.page.data import pack_floats
from hpcxrf.results.report.views import write_greek
from hpcxrf.store.packed import is_store
from hpcxrf.store.spectra import open_spectra

FloatArray = NDArray[np.float64]

_LEAST_COUNTS: Final = 0.1
"""Counts of a component in a channel that can be seen at any scale: its tails below are left out."""
_MOST_REGIONS: Final = 12
"""Regions whose spectra a page has, the largest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A spectrum beside the integrated one."""

    name: str
    counts: FloatArray
    """(channel,) of all channels."""


def build_spectrum(spectrum: xr.Dataset, detector: str, overlays: Sequence[Overlay] = ()) -> dict[str, Any] | None:
    """The integrated spectrum of one detector in its fit range, JSON; None where nothing was fitted.

    Args:
        spectrum: group `spectrum` of a results store, loaded; its attribute `line_markers` names the lines.
        detector: name on the detector axis.
        overlays: spectra that may be shown beside it.
    """
    one = take_detector(spectrum, detector)
    fitted = np.flatnonzero(np.isfinite(one["model"].values))
    if fitted.size == 0:
        return None
    rows = slice(int(fitted[0]), int(fitted[-1]) + 1)
    energy_kev = one["energy_kev"].values[rows]
    arrays = {name: pack_floats(one[name].values[rows]) for name in ("counts", "model", "background")}
    components = [str(name) for name in one["component"].values]
    parts = one["component_counts"].transpose("component", "channel").values[:, rows]
    return {
        "energy_kev": pack_floats(energy_kev),
        **arrays,
        "components": [
            {"name": shown_name(name), "colour": _colour(index), **_trim(parts[index])}
            for index, name in enumerate(components)
        ],
        "markers": _list_markers(spectrum.attrs.get("line_markers", []), energy_kev, components),
        "overlays": [
            {"name": one.name, "colour": _colour(index), "counts": pack_floats(one.counts[rows])}
            for index, one in enumerate(overlays)
        ],
    }


def read_highest(path: Path) -> dict[str, FloatArray]:
    """Highest counts of any pixel in each channel (channel,), by detector; none where the spectra are gone."""
    if not is_store(path):
        return {}
    try:
        store = open_spectra(path)
        return {str(d): store.max_channel_spectrum(d) for d in range(store.shape[0])}
    except OutputError:
        return {}


def list_overlays(
    detector: str, highest: Mapping[str, FloatArray], regions: xr.Dataset | None, names: Sequence[str]
) -> list[Overlay]:
    """Spectra to lay over the integrated one of a detector: of the highest pixel, then of the regions.

    Args:
        detector: name on the detector axis.
        highest: highest counts of any pixel in each channel (channel,), by detector.
        regions: group `regions`, loaded; its arrays lie on the axes (region, detector, channel).
        names: of the regions, as people read them.
    """
    found = []
    if detector in highest:
        found.append(Overlay(name="highest pixel", counts=highest[detector]))
    elif detector == SUM and highest:
        found.append(Overlay(name="highest pixel of any detector", counts=np.max(list(highest.values()), axis=0)))
    if regions is None or "counts" not in regions or detector not in regions["detector"].values:
        return found
    counts = regions["counts"].sel(detector=detector).values
    largest = np.argsort(-regions["n_pixels"].values, kind="stable")[:_MOST_REGIONS]
    return found + [Overlay(name=names[i], counts=counts[i]) for i in sorted(largest.tolist())]


def _colour(index: int) -> str:
    return CYCLE[index % len(CYCLE)]


def _trim(part: FloatArray) -> dict[str, Any]:
    """Index of the first channel that shows the component, and its counts from there to the last one."""
    shown = np.flatnonzero(part > _LEAST_COUNTS)
    first, stop = (int(shown[0]), int(shown[-1]) + 1) if shown.size else (0, 0)
    return {"first": first, "counts": pack_floats(part[first:stop])}


def _list_markers(
    markers: Sequence[Sequence[Any]], energy_kev: FloatArray, components: Sequence[str]
) -> list[list[Any]]:
    """Energy, name and colour of the lines inside the fit range, by energy."""
    colours = {name: _colour(index) for index, name in enumerate(components)}
    inside = sorted((float(at), str(label)) for at, label in markers if energy_kev[0] <= at <= energy_kev[-1])
    return [[at, write_greek(label), colours.get(label.split(" ", maxsplit=1)[0], "")] for at, label in inside]
