"""Feeds the graph, keeps the journal, and decides what is finished. The only writer of the run's state."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from distributed import Client, Future, as_completed

from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.records import DatasetJob, Stage, TaskRecord
from hpcxrf.pipeline.units import Unit, units_of
from hpcxrf.runner.done import finished_tasks, has_root
from hpcxrf.runner.graph import submit
from hpcxrf.runner.journal import failure_line, failure_reason, failure_trace, finished_line
from hpcxrf.runner.worker import forget_records
from hpcxrf.store.rundir import FAILED, Record, RunDir, leave_alone, left_alone

OPEN_TASK: Final = "open"
_POLL_S: Final = 0.01

DatasetEvent = Literal["refused", "begun", "done", "failed", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One task ended, or was found finished."""

    stage: Stage
    pixels: int
    ok: bool
    found: bool = False
    """By an earlier driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the driver asks of whoever owns the cluster; callables that return at once."""

    stopping: Callable[[], bool] = lambda: False
    """Whether to feed no more: what waits is given up, what is at work may end. It may raise, to end the run."""
    patience_over: Callable[[], bool] = lambda: False
    """While stopping: whether to give up what is at work, too."""
    at_work: Callable[[], frozenset[str]] = frozenset
    """Keys of the tasks that workers are running."""
    dataset: Callable[[DatasetEvent], None] = lambda _event: None
    """Told of every dataset when it begins and ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one dataset ended."""

    job: DatasetJob
    records: tuple[TaskRecord, ...]
    failure: str | None
    left: bool = False
    """Not finished, since the run was stopped; a resumed one goes on with it."""

    @property
    def notes(self) -> list[str]:
        """Guesses made and choices taken for this dataset."""
        found = (r.facts or {} for r in self.records if r.stage in {"integrated", "pixels"})
        return list(dict.fromkeys(note for facts in found for note in facts.get("notes", [])))


