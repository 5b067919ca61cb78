"""Lines of an item's journal: what a driver writes of a task that ended, and reads of one that is finished."""

import dataclasses
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from hpcxrf.errors import HpcxrfError
from hpcxrf.runner.records import Item, TaskRecord
from hpcxrf.store.rundir import FAILED, FINISHED, NOT_TRIED


def finished_line(record: TaskRecord) -> dict[str, Any]:
    """The line of a task that did its work."""
    line = dataclasses.asdict(record)
    return {"event": FINISHED, **line, "checksums": line["checksums"] or {}}


def failure_line(task: str, reason: str, trace: str = "") -> dict[str, Any]:
    """The line of a task that was tried and failed."""
    return {"event": FAILED, "task": task, "reason": reason, "traceback": trace}


def not_tried_line(tasks: Iterable[str], because: Iterable[str]) -> dict[str, Any]:
    """One line for all tasks that failed ones kept from running."""
    names = list(tasks)
    return {"event": NOT_TRIED, "tasks": len(names), "first": names[0], "because": list(because)}


def read_record(line: Mapping[str, Any]) -> TaskRecord:
    """The record that a finished line was made of."""
    names = {f.name for f in dataclasses.fields(TaskRecord)}
    return TaskRecord(**{k: v for k, v in line.items() if k in names})


def is_made_from(line: Mapping[str, Any], item: Item) -> bool:
    """Whether the files that a task was made from are those of today; a task without stamps follows another."""
    facts = line.get("facts") or {}
    return all(facts.get(kind) in (None, stamps) for kind, stamps in item.made_from.items())


def describe_failure(error: BaseException) -> str:
    """What a user is told: the message of our own errors, type and message of any other."""
    return str(error) if isinstance(error, HpcxrfError) else f"{type(error).__name__}: {error}"


def trace_failure(error: BaseException, trace: Any) -> str:  # noqa: ANN401 (a traceback, or None)
    """Traceback of an error that is not one of ours, else empty."""
    if isinstance(error, HpcxrfError):
        return ""
    return "".join(traceback.format_exception(type(error), error, trace))
