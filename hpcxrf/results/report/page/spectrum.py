"""The integrated spectrum of a page: its numbers; the page's script draws them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.results.detectors import take_detector
from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import CYCLE
from hpcxrf.results.report.page.data import pack_floats
from hpcxrf.results.report.views import write_greek

FloatArray = NDArray[np.float64]

_LEAST_COUNTS: Final = 0.1
"""Counts of a component in a channel that can be seen at any scale: its tails below are left out."""


def build_spectrum(spectrum: xr.Dataset, detector: str) -> dict[str, Any] | None:
    """The integrated spectrum of one detector in its fit range, JSON; None where nothing was fitted.

    Args:
        spectrum: group `spectrum` of a results store, loaded; its attribute `line_markers` names the lines.
        detector: name on the detector axis.
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
    }


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
