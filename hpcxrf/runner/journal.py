"""Lines of a dataset's journal: what a driver writes of a task that ended, and reads of one that is finished."""

import dataclasses
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcxrf.errors import HpcxrfError
from hpcxrf.pipeline.records import DatasetJob, TaskRecord
from hpcxrf.store.rundir import FAILED, FINISHED

if TYPE_CHECKING:
    from distributed import Future


def finished_line(record: TaskRecord) -> dict[str, Any]:
    """Of a task that did its work."""
    line = dataclasses.asdict(record)
    return {"event": FINISHED, **line, "checksums": line["checksums"] or {}}


def failure_line(task: str, reason: str, trace: str = "") -> dict[str, Any]:
    """Of a task that did not."""
    return {"event": FAILED, "task": task, "reason": reason, "traceback": trace}


def record_of(line: Mapping[str, Any]) -> TaskRecord:
    """The record that a finished line was made of."""
    names = {f.name for f in dataclasses.fields(TaskRecord)}
    return TaskRecord(**{k: v for k, v in line.items() if k in names})


def made_from(line: Mapping[str, Any], job: DatasetJob) -> bool:
    """Whether the files that a task was made from are those of today; a task without stamps follows another."""
    facts = line.get("facts") or {}
    current = {"stamps": dict(job.stamps), "region_stamps": dict(job.region_stamps)}
    return all(facts.get(key) in (None, stamps) for key, stamps in current.items())


def failure_reason(future: "Future") -> str:
    """What a user is told: the message of our own errors, type and message of any other."""
    error = future.exception()
    if isinstance(error, HpcxrfError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def failure_trace(future: "Future") -> str:
    """Traceback of an error that is not one of ours, else empty."""
    error = future.exception()
    if isinstance(error, HpcxrfError):
        return ""
    return "".join(traceback.format_exception(type(error), error, future.traceback()))