@dataclass(slots=True)
class _Running:
    job: DatasetJob
    records: dict[str, TaskRecord]
    futures: dict[str, Future]
    units: dict[str, Unit]
    """By key of their futures."""
    waiting: set[str]
    failed: bool = False
    reason: str = ""
    given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drive:
    """What one run of the driver holds."""

    run: RunDir
    client: Client
    progress: Callable[[Progress], None]
    hooks: Hooks
    completed: Any
    """`distributed.as_completed`, which has no types."""
    running: dict[str, _Running] = field(default_factory=dict)
    """By key of the futures that are waited for."""
    active: dict[int, _Running] = field(default_factory=dict)
    """Datasets whose graphs are with the scheduler, by number."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)


def run_datasets(
    plan: Plan,
    run: RunDir,
    client: Client,
    *,
    in_flight: int,
    progress: Callable[[Progress], None],
    hooks: Hooks | None = None,
) -> list[Outcome]:
    """Run all datasets of a plan, a bounded number at a time; a failed one stops no other.

    Args:
        plan: of `make_plan`.
        run: the run directory, locked by the caller.
        client: of the cluster.
        in_flight: datasets whose graphs are with the scheduler at a time.
        progress: called for every task.
        hooks: of a cluster that can be stopped; None: it cannot.

    Returns:
        One outcome per dataset of the plan, in its order.

    Raises:
        OutputError: the journal cannot be written; what it has is kept.
    """
    drive = _Drive(
        run=run,
        client=client,
        progress=progress,
        hooks=hooks or Hooks(),
        # Results come with the futures: to ask for one whose worker has just died would block.
        completed=as_completed(with_results=True, raise_errors=False),
    )
    for refusal in plan.refusals:
        run.append(refusal.dataset_id, failure_line(OPEN_TASK, refusal.reason))
        drive.hooks.dataset("refused")
    alone = left_alone(run)
    for job in plan.jobs:
        if job.dataset_id in alone:
            _leave(drive, job, alone[job.dataset_id])
    queue = [job for job in reversed(plan.jobs) if job.dataset_id not in alone]
    _feed(drive, queue, in_flight)
    if queue or drive.running:
        _drain(drive)
    for job in queue:
        drive.outcomes[job.number] = Outcome(job=job, records=(), failure=None, left=True)
    if not any(outcome.left for outcome in drive.outcomes.values()):
        leave_alone(run, {})
    return [drive.outcomes[job.number] for job in plan.jobs]


def _feed(drive: _Drive, queue: list[DatasetJob], in_flight: int) -> None:
    """Until everything has ended, or no more is to be fed."""
    while not drive.hooks.stopping():
        while queue and len(drive.active) < in_flight:
            _begin(drive, queue.pop())
        if not drive.running:
            return
        _settle_next(drive)


def _drain(drive: _Drive) -> None:
    """Give up what waits; what is at work may end as long as there is patience."""
    at_work = drive.hooks.at_work()
    states = list(drive.active.values())
    given_up = []
    for state in states:
        waiting = [f for f in state.futures.values() if f.key in state.waiting and not f.done()]
        given_up += [future for future in waiting if future.key not in at_work]
    for future in given_up:
        state = drive.running.pop(future.key)
        state.waiting.discard(future.key)
        state.given_up = True
    drive.client.cancel(given_up)
    while drive.running and not drive.hooks.patience_over():
        _settle_next(drive)
    for state in list(drive.active.values()):
        state.given_up = True
        _end(drive, state)


def _settle_next(drive: _Drive) -> None:
    """Settle every future that has ended; wait a moment where none has."""
    if not drive.completed.has_ready():
        time.sleep(_POLL_S)
        return
    lines: dict[int, list[Record]] = {}
    for future, result in drive.completed.next_batch(block=False):
        state = drive.running.pop(future.key, None)
        if state is not None:
            line = _settle(drive, state, future, result)
            lines.setdefault(state.job.number, []).extend(line)
    for number, found in lines.items():
        state = drive.active[number]
        drive.run.append_all(state.job.dataset_id, found)
        if not state.waiting:
            _end(drive, state)


def _begin(drive: _Drive, job: DatasetJob) -> None:
    run = drive.run
    done = finished_tasks(run, job)
    drive.hooks.dataset("begun")
    for record in done.values():
        drive.progress(Progress(stage=record.stage, pixels=record.pixels, ok=True, found=True))
    if len(done) < len(units_of(job)):
        _reopen_results(run.results_store(job.dataset_id))
    attempt = sum(1 for line in run.read_journal(job.dataset_id) if line.get("event") == FAILED)
    futures = submit(drive.client, job, done, attempt)
    units = {futures[u.task].key: u for u in units_of(job) if u.task in futures}
    state = _Running(job=job, records=done, futures=futures, units=units, waiting=set(units))
    drive.active[job.number] = state
    if not futures:
        _end(drive, state)
    for future in futures.values():
        drive.running[future.key] = state
        drive.completed.add(future)


def _leave(drive: _Drive, job: DatasetJob, reason: str) -> None:
    """A dataset that failed before and was not asked for again: it is as it was."""
    done = finished_tasks(drive.run, job)
    for unit in units_of(job):
        pixels = done[unit.task].pixels if unit.task in done else 0
        drive.progress(Progress(stage=unit.stage, pixels=pixels, ok=unit.task in done, found=True))
    drive.outcomes[job.number] = Outcome(job=job, records=tuple(done.values()), failure=reason)
    drive.hooks.dataset("refused")


def _reopen_results(path: Path) -> None:
    """What is there of an earlier attempt is not complete any more."""
    if not has_root(path):
        return
    # Loads zarr and xarray, which the driver of a new run has no need of.
    from hpcxrf.results.store.maps import is_complete, reopen

    if is_complete(path):
        reopen(path)


def _settle(drive: _Drive, state: _Running, future: Future, result: Any) -> list[Record]:  # noqa: ANN401 (record or error)
    """What the journal is to be told of a task that has ended."""
    state.waiting.discard(future.key)
    unit = state.units[future.key]
    if isinstance(result, TaskRecord):
        state.records[unit.task] = result
        drive.progress(Progress(stage=unit.stage, pixels=result.pixels, ok=True))
        return [finished_line(result)]
    drive.progress(Progress(stage=unit.stage, pixels=0, ok=False))
    if state.failed:
        return []
    state.failed = True
    culprit = next((t for t, f in state.futures.items() if f.status == "error"), unit.task)
    state.reason = failure_reason(state.futures[culprit])
    return [failure_line(culprit, state.reason, failure_trace(state.futures[culprit]))]


def _end(drive: _Drive, state: _Running) -> None:
    """Nothing of this dataset is waited for any more."""
    del drive.active[state.job.number]
    left = state.given_up and not state.failed
    drive.outcomes[state.job.number] = Outcome(
        job=state.job, records=tuple(state.records.values()), failure=state.reason if state.failed else None, left=left
    )
    if not left:
        forget_records(state.job)
    drive.hooks.dataset("left" if left else "failed" if state.failed else "done")


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
