"""Feeds the graph, keeps the journal, and decides what is finished. The only writer of the run's state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distributed import Client, Future, as_completed

from hpcxrf.pipeline.graph import submit, units_of
from hpcxrf.pipeline.journal import (
    failure_line,
    failure_reason,
    failure_trace,
    finished_line,
    made_from,
    record_of,
)
from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.records import STAGES, DatasetJob, Stage, TaskRecord
from hpcxrf.results.maps import is_complete, reopen
from hpcxrf.store.rundir import FAILED, RunDir, still_finished
from hpcxrf.store.rundir import finished as finished_record

OPEN_TASK: Final = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One task ended, or was found finished."""

    stage: Stage
    pixels: int
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one dataset ended."""

    job: DatasetJob
    records: tuple[TaskRecord, ...]
    failure: str | None

    @property
    def notes(self) -> list[str]:
        """Guesses made and choices taken for this dataset."""
        found = (r.facts or {} for r in self.records if r.stage == "integrated")
        return [note for facts in found for note in facts.get("notes", [])]


@dataclass(slots=True)
class _Running:
    job: DatasetJob
    records: dict[str, TaskRecord]
    futures: dict[str, Future]
    failed: bool = False
    reason: str = ""
    waiting: set[str] = field(default_factory=set)


def run_datasets(
    plan: Plan,
    run: RunDir,
    client: Client,
    *,
    in_flight: int,
    progress: Callable[[Progress], None],
) -> list[Outcome]:
    """Run all datasets of a plan, a bounded number at a time; a failed one stops no other.

    Args:
        plan: of `make_plan`.
        run: the run directory, locked by the caller.
        client: of the cluster.
        in_flight: datasets whose graphs are with the scheduler at a time.
        progress: called for every task.

    Returns:
        One outcome per dataset of the plan, in its order.
    """
    for refusal in plan.refusals:
        run.append(refusal.dataset_id, failure_line(OPEN_TASK, refusal.reason))
    outcomes: dict[int, Outcome] = {}
    queue = list(reversed(plan.jobs))
    running: dict[str, _Running] = {}
    completed = as_completed()
    while True:
        while queue and len(set(map(id, running.values()))) < in_flight:
            _begin(queue.pop(), run, client, completed, running, outcomes, progress)
        if not running:
            break
        future = next(completed)
        state = running.pop(future.key)
        _settle(future, state, run, progress)
        if not state.waiting:
            outcomes[state.job.number] = _outcome(state)
    return [outcomes[job.number] for job in plan.jobs]


def finished_tasks(run: RunDir, job: DatasetJob) -> dict[str, TaskRecord]:
    """Records of the tasks whose journal line still holds: what they wrote is there, bit for bit.

    A task counts only while everything that it was made from counts: a new ingest undoes the fits.
    """
    journal = run.read_journal(job.dataset_id)
    done: dict[str, TaskRecord] = {}
    complete: dict[Stage, bool] = {}
    for unit in units_of(job):
        earlier = STAGES[: STAGES.index(unit.stage)]
        if all(complete.get(stage, True) for stage in earlier) and still_finished(
            run, journal, unit.task
        ):
            line = finished_record(journal, unit.task)
            if line is not None and made_from(line, job):
                done[unit.task] = record_of(line)
                continue
        complete[unit.stage] = False
    return done


def _begin(
    job: DatasetJob,
    run: RunDir,
    client: Client,
    completed: Any,  # noqa: ANN401 (distributed's as_completed has no types)
    running: dict[str, _Running],
    outcomes: dict[int, Outcome],
    progress: Callable[[Progress], None],
) -> None:
    done = finished_tasks(run, job)
    for record in done.values():
        progress(Progress(stage=record.stage, pixels=record.pixels, ok=True))
    path = run.results_store(job.dataset_id)
    if len(done) < len(units_of(job)) and is_complete(path):
        reopen(path)
    attempt = sum(1 for line in run.read_journal(job.dataset_id) if line.get("event") == FAILED)
    futures = submit(client, job, done, attempt)
    state = _Running(job=job, records=done, futures=futures)
    state.waiting = {future.key for future in futures.values()}
    if not futures:
        outcomes[job.number] = _outcome(state)
    for future in futures.values():
        running[future.key] = state
        completed.add(future)


def _settle(
    future: Future, state: _Running, run: RunDir, progress: Callable[[Progress], None]
) -> None:
    state.waiting.discard(future.key)
    unit = next(u for u in units_of(state.job) if state.futures.get(u.task) is future)
    if future.status == "finished":
        record: TaskRecord = future.result()
        state.records[unit.task] = record
        run.append(state.job.dataset_id, finished_line(record))
        progress(Progress(stage=unit.stage, pixels=record.pixels, ok=True))
        return
    progress(Progress(stage=unit.stage, pixels=0, ok=False))
    if not state.failed:
        state.failed = True
        culprit = next(t for t, f in state.futures.items() if f.status in {"error", "cancelled"})
        state.reason = failure_reason(state.futures[culprit])
        trace = failure_trace(state.futures[culprit])
        run.append(state.job.dataset_id, failure_line(culprit, state.reason, trace))


def _outcome(state: _Running) -> Outcome:
    return Outcome(
        job=state.job,
        records=tuple(state.records.values()),
        failure=state.reason if state.failed else None,
    )


def totals(plan: Plan) -> dict[Stage, int]:
    """Number of tasks by stage, for progress bars."""
    counts: dict[Stage, int] = {}
    for job in plan.jobs:
        for unit in units_of(job):
            counts[unit.stage] = counts.get(unit.stage, 0) + 1
    return counts


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Datasets that failed."""
    return [outcome for outcome in outcomes if outcome.failure is not None]
