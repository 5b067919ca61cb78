"""What a run would do now, and why: of every item whether it is done, or what is missing of it. Nothing is written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import OutputError
from hpcxrf.runner.datasets import read_kept
from hpcxrf.runner.done import find_finished, last_lines
from hpcxrf.runner.journal import kinds_read
from hpcxrf.runner.records import Item, Kept, Refusal, Unit
from hpcxrf.runner.workload import Planned, PlanRequest, Workload
from hpcxrf.store.rundir import FAILED, RETRY, Record, RunDir, left_alone, refuse_other_configuration

_KINDS: Final[Mapping[str, str]] = {
    "stamps": "input",
    "region_stamps": "labels of regions",
    "reference_stamps": "reference of I0",
    "standard_stamps": "standard",
}
"""Kinds of files by the words of reasons."""

Action = Literal["run", "nothing", "refused", "left alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intention:
    """What would be done with one item."""

    dataset_id: str
    source: Path
    action: Action
    """`left alone`: it failed, and `hpcxrf retry` chose others."""
    reason: str
    tasks: int = 0
    """Tasks that would run."""
    of: int = 0
    """Tasks that it has."""


def explain_run(workload: Workload, config: RunConfig, run_dir: Path) -> Iterator[Intention]:
    """Say of every item of a run what would be done with it, in the order in which that would begin.

    Args:
        workload: what is to be run.
        config: a checked run file.
        run_dir: the run directory, which need not be there.

    Raises:
        HpcxrfError: the plan cannot go on, or the folder holds a run that does not go on with this configuration.
    """
    run = RunDir(path=run_dir.absolute())
    if run.effective_file.exists():
        wanted = json.loads(json.dumps(workload.lasting(config)))
        refuse_other_configuration(run, wanted, workload.fixed(config))
    request = PlanRequest(config=config, run_dir=run.path, kept=read_kept(run))
    alone = left_alone(run)
    for planned in workload.plan(request):
        yield _explain(workload, planned, alone)


def _explain(workload: Workload, planned: Planned, alone: Mapping[str, str]) -> Intention:
    if isinstance(planned, Kept):
        record = planned.record
        reason = "done; its files were touched and hold the same" if planned.renewed else "done"
        return Intention(dataset_id=record.dataset_id, source=Path(record.source), action="nothing", reason=reason)
    intend = partial(Intention, dataset_id=planned.dataset_id, source=planned.source)
    if isinstance(planned, Refusal):
        return intend(action="refused", reason=planned.reason)
    if planned.dataset_id in alone:
        return intend(action="left alone", reason=alone[planned.dataset_id])
    if not workload.foresees(planned):
        return intend(action="run", reason="its tasks are known when others are done")
    units = workload.units_of(planned)
    left, reason = _find_left(workload, planned, units)
    return intend(action="run" if left else "nothing", reason=reason, tasks=left, of=len(units))


def _find_left(workload: Workload, item: Item, units: Sequence[Unit]) -> tuple[int, str]:
    """Number of tasks that are to run, and why."""
    try:
        journal = RunDir(path=item.run_dir).read_journal(item.dataset_id)
    except OutputError:
        return len(units), "its journal is damaged"
    done = find_finished(workload, item, units, journal)
    left = [unit for unit in units if unit.task not in done]
    return len(left), _find_reason(workload, item, left, last_lines(journal)) if left else "done"


def _find_reason(workload: Workload, item: Item, left: Sequence[Unit], last: Mapping[str, Record]) -> str:
    """Why the first task that is to run is not done."""
    if not last:
        return "new: nothing of it has been done"
    reasons = (_explain_unit(workload, item, unit, last.get(unit.task)) for unit in left)
    told = [reason for reason in reasons if reason]
    return told[0] if told else "not finished: the run was stopped"


def _explain_unit(workload: Workload, item: Item, unit: Unit, line: Record | None) -> str:
    """Why a task is not done; empty: it was not begun, or rests on one that is to run."""
    if line is None:
        return ""
    if line["event"] == FAILED:
        return f"{unit.task} failed: {line.get('reason', '')}"
    if line["event"] == RETRY:
        return f"{unit.task} is to be done again: {line.get('reason') or 'hpcxrf retry'}"
    if changed := _list_changes(item, unit, line):
        return "; ".join(changed)
    return "" if workload.is_there(item, unit) else f"what {unit.task} wrote is gone"


def _list_changes(item: Item, unit: Unit, line: Record) -> list[str]:
    """What a task read that is another now."""
    written = line.get("made_from") or {}
    return [
        f"{_KINDS.get(kind, kind)}: {word} {name}"
        for kind in kinds_read(item, unit)
        for word, name in _compare(written.get(kind) or {}, item.made_from[kind])
    ]


def _compare(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys([*before, *now]):
        if name not in before:
            yield "new", name
        elif name not in now:
            yield "no more", name
        elif before[name] != now[name]:
            yield "changed", name
