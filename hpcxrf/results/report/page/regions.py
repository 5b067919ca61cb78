"""Regions in a page: their places over a map, and a row for each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.fitting.status import FitStatus
from hpcxrf.physics.scatter_names import SCATTER
from hpcxrf.results.names import SUM, name_detector, shown_name
from hpcxrf.results.report.colours import CYCLE, colour_limits
from hpcxrf.results.report.page.data import pack_png
from hpcxrf.results.report.page.maps import LEVELS, to_levels
from hpcxrf.results.report.thumbnails import MapSummary, select_most_visible

_STRONGEST: Final = 4
NOT_REFINED: Final = "not run"
"""Outcome of a region that was not to be refined."""
# White is the lower limit; pixels without a number are blue, which no grey is.
_GREY: Final = bytes(value for level in range(LEVELS) for value in (LEVELS - level,) * 3)
_NOT_FITTED: Final = bytes.fromhex("c3d6ee")
_COLOURS: Final = bytes(3) + bytes.fromhex("".join(colour[1:] for colour in CYCLE))
_OPACITY: Final = bytes([0] + [128] * len(CYCLE))
_SOLVED: Final = (FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Counts of one component with their standard uncertainty."""

    name: str
    counts: float
    sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the number of a region stands in its picture."""

    number: int
    left_percent: float
    top_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionLayer:
    """A picture of regions that do not overlap."""

    base: str
    """`data:` address of the map below, in grey."""
    regions: str
    """`data:` address of the regions, half transparent."""
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRow:
    """One region, all detectors together."""

    number: int
    """Number in the picture."""
    name: str
    reason: str
    n_pixels: int
    outcome: str
    """Empty where every detector converged."""
    r2: float
    """R2 of the detector that fits worst."""
    strongest: tuple[Amount, ...]
    suggested: tuple[str, ...]


def build_region_rows(regions: xr.Dataset) -> tuple[RegionRow, ...]:
    """Rows of the table, from the group `regions`.

    Amplitudes are those of the raw sum where it was fitted, else the sum over the detectors that have a
    solution, uncertainties in quadrature.
    """
    table = regions.drop_dims(("channel", "layer"), errors="ignore").load()
    return tuple(_build_row(table.isel(region=i), i + 1) for i in range(table.sizes["region"]))


def build_region_layers(summary: MapSummary, label: NDArray[np.uint16]) -> tuple[RegionLayer, ...]:
    """Every layer of the label image over the map that shows most; numbers are those of the table.

    Args:
        summary: of one detector.
        label: (layer, y, x) of the scan, regions counted from 1.
    """
    base = summary.pictures[summary.components.index(choose_base_map(summary))]
    under = pack_png(to_levels(base, colour_limits(base)), _NOT_FITTED + _GREY)
    thin = label[:, :: summary.factor, :: summary.factor]
    drawn = (pack_png(_colour_index(layer), _COLOURS, _OPACITY) for layer in thin)
    return tuple(
        RegionLayer(base=under, regions=regions, places=_place_numbers(layer))
        for regions, layer in zip(drawn, thin, strict=True)
    )


def choose_base_map(summary: MapSummary) -> str:
    """Component under the regions in their picture."""
    return select_most_visible(summary, 1)[0]


def _colour_index(layer: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Index of a region's colour, 0 outside."""
    return np.where(layer > 0, (layer.astype(np.int64) - 1) % len(CYCLE) + 1, 0).astype(np.uint8)


def _place_numbers(layer: NDArray[np.uint16]) -> tuple[Place, ...]:
    """Where the numbers of the regions of one layer stand."""
    height, width = layer.shape
    places = []
    for number in np.unique(layer[layer > 0]).tolist():
        y, x = _find_inner_point(layer == number)
        places.append(Place(number=number, left_percent=100 * (x + 0.5) / width, top_percent=100 * (y + 0.5) / height))
    return tuple(places)


def _find_inner_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """A point (y, x) as far inside the region as any, by steps along rows and columns."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    depth = _count_steps_out(box)
    deepest = np.argwhere(depth == depth.max())
    y, x = deepest[len(deepest) // 2] - 1
    return int(rows[0] + y), int(columns[0] + x)


def _count_steps_out(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps along rows and columns from every point to the nearest one outside; the rim is outside."""
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    far = sum(mask.shape)
    # Along the columns: the last point outside above, the first one below; then along the rows.
    above = y - np.maximum.accumulate(np.where(mask, -far, y), axis=0)
    below = np.minimum.accumulate(np.where(mask, 2 * far, y)[::-1], axis=0)[::-1] - y
    steps = np.minimum(above, below)
    left = np.minimum.accumulate(steps - x, axis=1) + x
    right = np.minimum.accumulate((steps + x)[:, ::-1], axis=1)[:, ::-1] - x
    nearest: NDArray[np.int64] = np.minimum(left, right)
    return nearest


def _build_row(one: xr.Dataset, number: int) -> RegionRow:
    status = [FitStatus(value) for value in one["status"].values.tolist()]
    names = [str(name) for name in one["detector"].values]
    solved = [i for i, s in enumerate(status) if s in _SOLVED]
    used = [names.index(SUM)] if SUM in names else solved
    bad = {s.name.lower().replace("_", " ") for s in status if s is not FitStatus.CONVERGED}
    r2 = one["r2"].values[solved]
    return RegionRow(
        number=number,
        name=str(one["region"].item()),
        reason="; ".join([str(one["reason"].item()), *_list_remarks(one, names)]),
        n_pixels=int(one["n_pixels"].item()),
        outcome=", ".join(sorted(bad)),
        r2=float(r2.min()) if r2.size else np.nan,
        strongest=_list_strongest(one, [i for i in used if i in solved]),
        suggested=_list_suggested(one["suggested"].values[used].tolist()),
    )


def _list_remarks(one: xr.Dataset, names: Sequence[str]) -> list[str]:
    """Why pixels were not fitted again; a store of before has none."""
    if "remark" not in one:
        return []
    texts = one["remark"].values.tolist()
    return [f"{name_detector(name)} {text}" for name, text in zip(names, texts, strict=True) if text]


def _list_strongest(one: xr.Dataset, used: Sequence[int]) -> tuple[Amount, ...]:
    if not used:
        return ()
    counts = one["amplitude"].values[used].sum(axis=0)
    sigma = np.sqrt((one["sigma"].values[used] ** 2).sum(axis=0))
    every = [
        Amount(name=shown_name(str(name)), counts=float(counts[i]), sigma=float(sigma[i]))
        for i, name in enumerate(one["component"].values)
        if str(name) not in SCATTER and counts[i] > 0
    ]
    return tuple(sorted(every, key=lambda a: -a.counts)[:_STRONGEST])


def _list_suggested(texts: Sequence[str]) -> tuple[str, ...]:
    """Names with the largest z of any detector, the surest first."""
    surest: dict[str, float] = {}
    for found in (s for text in texts for s in json.loads(text or "[]")):
        surest[str(found["name"])] = max(float(found["z"]), surest.get(str(found["name"]), 0.0))
    return tuple(f"{name} (z {z:.0f})" for name, z in sorted(surest.items(), key=lambda s: -s[1]))
