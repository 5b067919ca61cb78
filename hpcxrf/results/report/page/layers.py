"""What the viewer of a page shows beside the maps' pictures: uncertainties, decisions, outcomes, regions.

All are levels of 8 bit as the maps are, in blocks of base64. Blocks of a small dataset are in its page; those of a
large one are in side files, which the page loads when they are asked for: scripts that call one function, since a page
that is opened from a file may load nothing else.
"""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.fitting.status import FitStatus
from hpcxrf.results.names import SUM, shown_name
from hpcxrf.results.report.colours import colour_limits
from hpcxrf.results.report.page.data import pack_json
from hpcxrf.results.report.page.derived import read_derived
from hpcxrf.results.report.page.elements import find_atomic_number
from hpcxrf.results.report.page.maps import LEVELS, MapGrid, to_levels
from hpcxrf.results.report.thumbnails import MapSummary
from hpcxrf.results.report.views import format_status

FloatArray = NDArray[np.float64]

INLINE_BYTES: Final = 300_000
"""Blocks of a dataset that take no more than this are in its page."""
_SIGMA_STEPS: Final = 63
"""Steps of an uncertainty from its lowest to its highest value, even in its logarithm: a few percent each."""

_NO_REGIONS: Final = np.zeros((0, 1, 1), dtype=np.uint16)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMaps:
    """The pictures of one detector that are in the page already."""

    summary: MapSummary
    maps: MapGrid
    shifts: MapGrid | None
    shift_names: tuple[str, ...]
    quality: MapGrid | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLayers:
    """What the viewer reads."""

    description: dict[str, Any]
    """JSON of the block `scan`, with the blocks of a small dataset."""
    files: Mapping[str, str]
    """Side files of a large dataset, by name relative to the page's folder; none for a small one."""


@dataclass(slots=True)
class _Blocks:
    """Blocks by key, `detector/layer`, and the layers that they belong to."""

    by_file: dict[str, dict[str, Any]] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, key: str, block: dict[str, Any], layer: dict[str, Any]) -> None:
        """Add a block of the side file `name`."""
        self.by_file.setdefault(name, {})[key] = block
        self.layers.setdefault(layer["name"], layer)

    def add_picture(self, key: str, place: dict[str, Any], layer: dict[str, Any]) -> None:
        """Add a layer whose pictures the page has."""
        self.pictures[key] = place
        self.layers.setdefault(layer["name"], layer)


def build_scan_layers(
    name: str, dataset_id: str, shown: Sequence[ShownMaps], tree: xr.DataTree, regions: Sequence[Mapping[str, Any]]
) -> ScanLayers:
    """Build the description of a dataset for the viewer, and its blocks.

    Args:
        name: of the dataset, as people read it.
        dataset_id: names the folder of its side files.
        shown: its detectors in the order of the page.
        tree: its results store, open, with the groups `spectrum` and `regions` loaded.
        regions: rows of the table of its regions: number, name, n_pixels, reason.
    """
    blocks = _Blocks()
    for place, one in enumerate(shown):
        _add_detector(blocks, f"{dataset_id}.files/{place}.js", one)
    first = shown[0].summary
    derived = f"{dataset_id}.files/derived.js"
    for maps in read_derived(tree, first.factor):
        for key, block, layer in _pack_derived(maps.describe(), maps.values, maps.sigma):
            blocks.add(derived, key, block, layer)
    labels = tree["regions"].to_dataset()["label"].values if "regions" in tree.children else _NO_REGIONS
    region_layers = _add_regions(blocks, f"{dataset_id}.files/0.js", labels, regions, first.factor)
    description = {
        "name": name,
        "shape": list(first.shape_yx),
        "step_um": None if first.step_um is None else list(first.step_um),
        "factor": first.factor,
        "detectors": sorted((one.summary.detector for one in shown), key=lambda name: name != SUM),
        "components": _describe_components(shown, tree["spectrum"].to_dataset()),
        "layers": list(blocks.layers.values()),
        "regions": [{**one, "layer": region_layers[int(one["number"])]} for one in regions] if region_layers else [],
    }
    return _place_blocks(description, blocks)


def _place_blocks(description: dict[str, Any], blocks: _Blocks) -> ScanLayers:
    """Put the blocks into the page, or each group of them into a file of its own where they are large."""
    size = sum(len(block["levels"]) for group in blocks.by_file.values() for block in group.values())
    if size <= INLINE_BYTES:
        inside = {key: block for group in blocks.by_file.values() for key, block in group.items()}
        return ScanLayers(description={**description, "data": {**blocks.pictures, **inside}}, files={})
    where = {key: {"file": name} for name, group in blocks.by_file.items() for key in group}
    files = {name: write_side_file(name, group) for name, group in blocks.by_file.items()}
    return ScanLayers(description={**description, "data": {**blocks.pictures, **where}}, files=files)


def write_side_file(name: str, blocks: Mapping[str, Any]) -> str:
    """Text of a side file: a script that hands its blocks over.

    Args:
        name: the file relative to the folder of the pages.
        blocks: JSON values by key.
    """
    return f"hpcxrf.scan.receive({pack_json(name)}, {pack_json(blocks)});\n"


def pack_levels(levels: NDArray[np.uint8]) -> str:
    """Base64 of compressed levels (..., y, x)."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(levels).tobytes(), 2)).decode()


def to_log_levels(values: FloatArray) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Levels of positive values, even in their logarithm, and their limits; 0 where one is not known.

    Args:
        values: (y, x), positive or NaN.
    """
    known = values[np.isfinite(values) & (values > 0)]
    if known.size == 0:
        return np.zeros(values.shape, dtype=np.uint8), (1.0, 2.0)
    low, high = float(known.min()), float(known.max())
    high = high if high > low * 1.001 else low * 1.001
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.rint(np.log(values / low) / math.log(high / low) * _SIGMA_STEPS) * ((LEVELS - 1) / _SIGMA_STEPS)
    return np.where(np.isfinite(step), np.clip(np.rint(step), 0, LEVELS - 1) + 1, 0).astype(np.uint8), (low, high)


