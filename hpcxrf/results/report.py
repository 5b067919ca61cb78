"""The report: one HTML page that needs nothing else, for people who want to see what a run did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import jinja2
import xarray as xr
from markupsafe import Markup

from hpcxrf.errors import HpcxrfError
from hpcxrf.results import plots, views
from hpcxrf.results.maps import open_results
from hpcxrf.results.names import shown_name
from hpcxrf.results.page import Picture, page_look, picture, template_environment
from hpcxrf.results.regions_view import NOT_REFINED, RegionRow, base_map, region_figure, region_rows
from hpcxrf.results.storage import replaced
from hpcxrf.results.thumbnails import MapSummary, summarise_maps

MAX_BYTES: Final = 9_500_000
"""Of the whole page; a dataset that no longer fits keeps its row in the table and loses its details."""

MAX_ROWS: Final = 5000
"""Rows of the dataset table; failures come first in what is kept."""

_SMALLEST_SHARE_BYTES: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What is true of the whole run. Texts may come from anywhere: the page escapes them."""

    title: str
    """Name of the run or of the scan."""
    versions: Mapping[str, str]
    """Program and libraries."""
    configuration: str
    """Effective configuration, as text."""
    device: str
    """For example "2 CPU cores" or "4 x NVIDIA H200"."""
    started: str
    """ISO 8601 with time zone."""
    finished: str
    """ISO 8601 with time zone."""
    seconds: float
    """Wall time of the run."""
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What the driver knows of one dataset; everything else is read from its results store."""

    dataset_id: str
    name: str
    source: str
    """File or files it was read from."""
    status: Literal["done", "failed"]
    reason: str = ""
    """Why it failed, empty where it did not."""
    shape: tuple[int, int, int, int] | None = None
    """(detector, y, x, channel), None where the file could not be read."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    results_path: Path | None = None
    """Results store, None where there is none."""
    notes: tuple[str, ...] = ()
    """Guesses made, files ignored: sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRow:
    """A dataset in the table of the report."""

    anchor: str
    summary: DatasetSummary
    done: bool
    reason: str
    merit: views.Merit | None
    """Of the detector that fits worst."""
    flags: tuple[str, ...]
    pixels: int
    total_s: float


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


def write_report(run: RunSummary, datasets: Sequence[DatasetSummary], path: Path) -> None:
    """Write the page, below 10 MB, readable from a file without a network; replaces an earlier one at once.

    Datasets whose details would make the page too large keep their row in the table and say so there. A
    results store that cannot be read counts as a failure with its reason.

    Raises:
        OutputError: `path` cannot be written.
    """
    rows = [_row(index, dataset) for index, dataset in enumerate(datasets)]
    environment = template_environment()
    sections, left = _sections(environment, rows)
    page = environment.get_template("report.html.j2").render(
        run=run,
        rows=sorted(rows, key=lambda row: row.done)[:MAX_ROWS] if len(rows) > MAX_ROWS else rows,
        n_rows=len(rows),
        failed=[row for row in rows if not row.done][:MAX_ROWS],
        n_failed=sum(not row.done for row in rows),
        n_pixels=sum(row.pixels for row in rows if row.done),
        sections=sections,
        shown={row.anchor for row in rows if row.done} - left,
        **page_look(),
    )
    with replaced(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _row(index: int, dataset: DatasetSummary) -> DatasetRow:
    """Read what the table says of a dataset from its store."""
    reason, merit = dataset.reason, None
    flags: tuple[str, ...] = ()
    done = dataset.status == "done"
    if done and dataset.results_path is None:
        done, reason = False, "no results were written"
    elif done and dataset.results_path is not None:
        try:
            merit, flags = _merit_and_flags(dataset.results_path)
        except HpcxrfError as error:
            done, reason = False, str(error)
    shape = dataset.shape or (0, 0, 0, 0)
    return DatasetRow(
        anchor=f"dataset-{index}",
        summary=dataset,
        done=done,
        reason=reason,
        merit=merit,
        flags=flags,
        pixels=shape[1] * shape[2],
        total_s=sum(dataset.seconds.values()),
    )


def _merit_and_flags(path: Path) -> tuple[views.Merit | None, tuple[str, ...]]:
    with open_results(path) as tree:
        found = views.merits(tree["spectrum"].to_dataset())
        worst = min(found.values(), key=lambda merit: merit.r2, default=None)
        return worst, views.flags(tree)


def _sections(
    environment: jinja2.Environment, rows: Sequence[DatasetRow]
) -> tuple[list[Markup], set[str]]:
    """Details of the datasets as far as they fit the page, and the anchors of those left out."""
    template = environment.get_template("report_dataset.html.j2")
    done = [row for row in rows if row.done]
    detectors = sum(row.summary.shape[0] if row.summary.shape else 1 for row in done)
    room = MAX_BYTES - 600 * min(len(rows), MAX_ROWS) - 100_000
    share = max(room // max(detectors, 1) * 2 // 3, _SMALLEST_SHARE_BYTES)
    sections: list[Markup] = []
    left = {row.anchor for row in done}
    for row in done:
        pages, regions = _details(row, share)
        text = template.render(row=row, pages=pages, regions=regions, is_open=not sections)
        room -= len(text.encode())
        if room < 0:
            break
        sections.append(Markup(text))  # noqa: S704  rendered with autoescape
        left.discard(row.anchor)
    return sections, left


def _details(row: DatasetRow, share_bytes: int) -> tuple[list[DetectorPage], RegionsPage | None]:
    if row.summary.results_path is None:
        return [], None
    name = row.summary.name
    with open_results(row.summary.results_path) as tree:
        maps = tree["maps"].to_dataset()
        summaries = [summarise_maps(maps, str(detector)) for detector in maps["detector"].values]
        pages = [_page(tree, summary, name, share_bytes) for summary in summaries]
        if "regions" not in tree.children:
            return pages, None
        return pages, _regions(tree["regions"].to_dataset(), summaries[-1], name, share_bytes)


def _regions(regions: xr.Dataset, summary: MapSummary, name: str, share_bytes: int) -> RegionsPage:
    figure = region_figure(summary, regions["label"].values)
    rows = region_rows(regions)
    return RegionsPage(
        rows=rows,
        refined=any(row.outcome != NOT_REFINED for row in rows),
        base=shown_name(base_map(summary)),
        picture=picture(figure, f"regions of {name}", share_bytes // 4),
    )


def _page(tree: xr.DataTree, summary: MapSummary, name: str, share_bytes: int) -> DetectorPage:
    detector = summary.detector
    spectrum = tree["spectrum"].to_dataset()
    title = f"{name}, detector {detector}"
    # Half of the share to the maps, a quarter to each of the two spectra.
    return DetectorPage(
        view=views.detector_view(tree, summary),
        maps=picture(plots.map_grid(summary), f"maps of {title}", share_bytes // 2),
        caption=_caption(summary.factor, known_positions=summary.step_um is not None),
        spectrum_log=picture(
            plots.spectrum_figure(spectrum, detector, "log"),
            f"integrated spectrum of {title}, logarithmic",
            share_bytes // 4,
        ),
        spectrum_linear=picture(
            plots.spectrum_figure(spectrum, detector, "linear"),
            f"integrated spectrum of {title}, linear",
            share_bytes // 4,
        ),
    )


def _caption(factor: int, *, known_positions: bool) -> str:
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
