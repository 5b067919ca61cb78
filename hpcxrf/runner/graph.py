"""The Dask graph of one item, from what its units need. The one module that submits."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client, Future, get_worker

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
    work: RunUnit, item: Item, unit: Unit, after: Sequence[TaskRecord], topic: str, key: str
) -> TaskRecord:
    """`run_once`, and the record on its way to the driver, ahead of the message that the task has ended.

    A driver that fetches every result asks the scheduler, which asks the worker: that took half of its CPU time, and
    of a worker that has just died it waited for an answer.

    Args:
        work: `run_unit` of the workload.
        item: the item.
        unit: one of its units.
        after: records of the units that it needs.
        topic: name under which the driver listens.
        key: key of this task.
    """
    record = run_once(work, item, unit, after)
    get_worker().log_event(topic, {"key": key, "record": json.dumps(pack_record(record))})
    return record


def submit(
    client: Client, work: RunUnit, item: Item, units: Sequence[Unit], finished: Mapping[str, TaskRecord], drive: str
) -> dict[str, Future]:
    """Submit what is missing of an item.

    Args:
        client: client of the cluster.
        work: `run_unit` of the workload.
        item: the item.
        units: all of the item, each after those that it needs.
        finished: records of the units that need not run again.
        drive: name under which the driver listens to records. It distinguishes the keys of a second run on one cluster,
            too: Dask would not run what it still holds cancelled under the same key.

    Returns:
        Futures by task, in the order of the graph. Keys carry counters, never the sample's name: they are
        visible on the dashboard.
    """
    known: dict[str, Any] = dict(finished)
    futures: dict[str, Future] = {}
    for index, unit in enumerate(units):
        if unit.task not in finished:
            after = [known[name] for name in unit.needs]
            key = f"{unit.stage}-{item.number:06}-{index:05}-{drive}"
            known[unit.task] = futures[unit.task] = client.submit(
                run_and_report, work, item, unit, after, drive, key, key=key, pure=False
            )
    return futures
