"""Folders in memory: of their owner alone, gone when the block ends, and what a kill left is removed by the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcxrf.store import scratch
from hpcxrf.store.scratch import scratch_folder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from hpcxrf.store import scratch
scratch.MEMORY = Path(sys.argv[1])
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
    young = memory / f"hpcxrf-scratch-{os.getuid()}-young"
    young.mkdir()
    other = memory / f"hpcxrf-scratch-{os.getuid() + 1}-x"
    other.mkdir()
    elsewhere = memory.parent / "mine"
    elsewhere.mkdir()
    (memory / f"hpcxrf-scratch-{os.getuid()}-link").symlink_to(elsewhere)
    with scratch_folder(bytes_needed=1):
        pass
    assert young.is_dir()
    os.utime(young, (1, 1))
    with scratch_folder(bytes_needed=1):
        pass
    assert not young.exists()
    assert other.is_dir()
    assert elsewhere.is_dir()


@pytest.mark.parametrize("place", ["no room", "not there"])
def test_without_room_in_memory_it_lies_in_the_temporary_folder(memory, monkeypatch, tmp_path, place):
    ordinary = tmp_path / "tmp"
    ordinary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(ordinary))
    if place == "not there":
        monkeypatch.setattr(scratch, "MEMORY", memory / "absent")
    with scratch_folder(bytes_needed=1 << 62 if place == "no room" else 1) as folder:
        assert folder.is_relative_to(ordinary)
    assert list(ordinary.iterdir()) == []
