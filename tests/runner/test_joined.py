"""Items whose tasks are one for Dask: their journals, their failures, and what a worker that dies leaves."""

import dataclasses
from collections import Counter

import pytest
from stub_workload import STUB, StubItem, run_unit, take_executed, units_of, workers_here

from hpcxrf.errors import FitError, OutputError
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.hooks import Hooks
from hpcxrf.runner.joined import JOINED, Outcome, pack_outcome, read_outcome, run_joined
from hpcxrf.runner.worker import ATTEMPTS, RECORDS, keep_record
from hpcxrf.store.rundir import FAILED, FINISHED, RETRY, create_or_resume

pytestmark = pytest.mark.timeout(30)


def do_all(item, units):
    """As a workload would: all or nothing."""
    done = {}
    for unit in units:
        done[unit.task] = run_unit(item, unit, [done[name] for name in unit.needs])
    with (item.run_dir / "together").open("a") as log:
        log.write(f"{item.dataset_id}\n")
    return list(done.values())


def refuse(_item, _units):
    return None


JOINING = dataclasses.replace(STUB, joins=lambda item: item.parts < 4, run_joined=do_all)


@pytest.fixture
def client():
    with workers_here(2) as client:
        yield client


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "out", "input: {}\n", {"input": {}})


def together(run):
    file = run.path / "together"
    return file.read_text().split() if file.exists() else []


def events(run, item):
    return [(line["event"], line.get("task")) for line in run.read_journal(item.dataset_id)]


def test_a_small_item_is_one_task_and_its_journal_is_that_of_any_other(client, run):
    small = StubItem(number=0, dataset_id="small-00000000", run_dir=run.path)
    large = StubItem(number=1, dataset_id="large-00000000", run_dir=run.path, parts=4)
    keys, progress = [], []
    hooks = Hooks(progress=progress.append)
    client.subscribe_topic("nothing", keys.append)
    ended = run_items(JOINING, iter([small, large]), run, client, in_flight=2, hooks=hooks)
    assert ended.done == 2
    assert together(run) == ["small-00000000"]
    assert events(run, small) == [(FINISHED, unit.task) for unit in units_of(small)]
    assert {task for _, task in events(run, large)} == {unit.task for unit in units_of(large)}
    assert Counter(one.stage for one in progress) == {"first": 2, "part": 6, "last": 2}
    assert all(one.ok for one in progress)
    [first, _] = sorted(read_datasets(run), key=lambda one: one.dataset_id != "small-00000000")
    assert first.seconds == {"first": 0.5, "part": 1.0, "last": 0.5}
    # Nothing is left, and nothing is done again.
    assert not (run.path / RECORDS).exists()
    take_executed(run.path)
    assert run_items(JOINING, iter([small, large]), run, client, in_flight=2).done == 2
    assert take_executed(run.path) == set()


def test_a_unit_that_fails_is_named_and_stops_those_that_need_it_and_no_other(client, run):
    item = StubItem(number=0, run_dir=run.path, parts=3, fails={"part-00001": "is cursed"})
    good = StubItem(number=1, dataset_id="good-00000000", run_dir=run.path)
    ended = run_items(JOINING, iter([item, good]), run, client, in_flight=2)
    assert (ended.done, ended.failed) == (1, 1)
    assert ended.reasons == {item.dataset_id: "is cursed"}
    assert together(run) == ["good-00000000"]
    assert set(events(run, item)) == {
        (FINISHED, "first"),
        (FINISHED, "part-00000"),
        (FAILED, "part-00001"),
        (FINISHED, "part-00002"),
        ("not tried", None),
    }
    record = next(one for one in read_datasets(run) if one.dataset_id == item.dataset_id)
    assert (record.state, record.failed, record.not_tried) == ("failed", 1, 1)
    # The next driver does what is missing, one by one as it is begun already.
    take_executed(run.path)
    mended = dataclasses.replace(item, fails={})
    assert run_items(JOINING, iter([mended, good]), run, client, in_flight=2).done == 2
    assert {task for _, task in take_executed(run.path)} == {"part-00001", "last"}
    assert together(run) == ["good-00000000"]


