"""All tasks of a small item as one, in a worker: what is run, and what is reported of each of them.

Most of a small item's time goes into files that one task leaves for the next, and into messages about tasks. So where
a workload can do all of an item in one place, it is one task for Dask; journals, bars and reports know its units, as
of any other item. Where that fails, or ended a worker, the units are run one after the other as they would be alone:
then each has its own attempts, its own error, and what was finished is kept.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distributed import get_worker

from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.runner.executing import RunUnit, run_once
from hpcxrf.runner.journal import describe_failure, pack_record, read_record, trace_failure
from hpcxrf.runner.records import Item, TaskRecord, Unit
from hpcxrf.runner.worker import attempt, has_died, keep_records, keeps_any, read_kept_records

RunJoined = Callable[[Any, Sequence[Unit]], list[TaskRecord] | None]
"""Does all units of an item; None: it is not to be done in one place on this worker."""

JOINED: Final = "joined"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a unit ended that was one of several in a task."""

    task: str
    record: TaskRecord | None = None
    """None: it failed."""
    reason: str = ""
    trace: str = ""
    damaged: bool = False
    """It failed since a store that it reads is damaged."""


def run_joined_and_report(
    work: RunUnit, joined: RunJoined, item: Item, topic: str, units: Sequence[Unit], key: str
) -> list[Outcome]:
    """`run_joined`, and the outcomes on their way to the driver, ahead of the message that the task has ended.

    Args:
        work: `run_unit` of the workload.
        joined: `run_joined` of the workload.
        item: the item.
        topic: name under which the driver listens.
        units: all of the item.
        key: key of this task.
    """
    outcomes = run_joined(work, joined, item, units)
    get_worker().log_event(topic, {"key": key, "record": json.dumps([pack_outcome(one) for one in outcomes])})
    return outcomes


def run_joined(work: RunUnit, joined: RunJoined, item: Item, units: Sequence[Unit]) -> list[Outcome]:
    """Do all units of an item; what failed ones kept from running has no outcome.

    Args:
        work: `run_unit` of the workload.
        joined: `run_joined` of the workload.
        item: the item.
        units: all of it, each after those that it needs.
    """
    records = read_kept_records(item, JOINED)
    if records is None and not keeps_any(item) and not has_died(item, JOINED):
        records = _run_in_one_place(joined, item, units)
    if records is None:
        return _run_apart(work, item, units)
    return [Outcome(task=record.task, record=record) for record in records]


def _run_in_one_place(joined: RunJoined, item: Item, units: Sequence[Unit]) -> list[TaskRecord] | None:
    try:
        with attempt(item, JOINED):
            records = joined(item, units)
    except Exception as error:  # noqa: BLE001  what it is will be found, and told, by the unit that has it alone
        _LOG.warning("%s: its tasks are done one by one, since in one task: %s", item.source, describe_failure(error))
        return None
    if records is not None:
        try:
            keep_records(item, JOINED, records)
        except OutputError as error:
            # They are wanted only where this worker dies before its next message.
            _LOG.warning("%s: its records are not kept: %s", item.source, error)
    return records


def _run_apart(work: RunUnit, item: Item, units: Sequence[Unit]) -> list[Outcome]:
    done: dict[str, TaskRecord] = {}
    outcomes = []
    for unit in units:
        if not all(name in done for name in unit.needs):
            continue
        try:
            record = run_once(work, item, unit, [done[name] for name in unit.needs])
        except Exception as error:  # noqa: BLE001  a unit that fails stops those that need it, and no other
            reason, trace = describe_failure(error), trace_failure(error, error.__traceback__)
            damaged = isinstance(error, DamagedStoreError)
            outcomes.append(Outcome(task=unit.task, reason=reason, trace=trace, damaged=damaged))
        else:
            done[unit.task] = record
            outcomes.append(Outcome(task=unit.task, record=record))
    return outcomes


def pack_outcome(outcome: Outcome) -> dict[str, Any]:
    """JSON values of an outcome."""
    record = None if outcome.record is None else pack_record(outcome.record)
    return {
        "task": outcome.task,
        "record": record,
        "reason": outcome.reason,
        "trace": outcome.trace,
        "damaged": outcome.damaged,
    }


def read_outcome(content: Mapping[str, Any]) -> Outcome:
    """The outcome that JSON values were made of."""
    record = content["record"]
    return Outcome(**{**content, "record": None if record is None else read_record(record)})
