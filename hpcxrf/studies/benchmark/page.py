"""A benchmark as files for people: the page, the table of all fits, the table of the distributions."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from hpcxrf.fitting.result import FitStatus
from hpcxrf.notes import Note
from hpcxrf.results.export.cells import Cell
from hpcxrf.results.export.csv_tables import write_csv
from hpcxrf.results.report.page.look import load_page_look, load_templates
from hpcxrf.results.store.storage import replace_file
from hpcxrf.studies.arms import ARMS
from hpcxrf.studies.benchmark.plots import draw_cpu_histograms, draw_r2_histograms
from hpcxrf.studies.benchmark.statistics import FAILED_STATUS
from hpcxrf.studies.benchmark.tables import Distribution, Tables
from hpcxrf.studies.pictures import encode_picture

MAX_ROWS: Final = 5000
"""Rows of the table of datasets; failures come first in what is kept, then the lowest R2."""
_PICTURE_BYTES: Final = 400_000
_COLUMNS: Final = ("r2", "r2_expected", "deviance", "cpu_s", "wall_s", "evaluations")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSummary:
    """Facts of the whole benchmark. Texts may come from anywhere: the page escapes them."""

    title: str
    start: str
    """Spread of the starting values: narrow or wide."""
    seed: int
    background: str
    device: str
    started: str
    """ISO 8601 with time zone."""
    finished: str
    seconds: float
    """Wall time."""
    command: str
    versions: Mapping[str, str]
    configuration: str
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """A task that gave no result, or a file that could not be opened."""

    dataset_id: str
    source: str
    task: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRow:
    """One dataset and task in the table of the page."""

    source: str
    task: str
    counts: float
    expected: float
    r2: tuple[float | None, ...]
    """R2 by method; None where the method was not to run, NaN where the fit failed."""

    @property
    def worst(self) -> float:
        """Lowest R2, minus infinity with a failure: the order of the table."""
        requested = [v if np.isfinite(v) else -np.inf for v in self.r2 if v is not None]
        return min(requested, default=np.inf)


def write_page(
    summary: BenchmarkSummary, data: xr.Dataset, all_tables: Tables, failures: Sequence[FailedTask], path: Path
) -> None:
    """Write the page, readable from a file without a network; replaces an earlier one at once.

    Args:
        summary: of the benchmark.
        data: of `hpcxrf.studies.benchmark.statistics.gather`.
        all_tables: of `hpcxrf.studies.benchmark.tables.build_tables`.
        failures: every task without a result, with its reason.
        path: of the page.

    Raises:
        OutputError: `path` cannot be written.
    """
    rows = sorted(list_dataset_rows(data), key=lambda row: row.worst)
    page = (
        load_templates(Path(__file__).parent)
        .get_template("benchmark.html.j2")
        .render(
            run=summary,
            tables=all_tables,
            methods=data["method"].values.tolist(),
            arms=ARMS,
            rows=rows[:MAX_ROWS],
            n_rows=len(rows),
            n_datasets=data.sizes["dataset"],
            n_fits=int((data["status"].values != 0).sum()),
            failures=failures[:MAX_ROWS],
            n_failures=len(failures),
            r2_picture=encode_picture(draw_r2_histograms(data), "histograms of R2", _PICTURE_BYTES),
            cpu_picture=encode_picture(draw_cpu_histograms(data), "histograms of CPU seconds", _PICTURE_BYTES),
            **load_page_look(),
        )
    )
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def write_fits_csv(data: xr.Dataset, path: Path) -> None:
    """Write a row for every dataset, task and method of the benchmark.

    Raises:
        OutputError: `path` cannot be written.
    """
    header = ("dataset", "source", "task", "method", "status", *_COLUMNS, "counts", "reason")
    write_csv(path, header, _list_fit_rows(data))


def write_table_csv(rows: Sequence[Distribution], path: Path) -> None:
    """Write the table of the distributions.

    Raises:
        OutputError: `path` cannot be written.
    """
    header = tuple(f.name for f in dataclasses.fields(Distribution))
    write_csv(path, header, [dataclasses.astuple(row) for row in rows])


def list_dataset_rows(data: xr.Dataset) -> Iterator[DatasetRow]:
    """R2 of all methods, a row for every dataset and task."""
    status, r2 = data["status"].values, data["r2"].values
    expected = data["r2_expected"].values
    for i, source in enumerate(data["source"].values.tolist()):
        for j, task in enumerate(data["task"].values.tolist()):
            requested = status[i, j] != 0
            if not requested.any():
                continue
            known = expected[i, j][np.isfinite(expected[i, j])]
            yield DatasetRow(
                source=source,
                task=task,
                counts=float(data["counts"].values[i, j]),
                expected=float(known[0]) if known.size else np.nan,
                r2=tuple(v if a else None for v, a in zip(r2[i, j].tolist(), requested.tolist(), strict=True)),
            )


def _list_fit_rows(data: xr.Dataset) -> Iterator[tuple[Cell, ...]]:
    labels = [data[name].values.tolist() for name in ("dataset", "task", "method")]
    sources, status = data["source"].values.tolist(), data["status"].values
    columns = [data[name].values for name in _COLUMNS]
    counts, reasons = data["counts"].values, data["reason"].values
    for i, j, k in np.argwhere(status != 0).tolist():
        yield (
            labels[0][i],
            sources[i],
            labels[1][j],
            labels[2][k],
            status_name(int(status[i, j, k])),
            *(float(column[i, j, k]) for column in columns),
            float(counts[i, j]),
            str(reasons[i, j, k]),
        )


def status_name(status: int) -> str:
    """The outcome of a fit in words."""
    return "failed" if status == FAILED_STATUS else FitStatus(status).name.lower()
