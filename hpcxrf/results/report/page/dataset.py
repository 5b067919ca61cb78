"""The page of one dataset: maps, spectra, amplitudes, parameters. Written where the fit ran, not in the driver."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import xarray as xr
from markupsafe import Markup

from hpcxrf.notes import Note
from hpcxrf.results.names import SUM, shown_name
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.report import views
from hpcxrf.results.report.archive.facts import FitFacts
from hpcxrf.results.report.colours import HIGH_PERCENTILE, LOW_PERCENTILE
from hpcxrf.results.report.judgement import Judgement, find_worst_merit
from hpcxrf.results.report.misfits import BAD, LIMITS, TICKS, UNIT, Misfits, summarise_misfits
from hpcxrf.results.report.page.data import pack_json
from hpcxrf.results.report.page.densities import build_densities
from hpcxrf.results.report.page.head import LAYOUT, draw_thumbnail
from hpcxrf.results.report.page.layers import ShownMaps, build_scan_layers
from hpcxrf.results.report.page.look import DRAWING, allow_scripts, load_page_look, load_templates
from hpcxrf.results.report.page.maps import MapGrid, Scale, build_map_grid, choose_side, cover_percent
from hpcxrf.results.report.page.regions import (
    NOT_REFINED,
    RegionLayer,
    RegionRow,
    build_region_layers,
    build_region_rows,
    choose_base_map,
)
from hpcxrf.results.report.page.spectrum import Overlay, build_spectrum, list_overlays, read_highest
from hpcxrf.results.report.shifts import summarise_shifts
from hpcxrf.results.report.thumbnails import MapSummary, panel_aspect, summarise_maps
from hpcxrf.results.store.areal_density import GROUP as DENSITIES
from hpcxrf.results.store.storage import replace_file

# Every text between them is escaped, so that neither can occur in it.
_BEGIN: Final = "<!-- details begin -->"
_END: Final = "<!-- details end -->"
_QUALITY: Final = Scale(limits=LIMITS, ticks=TICKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """The driver's facts of one dataset; everything else is read from its results store."""

    dataset_id: str
    name: str
    source: str
    """File or files it was read from."""
    status: Literal["done", "failed", "not tried"]
    reason: str = ""
    """Why it failed, empty where it did not."""
    shape: tuple[int, int, int, int] | None = None
    """(detector, y, x, channel), None where the file could not be read."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    results_path: Path | None = None
    """Results store, None where there is none."""
    spectra_path: Path | None = None
    """Store of its spectra, None where it is not known."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files to link, by the word of the link; those that are not there are left out."""
    reason_kind: str = ""
    """The reason without names of files, by which equal ones are counted."""
    cpu_s: float = 0.0
    """CPU seconds of its tasks."""
    gpu_s: float = 0.0
    """Wall seconds of its tasks on GPUs."""
    date: str | None = None
    """When it was measured, ISO 8601; None: its file does not say."""
    source_format: str = ""
    """Name of the format of its file; empty where it is not known."""
    fits: tuple[FitFacts, ...] = ()
    """Fits of its detectors, for the trends of a run."""
    suggested: tuple[str, ...] = ()
    """Components that are not listed but present in the residual."""
    judgement: Judgement | None = None
    """What `read_judgement` says of the store; None: it is not known without reading the store."""
    notes: tuple[Note, ...] = ()
    """Guesses made, files ignored: sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionsPage:
    """The regions in the details of a dataset."""

    rows: tuple[RegionRow, ...]
    refined: bool
    layers: tuple[RegionLayer, ...]
    aspect: float
    """Width over height of a layer's picture."""
    cover_percent: tuple[float, float]
    """Width and height of a layer's pictures, percent of the scan's."""
    base: str
    """Component whose map is under the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPage:
    """One detector in the details of a dataset."""

    view: views.DetectorView
    maps: MapGrid
    shifts: MapGrid | None
    """Maps of the shifts of theta, where every pixel has its own."""
    quality: MapGrid | None
    """Map of how far the deviance is above noise; None: not known."""
    quality_caption: str
    caption: str
    misfits: str
    """Sentence on the peaks of the residual that suggested elements explain; empty without any."""
    shift_names: tuple[str, ...]
    spectrum: Markup | None
    """The integrated spectrum as JSON; None where nothing was fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """The details of a dataset."""

    html: str
    files: Mapping[str, str]
    """Side files by name relative to the folder of the page."""
    thumbnail: str


def write_dataset_page(summary: DatasetSummary, tree: xr.DataTree, path: Path) -> None:
    """Write the page of a dataset, readable from a file without a network; replaces an earlier one at once.

    What a large dataset's viewer shows beside the maps lies in files beside the page, in `<dataset>.files/`.

    Args:
        summary: of a dataset that is done.
        tree: its results store, open.
        path: the page.

    Raises:
        OutputError: `path` cannot be written.
    """
    details = _render_details(summary, tree)
    page = (
        load_templates()
        .get_template("dataset.html.j2")
        .render(
            summary=summary,
            begin=_BEGIN,
            end=_END,
            layout=LAYOUT,
            thumbnail=details.thumbnail,
            details=Markup(details.html),  # noqa: S704  rendered with autoescape
            policy=allow_scripts(has_side_files=bool(details.files)),
            **load_page_look(*DRAWING),
        )
    )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _write_side_files(path.parent, f"{summary.dataset_id}.files", details.files)
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def _write_side_files(folder: Path, own: str, files: Mapping[str, str]) -> None:
    """Write the side files of a page, none of an earlier one stays."""
    if not files:
        shutil.rmtree(folder / own, ignore_errors=True)
        return
    (folder / own).mkdir(mode=0o700, exist_ok=True)
    for name, text in files.items():
        with replace_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    for old in (folder / own).iterdir():
        if f"{own}/{old.name}" not in files:
            old.unlink()


