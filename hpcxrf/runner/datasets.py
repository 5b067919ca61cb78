"""How every item of a run ended: one line each in `datasets.jsonl`, written after all of its data is on the disk.

Report, tables, `status` and resume read it, so that none of them must hold a run of 100 000 datasets in memory or
open its journals.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from hpcxrf.config.untrusted import parse_json_object, refuse_irregular, report_faults
from hpcxrf.errors import OutputError
from hpcxrf.notes import pack_notes, unpack_notes
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.journal import read_notes
from hpcxrf.runner.records import DatasetRecord, DatasetState, Item, TaskRecord
from hpcxrf.store.files import append_line
from hpcxrf.store.rundir import FAILED, FINISHED, RunDir

OPEN_TASK: Final = "open"
"""Task of an item whose file cannot be opened."""
ENDINGS: Final = "datasets.jsonl"
"""File of a run directory with a line for every item that ended."""
_KEPT_FACTS: Final = ("r2", "suggested", "machine", "merit", "flags", "axis_flags", "fits", "date", "format")
_REMEDY: Final = "remove the file, and the same command makes it again from the journals"
_TYPES: Final = {"number": int, "home": str, "dataset_id": str, "name": str, "state": str, "source": str} | {
    "shape": list,
    "made_from": dict,
    "facts": dict,
    "notes": list,
}
"""Types of what every line has."""
_FIELDS: Final = frozenset(f.name for f in dataclasses.fields(DatasetRecord))


def summarise(item: Item, records: Sequence[TaskRecord], **ending: Any) -> DatasetRecord:  # noqa: ANN401 (fields of DatasetRecord)
    """What is kept of an item that ended.

    Args:
        item: the item.
        records: records of its finished tasks, in the order of the graph.
        ending: state, reason and numbers of tasks, where it is not done.
    """
    seconds: dict[str, float] = {}
    for record in records:
        seconds[record.stage] = seconds.get(record.stage, 0.0) + record.wall_s
    told = [record.facts or {} for record in records]
    return DatasetRecord(
        dataset_id=item.dataset_id,
        name=item.source.name,
        source=str(item.source),
        shape=tuple(getattr(item, "shape", ())),
        seconds=seconds,
        cpu_s=sum(record.cpu_s for record in records),
        gpu_s=sum(record.wall_s for record in records if record.device.startswith("cuda")),
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        facts={key: facts[key] for facts in told for key in _KEPT_FACTS if key in facts},
        made_from=item.made_from,
        **({"state": "done"} | ending),
    )


def append_dataset(run: RunDir, record: DatasetRecord, number: int) -> None:
    """Add how an item ended; only the driver that holds the lock may.

    Args:
        run: the run directory.
        record: how it ended.
        number: its place in the plan, which orders tables.

    Raises:
        OutputError: the folder cannot be written.
    """
    append_line(run.path / ENDINGS, {"number": number, **dataclasses.asdict(record), **pack_notes(record.notes)})


def read_datasets(run: RunDir) -> Iterator[DatasetRecord]:
    """How every item ended, in the order of the plan; of one that ended several times the last.

    A run directory of version 0.1.0 has no such file: its journals are read instead.
    """
    file = run.path / ENDINGS
    if not file.is_file():
        yield from filter(None, (_read_journal(run, name) for name in run.dataset_ids()))
        return
    places = sorted(_places(file).values())
    with file.open("rb") as stream:
        for _, offset in places:
            yield _read_at(stream, offset)


def has_records(run: RunDir) -> bool:
    """Whether the items of a run that ended have lines of their own, as they have since version 0.1.0."""
    return (run.path / ENDINGS).is_file()


def read_kept(run: RunDir) -> dict[str, DatasetRecord]:
    """Items that an earlier driver finished, by dataset_id; without what only tables need."""
    file = run.path / ENDINGS
    kept: dict[str, DatasetRecord] = {}
    for _, content in _read_whole_lines(file) if file.is_file() else ():
        name = content["dataset_id"]
        if content["home"]:
            continue
        if content["state"] == "done":
            kept[name] = DatasetRecord(
                dataset_id=name,
                name=content["name"],
                source=content["source"],
                state="done",
                shape=tuple(content["shape"]),
                made_from=content["made_from"],
            )
        else:
            kept.pop(name, None)
    return kept


def next_number(run: RunDir) -> int:
    """The first number that no item of a run had so far: those of a plan that goes on begin there.

    Raises:
        OutputError: a line is damaged.
    """
    file = run.path / ENDINGS
    lines = _read_whole_lines(file) if file.is_file() else ()
    return 1 + max((content["number"] for _, content in lines), default=-1)


def forget_dataset(run: RunDir, dataset_id: str, reason: str) -> None:
    """Say that an item that was done is to be looked at again by the next driver.

    Raises:
        OutputError: the folder cannot be written.
    """
    file = run.path / ENDINGS
    found = [place for (_, name), place in _places(file).items() if name == dataset_id] if file.is_file() else []
    # A run of version 0.1.0, or an item that never ended, has nothing to be taken back.
    for number, offset in found[:1]:
        with file.open("rb") as stream:
            record = _read_at(stream, offset)
        append_dataset(run, dataclasses.replace(record, state="not tried", reason=reason), number)


def renew_datasets(run: RunDir, made_from: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    """Write down stamps of today of items that are done, whose files were touched and hold the same.

    Args:
        run: whose lock is held.
        made_from: stamps by kind, by dataset_id.

    Raises:
        OutputError: the folder cannot be written.
    """
    if not made_from:
        return
    file = run.path / ENDINGS
    with file.open("rb") as stream:
        for (home, name), (number, offset) in _places(file).items():
            if not home and name in made_from:
                _renew_journal(run, name, made_from[name])
                append_dataset(run, dataclasses.replace(_read_at(stream, offset), made_from=made_from[name]), number)


def _renew_journal(run: RunDir, dataset_id: str, made_from: Mapping[str, Mapping[str, str]]) -> None:
    """Say the same of its tasks, which else would be done again with those that another change asks for."""
    try:
        last = last_lines(run.read_journal(dataset_id))
    except OutputError:
        return
    lines = [
        {**line, "made_from": {k: made_from.get(k, stamps) for k, stamps in line["made_from"].items()}, "renewed": True}
        for line in last.values()
        if line["event"] == FINISHED and line.get("made_from")
    ]
    run.append_all(dataset_id, lines)


def describe_ending(record: DatasetRecord) -> str:
    """Why a dataset is not done, with the number of its tasks that were therefore not tried; empty where it is."""
    if not record.not_tried:
        return record.reason
    return f"{record.reason} ({record.not_tried} further task{'s' * (record.not_tried > 1)} not tried)"


def _places(file: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """(number, offset) of the last whole line of every item; what a kill left of a line is none."""
    return {
        (content["home"], content["dataset_id"]): (content["number"], offset)
        for offset, content in _read_whole_lines(file)
    }


def _read_whole_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Offset and content of every line, oldest first; what a kill left of a line is none.

    Raises:
        OutputError: a line is damaged.
    """
    offset = 0
    refuse_irregular(file, OutputError)
    with file.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                where = f"{file}: the line at byte {offset}"
                content = parse_json_object(line, where, OutputError, _REMEDY)
                if not all(isinstance(content.get(key), kind) for key, kind in _TYPES.items()):
                    raise OutputError(f"{where} is damaged; {_REMEDY}")
                yield offset, content
            offset += len(line)


