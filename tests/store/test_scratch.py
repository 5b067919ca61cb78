"""Folders in memory: of their owner alone, gone when the block ends, and what a kill left is removed by the next."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcxrf.store import scratch
from hpcxrf.store.scratch import remove_abandoned, scratch_folder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, tempfile
from pathlib import Path
from hpcxrf.store import scratch
scratch.MEMORY = Path(sys.argv[1])
tempfile.tempdir = sys.argv[1]
with scratch.scratch_folder(bytes_needed=1) as folder:
    (folder / "x").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def memory(tmp_path, monkeypatch):
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(scratch, "MEMORY", place)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return place


def hold(memory):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(memory)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    return child, Path(child.stdout.readline().strip())


def test_a_folder_is_its_owners_and_gone_afterwards_also_after_an_error(memory):
    with scratch_folder(bytes_needed=10) as folder:
        (folder / "deep" / "er").mkdir(parents=True)
        assert folder.is_relative_to(memory)
        assert folder.parent.stat().st_mode & 0o077 == 0
        with scratch_folder(bytes_needed=10) as another:
            assert another != folder
        assert folder.is_dir()
    with pytest.raises(RuntimeError, match="at work"), scratch_folder(bytes_needed=10) as folder:
        raise RuntimeError("at work")
    assert list(memory.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(memory):
    dead, left = hold(memory)
    living, kept = hold(memory)
    dead.kill()
    dead.communicate(timeout=30)
    assert left.is_dir()
    try:
        with scratch_folder(bytes_needed=1):
            assert not left.parent.exists()
            assert (kept / "x").read_bytes() == b"x"
    finally:
        living.communicate("", timeout=30)
    assert list(memory.iterdir()) == []


def test_folders_that_are_being_made_and_those_of_others_are_left_alone(memory):
    making = memory / f"hpcxrf-making-{os.getuid()}-x"
    making.mkdir()
    other = memory / f"hpcxrf-scratch-{os.getuid() + 1}-x"
    other.mkdir()
    strange = memory / f"hpcxrf-scratch-{os.getuid()}-x"
    strange.mkdir()
    elsewhere = memory.parent / "mine"
    elsewhere.mkdir()
    (elsewhere / "lock").write_bytes(b"")
    (memory / f"hpcxrf-scratch-{os.getuid()}-link").symlink_to(elsewhere)
    remove_abandoned()
    assert {one.name for one in (making, other, strange, elsewhere) if not one.is_dir()} == set()
    os.utime(making, (1, 1))
    remove_abandoned()
    assert not making.exists()


def test_many_at_a_time_never_take_each_others_folders(memory):
    faults = []

    def work(number):
        for _ in range(150):
            try:
                with scratch_folder(bytes_needed=1) as folder:
                    (folder / "x").write_bytes(b"%d" % number)
                    time.sleep(0)
                    assert (folder / "x").read_bytes() == b"%d" % number
            except (OSError, AssertionError) as error:
                faults.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert faults == []
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("place", ["no room", "not there"])
def test_without_room_in_memory_it_lies_in_the_temporary_folder(memory, monkeypatch, tmp_path, place):
    left, folder = hold(memory)
    left.kill()
    left.communicate(timeout=30)
    real = os.statvfs
    if place == "no room":
        small = {"f_bavail": 10, "f_frsize": 4096}
        monkeypatch.setattr(os, "statvfs", lambda at: SimpleNamespace(**small) if at == memory else real(at))
    else:
        shutil.rmtree(memory)
    with scratch_folder(bytes_needed=1 << 20) as found:
        assert found.is_relative_to(tmp_path / "tmp")
        # What fills the memory is removed all the same.
        assert not folder.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_without_room_anywhere_it_says_so(memory):
    with pytest.raises(OSError, match="no room for 4 times"), scratch_folder(bytes_needed=1 << 62):
        pass
