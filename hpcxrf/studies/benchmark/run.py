"""A whole benchmark on this machine: plan, cluster, driver, statistics, page."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from hpcxrf import __version__
from hpcxrf.cluster.local.cluster import LocalClusterHandle, default_layout, local_cluster, usable_cores
from hpcxrf.cluster.local.run import now, versions
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.runner.driver import OPEN_TASK, Progress
from hpcxrf.runner.worker import forget_attempts
from hpcxrf.simulate import ScanTruth, read_truth
from hpcxrf.simulate.spec import SCATTER_COMPONENTS
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, create_or_resume
from hpcxrf.studies.benchmark.driver import BenchmarkOutcome, run_benchmark
from hpcxrf.studies.benchmark.method_result import read_result
from hpcxrf.studies.benchmark.page import BenchmarkSummary, FailedTask, write_fits_csv, write_page, write_table_csv
from hpcxrf.studies.benchmark.plan import (
    BenchmarkJob,
    BenchmarkPlan,
    central_region,
    plan_benchmark,
    result_file,
    units_of,
)
from hpcxrf.studies.benchmark.statistics import DatasetResults, Truth, gather, save_statistics
from hpcxrf.studies.benchmark.tables import Tables, tables
from hpcxrf.studies.benchmark.tasks import DETECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkWatch:
    """What a benchmark tells whoever watches it; callables that return at once."""

    opened: Callable[[int, int], None]
    """Files opened, of how many."""
    planned: Callable[[BenchmarkPlan], None]
    started: Callable[[LocalClusterHandle], None]
    progress: Callable[[Progress], None]
    reporting: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """How a benchmark ended."""

    run: RunDir
    data: xr.Dataset
    """Of `hpcxrf.studies.benchmark.statistics.gather`."""
    tables: Tables
    failures: tuple[FailedTask, ...]
    n_datasets: int
    wall_s: float
    workers: int

    @property
    def page(self) -> Path:
        """The page."""
        return self.run.path / "benchmark.html"

    @property
    def failed_datasets(self) -> int:
        """Datasets with a task that failed, files that could not be opened included."""
        return len({failure.dataset_id for failure in self.failures})


def benchmark_here(
    config: RunConfig, run_text: str, folder: Path, watch: BenchmarkWatch, *, command: str = ""
) -> BenchmarkResult:
    """Run a benchmark on a local cluster; on a folder that holds the same one, only what is missing.

    Every worker has one torch thread and no GPU: CPU seconds are compared. Writes `benchmark/` (sums and results
    by dataset), `benchmark.zarr`, `benchmark.html`, `benchmark.csv` and `table.csv` into the folder.

    Args:
        config: a checked run file, for which `check_benchmark` holds.
        run_text: its text as given.
        folder: the run directory.
        watch: what to tell.
        command: the command line, for the page.

    Raises:
        OutputError: the folder cannot be used, holds another configuration, or another driver is at it.
        InputFileError: no scan was found.
    """
    began, started = time.perf_counter(), now()
    execution = config.execution
    workers = execution.workers or default_layout(usable_cores(), 0)[0]
    plan = plan_benchmark(config, folder, opened=watch.opened)
    watch.planned(plan)
    run = create_or_resume(folder.absolute(), run_text, lasting_configuration(config))
    with run_lock(run):
        forget_attempts(run.path)
        with local_cluster(workers, 1, run.path, dashboard=execution.dashboard) as handle:
            watch.started(handle)
            outcomes = run_benchmark(
                plan, run, handle.client, in_flight=execution.datasets_in_flight, progress=watch.progress
            )
        watch.reporting()
        failures = tuple(failed_tasks(plan, outcomes))
        data = _gathered(config, plan, outcomes)
        result = BenchmarkResult(
            run=run,
            data=data,
            tables=tables(data),
            failures=failures,
            n_datasets=data.sizes["dataset"],
            wall_s=time.perf_counter() - began,
            workers=workers,
        )
        summary = BenchmarkSummary(
            title=run.path.name,
            start=config.benchmark.start,
            seed=config.benchmark.seed,
            background=config.benchmark.background,
            device=f"CPU, {workers} workers x 1 thread",
            started=started,
            finished=now(),
            seconds=result.wall_s,
            command=command,
            versions=versions(),
            configuration=json.dumps(benchmark_configuration(config), indent=2),
            notes=plan.notes,
        )
        _write(result, summary)
    return result


def benchmark_configuration(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain JSON values; what changes no result is left out."""
    asked = json.loads(json.dumps(asdict(config.benchmark)))
    plain = effective(config) | {"benchmark": asked}
    for section in ("pixels", "regions"):
        del plain[section]
    return plain


