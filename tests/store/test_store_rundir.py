"""The run directory: resumed only with the same configuration, by one driver at a time, torn by no kill."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.errors import OutputError
from hpcxrf.store import files
from hpcxrf.store.files import (
    ABSENT,
    append_line,
    append_shared_line,
    atomic_write_text,
    checksum_tree,
    read_lines,
    tree_sha256,
)
from hpcxrf.store.lock import LockHolder, identify_process, read_lock, run_lock
from hpcxrf.store.packed import StoreFiles
from hpcxrf.store.rundir import FINISHED, create_or_resume, open_run

EFFECTIVE = {"fit": {"elements": ["Fe", "Zn"], "method": "separable"}, "energy_kev": 10.0}


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "out", "fit: {}\n", EFFECTIVE)


def test_a_new_run_is_of_the_owner_alone_and_keeps_what_was_asked(run):
    folders = [run.path, *(entry for entry in run.path.iterdir() if entry.is_dir())]
    assert {folder.name for folder in folders[1:]} == {"state", "logs", "spectra", "results", "secrets", "jobs"}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert run.run_file.read_text() == "fit: {}\n"
    assert run.effective() == EFFECTIVE
    assert open_run(run.path) == run


def test_resuming_with_the_same_configuration_changes_no_file(run):
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    assert create_or_resume(run.path, "fit: {} # a comment more\n", dict(EFFECTIVE)) == run
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before


def test_another_configuration_is_refused_by_every_key_with_both_values(run):
    other = {"fit": {"elements": ["Fe"], "method": "separable", "new": 1}}
    with pytest.raises(OutputError) as caught:
        create_or_resume(run.path, "", other)
    lines = str(caught.value).splitlines()
    assert lines[1:-1] == [
        "  energy_kev: the run has 10.0, this command (absent)",
        '  fit.elements: the run has ["Fe", "Zn"], this command ["Fe"]',
        "  fit.new: the run has (absent), this command 1",
    ]
    assert run.effective() == EFFECTIVE


def test_a_creation_that_was_killed_half_way_is_finished(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "run.yaml").write_text("half")
    (tmp_path / "effective.json.0123.partial").write_text("{")
    assert create_or_resume(tmp_path, "whole", EFFECTIVE).run_file.read_text() == "whole"


def test_a_folder_with_other_files_is_neither_used_nor_changed(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    mode = tmp_path.stat().st_mode
    with pytest.raises(OutputError, match=r"is not a run directory, it has other files \(thesis\.tex\)"):
        create_or_resume(tmp_path, "", EFFECTIVE)
    with pytest.raises(OutputError, match="is not a run directory"):
        open_run(tmp_path)
    assert tmp_path.stat().st_mode == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        create_or_resume(tmp_path / "out", "", EFFECTIVE)
    with pytest.raises(OutputError, match=r"cannot be written: .*bytes are free"):
        create_or_resume(tmp_path / "out" / "deeper", "", EFFECTIVE)


def test_records_come_back_in_order(run):
    records = [{"task": "pixels-00001", "event": FINISHED, "attempt": n} for n in range(3)]
    for record in records:
        run.append("scan-12345678", record)
    assert run.read_journal("scan-12345678") == records
    assert run.read_journal("other-12345678") == []
    assert run.dataset_ids() == ["scan-12345678"]


@settings(deadline=None)
@given(cut=st.integers(1, 40))
def test_a_journal_cut_anywhere_loses_only_its_last_record_and_goes_on(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "scan.jsonl"
    for number in range(3):
        append_line(path, {"number": number, "text": "é" * 3})
    content = path.read_bytes()
    length = len(content) // 3
    path.write_bytes(content[: len(content) - min(cut, length)])
    assert [line["number"] for line in read_lines(path)] == [0, 1]
    append_line(path, {"number": 9})
    assert [line["number"] for line in read_lines(path)] == [0, 1, 9]


def test_lines_of_several_processes_do_not_tear_each_other(tmp_path):
    file = tmp_path / "events.jsonl"
    # What a kill has left.
    file.write_bytes(b'{"event":"old"}\n{"event":"un')
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hpcxrf.store.files import append_shared_line\n"
        "sys.stdin.readline()\n"
        "for n in range(100):\n"
        "    append_shared_line(Path(sys.argv[1]), {'who': sys.argv[2], 'n': n, 'text': 'x' * 5000})\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, file, str(who)], stdin=subprocess.PIPE) for who in range(4)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    old, *lines = read_lines(file)
    assert old == {"event": "old"}
    for who in range(4):
        assert [line["n"] for line in lines if line["who"] == str(who)] == list(range(100))
    assert len(lines) == 400


def test_without_locks_a_line_is_appended_all_the_same(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", refused)
    append_shared_line(tmp_path / "events.jsonl", {"event": "a"})
    append_shared_line(tmp_path / "events.jsonl", {"event": "b"})
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == ["a", "b"]


def test_a_damaged_line_inside_a_journal_is_named(tmp_path):
    path = tmp_path / "scan.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.raises(OutputError, match=r"scan\.jsonl, line 2 is not a JSON object"):
        read_lines(path)


def test_what_json_has_not_becomes_null(tmp_path):
    append_line(tmp_path / "j", {"r2": float("nan"), "deep": [{"x": float("-inf")}, 1.5]})
    assert read_lines(tmp_path / "j") == [{"r2": None, "deep": [{"x": None}, 1.5]}]


@pytest.mark.parametrize("name", ["../escape", "", "-x", "a/b", "a\nb", "a b"])
def test_no_name_leads_out_of_the_run_directory(run, name):
    with pytest.raises(ValueError, match="no dataset id"):
        run.append(name, {})
    with pytest.raises(ValueError, match="no dataset id"):
        run.spectra_store(name)


def test_checksums_of_a_store_hold_whatever_a_kill_left_in_it_and_notice_another_name(run):
    store = run.results_store("scan-12345678")
    (store / "maps").mkdir(parents=True)
    (store / "maps" / "0").write_bytes(b"map")
    whole = tree_sha256(store)
    (store / "maps" / "0.abc.partial").write_bytes(b"left by a kill")
    assert StoreFiles(store).checksum("") == whole
    (store / "maps" / "0").rename(store / "maps" / "1")
    assert StoreFiles(store).checksum("") != whole


def test_checksums_are_those_of_sha256sum_and_notice_a_lost_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3_000_000)
    said = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    sums = checksum_tree([file])
    assert sums == {str(file): said.stdout.split()[0]}
    assert StoreFiles(tmp_path).checksum("file") == said.stdout.split()[0]
    file.unlink()
    assert StoreFiles(tmp_path).checksum("file") == ABSENT


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match=r"disk or quota is full \(needs up to 3 bytes, \d+ bytes"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def holder(**changes):
    own = identify_process({})
    known = {"host": own.host, "pid": own.pid, "process_start": own.process_start}
    return LockHolder(**({"job_id": None, "restart_count": 0} | known | changes))


def write_lock(run, held):
    names = ("host", "pid", "process_start", "job_id", "restart_count")
    run.lock_file.write_text(json.dumps({name: getattr(held, name) for name in names}))


def test_a_held_lock_names_host_pid_and_job(run):
    held = holder(host="node17", pid=4242, job_id="991")
    write_lock(run, held)
    with pytest.raises(OutputError, match=r"host node17, pid 4242, Slurm job 991.*remove .*lock"), run_lock(run):
        pass
    assert read_lock(run.lock_file) == held


def test_a_second_driver_on_this_host_is_refused_until_the_first_ends(run):
    with run_lock(run):
        other = holder(pid=os.getppid())
        with pytest.raises(OutputError, match=f"pid {os.getpid()}, no Slurm job"), run_lock(run, other):
            pass
    assert not run.lock_file.exists()
    with run_lock(run):
        assert read_lock(run.lock_file) == identify_process()


def test_the_lock_is_given_back_when_the_driver_fails(run):
    with pytest.raises(KeyboardInterrupt), run_lock(run):
        raise KeyboardInterrupt
    assert sorted(entry.name for entry in run.path.iterdir() if entry.is_file()) == ["effective.json", "run.yaml"]


@pytest.mark.parametrize(
    "stale",
    [{"pid": None}, {"process_start": "another-boot:17"}, {"host": "node17", "job_id": "991", "restart_count": 0}],
    ids=["dead process", "number used again", "earlier start of this requeued job"],
)
def test_a_lock_whose_holder_is_surely_gone_is_taken_over(run, stale):
    if "pid" in stale:
        stale = {"pid": dead_pid()}
    write_lock(run, holder(**stale))
    own = holder(job_id="991", restart_count=1)
    with run_lock(run, own):
        assert read_lock(run.lock_file) == own


def test_the_same_job_started_once_keeps_its_other_host_out(run):
    write_lock(run, holder(host="node17", job_id="991", restart_count=1))
    with pytest.raises(OutputError, match="node17"), run_lock(run, holder(job_id="991", restart_count=1)):
        pass


@pytest.mark.parametrize("attempt", range(5))
def test_of_many_that_take_over_a_stale_lock_one_gets_it(run, attempt):
    write_lock(run, holder(pid=dead_pid()))
    inside, refused, start = [], [], threading.Barrier(8)
    done = threading.Event()

    def compete(number):
        start.wait()
        try:
            with run_lock(run, holder(job_id=str(number))):
                inside.append(number)
                done.wait(2)
        except OutputError:
            refused.append(number)
        if len(refused) == 7:
            done.set()

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(refused)) == (1, 7)


def test_a_damaged_lock_is_named(run):
    run.lock_file.write_text("")
    with pytest.raises(OutputError, match=r"lock: is damaged; if no hpcxrf works"), run_lock(run):
        pass


def test_the_run_directory_needs_neither_zarr_nor_torch_nor_dask():
    code = (
        "import sys, hpcxrf.store.rundir, hpcxrf.store.lock, hpcxrf.store.catalog;"
        "sys.exit(bool({'zarr', 'torch', 'dask', 'numpy', 'xarray'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
