"""The Dask graph of one item, from what its units need. The one module that submits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client, Future

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
        drive: distinguishes the keys of a second run on one cluster: Dask would not run what it still holds cancelled
            under the same key.

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
                run_once, work, item, unit, after, key=key, pure=False
            )
    return futures
