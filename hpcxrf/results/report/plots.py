"""Figures of a results store. Pure functions: data in, matplotlib Figure out; no pyplot, no global state."""

from collections.abc import Sequence
from io import BytesIO
from typing import Final, Literal

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import CYCLE, FAINT, INK, NOT_FITTED, colour_limits
from hpcxrf.results.report.scales import nice_length
from hpcxrf.results.report.thumbnails import MapSummary, panel_aspect
from hpcxrf.results.report.views import write_greek

FloatArray = NDArray[np.float64]
Scale = Literal["log", "linear"]

COLOUR_MAP: Final = "viridis"


def draw_map_grid(summary: MapSummary, *, columns: int | None = None) -> Figure:
    """All components of one detector: counts a pixel, each map on its own colour scale.

    The scale of a map runs from its 1st to its 99th percentile; grey pixels were not fitted. The bar is the
    same length in every map.
    """
    n = len(summary.components)
    columns = columns or _count_columns(n, summary)
    rows = -(-n // columns)
    width = 11.0
    panel = width / columns
    height = rows * (panel * 0.80 / panel_aspect(summary) + 0.42) + 0.1
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(grid.flat):
        if index < n:
            _draw_map_panel(figure, axes, summary, index)
        else:
            axes.set_visible(False)
    return figure


def draw_spectrum_figure(
    spectrum: xr.Dataset, detector: str, scale: Scale, *, width: float = 11.0, height: float = 5.6
) -> Figure:
    """The integrated spectrum of one detector with its fit, and the standardised residual under it.

    Args:
        spectrum: Group `spectrum` of a results store; its attribute `line_markers` names the lines.
        detector: Name on the detector axis.
        scale: Of the counts axis.
        width: Inches.
        height: Inches.
    """
    one = spectrum.sel(detector=detector).load()
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    main, strip = figure.subplots(2, 1, sharex=True, height_ratios=(4.2, 1.0))
    _draw_counts(main, one, scale)
    _draw_markers(main, _select_markers(spectrum, one), _assign_colours(one))
    _draw_residual(strip, one)
    _draw_legend(figure, main)
    return figure


def standardised_residual(counts: FloatArray, model: FloatArray) -> FloatArray:
    """(counts - model) / sqrt(model), the noise that the model predicts; a model below 1 counts as 1."""
    return (counts - model) / np.sqrt(np.maximum(model, 1.0))


def encode(figure: Figure, *, dpi: float = 110, quality: int = 85, kind: str = "webp") -> bytes:
    """The figure as a picture file, `webp` or `png`."""
    stream = BytesIO()
    options = {"quality": quality, "method": 4} if kind == "webp" else {"optimize": True}
    figure.savefig(stream, format=kind, dpi=dpi, pil_kwargs=options)
    return stream.getvalue()


def spread_labels(positions: FloatArray, gap: float, low: float, high: float) -> FloatArray:
    """Move sorted positions as little as it takes to be `gap` apart, within the limits where they fit."""
    if positions.size == 0:
        return positions
    gap = min(gap, (high - low) / max(positions.size - 1, 1))
    steps = gap * np.arange(positions.size)
    # Neighbours at least `gap` apart = positions minus steps never falling: isotonic regression.
    level = np.clip(_make_isotonic(positions - steps), low, high - steps[-1])
    return level + steps


def _make_isotonic(values: FloatArray) -> FloatArray:
    """Nearest non-decreasing sequence (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            earlier, number = pools.pop()
            mean = (mean * size + earlier * number) / (size + number)
            size += number
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools])


def _count_columns(n: int, summary: MapSummary) -> int:
    wanted = 5 if panel_aspect(summary) < 1.8 else 4 if panel_aspect(summary) < 3 else 3
    return max(1, min(n, wanted))


def _draw_map_panel(figure: Figure, axes: Axes, summary: MapSummary, index: int) -> None:
    picture = summary.pictures[index]
    low, high = colour_limits(picture)
    colours = colormaps[COLOUR_MAP].with_extremes(bad=NOT_FITTED)
    norm = Normalize(low, high)
    width, height = _extent(summary)
    axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=colours,
        norm=norm,
        extent=(0.0, width, height, 0.0),
        interpolation="nearest",
        aspect="auto",
    )
    axes.set_box_aspect(1 / panel_aspect(summary))
    axes.set(xticks=[], yticks=[])
    found = bool(summary.found[index])
    name = shown_name(summary.components[index])
    axes.set_title(
        name if found else f"{name} (not found)",
        fontsize=10.5,
        fontweight="bold" if found else "normal",
        parse_math=False,
        color=INK if found else FAINT,
        pad=3,
    )
    beside = axes.inset_axes((1.025, 0.0, 0.045, 1.0))
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=beside)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.ax.tick_params(labelsize=7.5, length=2, colors=INK)
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)
    if not np.isfinite(picture).any():
        axes.text(0.5, 0.5, "not fitted", ha="center", va="center", transform=axes.transAxes)
    _draw_scale_bar(axes, width, height, "µm" if summary.step_um else "px")


def _extent(summary: MapSummary) -> tuple[float, float]:
    """Width and height of the scan, in micrometres or pixels."""
    step_y, step_x = summary.step_um or (1.0, 1.0)
    return summary.shape_yx[1] * step_x, summary.shape_yx[0] * step_y


def _draw_scale_bar(axes: Axes, width: float, height: float, unit: str) -> None:
    length = nice_length(width)
    amount, unit = (length / 1000, "mm") if unit == "µm" and length >= 1000 else (length, unit)
    left, bottom = 0.04 * width, 0.95 * height
    thick = 0.02 * height
    for grow, colour in ((0.012, "black"), (0.0, "white")):
        axes.add_patch(
            Rectangle(
                (left - grow * width / 2, bottom - thick - grow * height / 2),
                length + grow * width,
                thick + grow * height,
                facecolor=colour,
                edgecolor="none",
                alpha=0.55 if grow else 1.0,
            )
        )
    text = axes.text(
        left + length / 2,
        bottom - 2.0 * thick,
        f"{amount:g} {unit}",
        color="white",
        fontsize=9,
        ha="center",
        va="bottom",
    )
    text.set_path_effects([withStroke(linewidth=1.8, foreground="black", alpha=0.55)])


def _assign_colours(one: xr.Dataset) -> dict[str, str]:
    names = [str(name) for name in one["component"].values]
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(names)}


def _draw_counts(axes: Axes, one: xr.Dataset, scale: Scale) -> None:
    energy, counts, model = (one[name].values for name in ("energy_kev", "counts", "model"))
    fitted = np.isfinite(model)
    floor = max(0.5, 0.3 * float(np.nanmin(counts[fitted], initial=np.inf))) if fitted.any() else 0.5
    shown = np.where(counts > 0, counts, np.nan) if scale == "log" else counts
    for name, colour in _assign_colours(one).items():
        part = one["component_counts"].sel(component=name).values
        visible = np.where(part > (floor if scale == "log" else 0), part, np.nan)
        axes.plot(energy, visible, color=colour, lw=0.9, alpha=0.85)
    axes.plot(energy, one["background"].values, color=FAINT, lw=1.2, ls="--", label="background")
    axes.plot(energy, shown, ".", color=INK, ms=2.2, label="counts", zorder=3)
    axes.plot(energy, model, color="#c1121f", lw=1.1, label="fit", zorder=4)
    axes.set_ylabel("counts per channel")
    peak = float(np.nanmax(counts[fitted], initial=1.0)) if fitted.any() else 1.0
    if scale == "log":
        axes.set_yscale("log")
        axes.set_ylim(floor, max(peak, 10 * floor) * 2)
    else:
        axes.set_ylim(0, peak * 1.06)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 4), useMathText=True)
    if fitted.any():
        axes.set_xlim(float(energy[fitted][0]), float(energy[fitted][-1]))
    _tidy(axes)


def _select_markers(spectrum: xr.Dataset, one: xr.Dataset) -> list[tuple[float, str]]:
    """Markers inside the fit range, by energy."""
    energy = one["energy_kev"].values[np.isfinite(one["model"].values)]
    if energy.size == 0:
        return []
    markers = [(float(at), str(label)) for at, label in spectrum.attrs.get("line_markers", [])]
    return sorted(marker for marker in markers if energy[0] <= marker[0] <= energy[-1])


def _draw_markers(axes: Axes, markers: Sequence[tuple[float, str]], colours: dict[str, str]) -> None:
    """Ticks at the lines with their names above the frame, moved apart where they would collide."""
    low, high = axes.get_xlim()
    at = np.array([energy for energy, _ in markers])
    places = spread_labels(at, 0.0150 * (high - low), low, high)
    transform = axes.get_xaxis_transform()
    for (energy, label), place in zip(markers, places, strict=True):
        colour = colours.get(label.split(" ")[0], INK)
        line = ([energy, energy, place], [0.0, 1.0, 1.035])
        axes.plot(*line, color=colour, transform=transform, clip_on=False, lw=0.6, alpha=0.4, zorder=0)
        axes.text(
            place,
            1.045,
            write_greek(label),
            parse_math=False,
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=colour,
            transform=transform,
        )


def _draw_legend(figure: Figure, axes: Axes) -> None:
    """Draw the legend under the figure: inside it there is always a peak in the way."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=len(labels), fontsize=8, frameon=False)


def _draw_residual(axes: Axes, one: xr.Dataset) -> None:
    energy = one["energy_kev"].values
    residual = standardised_residual(one["counts"].values, one["model"].values)
    axes.axhspan(-2, 2, color="#e8edf3", lw=0)
    axes.axhline(0, color=FAINT, lw=0.7)
    axes.plot(energy, residual, ".", ms=1.8, color=INK)
    finite = residual[np.isfinite(residual)]
    reach = float(np.clip(np.percentile(np.abs(finite), 99.5) * 1.2, 4, None)) if finite.size else 4
    axes.set_ylim(-reach, reach)
    axes.set(xlabel="energy (keV)", ylabel="residual / σ")
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)
