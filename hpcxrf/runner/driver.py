"""Feeds the graph, keeps the journals, and decides what is finished. The only writer of a run's state."""

import json
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from distributed import Client, Future, as_completed

from hpcxrf.errors import DamagedStoreError
from hpcxrf.runner.datasets import OPEN_TASK, append_dataset, renew_datasets, summarise
from hpcxrf.runner.done import find_finished, last_lines
from hpcxrf.runner.graph import submit, submit_joined
from hpcxrf.runner.hooks import Ended, Hooks, Progress
from hpcxrf.runner.joined import Outcome, read_outcome
from hpcxrf.runner.journal import (
    describe_failure,
    failure_line,
    finished_line,
    not_tried_line,
    read_record,
    trace_failure,
)
from hpcxrf.runner.planner import Planner
from hpcxrf.runner.records import DatasetRecord, Item, Kept, Refusal, TaskRecord, Unit
from hpcxrf.runner.worker import forget_attempts, forget_records
from hpcxrf.runner.workload import Planned, Workload
from hpcxrf.store.rundir import RETRY, Record, RunDir, leave_alone, left_alone, read_or_set_aside

_POLL_S: Final = 0.01
_MOST_REASONS: Final = 1000


@dataclass(slots=True)
class _Running:
    item: Item
    units: dict[str, Unit]
    """All, by task, in the order of the graph."""
    records: dict[str, TaskRecord]
    futures: dict[str, Future]
    """What was submitted, by task."""
    waiting: dict[str, list[str]]
    """Tasks by key of what has not ended: one, or of a joined item all."""
    joined: bool
    """All of it is one task for Dask."""
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by task."""
    not_tried: list[str] = field(default_factory=list)
    undone: list[Record] = field(default_factory=list)
    """What damage found by a task takes back; written last, since it must be the last word on its task."""
    given_up: bool = False

    def each_future(self) -> Iterable[Future]:
        """What was submitted, once."""
        return {future.key: future for future in self.futures.values()}.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drive:
    """What one run of the driver holds."""

    workload: Workload
    client: Client
    hooks: Hooks
    completed: Any
    """`distributed.as_completed`, which has no types."""
    run: RunDir
    alone: Mapping[str, str]
    """Failed datasets that are not to be tried again now, with the reasons."""
    running: dict[str, _Running] = field(default_factory=dict)
    """By key of the futures that are waited for."""
    active: dict[int, _Running] = field(default_factory=dict)
    """Items whose graphs are with the scheduler, by number."""
    held: deque[Item] = field(default_factory=deque)
    """Items that others must end before."""
    records: dict[str, str] = field(default_factory=dict)
    """Records of tasks that have ended, by key, until the driver sees that they have."""
    good: dict[int, bool] = field(default_factory=dict)
    """Whether an ended item is done, by number."""
    renewed: dict[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    """Stamps of today by dataset_id, of what is done and whose files have been touched."""
    ended: Ended = field(default_factory=Ended)
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    """Part of the keys of all futures of this run, and name under which workers report their records."""


def run_items(
    workload: Workload,
    planned: Iterator[Planned],
    run: RunDir,
    client: Client,
    *,
    in_flight: int,
    hooks: Hooks | None = None,
) -> Ended:
    """Run all items of a plan while it is being made, a bounded number at a time; a failed one stops no other.

    Args:
        workload: what they belong to.
        planned: its `plan`.
        run: the run directory, locked by the caller.
        client: client of the cluster.
        in_flight: items whose graphs are with the scheduler at a time.
        hooks: hooks of a cluster that can be stopped or watched; None: there are none.

    Returns:
        How many ended how; `datasets.jsonl` has the rest.

    Raises:
        OutputError: a journal cannot be written; what it has is kept.
        HpcxrfError: the plan cannot go on.
    """
    drive = _Drive(
        workload=workload,
        client=client,
        hooks=hooks or Hooks(),
        completed=as_completed(),
        run=run,
        alone=left_alone(run),
    )
    client.subscribe_topic(drive.token, partial(_keep_record, drive))
    planner = Planner(planned)
    try:
        _feed(drive, planner, in_flight)
        if drive.active or drive.held or not planner.ended:
            _drain(drive, planner)
    finally:
        planner.stop()
        client.unsubscribe_topic(drive.token)
    renew_datasets(run, drive.renewed)
    if not drive.ended.left:
        leave_alone(run, {})
        forget_attempts(run.path)
    return drive.ended


def _keep_record(drive: _Drive, event: tuple[float, Mapping[str, str]]) -> None:
    """Take what a worker reports of a task, in the thread of the client."""
    _, report = event
    drive.records[report["key"]] = report["record"]


def _feed(drive: _Drive, planner: Planner, in_flight: int) -> None:
    """Take and run items until everything has ended, or no more is to be fed."""
    all_begun = False
    while not drive.hooks.stopping():
        taken = _take_items(drive, planner, in_flight)
        if planner.ended and not drive.held and not all_begun:
            all_begun = True
            drive.hooks.all_begun()
        if planner.ended and not drive.active and not drive.held:
            return
        if not _settle_ended(drive) and not taken:
            time.sleep(_POLL_S)


def _take_items(drive: _Drive, planner: Planner, in_flight: int) -> bool:
    """Begin what may begin now; whether there was anything."""
    for _ in range(len(drive.held)):
        _begin_or_hold(drive, drive.held.popleft())
    taken = False
    while not planner.ended and len(drive.active) + len(drive.held) < in_flight:
        found = planner.take()
        if found is None:
            break
        taken = True
        drive.hooks.dataset("planned")
        if isinstance(found, Kept):
            drive.ended.done += 1
            drive.good[found.number] = True
            if found.renewed:
                drive.renewed[found.record.dataset_id] = found.record.made_from
            drive.hooks.dataset("done")
        elif isinstance(found, Refusal):
            _refuse(drive, found)
        elif found.dataset_id in drive.alone:
            _leave_failed(drive, found)
        else:
            _begin_or_hold(drive, found)
    return taken


def _refuse(drive: _Drive, refusal: Refusal) -> None:
    drive.run.append(refusal.dataset_id, failure_line(OPEN_TASK, refusal.reason))
    record = DatasetRecord(
        dataset_id=refusal.dataset_id,
        name=refusal.source.name,
        source=str(refusal.source),
        state="failed",
        reason=refusal.reason,
        failed=1,
    )
    _account(drive, record, refusal.number, drive.run)


def _leave_failed(drive: _Drive, item: Item) -> None:
    """Count an item that failed before and was not asked for again: it is as it was."""
    units = drive.workload.units_of(item)
    done = find_finished(drive.workload, item, units, RunDir(path=item.run_dir).read_journal(item.dataset_id))
    _announce(drive, units, done)
    for unit in units:
        if unit.task not in done:
            drive.hooks.progress(Progress(stage=unit.stage, pixels=0, ok=False, found=True))
    reason = drive.alone[item.dataset_id]
    _account(
        drive, summarise(item, list(done.values()), state="failed", reason=reason, failed=1), item.number, drive.run
    )


def _begin_or_hold(drive: _Drive, item: Item) -> None:
    known = [drive.good.get(number) for number in item.after]
    if False in known:
        reason = "not tried: what it is made from failed"
        _account(drive, summarise(item, (), state="not tried", reason=reason), item.number, drive.run)
    elif None in known or any(number not in drive.good for number in item.follows):
        drive.held.append(item)
    else:
        _begin(drive, item)


def _begin(drive: _Drive, item: Item) -> None:
    journal = read_or_set_aside(RunDir(path=item.run_dir), item.dataset_id)
    units = list(drive.workload.units_of(item))
    done = find_finished(drive.workload, item, units, journal)
    drive.hooks.dataset("begun")
    _announce(drive, units, done)
    if len(done) < len(units):
        drive.workload.reopen(item, last_lines(journal))
    workload = drive.workload
    joined = workload.run_joined if not done and len(units) > 1 and workload.joins(item) else None
    if joined is None:
        futures = submit(drive.client, workload.run_unit, item, units, done, drive.token)
    else:
        futures = submit_joined(drive.client, workload.run_unit, joined, item, units, drive.token)
    waiting: dict[str, list[str]] = {}
    for task, future in futures.items():
        waiting.setdefault(future.key, []).append(task)
    state = _Running(
        item=item,
        units={unit.task: unit for unit in units},
        records=dict(done),
        futures=futures,
        waiting=waiting,
        joined=joined is not None,
    )
    drive.active[item.number] = state
    for future in state.each_future():
        drive.running[future.key] = state
        drive.completed.add(future)
    if not futures:
        _end(drive, state)


def _announce(drive: _Drive, units: list[Unit] | Any, done: Mapping[str, TaskRecord]) -> None:  # noqa: ANN401 (any sequence)
    counts: dict[str, int] = {}
    for unit in units:
        counts[unit.stage] = counts.get(unit.stage, 0) + 1
    drive.hooks.units(counts)
    for record in done.values():
        drive.hooks.progress(Progress(stage=record.stage, pixels=record.pixels, ok=True, found=True))


def _drain(drive: _Drive, planner: Planner) -> None:
    """Give up what waits; what is at work may end as long as there is patience."""
    at_work = drive.hooks.at_work()
    given_up = [
        future
        for state in drive.active.values()
        for future in state.each_future()
        if future.key in state.waiting and not future.done() and future.key not in at_work
    ]
    for future in given_up:
        state = drive.running.pop(future.key)
        del state.waiting[future.key]
        state.given_up = True
    drive.client.cancel(given_up)
    while drive.running and not drive.hooks.patience_over():
        if not _settle_ended(drive):
            time.sleep(_POLL_S)
    for state in list(drive.active.values()):
        state.given_up = True
        _end(drive, state)
    drive.ended.left += len(drive.held) + (planner.take() is not None or not planner.ended)


def _settle_ended(drive: _Drive) -> bool:
    """Settle every future that has ended; whether there was one."""
    if not drive.completed.has_ready():
        return False
    lines: dict[int, list[Record]] = {}
    for future in drive.completed.next_batch(block=False):
        state = drive.running.pop(future.key, None)
        if state is not None:
            lines.setdefault(state.item.number, []).extend(_settle(drive, state, future))
    for number, found in lines.items():
        state = drive.active[number]
        RunDir(path=state.item.run_dir).append_all(state.item.dataset_id, found)
        if not state.waiting:
            _end(drive, state)
    return True


def _settle(drive: _Drive, state: _Running, future: Future) -> list[Record]:
    """What the journal is to say of the tasks that have ended with a future."""
    tasks = state.waiting.pop(future.key)
    outcomes = _take_outcomes(drive, state, future, tasks)
    lines: list[Record] = []
    for unit in (state.units[task] for task in tasks):
        outcome = outcomes.get(unit.task)
        record = None if outcome is None else outcome.record
        if record is not None:
            state.records[unit.task] = record
            drive.hooks.progress(Progress(stage=unit.stage, pixels=record.pixels, ok=True))
            lines.append(finished_line(record, state.item, unit))
            continue
        drive.hooks.progress(Progress(stage=unit.stage, pixels=0, ok=False, tried=outcome is not None))
        if outcome is None:
            state.not_tried.append(unit.task)
            continue
        state.failures[unit.task] = outcome.reason
        lines.append(failure_line(unit.task, outcome.reason, outcome.trace))
        if outcome.damaged:
            # What a damaged store was made by is to be done again: the first unit, on which all others rest.
            first = next(iter(state.units))
            state.undone = [{"event": RETRY, "task": first, "damaged": True, "reason": outcome.reason}]
    return lines


def _take_outcomes(drive: _Drive, state: _Running, future: Future, tasks: Sequence[str]) -> dict[str, Outcome]:
    """How the tasks of a future that has ended did, by task; those that failed ones kept from running are not there."""
    # It comes before the end of the task, on the same way, and stays known when the worker dies.
    report = drive.records.pop(future.key, None)
    if report is not None:
        told = json.loads(report)
        found = (
            [read_outcome(one) for one in told] if state.joined else [Outcome(task=tasks[0], record=read_record(told))]
        )
    elif _has_failed(future):
        # Dask hands the error of a task on to those that need it.
        needs = [] if state.joined else state.units[tasks[0]].needs
        if any(_has_failed(state.futures.get(name)) for name in needs):
            return {}
        error = future.exception()
        reason, trace = describe_failure(error), trace_failure(error, future.traceback())
        damaged = isinstance(error, DamagedStoreError)
        found = [Outcome(task=tasks[0], reason=reason, trace=trace, damaged=damaged)]
    else:
        # A report is lost with a connection of the driver to itself.
        found = future.result() if state.joined else [Outcome(task=tasks[0], record=future.result())]
    return {outcome.task: outcome for outcome in found}


def _has_failed(future: Future | None) -> bool:
    return future is not None and future.status in {"error", "cancelled"}


def _end(drive: _Drive, state: _Running) -> None:
    """Nothing of this item is waited for any more."""
    item = state.item
    del drive.active[item.number]
    drive.hooks.dataset("ended")
    home = RunDir(path=item.run_dir)
    if state.undone:
        home.append_all(item.dataset_id, state.undone)
    if state.given_up and not state.failures:
        drive.ended.left += 1
        return
    forget_records(item)
    for future in state.each_future():
        # What a task reports that had to be run again although its record was known.
        drive.records.pop(future.key, None)
    records = [state.records[task] for task in state.units if task in state.records]
    ending: dict[str, Any] = {}
    if state.failures:
        reason = next(iter(state.failures.values()))
        ending = {"state": "failed", "reason": reason, "failed": len(state.failures), "not_tried": len(state.not_tried)}
    if state.not_tried:
        home.append(item.dataset_id, not_tried_line(state.not_tried, state.failures))
    _account(drive, summarise(item, records, **ending), item.number, home)


def _account(drive: _Drive, record: DatasetRecord, number: int, home: RunDir) -> None:
    """Write down how an item ended, in the run and in the run directory that the item has of its own; count it."""
    drive.good[number] = record.state == "done"
    append_dataset(home, record, number)
    if home != drive.run:
        inside = home.path.relative_to(drive.run.path).as_posix()
        append_dataset(drive.run, replace(record, home=inside), number)
    if record.state == "done":
        drive.ended.done += 1
    else:
        drive.ended.failed += record.state == "failed"
        drive.ended.not_tried += record.state == "not tried"
        if len(drive.ended.reasons) < _MOST_REASONS:
            drive.ended.reasons[record.dataset_id] = record.reason
    drive.hooks.dataset(record.state)
    drive.hooks.record(record)
