"""The end of a benchmark: statistics, tables and page, from the records and results of its datasets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from hpcxrf import __version__
from hpcxrf.config.benchmark import BenchmarkTask
from hpcxrf.config.run import RunConfig, effective, require_benchmark
from hpcxrf.runner.datasets import OPEN_TASK, read_datasets
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.ending import RunEnd, tell_finish, versions
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.simulate import ScanTruth, read_truth
from hpcxrf.simulate.spec import SCATTER_COMPONENTS
from hpcxrf.store.rundir import FAILED, FINISHED, RunDir
from hpcxrf.studies.arms import list_arms
from hpcxrf.studies.benchmark.method_result import read_result
from hpcxrf.studies.benchmark.page import BenchmarkSummary, FailedTask, write_fits_csv, write_page, write_table_csv
from hpcxrf.studies.benchmark.plan import central_region, choose_arms, result_path
from hpcxrf.studies.benchmark.statistics import DatasetResults, Truth, gather, save_statistics
from hpcxrf.studies.benchmark.tables import Tables, build_tables
from hpcxrf.studies.benchmark.tasks import DETECTOR

_Cell = tuple[BenchmarkTask, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """What a benchmark found."""

    data: xr.Dataset
    """Statistics as `hpcxrf.studies.benchmark.statistics.gather` makes them."""
    tables: Tables
    failures: tuple[FailedTask, ...]
    """Tasks that were tried and failed, and files that could not be opened."""
    n_datasets: int


def summarise(config: RunConfig, end: RunEnd) -> BenchmarkResult:
    """Write `benchmark.zarr`, `benchmark.html`, `benchmark.csv` and `table.csv` into the run directory.

    Args:
        config: run file of the benchmark.
        end: how the run went.

    Raises:
        OutputError: the run directory cannot be written.
    """
    records = list(read_datasets(end.run))
    results = gather_results(config, end.run, records)
    attributes = {"title": "hpcxrf benchmark", "hpcxrf_version": __version__, "configuration": effective(config)}
    asked = require_benchmark(config)
    data = gather(results, asked.tasks, list_arms(asked), attributes)
    found = BenchmarkResult(
        data=data,
        tables=build_tables(data),
        failures=tuple(failure for record in records for failure in failed_tasks(end.run, record)),
        n_datasets=data.sizes["dataset"],
    )
    machines = sorted({str(record.facts["machine"]) for record in records if "machine" in record.facts})
    summary = BenchmarkSummary(
        title=end.run.path.name,
        start=asked.start,
        seed=asked.seed,
        background=asked.background,
        device=", ".join([end.device, *machines]),
        started=end.started,
        finished=tell_finish(end),
        seconds=end.wall_s,
        command=end.command,
        versions=versions(),
        configuration=json.dumps(effective(config), indent=2),
        notes=end.notes,
    )
    save_statistics(data, end.run.path / "benchmark.zarr")
    write_fits_csv(data, end.run.path / "benchmark.csv")
    write_table_csv(found.tables.distributions, end.run.path / "table.csv")
    write_page(summary, data, found.tables, found.failures, end.run.path / "benchmark.html")
    return found


def gather_results(config: RunConfig, run: RunDir, records: Sequence[DatasetRecord]) -> list[DatasetResults]:
    """Results of every dataset by task and method, with the reason of each that has none."""
    asked = require_benchmark(config)
    chosen = choose_arms([record.dataset_id for record in records], asked)
    return [_read_dataset(run, record, asked.tasks, chosen[record.dataset_id]) for record in records]


def _read_dataset(
    run: RunDir, record: DatasetRecord, tasks: Sequence[BenchmarkTask], arms: Sequence[str]
) -> DatasetResults:
    cells: list[_Cell] = [(task, arm) for task in tasks for arm in arms]
    last = last_lines(run.read_journal(record.dataset_id))
    events = {cell: last.get(f"{cell[0]}-{cell[1]}", {}) for cell in cells}
    done = [cell for cell, line in events.items() if line.get("event") == FINISHED]
    return DatasetResults(
        dataset_id=record.dataset_id,
        source=record.name,
        asked=frozenset(cells),
        results={(t, m): read_result(result_path(run, record.dataset_id, f"{t}-{m}")) for t, m in done},
        reasons={cell: _reason(record, events[cell]) for cell in cells if cell not in done},
        truth=read_scan_truth(Path(record.source)) if record.state == "done" or done else None,
    )


def _reason(record: DatasetRecord, line: Mapping[str, Any]) -> str:
    """Why a fit has no result: its own failure, or the one that kept it from being tried."""
    return str(line["reason"]) if line.get("event") == FAILED else f"not tried: {record.reason}"


def failed_tasks(run: RunDir, record: DatasetRecord) -> list[FailedTask]:
    """Tasks of a dataset that were tried and failed, a file that could not be opened among them."""
    if record.state == "done":
        return []
    lines = last_lines(run.read_journal(record.dataset_id)).values()
    return [
        FailedTask(dataset_id=record.dataset_id, source=record.name, task=str(line["task"]), reason=str(line["reason"]))
        for line in lines
        if line["event"] == FAILED and (line["task"] != OPEN_TASK or not record.shape)
    ]


def read_scan_truth(source: Path) -> Truth | None:
    """Truth of a simulated scan, where its file lies beside the scan or in `truth/` there or in the folder above.

    Raises:
        InputFileError: the file is there and is not a truth.
    """
    name = f"{source.stem}.truth.json"
    places = (source.parent, source.parent / "truth", source.parent.parent / "truth")
    found = next((folder / name for folder in places if (folder / name).is_file()), None)
    return None if found is None else _sum_truth(read_truth(found))


def _sum_truth(truth: ScanTruth) -> Truth:
    whole = truth.amplitude[DETECTOR]
    y, x = central_region((whole.shape[1], whole.shape[2]))
    sums = {"initial": whole.sum(axis=(1, 2)), "refinement": whole[:, y, x].sum(axis=(1, 2))}
    families = [(i, n) for i, n in enumerate(truth.components) if n not in SCATTER_COMPONENTS]
    return Truth(
        amplitude={task: {name: float(values[i]) for i, name in families} for task, values in sums.items()},
        theta=truth.theta[DETECTOR],
    )
