"""Feeds the graph of a benchmark: as `hpcxrf.runner.driver`, but a method that fails stops no other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future, as_completed

from hpcxrf.pipeline.records import Stage, TaskRecord
from hpcxrf.runner.driver import OPEN_TASK, Progress
from hpcxrf.runner.journal import failure_line, failure_reason, failure_trace, finished_line, made_from, record_of
from hpcxrf.store.rundir import FAILED, RunDir, still_finished
from hpcxrf.store.rundir import finished as finished_record
from hpcxrf.studies.benchmark.plan import BenchmarkJob, BenchmarkPlan, BenchmarkUnit, units_of
from hpcxrf.studies.benchmark.tasks import run_fit, run_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOutcome:
    """How one dataset ended."""

    job: BenchmarkJob
    records: dict[str, TaskRecord]
    """By task, of those that are finished."""
    failures: dict[str, str]
    """Reason by task, of the others."""


@dataclass(slots=True)
class _Running:
    job: BenchmarkJob
    records: dict[str, TaskRecord]
    futures: dict[str, Future]
    failures: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, BenchmarkUnit] = field(default_factory=dict)
    """Unit by key of its future."""


def run_benchmark(
    plan: BenchmarkPlan, run: RunDir, client: Client, *, in_flight: int, progress: Callable[[Progress], None]
) -> list[BenchmarkOutcome]:
    """Run all fits of a plan, those of a bounded number of datasets at a time.

    Args:
        plan: of `plan_benchmark`.
        run: the run directory, locked by the caller.
        client: of the cluster.
        in_flight: datasets whose graphs are with the scheduler at a time.
        progress: called for every task.

    Returns:
        One outcome per dataset of the plan, in its order.
    """
    for refusal, _ in plan.refusals:
        run.append(refusal.dataset_id, failure_line(OPEN_TASK, refusal.reason))
    outcomes: dict[str, BenchmarkOutcome] = {}
    queue = list(reversed(plan.jobs))
    running: dict[str, _Running] = {}
    completed = as_completed()
    while queue or running:
        while queue and len({id(state) for state in running.values()}) < in_flight:
            state = _begin(queue.pop(), run, client, completed, progress)
            running |= dict.fromkeys(state.waiting, state)
            if not state.waiting:
                outcomes[state.job.dataset.dataset_id] = _outcome(state)
        if running:
            future = next(completed)
            state = running.pop(future.key)
            _settle(future, state, run, progress)
            if not state.waiting:
                outcomes[state.job.dataset.dataset_id] = _outcome(state)
    return [outcomes[job.dataset.dataset_id] for job in plan.jobs]


def finished_units(run: RunDir, job: BenchmarkJob) -> dict[str, TaskRecord]:
    """Records of the tasks whose journal line still holds, and of which all that they need does as well."""
    journal = run.read_journal(job.dataset.dataset_id)
    done: dict[str, TaskRecord] = {}
    for unit in units_of(job):
        line = finished_record(journal, unit.task)
        if (
            line is not None
            and all(needed in done for needed in unit.needs)
            and made_from(line, job.dataset)
            and still_finished(run, journal, unit.task)
        ):
            done[unit.task] = record_of(line)
    return done


def totals(plan: BenchmarkPlan) -> dict[Stage, int]:
    """Number of tasks by stage, for progress bars."""
    counts: dict[Stage, int] = {}
    for job in plan.jobs:
        for unit in units_of(job):
            counts[unit.stage] = counts.get(unit.stage, 0) + 1
    return counts


def _begin(
    job: BenchmarkJob,
    run: RunDir,
    client: Client,
    completed: Any,  # noqa: ANN401 (distributed's as_completed has no types)
    progress: Callable[[Progress], None],
) -> _Running:
    done = finished_units(run, job)
    for record in done.values():
        progress(Progress(stage=record.stage, pixels=0, ok=True))
    journal = run.read_journal(job.dataset.dataset_id)
    attempt = sum(1 for line in journal if line.get("event") == FAILED)
    state = _Running(job=job, records=done, futures={})
    for index, unit in enumerate(units_of(job)):
        if unit.task not in done:
            future = _submit(client, state, unit, f"{job.dataset.number:06}-{index:03}-{attempt}")
            state.futures[unit.task] = future
            state.waiting[future.key] = unit
            completed.add(future)
    return state


def _submit(client: Client, state: _Running, unit: BenchmarkUnit, counters: str) -> Future:
    """Keys carry counters, never the sample's name: they are visible on the dashboard."""
    key = f"{unit.stage}-{counters}"
    if unit.fit is None:
        return client.submit(run_sum, state.job.dataset, key=key, pure=False)
    after = [state.futures.get(name) or state.records[name] for name in unit.needs]
    return client.submit(run_fit, state.job.dataset, *unit.fit, after, key=key, pure=False)


def _settle(future: Future, state: _Running, run: RunDir, progress: Callable[[Progress], None]) -> None:
    unit = state.waiting.pop(future.key)
    finished = future.status == "finished"
    progress(Progress(stage=unit.stage, pixels=0, ok=finished))
    if finished:
        record: TaskRecord = future.result()
        state.records[unit.task] = record
        line = finished_line(record)
    else:
        # Dask hands the error of a task on to those that need it.
        culprit = next((n for n in unit.needs if _has_failed(state.futures.get(n))), None)
        reason = failure_reason(future)
        state.failures[unit.task] = reason if culprit is None else f"{culprit} failed: {reason}"
        trace = failure_trace(future) if culprit is None else ""
        line = failure_line(unit.task, state.failures[unit.task], trace)
    run.append(state.job.dataset.dataset_id, line)


def _has_failed(future: Future | None) -> bool:
    return future is not None and future.status in {"error", "cancelled"}


def _outcome(state: _Running) -> BenchmarkOutcome:
    return BenchmarkOutcome(job=state.job, records=state.records, failures=state.failures)
