"""The page of one dataset: maps, spectra, amplitudes, parameters. Drawn where the fit ran, not in the driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import xarray as xr
from markupsafe import Markup

from hpcxrf.notes import Note
from hpcxrf.results.names import shown_name
from hpcxrf.results.report import plots, views
from hpcxrf.results.report.page import Picture, encode_picture, load_page_look, load_templates
from hpcxrf.results.report.regions_view import (
    NOT_REFINED,
    RegionRow,
    build_region_rows,
    choose_base_map,
    draw_region_figure,
)
from hpcxrf.results.report.shifts import summarise_shifts
from hpcxrf.results.report.thumbnails import MapSummary, summarise_maps
from hpcxrf.results.store.maps import open_results
from hpcxrf.results.store.storage import replace_file

DETECTOR_BYTES: Final = 1_000_000
"""Largest size of the pictures of one detector."""

# Every text between them is escaped, so that neither can occur in it.
_BEGIN: Final = "<!-- details begin -->"
_END: Final = "<!-- details end -->"


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
    judgement: tuple[views.Merit | None, tuple[str, ...]] | None = None
    """What `read_merit_and_flags` says of the store; None: it is not known without reading the store."""
    notes: tuple[Note, ...] = ()
    """Guesses made, files ignored: sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionsPage:
    """The regions in the details of a dataset."""

    rows: tuple[RegionRow, ...]
    refined: bool
    picture: Picture
    base: str
    """Component whose map is under the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPage:
    """One detector in the details of a dataset."""

    view: views.DetectorView
    maps: Picture
    caption: str
    spectrum_log: Picture
    spectrum_linear: Picture
    misfits: str
    """Sentence on the peaks of the residual that suggested elements explain; empty without any."""
    shifts: Picture | None
    """Maps of the shifts of theta, where every pixel has its own."""


def write_dataset_page(summary: DatasetSummary, path: Path) -> None:
    """Write the page of a dataset, readable from a file without a network; replaces an earlier one at once.

    Args:
        summary: of a dataset that is done, with its results store.
        path: the page.

    Raises:
        OutputError: the store cannot be read, or `path` cannot be written.
    """
    page = (
        load_templates()
        .get_template("dataset_page.html.j2")
        .render(
            summary=summary,
            begin=_BEGIN,
            end=_END,
            details=Markup(_draw_details(summary)),  # noqa: S704  rendered with autoescape
            **load_page_look(),
        )
    )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def read_details(path: Path) -> str:
    """The details of a dataset from its page, as HTML to be put into another page.

    Raises:
        OSError: the page cannot be read.
        ValueError: it is not a page of `write_dataset_page`.
    """
    text = path.read_text(encoding="utf-8")
    return text[text.index(_BEGIN) + len(_BEGIN) : text.index(_END)]


def read_merit_and_flags(path: Path) -> tuple[views.Merit | None, tuple[str, ...]]:
    """Merit of the detector that fits worst by verdict, then by R2, and the warnings.

    Raises:
        OutputError: the store cannot be read.
    """
    with open_results(path) as tree:
        return _find_worst_merit(tree), views.list_flags(tree)


def _find_worst_merit(tree: xr.DataTree) -> views.Merit | None:
    found = views.read_merits(tree["spectrum"].to_dataset())
    return min(found.values(), key=lambda merit: (-merit.verdict, merit.r2), default=None)


def _draw_details(summary: DatasetSummary) -> str:
    if summary.results_path is None:
        raise ValueError(f"{summary.dataset_id}: has no results to draw")
    with open_results(summary.results_path) as tree:
        merit = _find_worst_merit(tree)
        maps = tree["maps"].to_dataset()
        summaries = [summarise_maps(maps, str(detector)) for detector in maps["detector"].values]
        pages = [_draw_detector(tree, one, summary.name) for one in summaries]
        regions = None
        if "regions" in tree.children:
            regions = _draw_regions(tree["regions"].to_dataset(), summaries[-1], summary.name)
        template = load_templates().get_template("report_dataset.html.j2")
        return template.render(summary=summary, merit=merit, pages=pages, regions=regions)


def _draw_regions(regions: xr.Dataset, summary: MapSummary, name: str) -> RegionsPage:
    figure = draw_region_figure(summary, regions["label"].values)
    rows = build_region_rows(regions)
    return RegionsPage(
        rows=rows,
        refined=any(row.outcome != NOT_REFINED for row in rows),
        base=shown_name(choose_base_map(summary)),
        picture=encode_picture(figure, f"regions of {name}", DETECTOR_BYTES // 4),
    )


def _draw_detector(tree: xr.DataTree, summary: MapSummary, name: str) -> DetectorPage:
    detector = summary.detector
    spectrum = tree["spectrum"].to_dataset()
    title = f"{name}, detector {detector}"
    shifts = summarise_shifts(tree["maps"].to_dataset(), summary)
    view = views.build_detector_view(tree, summary)
    # Half of the share to the maps, a quarter to each of the two spectra.
    return DetectorPage(
        view=view,
        misfits=views.describe_misfits(view.suggested),
        maps=encode_picture(plots.draw_map_grid(summary), f"maps of {title}", DETECTOR_BYTES // 2),
        shifts=None
        if shifts is None
        else encode_picture(plots.draw_map_grid(shifts), f"shifts of theta of {title}", DETECTOR_BYTES // 4),
        caption=_write_caption(summary.factor, known_positions=summary.step_um is not None),
        spectrum_log=encode_picture(
            plots.draw_spectrum_figure(spectrum, detector, "log"),
            f"integrated spectrum of {title}, logarithmic",
            DETECTOR_BYTES // 4,
        ),
        spectrum_linear=encode_picture(
            plots.draw_spectrum_figure(spectrum, detector, "linear"),
            f"integrated spectrum of {title}, linear",
            DETECTOR_BYTES // 4,
        ),
    )


def _write_caption(factor: int, *, known_positions: bool) -> str:
    sentences = [
        "Recorded counts per pixel.",
        f"Colours run from the {plots.LOW_PERCENTILE:.0f}st to the {plots.HIGH_PERCENTILE:.0f}th "
        "percentile of each map; grey pixels were not fitted.",
    ]
    if factor > 1:
        sentences.append(f"One point is the mean of {factor} × {factor} pixels.")
    if not known_positions:
        sentences.append("The file gives no positions: the scale bar is in pixels.")
    return " ".join(sentences)
