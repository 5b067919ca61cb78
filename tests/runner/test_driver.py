"""The driver, with tasks that do nothing but fail when they are to: what it runs, tries again, and leaves."""

import dataclasses
import itertools
import json
import re
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from stub_workload import STUB, StubItem, run_unit, take_executed, units_of, workers_here

import hpcxrf
from hpcxrf.cluster.failures import ask_again, failures, tally
from hpcxrf.errors import InputFileError
from hpcxrf.runner import executing
from hpcxrf.runner.datasets import read_datasets, read_kept
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.hooks import Hooks
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.runner.worker import forget_records
from hpcxrf.store.rundir import FAILED, FINISHED, RETRY, create_or_resume, left_alone

# A driver that waits for what never comes fails soon.
pytestmark = pytest.mark.timeout(30)

NAMES = ("good-00000000", "hungry-00000000", "cursed-00000000")
BROKEN = {"hungry-00000000": "out of memory", "cursed-00000000": "is cursed"}


@pytest.fixture
def client():
    """A client of its own for each test: keys are counters, and what Dask still holds under one it would not run."""
    with workers_here(2) as client:
        yield client


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "run", "{}", {})


@pytest.fixture
def drive(client, run):
    """Run three items once; `broken` says why a part of which one fails."""

    def drive(broken, **hooks):
        items = [
            StubItem(
                number=n,
                run_dir=run.path,
                dataset_id=name,
                fails={"part-00001": broken[name]} if name in broken else {},
            )
            for n, name in enumerate(NAMES)
        ]
        ended = run_items(STUB, iter(items), run, client, in_flight=8, hooks=Hooks(**hooks))
        return take_executed(run.path), ended

    return drive


def states(run):
    return {record.dataset_id: record.state for record in read_datasets(run)}


def test_a_failed_item_stops_no_other_and_the_next_driver_tries_it_again(drive, run):
    _, ended = drive(BROKEN)
    assert (ended.done, ended.failed, ended.not_tried, ended.left) == (1, 2, 0, 0)
    assert ended.reasons == BROKEN
    assert states(run) == dict.fromkeys(NAMES, "failed") | {"good-00000000": "done"}
    executed, ended = drive({})
    assert (ended.done, ended.failed) == (3, 0)
    assert executed == {(name, task) for name in BROKEN for task in ("part-00001", "last")}
    assert states(run) == dict.fromkeys(NAMES, "done")


def test_failed_is_what_was_tried_and_not_tried_is_what_it_kept_from_running(client, run):
    seen = []
    item = StubItem(number=0, run_dir=run.path, parts=3, fails={"first": "no beam"})
    run_items(STUB, iter([item]), run, client, in_flight=1, hooks=Hooks(progress=seen.append))
    assert [(p.stage, p.tried, p.ok) for p in seen if p.tried] == [("first", True, False)]
    assert sorted(p.stage for p in seen if not p.tried) == ["last", "part", "part", "part"]
    [record] = read_datasets(run)
    assert (record.state, record.failed, record.not_tried, record.reason) == ("failed", 1, 4, "no beam")
    lines = run.read_journal(item.dataset_id)
    assert [line["event"] for line in lines].count(FAILED) == 1
    [left] = [line for line in lines if line["event"] == "not tried"]
    assert (left["tasks"], left["because"]) == (4, ["first"])
    assert [f.task for f in failures(run)] == ["first"]


def test_a_task_is_given_the_records_of_what_it_needs_and_of_nothing_else(client, run):
    run_items(STUB, iter([StubItem(number=0, run_dir=run.path)]), run, client, in_flight=1)
    read = {file.name.split(".")[1]: file.read_text().strip() for file in (run.path / "executed").iterdir()}
    assert read == {"first": "", "part-00000": "first", "part-00001": "first", "last": "first,part-00000,part-00001"}


def test_only_what_failed_for_the_reason_given_is_tried_again(drive, run):
    drive(BROKEN)
    again = ask_again(run, "MEMORY")
    assert {failure.dataset_id for failure in again} == {"hungry-00000000"}
    seen = []
    executed, ended = drive({}, progress=seen.append)
    assert {name for name, _ in executed} == {"hungry-00000000"}
    assert ended.reasons == {"cursed-00000000": "is cursed"}
    assert {f.dataset_id for f in failures(run)} == {"cursed-00000000"}
    # Every task of the plan is accounted for, or the share that is done would stay below what it is.
    assert len(seen) == sum(len(units_of(StubItem(number=0, run_dir=run.path))) for _ in NAMES)
    # What a driver that came to its end was asked is history.
    assert left_alone(run) == {}
    executed, ended = drive({})
    assert {name for name, _ in executed} == {"cursed-00000000"}
    assert ended.done == 3


