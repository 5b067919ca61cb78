"""A workload: the functions by which the runner knows what to plan, to run and to show. The table is `workloads.py`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcxrf.config.run import RunConfig
from hpcxrf.notes import Note
from hpcxrf.runner.ending import RunEnd
from hpcxrf.runner.printout import FinishedRun, Printout, describe_run
from hpcxrf.runner.records import DatasetRecord, Item, Kept, Refusal, TaskRecord, Unit
from hpcxrf.store.rundir import Record

Planned = Item | Refusal | Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is made from."""

    config: RunConfig
    run_dir: Path
    worker_bytes: int | None = None
    """Memory of one worker; an item that needs more is refused. None: it is not checked."""
    kept: Mapping[str, DatasetRecord]
    """Items that an earlier driver finished, by dataset_id."""
    note: Callable[[Note], None] = lambda _note: None
    """Takes what was noticed on the way: files that were left out, and why."""
    opened: Callable[[int, int], None] = lambda _opened, _total: None
    """Takes the number of files opened, and of those that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is run: a few functions. Those that need torch import it inside, so that a login node can read the table."""

    name: str
    stages: Mapping[str, str]
    """Title for people by stage, in the order of the graph."""
    page: str
    """File of the run directory that people open when it is done."""
    reads_files: bool
    """The files of `input` must be there before it starts; false: it makes them."""
    one_core: bool
    """CPU seconds are compared: workers have one thread, one core and no GPU."""
    check: Callable[[RunConfig], None]
    """Refuse a run file before an archive is read for it."""
    lasting: Callable[[RunConfig], dict[str, Any]]
    """The part of the configuration that must be the same when a run goes on."""
    fixed: Callable[[RunConfig], tuple[str, ...] | None] = lambda _config: None
    """What of that must be the same, as `section.key`, where items keep what they were made with and are done again by
    themselves with another configuration; None: all of it."""
    plan: Callable[[PlanRequest], Iterator[Planned]]
    """Find the items and open them, one by one."""
    units_of: Callable[[Any], Sequence[Unit]]
    """All tasks of an item, each after those that it needs."""
    run_unit: Callable[[Any, Unit, Sequence[TaskRecord]], TaskRecord]
    """What a worker does for one of them; given to workers by its name."""
    joins: Callable[[Any], bool] = lambda _item: False
    """Whether all units of an item are to be one task, done by `run_joined`."""
    run_joined: Callable[[Any, Sequence[Unit]], list[TaskRecord] | None] | None = None
    """What a worker does for all units of an item at once; None as its answer: they are to be done one by one here."""
    foresees: Callable[[Any], bool]
    """Whether the tasks of an item are known before anything of the run has been done."""
    is_there: Callable[[Any, Unit], bool]
    """Whether what a finished unit wrote is still there, by a look at one file: contents are for `hpcxrf verify`."""
    reopen: Callable[[Any, Mapping[str, Record]], None]
    """Prepare what is there of an unfinished item, by the last journal line of each task: it is not complete any more,
    and what was damaged goes."""
    summarise: Callable[[RunConfig, RunEnd], object]
    """Write pages and tables at the end of a run, from its records; `describe` gets what it returns."""
    describe: Callable[[FinishedRun], Printout] = describe_run
    """What is printed of a run of it that has ended."""
