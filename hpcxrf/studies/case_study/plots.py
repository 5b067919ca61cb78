"""Figures of a case study, after those of the published one. Pure functions: data in, matplotlib Figure out."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import CYCLE, FAINT, INK, NOT_FITTED
from hpcxrf.results.report.plots import COLOUR_MAP, spread_labels
from hpcxrf.studies.case_study.fits import StudyFits
from hpcxrf.studies.case_study.tables import LEAST_TRUE, StudyData, mask_solved, select_amplitude

FloatArray = NDArray[np.float64]

COLOURS: Final[Mapping[str, str]] = {
    "product": CYCLE[0],
    "linear": CYCLE[5],
    "poisson": CYCLE[0],
    "full": CYCLE[2],
    "separable": CYCLE[2],
    "adam": CYCLE[1],
    "adam-guessed": CYCLE[1],
    "sbplx": CYCLE[3],
    "sbplx-guessed": CYCLE[3],
}
_MARKERS: Final[Mapping[str, str]] = {
    "adam": "s",
    "adam-guessed": "D",
    "sbplx": "^",
    "sbplx-guessed": "v",
    "linear": "D",
    "full": "v",
}
"""Markers beside the colour; every other method has a disc."""
SHOWN: Final[Mapping[str, str]] = {
    "product": "hpcxrf",
    "separable": "hpcxrf's engine, same starts",
    "linear": "hpcxrf linear",
    "poisson": "hpcxrf poisson",
    "full": "hpcxrf full",
    "adam": "Adam",
    "adam-guessed": "Adam, amplitudes guessed",
    "sbplx": "NLopt SBPLX",
    "sbplx-guessed": "NLopt SBPLX, amplitudes guessed",
}
_COUNTS: Final = "#9aa1ab"
_LOWEST: Final = 1e-6
_GOOD: Final = 0.01
_WIDTH: Final = 11.0


def draw_first_pass(data: StudyData) -> Figure:
    """The spectrum of the scan with the fit of each method; of random starts the one of median R2 is drawn."""
    methods = [m for g, m in data.fits if g == "first-pass"]
    figure = _make_figure(2.35 * len(methods) + 0.5)
    grid = figure.subplots(len(methods), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, method in zip(grid, methods, strict=True):
        fits = data.fits["first-pass", method]
        one = find_median_fit(fits)
        _draw_spectrum(axes, data, data.spectra["whole"][0], {method: fits.model[one]})
        which = "" if len(fits.r2) == 1 else f", start of median R² of {len(fits.r2)}"
        _set_title(axes, f"{SHOWN[method]}: R² {fits.r2[one]:.5f}{which}")
    _draw_names(grid[0], data)
    grid[0].set_title(grid[0].get_title(loc="left"), loc="left", fontsize=10, color=INK, pad=34)
    grid[-1].set_xlabel("energy (keV)")
    return figure


def find_median_fit(fits: StudyFits) -> int:
    """Index of the fit of median R2, a failure counting as the worst."""
    order = np.argsort(np.where(mask_solved(fits), fits.r2, -np.inf), kind="stable")
    return int(order[len(order) // 2])


def draw_misfits(data: StudyData) -> Figure:
    """1 - R2 of every first pass: from the random starts on one scan, and on the scans of the trials."""
    groups = {"first-pass": "one scan, random starts", "trials": "trials, each another scan"}
    shown = {g: t for g, t in groups.items() if any(name == g for name, _ in data.fits)}
    figure = _make_figure(3.4)
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (group, title) in zip(grid, shown.items(), strict=True):
        methods = [m for g, m in data.fits if g == group]
        for place, method in enumerate(methods):
            _draw_misfit_points(axes, data.fits[group, method], place, method)
        axes.axhline(_GOOD, color=FAINT, lw=1.0, ls="--")
        axes.text(-0.45, _GOOD, "R² 0.99", va="bottom", ha="left", fontsize=8, color=INK)
        names = [SHOWN[m].replace("hpcxrf's engine", "engine").replace(", ", ",\n") for m in methods]
        axes.set_xticks(range(len(methods)), [name.replace("NLopt ", "") for name in names])
        axes.set_xlim(-0.5, len(methods) - 0.5)
        axes.set_yscale("log")
        _set_title(axes, title)
        _tidy(axes)
    grid[0].set_ylabel("1 − R²  (lower is better)")
    return figure


def _draw_misfit_points(axes: Axes, fits: StudyFits, place: int, method: str) -> None:
    good = mask_solved(fits)
    misfit = np.maximum(1.0 - fits.r2[good], _LOWEST)
    spread = np.linspace(-0.28, 0.28, misfit.size) if misfit.size > 1 else np.zeros(misfit.size)
    axes.plot(place + spread, misfit, _MARKERS.get(method, "o"), color=COLOURS[method], ms=5, alpha=0.75, mew=0)
    if misfit.size > 1:
        axes.plot([place - 0.35, place + 0.35], [np.median(misfit)] * 2, color=INK, lw=1.4)
    if not good.all():
        words = f"{np.count_nonzero(~good)} failed"
        axes.text(place, 0.97, words, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8)


def draw_regions(data: StudyData) -> Figure:
    """The summed spectrum of every region with the fits of all methods."""
    figure = _make_figure(2.7 * len(data.boxes) + 0.6)
    grid = figure.subplots(len(data.boxes), 1, sharex=True, squeeze=False)[:, 0]
    for region, axes in enumerate(grid):
        fits = {m: f for (g, m), f in data.fits.items() if g == f"region-{region}"}
        _draw_spectrum(axes, data, data.spectra[f"region-{region}"][0], {m: f.model[0] for m, f in fits.items()})
        scores = ", ".join(f"{SHOWN[m]} {f.r2[0]:.5f}" for m, f in fits.items())
        _set_title(axes, f"{region_name(data, region)}; R²: {scores}")
    _finish(figure, grid, data)
    return figure


def draw_pixels(data: StudyData) -> Figure:
    """One pixel of every region with the fits of all methods: that of median counts of those that all fitted."""
    figure = _make_figure(2.7 * len(data.boxes) + 0.6)
    grid = figure.subplots(len(data.boxes), 1, sharex=True, squeeze=False)[:, 0]
    for region, axes in enumerate(grid):
        chosen = data.chosen[region]
        counts = data.spectra[f"pixels-{region}"][chosen]
        order = np.argsort(counts.sum(axis=1), kind="stable")
        one = int(order[len(order) // 2])
        fits = {
            m: f.model[one]
            for (g, m), f in data.fits.items()
            if g == f"single-pixels-{region}" and m in {"poisson", "adam", "sbplx"}
        }
        _draw_spectrum(axes, data, counts[one], fits, ticks=(0, 1, 3, 10, 30, 100))
        y, x = locate_pixel(data, region, int(chosen[one]))
        _set_title(axes, f"pixel y {y}, x {x} in {region_name(data, region)}: {counts[one].sum():.0f} counts")
    _finish(figure, grid, data)
    return figure


def locate_pixel(data: StudyData, region: int, pixel: int) -> tuple[int, int]:
    """Row and column in the scan of a pixel counted along the rows of its region."""
    rows, columns = data.boxes[region]
    down, right = divmod(pixel, columns.stop - columns.start)
    return rows.start + down, columns.start + right


def region_name(data: StudyData, region: int) -> str:
    """Name of a region on the page."""
    y, x = data.boxes[region]
    return f"region {region + 1} (y {y.start}–{y.stop - 1}, x {x.start}–{x.stop - 1})"


def draw_maps(data: StudyData) -> Figure:
    """The traces over the whole scan: truth and the maps of the product, one scale for each row."""
    whole = (slice(None), slice(None))
    methods = list(dict.fromkeys(m for m, _ in data.maps))
    columns = {"truth": dict(data.truth), **{SHOWN[m]: {t: data.maps[m, t] for t in data.traces} for m in methods}}
    figure, grid = _draw_map_grid(data, columns, whole)
    for number, (y, x) in enumerate(data.boxes, start=1):
        for axes in grid:
            _draw_box(axes, y, x, number)
    return figure


def draw_compared_maps(data: StudyData, region: int) -> Figure:
    """The traces in one region: truth, the product and the published methods, one scale for each row."""
    box = data.boxes[region]
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    columns: dict[str, dict[str, FloatArray]] = {"truth": {t: data.truth[t][box] for t in data.traces}}
    for method in dict.fromkeys(m for m, _ in data.maps):
        columns[SHOWN[method]] = {t: data.maps[method, t][box] for t in data.traces}
    for (group, method), fits in data.fits.items():
        if group == f"map-{region}":
            good = mask_solved(fits)
            columns[SHOWN[method]] = {
                t: np.where(good, select_amplitude(fits, t), np.nan).reshape(shape) for t in data.traces
            }
    return _draw_map_grid(data, columns, box)[0]


def _draw_map_grid(
    data: StudyData, columns: Mapping[str, Mapping[str, FloatArray]], box: tuple[slice, slice]
) -> tuple[Figure, list[Axes]]:
    n_y, n_x = data.truth[data.traces[0]][box].shape
    panel = (_WIDTH - 1.0) / len(columns)
    figure = _make_figure(len(data.traces) * (panel * n_y / n_x + 0.22) + 0.3)
    ratios = [1.0] * len(columns) + [0.04]
    grid = figure.subplots(len(data.traces), len(columns) + 1, squeeze=False, width_ratios=ratios)
    for row, trace in enumerate(data.traces):
        norm = Normalize(0.0, scale_top([one[trace] for one in columns.values()]))
        for axes, (name, maps) in zip(grid[row], columns.items(), strict=False):
            axes.imshow(maps[trace], cmap=_colour_map(), norm=norm, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(name if row == 0 else "", fontsize=10, color=INK)
            words = "" if name == "truth" else _format_error(maps[trace], columns["truth"][trace])
            axes.set_xlabel(words, fontsize=8, color=INK, labelpad=2)
        grid[row, 0].set_ylabel(shown_name(trace), fontsize=11, fontweight="bold", color=INK)
        bar = figure.colorbar(ScalarMappable(norm, _colour_map()), cax=grid[row, -1])
        bar.set_label("counts a pixel", fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=8, colors=INK)
        bar.outline.set_visible(False)
    return figure, list(grid[:, :-1].flat)


def _colour_map() -> Colormap:
    return colormaps[COLOUR_MAP].with_extremes(bad=NOT_FITTED)


def scale_top(maps: Sequence[FloatArray]) -> float:
    """Top of a common scale: 99th percentile of the truth, which is first, and of the next, whichever is higher."""
    tops = [np.nanpercentile(one, 99.0) for one in maps[:2]]
    return float(max(*tops, 1.0))


def _format_error(fitted: FloatArray, true: FloatArray) -> str:
    good = np.isfinite(fitted)
    if not good.any():
        return "no fit"
    error, mean = fitted[good] - true[good], float(true[good].mean())
    bias = f"bias {100.0 * error.mean() / mean:+.1f} %" if mean >= LEAST_TRUE else f"mean {error.mean():+.2f}"
    return f"{bias}, rms error {np.sqrt((error**2).mean()):.1f}"


def _draw_box(axes: Axes, y: slice, x: slice, number: int) -> None:
    size = (x.stop - x.start, y.stop - y.start)
    axes.add_patch(Rectangle((x.start - 0.5, y.start - 0.5), *size, fill=False, edgecolor="white", lw=1.1))
    text = axes.text(x.stop, y.start, str(number), color="white", fontsize=8, va="bottom")
    text.set_path_effects([withStroke(linewidth=1.8, foreground="black", alpha=0.6)])


def _draw_spectrum(
    axes: Axes,
    data: StudyData,
    counts: FloatArray,
    models: Mapping[str, NDArray[np.floating]],
    ticks: Sequence[int] = (),
) -> None:
    """Counts and models as log10(counts + 1), the published axis; within the fit range."""
    fitted = np.isfinite(np.stack(list(models.values()))).any(axis=0)
    inside = np.flatnonzero(fitted) if fitted.any() else np.arange(counts.size)
    energy = data.energy_kev[inside]
    axes.fill_between(energy, np.log10(counts[inside] + 1.0), step="mid", color=_COUNTS, alpha=0.55, lw=0)
    axes.plot(energy, np.log10(counts[inside] + 1.0), drawstyle="steps-mid", color=_COUNTS, lw=0.7, label="counts")
    for method, model in models.items():
        shown = np.log10(np.maximum(model[inside], 0.0) + 1.0)
        axes.plot(energy, shown, color=COLOURS[method], lw=1.25, alpha=0.9, label=SHOWN[method])
    axes.set_xlim(float(energy[0]), float(energy[-1]))
    axes.set_ylim(0, None)
    if ticks:
        top = axes.get_ylim()[1]
        used = [t for t in ticks if np.log10(t + 1.0) <= top]
        axes.set_yticks([np.log10(t + 1.0) for t in used], [str(t) for t in used])
        axes.set_ylabel("counts (log scale of counts + 1)")
    else:
        axes.set_ylabel("log₁₀(counts + 1)")
    for energy_kev, _ in data.markers:
        if energy[0] <= energy_kev <= energy[-1]:
            axes.axvline(energy_kev, color=FAINT, lw=0.6, ls=":", zorder=0)
    _tidy(axes)


def _draw_names(axes: Axes, data: StudyData) -> None:
    """Names of the lines above the frame, moved apart where they would collide."""
    low, high = axes.get_xlim()
    found = sorted(m for m in data.markers if low <= m[0] <= high)
    places = spread_labels(np.array([e for e, _ in found]), 0.022 * (high - low), low, high)
    transform = axes.get_xaxis_transform()
    for (_, name), place in zip(found, places, strict=True):
        axes.text(
            place,
            1.03,
            shown_name(name),
            transform=transform,
            fontsize=8,
            rotation=60,
            ha="left",
            va="bottom",
            color=INK,
            parse_math=False,
        )


def _finish(figure: Figure, grid: NDArray[np.object_], data: StudyData) -> None:
    first: Axes = grid[0]
    _draw_names(first, data)
    first.set_title(first.get_title(loc="left"), loc="left", fontsize=10, color=INK, pad=34)
    grid[-1].set_xlabel("energy (keV)")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=len(labels), fontsize=8.5, frameon=False)


def _set_title(axes: Axes, words: str) -> None:
    axes.set_title(words, loc="left", fontsize=10, color=INK)


def _make_figure(height: float) -> Figure:
    return Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)
