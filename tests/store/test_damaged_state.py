"""Files of a run directory with content that no driver wrote: errors with file and remedy, never a traceback."""

import json
import threading

import pytest

from hpcxrf.cluster.job_files import read_progress, read_request
from hpcxrf.errors import HpcxrfError, OutputError
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.runner.datasets import read_kept
from hpcxrf.runner.ending import read_end
from hpcxrf.store.lock import is_alive, read_lock, run_lock
from hpcxrf.store.rundir import create_or_resume, left_alone, set_damaged_aside

STRANGE = ["[]", "[1, 2]", '"text"', "null", "[" * 3000, "{", "1" + "0" * 5000, "\udcff", '{"a": [1]}', ""]


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "out", "input: {files: [a]}\n", {"input": {"files": ["a"]}})


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("content", STRANGE, ids=range(len(STRANGE)))
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("state/left_alone.json", left_alone),
        ("effective.json", lambda run: run.effective()),
        ("configuration.json", config_of_run),
        ("lock", lambda run: read_lock(run.lock_file)),
        ("datasets.jsonl", read_kept),
        ("state/end.json", read_end),
        ("jobs/progress.json", read_progress),
        ("jobs/request.json", read_request),
    ],
)
def test_strange_content_is_refused_with_the_name_of_the_file_or_is_no_fault(run, name, read, content):
    write(run.path / name, content + "\n")
    try:
        read(run)
    except HpcxrfError as error:
        assert str(run.path) in str(error)  # noqa: PT017 - some content is no fault of some files


@pytest.mark.parametrize("pid", [None, -1, 0, 2**70, "1", True, 1.5])
def test_a_lock_with_a_strange_process_number_is_damaged_and_nobody_is_signalled(run, pid):
    holder = {"host": "h", "pid": pid, "process_start": "", "job_id": None, "restart_count": 0}
    run.lock_file.write_text(json.dumps(holder))
    with pytest.raises(OutputError, match=r"lock: is damaged; if no hpcxrf works"), run_lock(run):
        pass


def test_a_lock_of_the_largest_process_number_is_looked_for(run):
    holder = {"host": "h", "pid": 2**22, "process_start": "", "job_id": None, "restart_count": 0}
    run.lock_file.write_text(json.dumps(holder))
    assert not is_alive(read_lock(run.lock_file))


@pytest.mark.parametrize(
    "line",
    [
        {"event": "finished"},
        {"event": "finished", "task": ["ingest"]},
        {"event": "finished", "task": "ingest", "facts": [1]},
        {"event": "finished", "task": "ingest", "wall_s": "long"},
        {"event": "failed", "task": None},
        {"event": "finished", "task": "ingest", "facts": {"notes": 3}},
    ],
)
def test_a_line_that_no_driver_wrote_sets_its_journal_aside(run, line):
    run.append("a-1", line)
    run.append("b-2", {"event": "failed", "task": "ingest", "reason": "x"})
    assert [path.name for path in set_damaged_aside(run)] == ["a-1.damaged"]
    assert run.dataset_ids() == ["b-2"]


def test_files_beside_the_journals_are_no_journals(run):
    run.append("a-1", {"event": "failed", "task": "ingest"})
    write(run.path / "state" / "._a-1.jsonl", "\0\5\x16\7")
    (run.path / "state" / "folder.jsonl").mkdir()
    assert run.dataset_ids() == ["a-1"]


def test_of_many_that_start_at_once_one_configuration_holds_for_all(tmp_path):
    for attempt in range(10):
        folder = tmp_path / f"run{attempt}"
        barrier, won = threading.Barrier(4), []

        def start(number, folder=folder, barrier=barrier, won=won):
            barrier.wait()
            try:
                create_or_resume(folder, f"# {number}\n", {"number": number})
            except OutputError:
                return
            won.append(number)

        threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        effective = json.loads((folder / "effective.json").read_text())
        assert won == [effective["number"]]
        assert (folder / "run.yaml").read_text() == f"# {effective['number']}\n"
