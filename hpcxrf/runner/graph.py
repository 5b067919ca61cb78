"""The Dask graph of one item, from what its units need. The one module that submits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from distributed import Client, Future

from hpcxrf.runner.executing import RunUnit, run_and_report
from hpcxrf.runner.joined import JOINED, RunJoined, run_joined_and_report
from hpcxrf.runner.records import Item, TaskRecord, Unit


def submit_aside(
    client: Client,
    work: Callable[..., Any],
    *arguments: Any,  # noqa: ANN401 (what the function takes)
    key: str,
    worker: str | None = None,
    priority: int = 0,
) -> Future:
    """Submit something beside the units of items, whose result is small and which no record tells of.

    Args:
        client: client of the cluster.
        work: a function of a module.
        arguments: what it takes, small.
        key: name of the task, which no other one has.
        worker: address of the worker that is to do it; None: any.
        priority: what is lower is done later.
    """
    workers = None if worker is None else [worker]
    future: Future = client.submit(work, *arguments, key=key, workers=workers, pure=False, priority=priority)
    return future


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
    names = {unit.task: f"{unit.stage}-{item.number:06}-{index:05}-{drive}" for index, unit in enumerate(units)}
    for together in _group_independent([unit for unit in units if unit.task not in finished]):
        keys = [names[unit.task] for unit in together]
        after = [[known[name] for name in unit.needs] for unit in together]
        common = [[value] * len(together) for value in (work, item, drive)]
        # What was submitted first is run first, however soon the next item follows.
        made = client.map(run_and_report, *common, together, after, keys, key=keys, pure=False, fifo_timeout="0 ms")
        futures |= dict(zip((unit.task for unit in together), made, strict=True))
        known |= futures
    return futures


def _group_independent(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Units in their order, cut into groups of which none needs another of its group: each is one message to Dask."""
    group: list[Unit] = []
    tasks: set[str] = set()
    for unit in units:
        if not tasks.isdisjoint(unit.needs):
            yield group
            group, tasks = [], set()
        group.append(unit)
        tasks.add(unit.task)
    if group:
        yield group


def submit_joined(
    client: Client, work: RunUnit, joined: RunJoined, item: Item, units: Sequence[Unit], drive: str
) -> dict[str, Future]:
    """Submit all of an item as one task.

    Args:
        client: client of the cluster.
        work: `run_unit` of the workload.
        joined: `run_joined` of the workload.
        item: the item.
        units: all of the item, each after those that it needs.
        drive: as of `submit`.

    Returns:
        The one future, by every task.
    """
    key = f"{JOINED}-{item.number:06}-{drive}"
    future = client.submit(run_joined_and_report, work, joined, item, drive, units, key, key=key, pure=False)
    return dict.fromkeys((unit.task for unit in units), future)
