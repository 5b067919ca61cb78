"""A whole run on this machine: plan, cluster, driver, report."""

import datetime
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from distributed.system import MEMORY_LIMIT

from hpcxrf import __version__
from hpcxrf.cluster.local.cluster import LocalClusterHandle, default_layout, local_cluster, usable_cores, visible_gpus
from hpcxrf.config.execution import ExecutionConfig
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.errors import FitError, OutputError
from hpcxrf.pipeline.plan import Plan, make_plan
from hpcxrf.pipeline.records import STAGES
from hpcxrf.results.report.dataset_page import DatasetSummary
from hpcxrf.results.report.report import RunSummary, write_report
from hpcxrf.runner.driver import Outcome, Progress, run_datasets
from hpcxrf.runner.worker import forget_attempts
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import FAILED, FINISHED, RunDir, create_or_resume, finished, open_run, set_damaged_aside

_LIBRARIES: Final = ("torch", "numpy", "zarr", "xarray", "dask", "xraylib", "h5py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a run tells whoever watches it; callables that return at once."""

    opened: Callable[[int, int], None]
    """Files opened, of how many."""
    planned: Callable[[Plan], None]
    started: Callable[[LocalClusterHandle], None]
    progress: Callable[[Progress], None]
    reporting: Callable[[int], None]
    """Datasets that the report is about to be written of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    run: RunDir
    plan: Plan
    outcomes: tuple[Outcome, ...]
    wall_s: float
    workers: int
    threads: int
    device: str

    @property
    def failed(self) -> dict[str, str]:
        """Reason by dataset of everything that failed, files that could not be opened included."""
        refused = {r.dataset_id: r.reason for r in self.plan.refusals}
        return refused | {o.job.dataset_id: o.failure for o in self.outcomes if o.failure}


def layout(execution: ExecutionConfig) -> tuple[int, int, tuple[str, ...]]:
    """Workers, torch threads of each, and the GPUs they are pinned to (none: CPU).

    Raises:
        FitError: `cuda` was asked for and this machine has none.
    """
    gpus = () if execution.device == "cpu" else visible_gpus()
    if execution.device == "cuda" and not gpus:
        raise FitError(
            "execution.device is cuda, but torch sees no CUDA device here; install a CUDA build of torch, or set "
            "execution.device: cpu"
        )
    cores = usable_cores()
    if execution.workers is not None:
        gpus = gpus[: execution.workers]
    workers, _ = default_layout(cores, len(gpus))
    workers = len(gpus) or execution.workers or workers
    return workers, execution.threads or max(1, cores // workers), gpus


def run_here(config: RunConfig, run_text: str, folder: Path, watch: Watch, *, command: str = "") -> RunResult:
    """Run everything on a local cluster; on a folder that holds the same run, only what is missing.

    Args:
        config: a checked run file.
        run_text: its text as given.
        folder: the run directory.
        watch: what to tell.
        command: the command line, for the report.

    Raises:
        OutputError: the folder cannot be used, holds another configuration, or another driver is at it.
        InputFileError: no scan was found.
        FitError: a GPU was asked for and there is none.
    """
    began, started = time.perf_counter(), now()
    workers, threads, gpus = layout(config.execution)
    plan = make_plan(config, folder, opened=watch.opened, worker_bytes=MEMORY_LIMIT // workers)
    watch.planned(plan)
    run = create_or_resume(folder.absolute(), run_text, effective(config))
    with run_lock(run):
        set_damaged_aside(run)
        forget_attempts(run.path)
        with local_cluster(workers, threads, run.path, gpus=gpus, dashboard=config.execution.dashboard) as handle:
            watch.started(handle)
            outcomes = run_datasets(
                plan, run, handle.client, in_flight=config.execution.datasets_in_flight, progress=watch.progress
            )
            device = handle.device
        watch.reporting(len(outcomes))
        result = RunResult(
            run=run,
            plan=plan,
            outcomes=tuple(outcomes),
            wall_s=time.perf_counter() - began,
            workers=workers,
            threads=threads,
            device=device,
        )
        report_run(result, config, started=started, command=command)
    return replace(result, wall_s=time.perf_counter() - began)


def report_run(result: RunResult, config: RunConfig, *, started: str, command: str) -> None:
    """Write the report of a run that went to its end, and what is needed to write it again.

    Args:
        result: of the run, whose lock is held.
        config: of the run.
        started: of `now`.
        command: the command line.

    Raises:
        OutputError: the run directory cannot be written.
    """
    summary = RunSummary(
        title=result.run.path.name,
        versions=versions(),
        configuration=json.dumps(effective(config), indent=2),
        device=_device_text(result),
        started=started,
        finished=now(),
        seconds=result.wall_s,
        command=command,
        notes=result.plan.notes,
    )
    datasets = dataset_summaries(result)
    _keep(result.run, summary, datasets)
    write_report(summary, datasets, result.run.report_file)


def report_again(folder: Path) -> Path:
    """Write the report of a run directory from what is in it; nothing is computed.

    A run that went to its end left its summary; of any other the journals tell.

    Raises:
        OutputError: no run there, or a benchmark.
    """
    run = open_run(folder)
    for section, kind in (("case_study", "case-study"), ("benchmark", "benchmark")):
        if section in run.effective():
            raise OutputError(f"{folder}: holds a {kind}; `hpcxrf {kind} RUNFILE -o {folder}` writes its page again")
    summary, summaries = _kept(run) or _from_journals(run)
    write_report(summary, summaries, run.report_file)
    return run.report_file


def _summary_file(run: RunDir) -> Path:
    return run.path / "state" / "summary.json"


def _keep(run: RunDir, summary: RunSummary, datasets: Sequence[DatasetSummary]) -> None:
    rows = [asdict(d) | {"results_path": _store_name(d.results_path)} for d in datasets]
    text = json.dumps({"run": asdict(summary), "datasets": rows}, indent=1)
    atomic_write_text(_summary_file(run), text + "\n")


def _store_name(path: Path | None) -> str | None:
    return None if path is None else path.name


def _kept(run: RunDir) -> tuple[RunSummary, list[DatasetSummary]] | None:
    if not _summary_file(run).is_file():
        return None
    content = json.loads(_summary_file(run).read_text(encoding="utf-8"))
    content["run"]["notes"] = tuple(content["run"]["notes"])
    datasets = []
    for row in content["datasets"]:
        store = row["results_path"]
        row["results_path"] = None if store is None else run.path / "results" / store
        row["shape"] = None if row["shape"] is None else tuple(row["shape"])
        row["notes"] = tuple(row["notes"])
        datasets.append(DatasetSummary(**row))
    return RunSummary(**content["run"]), datasets


def _from_journals(run: RunDir) -> tuple[RunSummary, list[DatasetSummary]]:
    summaries = [_summary_of_journal(run, name) for name in run.dataset_ids()]
    summary = RunSummary(
        title=run.path.name,
        versions=versions(),
        configuration=json.dumps(run.effective(), indent=2),
        device="as recorded in each dataset",
        started=now(),
        finished=now(),
        seconds=0.0,
        notes=("the run has not gone to its end; this is what its journals tell",),
    )
    return summary, summaries


def _summary_of_journal(run: RunDir, dataset_id: str) -> DatasetSummary:
    journal = run.read_journal(dataset_id)
    done = finished(journal, "finalise") is not None
    failures = [line for line in journal if line.get("event") == FAILED]
    seconds: dict[str, float] = {}
    for line in journal:
        if line.get("event") == FINISHED:
            seconds[line["stage"]] = seconds.get(line["stage"], 0.0) + float(line["wall_s"])
    reason = str(failures[-1]["reason"]) if failures else "was not finished; run it again"
    return DatasetSummary(
        dataset_id=dataset_id,
        name=dataset_id,
        source=dataset_id,
        status="done" if done else "failed",
        reason="" if done else reason,
        seconds=seconds,
        results_path=run.results_store(dataset_id) if done else None,
    )


def dataset_summaries(result: RunResult) -> list[DatasetSummary]:
    """One summary per dataset for the report, failed ones included."""
    refused = [
        DatasetSummary(
            dataset_id=r.dataset_id, name=r.source.name, source=r.source.name, status="failed", reason=r.reason
        )
        for r in result.plan.refusals
    ]
    return refused + [_summary(result.run, outcome) for outcome in result.outcomes]


def versions() -> Mapping[str, str]:
    """Of this program and the libraries that results depend on."""
    found = {name: version(name) for name in _LIBRARIES}
    return {"hpcxrf": __version__, "python": platform.python_version(), **found}


def _summary(run: RunDir, outcome: Outcome) -> DatasetSummary:
    job = outcome.job
    seconds: dict[str, float] = {
        stage: float(sum(r.wall_s for r in outcome.records if r.stage == stage)) for stage in STAGES
    }
    path = run.results_store(job.dataset_id)
    return DatasetSummary(
        dataset_id=job.dataset_id,
        name=job.source.name,
        source=job.source.name,
        status="failed" if outcome.failure else "done",
        reason=outcome.failure or "",
        shape=job.shape,
        seconds=seconds,
        results_path=None if outcome.failure else path,
        notes=tuple(outcome.notes),
    )


def _device_text(result: RunResult) -> str:
    workers = f"{result.workers} workers x {result.threads} threads"
    return f"CPU, {workers}" if result.device == "cpu" else f"CUDA, {workers}, one GPU each"


def now() -> str:
    """Time of day, ISO 8601 with time zone."""
    return datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
