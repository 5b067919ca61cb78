"""The report: one HTML page that needs nothing else, for people who want to see what a run did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from hpcxrf.errors import HpcxrfError
from hpcxrf.notes import Note
from hpcxrf.results.report import views
from hpcxrf.results.report.dataset_page import DatasetSummary, read_details, read_merit_and_flags, write_dataset_page
from hpcxrf.results.report.page import load_page_look, load_templates
from hpcxrf.results.store.storage import replace_file

MAX_BYTES: Final = 9_500_000
"""Largest size of the page; a dataset that no longer fits keeps its row in the table, with a link to its own page."""

PAGES: Final = "pages"
"""Folder of the datasets' own pages."""

MAX_ROWS: Final = 5000
"""Rows of the dataset table; failures come first in what is kept."""

_ROW_BYTES: Final = 700
_FRAME_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Facts of the whole run. Texts may come from anywhere: the page escapes them."""

    title: str
    """Name of the run or of the scan."""
    versions: Mapping[str, str]
    """Program and libraries."""
    configuration: str
    """Effective configuration, as text."""
    device: str
    """Device of the run, for example "2 CPU cores" or "4 x NVIDIA H200"."""
    started: str
    """ISO 8601 with time zone."""
    finished: str
    """ISO 8601 with time zone."""
    seconds: float
    """Wall time of the run."""
    command: str = ""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRow:
    """A dataset in the table of the report."""

    anchor: str
    page: str
    """Its own page, relative to the report."""
    summary: DatasetSummary
    done: bool
    reason: str
    merit: views.Merit | None
    """Merit of the detector that fits worst."""
    flags: tuple[str, ...]
    pixels: int
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A dataset whose details are in the report too."""

    row: DatasetRow
    details: Markup


def write_report(run: RunSummary, datasets: Sequence[DatasetSummary], path: Path) -> None:
    """Write the page, below 10 MB, readable from a file without a network; replaces an earlier one at once.

    Every dataset has a page of its own beside it, in `pages/`; one that is missing is drawn. The first ones are in the
    report too, as many as fit. A results store that cannot be read counts as a failure with its reason.

    Raises:
        OutputError: `path` cannot be written.
    """
    rows = [_build_row(index, dataset) for index, dataset in enumerate(datasets)]
    sections = _build_sections(rows, path.parent)
    page = (
        load_templates()
        .get_template("report.html.j2")
        .render(
            run=run,
            rows=sorted(rows, key=lambda row: row.done)[:MAX_ROWS] if len(rows) > MAX_ROWS else rows,
            n_rows=len(rows),
            failed=[row for row in rows if not row.done][:MAX_ROWS],
            n_failed=sum(not row.done for row in rows),
            n_pixels=sum(row.pixels for row in rows if row.done),
            sections=sections,
            shown={section.row.anchor for section in sections},
            **load_page_look(),
        )
    )
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def _build_row(index: int, dataset: DatasetSummary) -> DatasetRow:
    """Read the row of a dataset from its store."""
    reason, merit = dataset.reason, None
    flags: tuple[str, ...] = ()
    done = dataset.status == "done"
    if done and dataset.results_path is None:
        done, reason = False, "no results were written"
    elif done and dataset.results_path is not None:
        try:
            merit, flags = read_merit_and_flags(dataset.results_path)
        except HpcxrfError as error:
            done, reason = False, str(error)
    shape = dataset.shape or (0, 0, 0, 0)
    return DatasetRow(
        anchor=f"dataset-{index}",
        page=f"{PAGES}/{dataset.dataset_id}.html",
        summary=dataset,
        done=done,
        reason=reason,
        merit=merit,
        flags=flags,
        pixels=shape[1] * shape[2],
        total_s=sum(dataset.seconds.values()),
    )


def _build_sections(rows: Sequence[DatasetRow], folder: Path) -> list[Section]:
    """Details of the first datasets, as many as fit the page; all have a page of their own."""
    room = MAX_BYTES - _ROW_BYTES * min(len(rows), MAX_ROWS) - _FRAME_BYTES
    sections: list[Section] = []
    for row in (row for row in rows if row.done):
        page = folder / row.page
        if not page.is_file():
            write_dataset_page(row.summary, page)
        details = read_details(page) if room > 0 else ""
        room -= len(details.encode())
        if room > 0:
            sections.append(Section(row=row, details=Markup(details)))  # noqa: S704  escaped when it was drawn
    return sections
