"""The report: one HTML page that needs nothing else, for people who want to see what a run did."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from hpcxrf.config.report import PagesChoice
from hpcxrf.errors import HpcxrfError
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import Note
from hpcxrf.results.report import views
from hpcxrf.results.report.archive.gather import ArchivePoint, gather_trends
from hpcxrf.results.report.archive.page import MOST_ROWS, measure_throughput, pack_trends
from hpcxrf.results.report.judgement import Judgement, read_judgement, wants_page
from hpcxrf.results.report.page.data import pack_json
from hpcxrf.results.report.page.dataset import DatasetSummary, read_details, write_dataset_page
from hpcxrf.results.report.page.head import read_head
from hpcxrf.results.report.page.look import REPORTING, allow_scripts, load_page_look, load_templates
from hpcxrf.results.store.opening import open_results
from hpcxrf.results.store.storage import replace_file
from hpcxrf.store.packed import is_store, locate_store

MAX_BYTES: Final = 9_500_000
"""Largest size of the page; a dataset that no longer fits keeps its row in the table, with a link to its own page."""

PAGES: Final = "pages"
"""Folder of the datasets' own pages."""

MAX_ROWS: Final = 5000
"""Rows of the dataset table; failures come first in what is kept."""

MOST_DETAILED: Final = 30
"""Datasets of a run of more than which none is shown in full in the report itself: each has a page of its own."""

_ROW_BYTES: Final = 1000
_FRAME_BYTES: Final = 200_000
_THUMBNAIL_BYTES: Final = 1_000_000
"""Characters of all pictures in the table."""
_LARGEST_THUMBNAIL: Final = 3000


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
    """Its own page, relative to the report; empty where it has none."""
    summary: DatasetSummary
    done: bool
    reason: str
    merit: views.Merit | None
    """Merit of the detector that fits worst."""
    flags: tuple[str, ...]
    pixels: int
    total_s: float
    thumbnail: str = ""
    """`data:` address of its picture in small; empty without one."""
    links: tuple[tuple[str, str], ...] = ()
    """Words and addresses, relative to the report, of what there is of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A dataset whose details are in the report too."""

    row: DatasetRow
    details: Markup
    has_side_files: bool


@dataclass(slots=True)
class _Table:
    """What of all datasets is held while they are looked at one by one."""

    first: list[DatasetRow] = field(default_factory=list)
    done: list[DatasetRow] = field(default_factory=list)
    failed: list[DatasetRow] = field(default_factory=list)
    """Rows in the order of the plan, each at most `MAX_ROWS`."""
    n_rows: int = 0
    n_failed: int = 0
    n_pages: int = 0
    """Datasets with a page of their own."""
    n_pixels: int = 0
    """Pixels of all datasets that are done."""
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    """Datasets by the verdict on the detector that fits worst, those that were judged."""
    points: list[ArchivePoint] = field(default_factory=list)
    """Datasets that are done."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Datasets that are not, by reason."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Wall seconds of the tasks by stage."""
    cpu_s: float = 0.0
    gpu_s: float = 0.0

    @property
    def rows(self) -> list[DatasetRow]:
        """Rows of the table: in the order of the plan, or failures first where it does not hold all."""
        return self.first if self.n_rows <= MAX_ROWS else [*self.failed, *self.done][:MAX_ROWS]


def write_report(
    run: RunSummary, datasets: Iterable[DatasetSummary], path: Path, *, pages: PagesChoice = "all"
) -> None:
    """Write the page, below 10 MB, readable from a file without a network; replaces an earlier one at once.

    Datasets have pages of their own beside it, in `pages/`; one that is missing is written. The first ones are in the
    report too, as many as fit. A results store that cannot be read counts as a failure with its reason.

    Args:
        run: facts of the whole run.
        datasets: its datasets, each looked at once: however many there are, no more than a table's are held.
        path: the page.
        pages: which datasets have a page.

    Raises:
        OutputError: `path` cannot be written.
    """
    table = _build_table(datasets, path.parent, pages)
    # A page of many datasets would open slowly, and nobody reads details where they are not looked for.
    sections = _build_sections(table, path.parent) if table.n_rows <= MOST_DETAILED else []
    trends = gather_trends(table.points)
    n_done = table.n_rows - table.n_failed
    rows = _complete_rows(table.rows, path.parent)
    page = (
        load_templates(Path(__file__).parent)
        .get_template("report.html.j2")
        .render(
            run=run,
            rows=rows,
            words=[verdict.word for verdict in Verdict if verdict is not Verdict.NOT_JUDGED],
            n_rows=table.n_rows,
            failed=table.failed,
            n_failed=table.n_failed,
            n_pages=table.n_pages,
            n_pixels=table.n_pixels,
            verdicts=dict(sorted(table.verdicts.items())),
            sections=sections,
            shown={section.row.anchor for section in sections},
            trends=trends,
            trend_numbers=None if trends is None else pack_json(pack_trends(trends)),
            throughput=measure_throughput(
                table.seconds,
                wall_s=run.seconds,
                n_datasets=n_done,
                n_pixels=table.n_pixels,
                cpu_s=table.cpu_s,
                gpu_s=table.gpu_s,
            ),
            kinds=table.reasons.most_common(),
            most_rows=MOST_ROWS,
            policy=allow_scripts(has_side_files=any(section.has_side_files for section in sections)),
            **load_page_look(*REPORTING),
        )
    )
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def _build_table(datasets: Iterable[DatasetSummary], folder: Path, pages: PagesChoice) -> _Table:
    """Rows of the first datasets and numbers of all; a dataset whose page is missing gets it."""
    table = _Table()
    for index, dataset in enumerate(datasets):
        row = _build_row(index, dataset, pages)
        table.n_rows += 1
        table.n_failed += not row.done
        table.n_pages += bool(row.page)
        table.n_pixels += row.pixels if row.done else 0
        if row.merit is not None and row.merit.verdict is not Verdict.NOT_JUDGED:
            table.verdicts[row.merit.verdict] += 1
        _gather_facts(table, row)
        for kept in (table.first, table.done if row.done else table.failed):
            if len(kept) < MAX_ROWS:
                kept.append(row)
        if row.page and dataset.results_path is not None and not (folder / row.page).is_file():
            with open_results(dataset.results_path) as tree:
                write_dataset_page(dataset, tree, folder / row.page)
    return table


