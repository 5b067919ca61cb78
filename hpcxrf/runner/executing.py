"""What a worker runs for a unit: once under a driver, and with all that it wrote on the disk."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from distributed import get_worker

from hpcxrf.runner.journal import pack_record
from hpcxrf.runner.records import Item, TaskRecord, Unit
from hpcxrf.runner.worker import keep_record, read_kept_record, sync_written

RunUnit = Callable[[Any, Unit, Sequence[TaskRecord]], TaskRecord]


def run_once(work: RunUnit, item: Item, unit: Unit, after: Sequence[TaskRecord]) -> TaskRecord:
    """What a worker runs for a unit; one that was finished under this driver is not run again.

    Args:
        work: `run_unit` of the workload.
        item: the item.
        unit: one of its units.
        after: records of the units that it needs.

    Returns:
        The record, once all that it names is on the disk.
    """
    known = read_kept_record(item, unit.task)
    if known is not None:
        return known
    record = work(item, unit, after)
    sync_written(item.run_dir, record.checksums or {})
    keep_record(item, record)
    return record


def run_and_report(
    work: RunUnit, item: Item, topic: str, unit: Unit, after: Sequence[TaskRecord], key: str
) -> TaskRecord:
    """`run_once`, and the record on its way to the driver, ahead of the message that the task has ended.

    A driver that fetches every result asks the scheduler, which asks the worker: a tenth to a quarter more CPU time,
    and of a worker that has just died it waits for an answer.

    Args:
        work: `run_unit` of the workload.
        item: the item.
        topic: name under which the driver listens.
        unit: one of its units.
        after: records of the units that it needs.
        key: key of this task.
    """
    record = run_once(work, item, unit, after)
    get_worker().log_event(topic, {"key": key, "record": json.dumps(pack_record(record))})
    return record