def _read_at(stream: BinaryIO, offset: int) -> DatasetRecord:
    stream.seek(offset)
    with report_faults("datasets.jsonl", OutputError, _REMEDY):
        content = json.loads(stream.readline())
        plain: dict[str, Any] = {k: v for k, v in content.items() if k in _FIELDS}
        return DatasetRecord(**plain | {"shape": tuple(plain["shape"]), "notes": unpack_notes(content)})


def _read_journal(run: RunDir, dataset_id: str) -> DatasetRecord | None:
    """What the journal of an item says of it, None where it has not ended; a damaged one is its own item's failure."""
    try:
        lines = last_lines(run.read_journal(dataset_id))
    except OutputError as error:
        return DatasetRecord(dataset_id=dataset_id, name=dataset_id, state="failed", reason=str(error), failed=1)
    finished = [line for line in lines.values() if line["event"] == FINISHED]
    failed = [line for line in lines.values() if line["event"] == FAILED]
    # Scans end with `finalise`; the items of other workloads of 0.1.0 were done when nothing had failed.
    closed = any(line["task"] == "finalise" for line in finished)
    if closed or (finished and not failed and not any(line["task"] == "ingest" for line in finished)):
        state: DatasetState = "done"
        reason = ""
    elif failed:
        state = "failed"
        reason = str(failed[-1].get("reason", ""))
    else:
        return None
    seconds: dict[str, float] = {}
    for line in finished:
        stage = str(line.get("stage", line["task"]))
        seconds[stage] = seconds.get(stage, 0.0) + float(line.get("wall_s") or 0.0)
    facts = [line.get("facts") or {} for line in finished]
    return DatasetRecord(
        dataset_id=dataset_id,
        name=next((str(one["name"]) for one in facts if "name" in one), dataset_id),
        state=state,
        reason=reason,
        failed=0 if state == "done" else len(failed),
        shape=next((tuple(one["shape"]) for one in facts if "shape" in one), ()),
        seconds=seconds,
        notes=tuple(dict.fromkeys(note for line in finished for note in read_notes(line))),
        facts={key: one[key] for one in facts for key in _KEPT_FACTS if key in one},
    )