def test_what_is_to_be_tried_again_counts_no_more_as_failed(drive, run):
    drive(BROKEN)
    assert tally(run, None, live=False).failed == 2
    ask_again(run, "memory")
    counts = tally(run, None, live=False)
    assert (counts.done, counts.failed) == (1, 1)
    assert counts.reasons == (("is cursed", 1),)


def test_tasks_wait_for_a_free_worker_and_never_behind_each_other(drive, client):
    most = []
    drive({}, progress=lambda _p: most.append(max(len(tasks) for tasks in client.processing().values())))
    assert set(most) <= {0, 1}


def test_a_damaged_store_is_made_again_by_the_next_driver_with_all_that_rests_on_it(client, run):
    item = StubItem(number=0, run_dir=run.path, fails={"part-00000": "damaged: band 3 is gone"})
    run_items(STUB, iter([item]), run, client, in_flight=1)
    lines = [line for line in run.read_journal(item.dataset_id) if line["event"] == RETRY]
    assert [(line["task"], line["damaged"]) for line in lines] == [("first", True)]
    take_executed(run.path)
    told = []
    workload = dataclasses.replace(STUB, reopen=lambda _item, last: told.append(last["first"]["damaged"]))
    run_items(workload, iter([dataclasses.replace(item, fails={})]), run, client, in_flight=1)
    assert told == [True]
    assert {task for _, task in take_executed(run.path)} == {"first", "part-00000", "part-00001", "last"}


def test_a_file_that_changed_undoes_what_was_made_from_it(client, run):
    item, reopened = StubItem(number=0, run_dir=run.path), []
    workload = dataclasses.replace(STUB, reopen=lambda item, _last: reopened.append(item.stamp))
    run_items(workload, iter([item]), run, client, in_flight=1)
    take_executed(run.path)
    run_items(workload, iter([item]), run, client, in_flight=1)
    assert take_executed(run.path) == set()
    run_items(workload, iter([dataclasses.replace(item, stamp="2")]), run, client, in_flight=1)
    assert len(take_executed(run.path)) == 4
    # What is finished stays closed.
    assert reopened == ["1", "2"]


def test_an_item_waits_for_those_that_it_is_made_from_and_is_not_tried_when_they_fail(client, run):
    order = []
    first = StubItem(number=0, run_dir=run.path, dataset_id="a-00000000", sleep_s=0.05)
    second = StubItem(number=1, run_dir=run.path, dataset_id="b-00000000", after=(0,))

    def units(item):
        order.append((item.dataset_id, states(run)))
        return units_of(item)

    workload = dataclasses.replace(STUB, units_of=units)
    begun = []
    hooks = Hooks(all_begun=lambda: begun.append(states(run)))
    ended = run_items(workload, iter([first, second]), run, client, in_flight=8, hooks=hooks)
    assert ended.done == 2
    assert begun == [{"a-00000000": "done"}]
    # Its units are asked for when the other is done, since they may depend on what it found.
    assert order == [("a-00000000", {}), ("b-00000000", {"a-00000000": "done"})]
    broken = dataclasses.replace(first, dataset_id="c-00000000", fails={"last": "broke"})
    waits = dataclasses.replace(second, dataset_id="d-00000000")
    last = dataclasses.replace(second, dataset_id="e-00000000", number=2, after=(1,))
    ended = run_items(STUB, iter([broken, waits, last]), run, client, in_flight=8)
    assert (ended.failed, ended.not_tried, ended.done) == (1, 2, 0)
    assert states(run)["d-00000000"] == states(run)["e-00000000"] == "not tried"


def test_the_first_item_ends_while_later_files_are_still_unopened(client, run):
    ended_one = threading.Event()

    def planned():
        yield StubItem(number=0, run_dir=run.path, dataset_id="scan-00000000")
        assert ended_one.wait(timeout=20), "the driver waits for the whole plan"
        yield StubItem(number=1, run_dir=run.path, dataset_id="scan-00000001")

    hooks = Hooks(dataset=lambda event: ended_one.set() if event == "ended" else None)
    assert run_items(STUB, planned(), run, client, in_flight=4, hooks=hooks).done == 2


def test_what_stops_the_plan_stops_the_run_with_its_reason(client, run):
    def planned():
        yield StubItem(number=0, run_dir=run.path)
        raise InputFileError("the archive is gone")

    with pytest.raises(InputFileError, match="the archive is gone"):
        run_items(STUB, planned(), run, client, in_flight=1)