def test_a_damaged_store_is_made_again_by_the_next_driver(client, run):
    item = StubItem(number=0, run_dir=run.path, fails={"last": "damaged: counts"})
    run_items(JOINING, iter([item]), run, client, in_flight=1)
    assert events(run, item)[-1] == (RETRY, "first")
    take_executed(run.path)
    assert run_items(JOINING, iter([dataclasses.replace(item, fails={})]), run, client, in_flight=1).done == 1
    assert together(run) == [item.dataset_id]


def test_a_workload_may_leave_the_units_to_be_done_one_by_one(client, run):
    item = StubItem(number=0, run_dir=run.path)
    ended = run_items(dataclasses.replace(JOINING, run_joined=refuse), iter([item]), run, client, in_flight=1)
    assert ended.done == 1
    assert len(take_executed(run.path)) == 4


def test_what_was_done_at_once_is_not_done_again_when_its_worker_dies_afterwards(run):
    item = StubItem(number=0, run_dir=run.path)
    first = run_joined(run_unit, do_all, item, units_of(item))
    assert [outcome.task for outcome in first] == [unit.task for unit in units_of(item)]
    assert run_joined(run_unit, do_all, item, units_of(item)) == first
    assert together(run) == [item.dataset_id]


def test_after_a_death_the_units_are_done_one_by_one(run):
    item = StubItem(number=0, run_dir=run.path)
    (run.path / ATTEMPTS).mkdir()
    # A process that was killed leaves its marker.
    (run.path / ATTEMPTS / f"{item.dataset_id}.{JOINED}.0").write_text("")
    outcomes = run_joined(run_unit, do_all, item, units_of(item))
    assert all(outcome.record is not None for outcome in outcomes)
    assert together(run) == []


def test_what_was_finished_one_by_one_stays(run):
    item = StubItem(number=0, run_dir=run.path)
    keep_record(item, run_unit(item, units_of(item)[0], ()))
    take_executed(run.path)
    assert len(run_joined(run_unit, do_all, item, units_of(item))) == 4
    assert together(run) == []
    assert ("stub-00000000", "first") not in take_executed(run.path)


def test_a_failure_leaves_no_marker(run):
    item = StubItem(number=0, run_dir=run.path, fails={"first": "is cursed"})
    [outcome] = run_joined(run_unit, do_all, item, units_of(item))
    assert (outcome.task, outcome.record, outcome.reason) == ("first", None, "is cursed")
    assert list((run.path / ATTEMPTS).iterdir()) == []


def test_records_that_cannot_be_kept_are_given_all_the_same(run, monkeypatch):
    def refuse(*_of):
        raise OutputError("no room")

    monkeypatch.setattr("hpcxrf.runner.joined.keep_records", refuse)
    item = StubItem(number=0, run_dir=run.path)
    assert all(one.record is not None for one in run_joined(run_unit, do_all, item, units_of(item)))
    assert together(run) == [item.dataset_id]


def test_outcomes_survive_json(run):
    item = StubItem(number=0, run_dir=run.path)
    record = run_unit(item, units_of(item)[1], ())
    for outcome in (Outcome(task="a", record=record), Outcome(task="b", reason="no", trace="line", damaged=True)):
        assert read_outcome(pack_outcome(outcome)) == outcome


def test_an_item_whose_task_is_given_up_by_dask_has_failed_by_its_first_unit(client, run, monkeypatch):
    item = StubItem(number=0, run_dir=run.path)

    def lose(*_of):
        raise FitError("lost")

    monkeypatch.setattr("hpcxrf.runner.joined.run_joined", lose)
    ended = run_items(JOINING, iter([item]), run, client, in_flight=1)
    assert ended.reasons == {item.dataset_id: "lost"}
    assert events(run, item) == [(FAILED, "first"), ("not tried", None)]
