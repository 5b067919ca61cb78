"""Items that follow others: they begin when those have ended, well or not, and what was touched is written down."""

import dataclasses

import pytest
from stub_workload import STUB, StubItem, take_executed, workers_here

from hpcxrf.runner.datasets import read_datasets, read_kept
from hpcxrf.runner.done import count_if_finished
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.dry_run import explain_run
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.store.rundir import create_or_resume

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def client():
    with workers_here(2) as client:
        yield client


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "run", "{}", {})


def item(run, number, **fields):
    return StubItem(number=number, run_dir=run.path, dataset_id=f"scan-{number:08x}", **fields)


@pytest.mark.parametrize("in_flight", [1, 8])
def test_an_item_begins_when_those_it_follows_have_ended_however(client, run, in_flight):
    items = [
        item(run, 0, sleep_s=0.1),
        item(run, 1, fails={"first": "no beam"}),
        Refusal(dataset_id="torn-00000000", source=run.path / "torn", reason="cut off", number=2),
        *(item(run, number, follows=(follows,)) for number, follows in ((3, 0), (4, 1), (5, 2))),
    ]
    ended = run_items(STUB, iter(items), run, client, in_flight=in_flight)
    assert (ended.done, ended.failed, ended.not_tried, ended.left) == (4, 2, 0, 0)
    lines = [record.dataset_id for record in read_datasets(run)]
    assert set(lines) == {one.dataset_id for one in items}
    text = (run.path / "datasets.jsonl").read_text()
    for number, follows in ((3, 0), (4, 1)):
        assert text.index(f"scan-{follows:08x}") < text.index(f"scan-{number:08x}")


def test_an_item_that_needs_what_was_refused_is_not_tried(client, run):
    items = [
        Refusal(dataset_id="torn-00000000", source=run.path / "torn", reason="cut off", number=0),
        item(run, 1, after=(0,)),
    ]
    ended = run_items(STUB, iter(items), run, client, in_flight=8)
    assert (ended.failed, ended.not_tried, ended.left) == (1, 1, 0)


def test_stamps_of_files_that_were_touched_are_written_down_once_with_all_else_that_is_known(client, run):
    run_items(STUB, iter([item(run, 0), item(run, 1)]), run, client, in_flight=8)
    before = {record.dataset_id: record for record in read_datasets(run)}
    take_executed(run.path)
    kept = read_kept(run)
    renewed = dataclasses.replace(kept["scan-00000000"], made_from={"stamps": {"source": "2"}})
    planned = [Kept(record=renewed, renewed=True, number=0), Kept(record=kept["scan-00000001"], number=1)]
    # Else its file would be read again at every command.
    assert count_if_finished(STUB, iter(planned)) is None
    ended = run_items(STUB, iter(planned), run, client, in_flight=8)
    assert (ended.done, take_executed(run.path)) == (2, set())
    after = {record.dataset_id: record for record in read_datasets(run)}
    assert after["scan-00000000"] == dataclasses.replace(before["scan-00000000"], made_from={"stamps": {"source": "2"}})
    assert after["scan-00000001"] == before["scan-00000001"]
    # Nor does another change have its tasks done again, which are those of the same files.
    run_items(STUB, iter([item(run, 0, stamp="2")]), run, client, in_flight=8)
    assert take_executed(run.path) == set()


def test_a_dry_run_says_why_every_item_would_run_and_writes_nothing(client, run):
    items = [item(run, 0), item(run, 1, fails={"part-00001": "out of memory"})]
    run_items(STUB, iter(items), run, client, in_flight=8)
    files = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    planned = [item(run, 0, stamp="2"), dataclasses.replace(items[1], fails={}), item(run, 2), items[0]]
    kept = read_kept(run)["scan-00000000"]
    stub = dataclasses.replace(STUB, plan=lambda _request: iter([*planned, Kept(record=kept)]))
    found = [(one.action, one.reason, one.tasks, one.of) for one in explain_run(stub, None, run.path)]
    assert found == [
        ("run", "input: changed source", 4, 4),
        ("run", "part-00001 failed: out of memory", 2, 4),
        ("run", "new: nothing of it has been done", 4, 4),
        ("nothing", "done", 0, 4),
        ("nothing", "done", 0, 0),
    ]
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == files