def test_files_that_cannot_be_opened_and_items_that_are_done_are_counted_and_not_run(client, run):
    run_items(STUB, iter([StubItem(number=1, run_dir=run.path)]), run, client, in_flight=1)
    take_executed(run.path)
    kept = read_kept(run)
    assert list(kept) == ["stub-00000000"]
    refusal = Refusal(dataset_id="torn-00000000", source=run.path / "torn.mda", reason="torn.mda: ends early", number=0)
    events = []
    planned = iter([refusal, Kept(record=kept["stub-00000000"])])
    ended = run_items(STUB, planned, run, client, in_flight=1, hooks=Hooks(dataset=events.append))
    assert (ended.done, ended.failed) == (1, 1)
    assert events == ["planned", "failed", "planned", "done"]
    assert take_executed(run.path) == set()
    assert [(f.dataset_id, f.reason) for f in failures(run)] == [("torn-00000000", "torn.mda: ends early")]
    # In the order of the plan, whatever ended first.
    assert [(r.dataset_id, r.state) for r in read_datasets(run)] == [
        ("torn-00000000", "failed"),
        ("stub-00000000", "done"),
    ]
    assert read_kept(run).keys() == {"stub-00000000"}


def test_a_stopped_run_says_that_something_is_left_and_the_next_one_does_it(client, run):
    items = [StubItem(number=n, run_dir=run.path, dataset_id=f"scan-{n:08}", sleep_s=0.02) for n in range(12)]
    ends = []
    hooks = Hooks(
        stopping=lambda: len(ends) >= 3,
        dataset=lambda event: ends.append(event) if event == "ended" else None,
        patience_over=lambda: False,
    )
    ended = run_items(STUB, iter(items), run, client, in_flight=3, hooks=hooks)
    assert ended.left >= 1
    assert 3 <= ended.done < 12
    later = run_items(STUB, iter(items), run, client, in_flight=3)
    assert (later.done, later.left) == (12, 0)
    for item in items:
        counts = [line["task"] for line in run.read_journal(item.dataset_id) if line["event"] == "finished"]
        assert len(counts) == len(set(counts))


def test_no_more_items_than_in_flight_are_with_the_scheduler_and_those_that_wait_for_others_count(client, run):
    counts, most = Counter(), {"begun": 0, "planned": 0}

    def count(event):
        counts[event] += 1
        most["begun"] = max(most["begun"], counts["begun"] - counts["ended"])
        if not counts["done"]:
            most["planned"] = counts["planned"]

    items = [StubItem(number=n, run_dir=run.path, dataset_id=f"scan-{n:08}", sleep_s=0.02) for n in range(6)]
    run_items(STUB, iter(items), run, client, in_flight=2, hooks=Hooks(dataset=count))
    assert most["begun"] == 2
    counts.clear()
    waiting = [dataclasses.replace(item, stamp="2", after=(0,) if item.number else ()) for item in items]
    assert run_items(STUB, iter(waiting), run, client, in_flight=3, hooks=Hooks(dataset=count)).done == 6
    assert most["planned"] == 3


def test_what_is_at_work_when_a_run_stops_may_end_and_what_waits_is_given_up(client, run):
    def at_work():
        return frozenset(key for keys in client.processing().values() for key in keys)

    item = StubItem(number=0, run_dir=run.path, sleep_s=0.5)
    held = dataclasses.replace(item, number=1, dataset_id="held-00000000", after=(0,))
    hooks = Hooks(stopping=lambda: bool(at_work()), at_work=at_work)
    ended = run_items(STUB, iter([item, held]), run, client, in_flight=8, hooks=hooks)
    assert (ended.left, ended.total) == (2, 2)
    assert [line["task"] for line in run.read_journal(item.dataset_id)] == ["first"]
    assert take_executed(run.path) == {(item.dataset_id, "first")}
    # Without patience it is given up, too.
    hooks = dataclasses.replace(hooks, patience_over=lambda: True)
    ended = run_items(STUB, iter([item]), run, client, in_flight=8, hooks=hooks)
    assert (ended.left, ended.total) == (1, 1)
    assert [line["task"] for line in run.read_journal(item.dataset_id)] == ["first"]


def test_an_item_of_which_a_task_failed_before_the_run_stopped_has_failed(client, run):
    failed = []
    item = StubItem(number=0, run_dir=run.path, parts=12, sleep_s=0.1, fails={"part-00000": "broke"})
    hooks = Hooks(stopping=lambda: bool(failed), progress=lambda p: None if p.ok else failed.append(p))
    ended = run_items(STUB, iter([item]), run, client, in_flight=1, hooks=hooks)
    assert (ended.failed, ended.left) == (1, 0)
    assert len(take_executed(run.path)) < 13