def lasting_configuration(config: RunConfig) -> dict[str, Any]:
    """What must be the same when a benchmark goes on.

    A further method, or a larger number of datasets, goes on with the fits that there are.
    """
    plain = benchmark_configuration(config)
    for name in ("datasets", "methods"):
        del plain["benchmark"][name]
    return plain


def failed_tasks(plan: BenchmarkPlan, outcomes: Sequence[BenchmarkOutcome]) -> list[FailedTask]:
    """Every file that could not be opened and every task without a result, with their reasons."""
    refused = [
        FailedTask(dataset_id=r.dataset_id, source=r.source.name, task=OPEN_TASK, reason=r.reason)
        for r, _ in plan.refusals
    ]
    return refused + [
        FailedTask(dataset_id=o.job.dataset.dataset_id, source=o.job.dataset.source.name, task=task, reason=reason)
        for o in outcomes
        for task, reason in o.failures.items()
    ]


def scan_truth(job: BenchmarkJob) -> Truth | None:
    """Truth of a simulated scan, where its file lies beside the scan or in `truth/` there or in the folder above.

    Raises:
        InputFileError: the file is there and is no truth.
    """
    source = job.dataset.source
    name = f"{source.stem}.truth.json"
    places = (source.parent, source.parent / "truth", source.parent.parent / "truth")
    found = next((folder / name for folder in places if (folder / name).is_file()), None)
    return None if found is None else _truth(read_truth(found))


def _truth(truth: ScanTruth) -> Truth:
    whole = truth.amplitude[DETECTOR]
    y, x = central_region((whole.shape[1], whole.shape[2]))
    sums = {"initial": whole.sum(axis=(1, 2)), "refinement": whole[:, y, x].sum(axis=(1, 2))}
    families = [(i, n) for i, n in enumerate(truth.components) if n not in SCATTER_COMPONENTS]
    return Truth(
        amplitude={task: {name: float(values[i]) for i, name in families} for task, values in sums.items()},
        theta=truth.theta[DETECTOR],
    )


def _gathered(config: RunConfig, plan: BenchmarkPlan, outcomes: Sequence[BenchmarkOutcome]) -> xr.Dataset:
    tasks, methods = config.benchmark.tasks, config.benchmark.methods
    refused = [
        DatasetResults(
            dataset_id=r.dataset_id,
            source=r.source.name,
            asked=frozenset((t, m) for t in tasks for m in chosen),
            results={},
            reasons={(t, m): r.reason for t in tasks for m in chosen},
        )
        for r, chosen in plan.refusals
    ]
    attributes = {
        "title": "hpcxrf benchmark",
        "hpcxrf_version": __version__,
        "configuration": benchmark_configuration(config),
    }
    return gather([*map(_results, outcomes), *refused], tasks, methods, attributes)


def _results(outcome: BenchmarkOutcome) -> DatasetResults:
    job = outcome.job
    units = {u.fit: u.task for u in units_of(job) if u.fit is not None}
    return DatasetResults(
        dataset_id=job.dataset.dataset_id,
        source=job.dataset.source.name,
        asked=frozenset(units),
        results={
            cell: read_result(result_file(job.dataset, task)) for cell, task in units.items() if task in outcome.records
        },
        reasons={cell: outcome.failures[task] for cell, task in units.items() if task in outcome.failures},
        truth=scan_truth(job),
    )


def _write(result: BenchmarkResult, summary: BenchmarkSummary) -> None:
    folder = result.run.path
    save_statistics(result.data, folder / "benchmark.zarr")
    write_fits_csv(result.data, folder / "benchmark.csv")
    write_table_csv(result.tables.distributions, folder / "table.csv")
    write_page(summary, result.data, result.tables, result.failures, result.page)