def _gather_facts(table: _Table, row: DatasetRow) -> None:
    """Add what the sections on all datasets together need of one."""
    dataset = row.summary
    table.seconds.update(dataset.seconds)
    table.cpu_s += dataset.cpu_s
    table.gpu_s += dataset.gpu_s
    if not row.done:
        table.reasons[dataset.reason_kind or row.reason or "no reason was recorded"] += 1
        return
    kind = f"{dataset.source_format} {dataset.shape[3]} channels".strip() if dataset.shape else dataset.source_format
    point = ArchivePoint(
        name=dataset.name,
        link=quote(row.page),
        date=dataset.date,
        kind=kind,
        fits=dataset.fits,
        suggested=dataset.suggested,
    )
    table.points.append(point)


def _build_row(index: int, dataset: DatasetSummary, pages: PagesChoice) -> DatasetRow:
    """Read the row of a dataset from its store."""
    reason, judgement = dataset.reason, Judgement(merit=None)
    done = dataset.status == "done"
    if done and dataset.results_path is None:
        done, reason = False, "no results were written"
    elif done and dataset.results_path is not None:
        try:
            judgement = _read_or_take_judgement(dataset, dataset.results_path)
        except HpcxrfError as error:
            done, reason = False, str(error)
    shape = dataset.shape or (0, 0, 0, 0)
    return DatasetRow(
        anchor=f"dataset-{index}",
        page=f"{PAGES}/{dataset.dataset_id}.html" if done and wants_page(pages, judgement.merit) else "",
        summary=dataset,
        done=done,
        reason=reason,
        merit=judgement.merit,
        flags=judgement.flags,
        pixels=shape[1] * shape[2],
        total_s=sum(dataset.seconds.values()),
    )


def _read_or_take_judgement(dataset: DatasetSummary, store: Path) -> Judgement:
    """Merit and warnings of a dataset, from its store only where its summary has none.

    Raises:
        OutputError: the store cannot be read.
    """
    if dataset.judgement is not None and is_store(store):
        return dataset.judgement
    return read_judgement(store)


def _complete_rows(rows: Iterable[DatasetRow], folder: Path) -> list[DatasetRow]:
    """Add pictures in small, as many as have room, and links to the rows that the table shows."""
    room = _THUMBNAIL_BYTES
    complete = []
    for row in rows:
        thumbnail = read_head(folder / row.page).thumbnail if row.page and room > 0 else ""
        room -= len(thumbnail)
        complete.append(replace(row, thumbnail=thumbnail, links=_list_links(row, folder)))
    return complete


def _renew_page(dataset: DatasetSummary, page: Path) -> None:
    """Write the page of an earlier version again, as far as its results can be read."""
    if dataset.results_path is None or read_head(page).is_current:
        return
    with contextlib.suppress(HpcxrfError), open_results(dataset.results_path) as tree:
        write_dataset_page(dataset, tree, page)


def _list_links(row: DatasetRow, folder: Path) -> tuple[tuple[str, str], ...]:
    links = [("page", folder / row.page)] if row.page else []
    for word, file in row.summary.files.items():
        if is_store(file):
            links.append((word, locate_store(file)))
        elif file.is_file():
            links.append((word, file))
    inside = ((word, file.relative_to(folder)) for word, file in links if file.is_relative_to(folder))
    return tuple((word, quote(file.as_posix())) for word, file in inside)


def _build_sections(table: _Table, folder: Path) -> list[Section]:
    """Details of the first datasets with a page, as many as fit."""
    n_rows = len(table.rows)
    room = MAX_BYTES - _ROW_BYTES * n_rows - min(_THUMBNAIL_BYTES, _LARGEST_THUMBNAIL * n_rows) - _FRAME_BYTES
    sections: list[Section] = []
    for row in table.done:
        if not row.page:
            continue
        _renew_page(row.summary, folder / row.page)
        details = read_details(folder / row.page)
        room -= len(details.encode())
        if room <= 0:
            break
        side = (folder / row.page).with_suffix(".files").is_dir()
        sections.append(Section(row=row, details=Markup(details), has_side_files=side))  # noqa: S704  escaped when it was drawn
    return sections