def _describe_components(shown: Sequence[ShownMaps], spectrum: xr.Dataset) -> list[dict[str, Any]]:
    by_detector = {one.summary.detector: one.summary for one in shown}
    counts = {name: spectrum["amplitude"].sel(detector=name).values for name in by_detector}
    return [
        {
            "name": component,
            "label": shown_name(component),
            "z": find_atomic_number(component),
            "counts": {name: _to_json(counts[name][i]) for name in by_detector},
            "share": {name: _to_json(one.above_limit[i]) for name, one in by_detector.items()},
            "found": {name: bool(one.found[i]) for name, one in by_detector.items()},
        }
        for i, component in enumerate(shown[0].summary.components)
    ]


def _to_json(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _add_detector(blocks: _Blocks, file: str, one: ShownMaps) -> None:
    summary, detector = one.summary, one.summary.detector
    counts = {"label": "amplitude", "unit": "counts", "each": True}
    place = {"figure": f"{detector}/amplitude", "first": 0, "limits": [m.limits for m in one.maps.maps]}
    blocks.add_picture(f"{detector}/amplitude", place, {"name": "amplitude", **counts})
    levels, limits = zip(*map(to_log_levels, summary.sigma), strict=True)
    sigma = {**_pack(np.stack(levels), limits), "scale": "log"}
    blocks.add(file, f"{detector}/sigma", sigma, {"name": "sigma", **counts, "label": "sigma of a point"})
    above = np.where(np.isfinite(summary.pictures), summary.above + 1, 0).astype(np.uint8)
    decision = {**_pack_codes(above), "limits": [[0, LEVELS - 1]] * len(above)}
    layer = {"name": "decision", "label": "amplitude where found", "unit": "", "each": True}
    blocks.add(file, f"{detector}/decision", decision, layer)
    codes = {int(status): format_status(status) for status in FitStatus}
    layer = {"name": "status", "label": "outcome of the fit", "unit": "", "each": False, "codes": codes}
    blocks.add(file, f"{detector}/status", _pack_codes(summary.status[None] + np.uint8(1)), layer)
    if one.quality is not None:
        limits = one.quality.maps[0].limits
        layer = {"name": "misfit", "label": "deviance above noise", "unit": "σ", "each": False, "limits": limits}
        place = {"figure": f"{detector}/misfit", "first": 0, "limits": [limits]}
        blocks.add_picture(f"{detector}/misfit", place, layer)
    if one.shifts is not None:
        for i, (shift, name) in enumerate(zip(one.shifts.maps, one.shift_names, strict=True)):
            parameter, _, unit = name.partition(", ")
            layer = {"name": f"shift:{parameter}", "label": f"shift of {parameter}", "unit": unit, "each": False}
            place = {"figure": f"{detector}/shifts", "first": i, "limits": [shift.limits]}
            blocks.add_picture(f"{detector}/shift:{parameter}", place, layer)


def _pack(levels: NDArray[np.uint8], limits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    rounded = [[float(f"{end:.7g}") for end in one] for one in limits]
    return {"shape": list(levels.shape[-2:]), "levels": pack_levels(levels), "limits": rounded, "scale": "linear"}


def _pack_codes(levels: NDArray[np.uint8]) -> dict[str, Any]:
    return _pack(levels, [(0, LEVELS - 1)])


def _pack_derived(
    layer: dict[str, Any], values: FloatArray, sigma: FloatArray
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Blocks of a derived quantity and of its uncertainty, each with its key and its layer."""
    detector, name = layer["detectors"][0], layer["name"]
    limits = [colour_limits(one) for one in values]
    levels = [to_levels(one, ends) for one, ends in zip(values, limits, strict=True)]
    of_sigma, sigma_limits = zip(*map(to_log_levels, sigma), strict=True)
    about = {**layer, "name": f"{name}_sigma", "label": f"sigma of the {layer['label']}"}
    return [
        (f"{detector}/{name}", _pack(np.stack(levels), limits), layer),
        (f"{detector}/{name}_sigma", {**_pack(np.stack(of_sigma), sigma_limits), "scale": "log"}, about),
    ]


def _add_regions(
    blocks: _Blocks, file: str, labels: NDArray[np.uint16], regions: Sequence[Mapping[str, Any]], factor: int
) -> dict[int, str]:
    """Add the label images; the layer of each region. More regions than levels are in the table alone."""
    if not len(labels) or labels.max(initial=0) >= LEVELS:
        return {}
    found: dict[int, str] = {}
    for number, image in enumerate(labels):
        thin = image[::factor, ::factor]
        name = f"regions:{number}" if number else "regions"
        inside = set(np.unique(image[image > 0]).tolist())
        codes = {0: "no region"} | {
            int(one["number"]): f"{one['number']} {one['name']}" for one in regions if one["number"] in inside
        }
        label = f"regions, picture {number + 1}" if len(labels) > 1 else "regions"
        layer = {"name": name, "label": label, "unit": "", "each": False, "codes": codes}
        blocks.add(file, name, _pack_codes((thin + 1).astype(np.uint8)[None]), layer)
        found |= dict.fromkeys(inside, name)
    return found if {int(one["number"]) for one in regions} <= set(found) else {}
