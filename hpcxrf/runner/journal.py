"""Lines of an item's journal: what a driver writes of a task that ended, and reads of one that is finished."""

import dataclasses
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from hpcxrf.errors import HpcxrfError, OutputError
from hpcxrf.notes import Note, pack_notes, unpack_notes
from hpcxrf.runner.records import Item, TaskRecord, Unit
from hpcxrf.store.rundir import FAILED, FINISHED, NOT_TRIED


def finished_line(record: TaskRecord, item: Item, unit: Unit) -> dict[str, Any]:
    """The line of a task that did its work, with the stamps of the files that it was made from."""
    stamps = {kind: dict(item.made_from[kind]) for kind in kinds_read(item, unit)}
    return {"event": FINISHED, **pack_record(record), "checksums": record.checksums or {}, "made_from": stamps}


def pack_record(record: TaskRecord) -> dict[str, Any]:
    """JSON values of a record."""
    return {**dataclasses.asdict(record), **pack_notes(record.notes)}


def kinds_read(item: Item, unit: Unit) -> tuple[str, ...]:
    """Kinds of files that a unit reads itself, by what it declares or, if it needs no other unit, all of the item."""
    return unit.reads or (() if unit.needs else tuple(item.made_from))


def failure_line(task: str, reason: str, trace: str = "") -> dict[str, Any]:
    """The line of a task that was tried and failed."""
    return {"event": FAILED, "task": task, "reason": reason, "traceback": trace}


def not_tried_line(tasks: Iterable[str], because: Iterable[str]) -> dict[str, Any]:
    """One line for all tasks that failed ones kept from running."""
    names = list(tasks)
    return {"event": NOT_TRIED, "tasks": len(names), "first": names[0], "because": list(because)}


def read_record(line: Mapping[str, Any]) -> TaskRecord:
    """The record that a finished line was made of, also one of version 0.1.0.

    Raises:
        OutputError: the line lacks what every record has.
    """
    names = {f.name for f in dataclasses.fields(TaskRecord)}
    if not is_record(line):
        raise OutputError(f"journal, task {line.get('task')}: its line is not whole; give the same command again")
    return TaskRecord(**{k: v for k, v in line.items() if k in names} | {"notes": read_notes(line)})


def read_notes(line: Mapping[str, Any]) -> tuple[Note, ...]:
    """Notes of a finished line; version 0.1.0 wrote them among the facts, without their kinds."""
    return unpack_notes(line if "notes" in line else line.get("facts") or {})


def is_record(line: Mapping[str, Any]) -> bool:
    """Whether a finished line has what every record has."""
    return all(f.name in line for f in dataclasses.fields(TaskRecord) if f.default is dataclasses.MISSING)


def is_made_from(line: Mapping[str, Any], item: Item, unit: Unit) -> bool:
    """Whether the files that a task was made from are those of today."""
    # Version 0.1.0 kept the stamps among the facts.
    written = line.get("made_from") or line.get("facts") or {}
    return all(written.get(kind) == dict(item.made_from[kind]) for kind in kinds_read(item, unit))


def describe_failure(error: BaseException) -> str:
    """What a user is told: the message of our own errors, type and message of any other."""
    return str(error) if isinstance(error, HpcxrfError) else f"{type(error).__name__}: {error}"


def trace_failure(error: BaseException, trace: Any) -> str:  # noqa: ANN401 (a traceback, or None)
    """Traceback of an error that is not one of ours, else empty."""
    if isinstance(error, HpcxrfError):
        return ""
    return "".join(traceback.format_exception(type(error), error, trace))
