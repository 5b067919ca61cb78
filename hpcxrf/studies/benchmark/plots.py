"""Figures of a benchmark: histograms of R2 and of CPU seconds."""

from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hpcxrf.results.report.colours import CYCLE, FAINT, INK
from hpcxrf.studies.arms import ARMS

FloatArray = NDArray[np.float64]

R2_BINS: Final = 25
"""Bins between 0 and 1; R2 below 0 is in one bin of its own to the left."""
_CPU_BINS_PER_DECADE: Final = 10
_PANELS_A_ROW: Final = 5


def draw_r2_histograms(data: xr.Dataset) -> Figure:
    """Histograms of R2: rows of panels for each task, the methods side by side, equal axes in a row.

    Args:
        data: of `hpcxrf.studies.benchmark.statistics.gather`.
    """
    tasks, methods = data["task"].values.tolist(), list_drawn(data)
    n_columns = min(len(methods), _PANELS_A_ROW)
    rows_a_task = -(-len(methods) // n_columns)
    n_rows = rows_a_task * len(tasks)
    figure = _make_figure(2.6 * n_rows + 0.3)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey="row")
    for number, task in enumerate(tasks):
        panels = grid[number * rows_a_task : (number + 1) * rows_a_task].ravel()
        for index, (axes, method) in enumerate(zip(panels, methods, strict=False)):
            one = data.sel({"task": task, "method": method})
            _draw_r2(axes, one["r2"].values[one["status"].values != 0], _colour(index))
            axes.set_title(f"{method}, {task}", fontsize=10, color=INK)
            axes.tick_params(labelbottom=True)
        for axes in panels[len(methods) :]:
            axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("share of datasets, %")
    for axes in grid[-1]:
        axes.set_xlabel("R²")
    return figure


def list_drawn(data: xr.Dataset) -> list[str]:
    """Methods that are drawn: all but the shorter searches, which have a table."""
    return [name for name in data["method"].values.tolist() if not ARMS[name].is_ablation]


def draw_cpu_histograms(data: xr.Dataset) -> Figure:
    """Histograms of CPU seconds on a logarithmic axis: a panel for each task, an outline for each method.

    Args:
        data: of `hpcxrf.studies.benchmark.statistics.gather`.
    """
    tasks, methods = data["task"].values.tolist(), list_drawn(data)
    figure = _make_figure(3.2)
    grid = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    bins = cpu_bins(data["cpu_s"].values)
    for axes, task in zip(grid, tasks, strict=True):
        for index, method in enumerate(methods):
            seconds = data["cpu_s"].sel({"task": task, "method": method}).values
            seconds = seconds[np.isfinite(seconds)]
            if seconds.size:
                shared = {"bins": bins, "weights": _shares(seconds, seconds.size), "color": _colour(index)}
                axes.hist(seconds, histtype="stepfilled", alpha=0.25, **shared)
                axes.hist(seconds, histtype="step", label=method, **shared)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("CPU seconds of a fit")
        axes.set_title(task, fontsize=10, color=INK)
        _tidy(axes)
    grid[0].set_ylabel("share of datasets, %")
    if any(axes.get_legend_handles_labels()[0] for axes in grid):
        grid[-1].legend(frameon=False, fontsize=9)
    return figure


def r2_bins() -> FloatArray:
    """Edges of the bins of R2; the first holds everything below 0."""
    step = 1.0 / R2_BINS
    return np.concatenate([[-2.0 * step], np.linspace(0.0, 1.0, R2_BINS + 1)])


def cpu_bins(seconds: FloatArray) -> FloatArray:
    """Edges of equal width in the logarithm that hold all positive seconds; one decade where there are none."""
    known = seconds[np.isfinite(seconds) & (seconds > 0.0)]
    low, high = (known.min(), known.max()) if known.size else (0.1, 1.0)
    first = np.floor(np.log10(low) * _CPU_BINS_PER_DECADE)
    last = max(np.ceil(np.log10(high) * _CPU_BINS_PER_DECADE), first + 1)
    edges: FloatArray = 10.0 ** (np.arange(first, last + 1) / _CPU_BINS_PER_DECADE)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def _draw_r2(axes: Axes, r2: FloatArray, colour: str) -> None:
    known = r2[np.isfinite(r2)]
    bins = r2_bins()
    axes.hist(known.clip(bins[0], 1.0), bins=bins.tolist(), weights=_shares(known, r2.size), color=colour, alpha=0.85)
    axes.set_xlim(bins[0], 1.0)
    axes.margins(y=0.3)  # room for the words
    axes.set_xticks([bins[0] / 2, 0.25, 0.5, 0.75, 1.0], ["<0", "0.25", "0.5", "0.75", "1"])
    median = f"median {np.median(known):.4f}" if known.size else "no fit"
    words = [f"n = {r2.size}", median]
    words += [f"failed {r2.size - known.size}"] if known.size < r2.size else []
    axes.text(0.05, 0.95, "\n".join(words), transform=axes.transAxes, va="top", fontsize=9, color=INK)
    _tidy(axes)


def _shares(values: FloatArray, number: int) -> FloatArray:
    """Weight of each value in a bar, in per cent of `number`: methods ran on different numbers of datasets."""
    return np.full(values.shape, 100.0 / max(number, 1))


def _make_figure(height: float) -> Figure:
    return Figure(figsize=(11.0, height), layout="constrained", facecolor="white")


def _colour(index: int) -> str:
    return CYCLE[index % len(CYCLE)]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
