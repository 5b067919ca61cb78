"""Which units of an item an earlier driver finished, by its journal; needs neither torch nor dask.

A journal line is written after the data that it names reached the disk, so it is trusted: contents are compared by
`hpcxrf verify` alone.
"""

from collections.abc import Iterable, Mapping, Sequence

from hpcxrf.runner.journal import is_made_from, is_record, read_record
from hpcxrf.runner.records import Item, Kept, Refusal, TaskRecord, Unit
from hpcxrf.runner.workload import Planned, Workload
from hpcxrf.store.rundir import FAILED, FINISHED, RETRY, Record, RunDir, read_or_set_aside


def find_finished(
    workload: Workload, item: Item, units: Sequence[Unit], journal: Sequence[Record]
) -> dict[str, TaskRecord]:
    """Records of the units whose journal line still holds.

    A unit counts only while everything that it needs counts: a new ingest undoes the fits that were made from it.

    Args:
        workload: what the item belongs to.
        item: whose journal it is.
        units: all of the item, each after those that it needs.
        journal: all lines, oldest first.
    """
    last = last_lines(journal)
    done: dict[str, TaskRecord] = {}
    for unit in units:
        line = last.get(unit.task)
        if (
            line is not None
            and line.get("event") == FINISHED
            and is_record(line)
            and all(needed in done for needed in unit.needs)
            and is_made_from(line, item, unit)
            and workload.is_there(item, unit)
        ):
            done[unit.task] = read_record(line)
    return done


def count_if_finished(workload: Workload, planned: Iterable[Planned]) -> int | None:
    """The number of items of a plan of which nothing is left to do; None: something is left.

    Args:
        workload: what they belong to.
        planned: its plan; it is followed to the first item that is not finished.
    """
    count = 0
    for one in planned:
        if isinstance(one, Refusal) or not (_is_kept(one) if isinstance(one, Kept) else _is_finished(workload, one)):
            return None
        count += 1
    return count


def _is_kept(kept: Kept) -> bool:
    """Whether nothing is to be written of it either: once its stamps are renewed, its files need not be read again."""
    return not kept.renewed


def _is_finished(workload: Workload, item: Item) -> bool:
    units = workload.units_of(item)
    journal = read_or_set_aside(RunDir(path=item.run_dir), item.dataset_id)
    return len(find_finished(workload, item, units, journal)) == len(units)


def last_lines(journal: Sequence[Record]) -> Mapping[str, Record]:
    """The line that counts of every task: the last one."""
    return {str(line["task"]): line for line in journal if line.get("event") in {FAILED, FINISHED, RETRY}}
