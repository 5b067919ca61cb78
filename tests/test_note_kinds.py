"""Notes keep their kind through files, and what version 0.1.0 wrote without kinds reads as warnings."""

import json
from types import SimpleNamespace

import pytest

from hpcxrf.errors import OutputError
from hpcxrf.notes import Note, pack_notes, unpack_notes
from hpcxrf.runner.datasets import append_dataset, read_datasets
from hpcxrf.runner.ending import RunEnd, keep_end, read_end, tell_finish
from hpcxrf.runner.journal import finished_line, read_record
from hpcxrf.runner.records import DatasetRecord, TaskRecord, Unit
from hpcxrf.store.rundir import create_or_resume

NOTES = (Note("fact", "nothing is missing, and this is a fact"), Note("warning", "energy from o.txt"))
TEXTS = [note.text for note in NOTES]
DOUBTS = tuple(Note("warning", text) for text in TEXTS)


def line_of(**changes):
    """Line of a finished task in a journal."""
    unit = Unit(task="integrated", stage="integrated")
    record = TaskRecord(task="integrated", stage="integrated", dataset_id="a-1", wall_s=1.0, cpu_s=1.0, **changes)
    return finished_line(record, SimpleNamespace(made_from={}), unit)


def test_kinds_are_kept_whatever_the_words_are():
    assert unpack_notes(json.loads(json.dumps(pack_notes(NOTES)))) == NOTES
    assert pack_notes(NOTES) == {"notes": TEXTS, "warnings": ["energy from o.txt"]}
    assert unpack_notes({}) == ()


def test_sentences_without_a_kind_are_warnings():
    assert unpack_notes({"notes": TEXTS}) == DOUBTS
    assert unpack_notes({"notes": TEXTS, "warnings": []}) == tuple(Note("fact", text) for text in TEXTS)


def test_words_that_are_a_fact_and_a_warning_read_back_as_a_warning():
    assert set(unpack_notes(pack_notes([Note("fact", "x"), Note("warning", "x")]))) == {Note("warning", "x")}


def test_a_journal_keeps_kinds_and_one_of_version_0_1_0_is_read():
    line = json.loads(json.dumps(line_of(notes=NOTES)))
    assert read_record(line).notes == NOTES
    old = {name: value for name, value in line.items() if name not in {"notes", "warnings"}}
    assert read_record({**old, "facts": {"r2": {"0": 0.9}, "notes": TEXTS}}).notes == DOUBTS
    assert read_record({**old, "facts": None}).notes == ()


def test_the_line_of_a_dataset_keeps_kinds_and_one_of_plain_sentences_is_read(tmp_path):
    run = create_or_resume(tmp_path / "run", "a: 1\n", {})
    append_dataset(run, DatasetRecord(dataset_id="a-1", name="a", state="done", notes=NOTES), 0)
    (record,) = read_datasets(run)
    assert record.notes == NOTES
    (file,) = run.path.glob("**/datasets.jsonl")
    line = json.loads(file.read_text())
    del line["warnings"]
    file.write_text(json.dumps(line) + "\n")
    (record,) = read_datasets(run)
    assert record.notes == DOUBTS


def test_a_run_directory_of_version_0_1_0_reports_its_notes_from_the_journals(tmp_path):
    run = create_or_resume(tmp_path / "run", "a: 1\n", {})
    line = line_of()
    del line["notes"], line["warnings"]
    run.append("a-1", {**line, "facts": {"notes": TEXTS}})
    (record,) = read_datasets(run)
    assert record.notes == DOUBTS


def test_the_end_of_a_run_keeps_kinds(tmp_path):
    run = create_or_resume(tmp_path / "run", "a: 1\n", {})
    end = RunEnd(run=run, wall_s=1.0, device="CPU", command="", started="", notes=NOTES)
    keep_end(end)
    assert read_end(run) == end


def test_a_run_finished_its_seconds_after_it_began(tmp_path):
    run = create_or_resume(tmp_path / "run", "a: 1\n", {})
    told = {"run": run, "device": "CPU", "command": "", "notes": ()}
    end = RunEnd(wall_s=3700.6, started="2026-11-20T23:30:00+00:00", **told)
    assert tell_finish(end) == "2026-11-21T00:31:40+00:00"
    with pytest.raises(OutputError, match=r"end\.json"):
        tell_finish(RunEnd(wall_s=1.0, started="yesterday", **told))
