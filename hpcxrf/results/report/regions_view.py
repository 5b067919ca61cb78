"""Regions in the report: a picture of their places, and a row for each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from hpcxrf.fitting.result import FitStatus
from hpcxrf.physics.model import SCATTER
from hpcxrf.results.names import shown_name
from hpcxrf.results.report.plots import CYCLE, INK, colour_limits, select_most_visible
from hpcxrf.results.report.thumbnails import MapSummary

_STRONGEST: Final = 4
_SUM: Final = "sum"
NOT_REFINED: Final = "not run"
"""Outcome of a region that was not to be refined."""
_SOLVED: Final = (FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Counts of one component with their standard uncertainty."""

    name: str
    counts: float
    sigma: float


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


def draw_region_figure(summary: MapSummary, label: NDArray[np.uint16]) -> Figure:
    """Every layer of the label image over the map that shows most; numbers are those of the table.

    Args:
        summary: of one detector.
        label: (layer, y, x) of the scan, regions counted from 1.
    """
    name = choose_base_map(summary)
    base = summary.pictures[summary.components.index(name)]
    columns = min(len(label), 3)
    rows = -(-len(label) // columns)
    step_y, step_x = summary.step_um or (1.0, 1.0)
    shape = float(np.clip(label.shape[1] * step_y / (label.shape[2] * step_x), 0.25, 3.0))
    width = 11.0 / 3
    figure = Figure(figsize=(width * columns, rows * (width * shape + 0.1)), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(label) :]:
        axes.set_visible(False)
    for axes, layer in zip(grid.flat, label, strict=False):
        low, high = colour_limits(base)
        extent = (0.0, float(label.shape[2]), float(label.shape[1]), 0.0)
        axes.imshow(base, cmap="gray_r", vmin=low, vmax=high, extent=extent, aspect="auto")
        _draw_layer(axes, layer, summary.factor, extent)
        axes.set_box_aspect(shape)
        axes.set(xticks=[], yticks=[])
    return figure


def choose_base_map(summary: MapSummary) -> str:
    """Component under the regions in their picture."""
    return select_most_visible(summary, 1)[0]


def _draw_layer(axes: Axes, layer: NDArray[np.uint16], factor: int, extent: tuple[float, float, float, float]) -> None:
    thin = layer[::factor, ::factor]
    colours = ListedColormap([CYCLE[i % len(CYCLE)] for i in range(int(layer.max(initial=1)))])
    axes.imshow(
        np.ma.masked_equal(thin, 0),
        cmap=colours,
        vmin=1,
        vmax=max(colours.N, 2),
        alpha=0.5,
        extent=extent,
        interpolation="nearest",
        aspect="auto",
    )
    for number in np.unique(thin[thin > 0]).tolist():
        y, x = _find_inner_pixel(thin == number)
        text = axes.text(
            (x + 0.5) * factor,
            (y + 0.5) * factor,
            str(number),
            color="white",
            fontsize=11,
            fontweight="bold",
            ha="center",
            va="center",
        )
        text.set_path_effects([withStroke(linewidth=2.5, foreground=INK)])


def _find_inner_pixel(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """A pixel (y, x) as far inside the region as any: what is left when its rim is taken away again and again."""
    left = np.pad(mask, 1)
    while left.any():
        mask = left
        near = (np.roll(left, shift, axis) for axis in (0, 1) for shift in (-1, 1))
        left = np.logical_and.reduce([left, *near])
    places = np.argwhere(mask)
    y, x = places[len(places) // 2]
    return int(y) - 1, int(x) - 1


def _build_row(one: xr.Dataset, number: int) -> RegionRow:
    status = [FitStatus(value) for value in one["status"].values.tolist()]
    names = [str(name) for name in one["detector"].values]
    solved = [i for i, s in enumerate(status) if s in _SOLVED]
    used = [names.index(_SUM)] if _SUM in names else solved
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
    return [f"detector {name} {text}" for name, text in zip(names, texts, strict=True) if text]


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