def read_details(path: Path) -> str:
    """The details of a dataset from its page, as HTML to be put into another page.

    Raises:
        OSError: the page cannot be read.
        ValueError: it is not a page of `write_dataset_page`.
    """
    text = path.read_text(encoding="utf-8")
    return text[text.index(_BEGIN) + len(_BEGIN) : text.index(_END)]


def _render_details(summary: DatasetSummary, tree: xr.DataTree) -> _Details:
    # Every array of these groups is shown: read once, not once a detector and table.
    for group in ("spectrum", "parameters", "regions"):
        if group in tree.children:
            tree[group].load()
    maps = tree["maps"].to_dataset()
    factors = tree.attrs.get("count_factor", {})
    side = choose_side((maps.sizes["y"], maps.sizes["x"]), maps.sizes["component"])
    summaries = [
        summarise_maps(maps, name, side=side, photon_variance=read_photon_variance(maps, name, factors.get(name, 1.0)))
        for name in map(str, maps["detector"].values)
    ]
    # The sum where there is one, which is the first, or in older stores the last: on it regions were found.
    shown = next((one for one in summaries if one.detector == SUM), summaries[0])
    regions = None
    if "regions" in tree.children:
        regions = _build_regions(tree["regions"].to_dataset(), shown)
    rows = () if regions is None else regions.rows
    pages = [
        _build_detector(tree, maps, one, overlays)
        for one, overlays in zip(summaries, _list_overlays(summary, tree, summaries, rows), strict=True)
    ]
    layers = build_scan_layers(
        summary.name,
        summary.dataset_id,
        [
            ShownMaps(
                summary=one, maps=page.maps, shifts=page.shifts, shift_names=page.shift_names, quality=page.quality
            )
            for one, page in zip(summaries, pages, strict=True)
        ],
        tree,
        [{"number": row.number, "name": row.name, "n_pixels": row.n_pixels, "reason": row.reason} for row in rows],
    )
    html = (
        load_templates()
        .get_template("details.html.j2")
        .render(
            summary=summary,
            merit=find_worst_merit(tree["spectrum"].to_dataset()),
            pages=pages,
            scan=pack_json(layers.description),
            regions=regions,
            normalised=tree["normalised"].attrs["normalisation"] if "normalised" in tree.children else "",
            densities=build_densities(tree[DENSITIES].to_dataset()) if DENSITIES in tree.children else None,
        )
    )
    return _Details(
        html=html,
        files=layers.files,
        thumbnail=draw_thumbnail(shown, next(page.maps for page in pages if page.view.name == shown.detector)),
    )


def _list_overlays(
    summary: DatasetSummary, tree: xr.DataTree, shown: Sequence[MapSummary], rows: Sequence[RegionRow]
) -> list[list[Overlay]]:
    """Spectra over the integrated ones, of each detector; those of the regions over one of them."""
    regions = tree["regions"].to_dataset() if "regions" in tree.children else None
    highest = {} if summary.spectra_path is None else read_highest(summary.spectra_path)
    names = [f"region {row.number}, {row.name}" for row in rows]
    detectors = [one.detector for one in shown]
    chosen = SUM if SUM in detectors else detectors[0]
    return [list_overlays(name, highest, regions if name == chosen else None, names) for name in detectors]


def _build_regions(regions: xr.Dataset, summary: MapSummary) -> RegionsPage:
    rows = build_region_rows(regions)
    return RegionsPage(
        rows=rows,
        refined=any(row.outcome != NOT_REFINED for row in rows),
        base=shown_name(choose_base_map(summary)),
        layers=build_region_layers(summary, regions["label"].values),
        aspect=panel_aspect(summary),
        cover_percent=cover_percent(summary),
    )


def _build_detector(
    tree: xr.DataTree, maps: xr.Dataset, summary: MapSummary, overlays: Sequence[Overlay]
) -> DetectorPage:
    view = views.build_detector_view(tree, summary)
    grid = build_map_grid(summary, unit="counts")
    shifts = summarise_shifts(maps, summary)
    moved = None if shifts is None else build_map_grid(shifts, unit="")
    misfits = summarise_misfits(maps, summary)
    quality = None if misfits is None else build_map_grid(misfits.summary, unit=UNIT, scale=_QUALITY)
    spectrum = build_spectrum(tree["spectrum"].to_dataset(), summary.detector, overlays)
    return DetectorPage(
        view=view,
        misfits=views.describe_misfits(view.suggested),
        maps=grid,
        shifts=moved,
        quality=quality,
        quality_caption="" if misfits is None else _describe_misfits(misfits),
        caption=_write_caption(summary.factor, known_positions=summary.step_um is not None),
        spectrum=None if spectrum is None else pack_json(spectrum),
        shift_names=() if shifts is None else shifts.components,
    )


def _describe_misfits(misfits: Misfits) -> str:
    median, bad = views.format_number(misfits.median, 2), views.format_fixed(100 * misfits.bad_share, 1)
    return f"The median is {median}; {bad} % of the pixels are above {BAD:.0f}, of right fits some 0.3 %."


def _write_caption(factor: int, *, known_positions: bool) -> str:
    sentences = [
        "Recorded counts per pixel.",
        f"Colours run linearly from the {LOW_PERCENTILE:.0f}st to the {HIGH_PERCENTILE:.0f}th "
        "percentile of each map; grey pixels were not fitted.",
    ]
    if factor > 1:
        sentences.append(f"One point is the mean of {factor} × {factor} pixels.")
    if not known_positions:
        sentences.append("The file gives no positions: the scale bar is in pixels.")
    return " ".join(sentences)