def test_a_run_that_is_stopped_at_once_leaves_all_and_opens_no_more_files(drive, client, run):
    drive(BROKEN)
    ask_again(run, "memory")

    def planned():
        for n in itertools.count():
            yield StubItem(number=n, run_dir=run.path, dataset_id=f"scan-{n:08}")

    ended = run_items(STUB, planned(), run, client, in_flight=1, hooks=Hooks(stopping=lambda: True))
    assert ended.left >= 1
    assert (ended.done, ended.failed, ended.not_tried) == (0, 0, 0)
    # What was asked of this driver is asked of the next one.
    assert left_alone(run) == {"cursed-00000000": "is cursed"}
    while any(thread.name == "planner" for thread in threading.enumerate()):
        time.sleep(0.05)


def test_an_item_with_a_run_directory_of_its_own_is_recorded_there_and_in_the_run(client, run):
    inner = create_or_resume(run.path / "inner", "{}", {})
    run_items(STUB, iter([StubItem(number=0, run_dir=inner.path)]), run, client, in_flight=1)
    [record], [outer] = read_datasets(inner), read_datasets(run)
    assert (record.home, outer.home) == ("", "inner")
    assert dataclasses.replace(outer, home="") == record
    assert len(inner.read_journal(record.dataset_id)) == 4
    assert run.dataset_ids() == []
    # An item of the same name in the run itself would be another one.
    assert read_kept(run) == {}
    assert list(read_kept(inner)) == [record.dataset_id]


def test_a_task_that_was_finished_under_this_driver_is_not_run_again_and_is_on_the_disk_before_it_counts(
    run, monkeypatch
):
    calls = []
    monkeypatch.setattr(executing, "sync_written", lambda _folder, written: calls.append(("synced", list(written))))
    keep = executing.keep_record
    monkeypatch.setattr(executing, "keep_record", lambda *of: calls.append("kept") or keep(*of))
    item = StubItem(number=0, run_dir=run.path)
    unit = units_of(item)[0]

    def work(*of):
        calls.append("worked")
        return dataclasses.replace(run_unit(*of), checksums={"a.zarr": "1"})

    first = executing.run_once(work, item, unit, ())
    assert executing.run_once(work, item, unit, ()) == first
    assert calls == ["worked", ("synced", ["a.zarr"]), "kept"]
    # The journal has it when the item has ended.
    forget_records(item)
    executing.run_once(work, item, unit, ())
    assert calls.count("worked") == 2


def test_the_notes_of_every_stage_are_kept_once(client, run):
    run_items(STUB, iter([StubItem(number=0, run_dir=run.path)]), run, client, in_flight=1)
    [record] = read_datasets(run)
    assert [n.text for n in record.notes] == ["part-00000 was here", "part-00001 was here", "last was here"]
    assert record.seconds == {"first": 0.5, "part": 1.0, "last": 0.5}
    assert record.cpu_s == 1.0


def test_a_line_that_a_kill_left_unfinished_is_none(client, run):
    run_items(STUB, iter([StubItem(number=0, run_dir=run.path)]), run, client, in_flight=1)
    file = run.path / "datasets.jsonl"
    whole = file.read_text()
    with file.open("a") as stream:
        stream.write(json.dumps({"dataset_id": "torn", "number": 5})[:-4])
    assert [r.dataset_id for r in read_datasets(run)] == ["stub-00000000"]
    assert read_kept(run).keys() == {"stub-00000000"}
    assert whole.count("\n") == 1


def test_a_record_of_which_the_report_is_lost_is_fetched(client, run, monkeypatch):
    monkeypatch.setattr(client, "subscribe_topic", lambda _topic, _handler: None)
    monkeypatch.setattr(client, "unsubscribe_topic", lambda _topic: None)
    item = StubItem(number=0, run_dir=run.path)
    ended = run_items(STUB, iter([item]), run, client, in_flight=1)
    assert ended.done == 1
    finished = [line["task"] for line in run.read_journal(item.dataset_id) if line["event"] == FINISHED]
    assert sorted(finished) == sorted(unit.task for unit in units_of(item))


def test_only_one_module_submits():
    package = Path(hpcxrf.__file__).parent
    submits = r"\bclient\.(submit|get|map|compute|persist)\("
    found = [f for f in package.rglob("*.py") if re.search(submits, f.read_text(encoding="utf-8"))]
    assert found == [package / "runner" / "graph.py"]
