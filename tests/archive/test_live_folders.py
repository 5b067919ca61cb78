"""Folders that are watched: bounded looks, turns, strange names, folders that come, go and cannot be listed."""

import os
import shutil

import pytest

from hpcxrf.archive.live import files as files_module
from hpcxrf.archive.live import folders as folders_module
from hpcxrf.archive.live.files import RECHECKS_PER_POLL, STATS_PER_POLL, Files
from hpcxrf.archive.live.folders import FOLDERS_PER_POLL, Folders


def files_of(root, **options):
    return Files(folders=Folders(root=str(root), **options))


def poll(files, times=1, start=0.0):
    return [files.poll(start + number) for number in range(times)]


@pytest.fixture
def counted(monkeypatch):
    """Calls of the system since the fixture was cleared, by name."""
    calls = {"scandir": [], "stat": []}
    scandir, read_stamp = os.scandir, files_module.read_stamp

    class Counting:
        def __getattr__(self, name):
            return getattr(os, name)

        def scandir(self, folder):
            calls["scandir"].append(folder)
            return scandir(folder)

    monkeypatch.setattr(folders_module, "os", Counting())
    monkeypatch.setattr(files_module, "read_stamp", lambda path: calls["stat"].append(path) or read_stamp(path))
    return calls


def test_ten_thousand_files_in_a_folder_are_one_listing_and_those_that_are_settled_cost_a_look_in_turn(
    tmp_path, counted
):
    for number in range(10_000):
        (tmp_path / f"scan_{number:05}.txt").touch()
    files = files_of(tmp_path)
    poll(files)
    assert len(files.watched) == 10_000
    assert counted["scandir"] == [str(tmp_path)]
    files.settle(list(files.watched))
    counted["scandir"].clear(), counted["stat"].clear()
    poll(files)
    assert counted["scandir"] == [str(tmp_path)]
    assert len(counted["stat"]) == RECHECKS_PER_POLL
    # A file that lands among them is seen at the next look, one that changed within a turn of all.
    (tmp_path / "new.txt").touch()
    poll(files)
    assert list(files.watched) == [str(tmp_path / "new.txt")]
    files.settle([str(tmp_path / "new.txt")])
    (tmp_path / "scan_00007.txt").write_text("more")
    found = [path for changes in poll(files, 10_001 // RECHECKS_PER_POLL + 1) for path in changes.changed]
    assert found == [str(tmp_path / "scan_00007.txt")]


def test_files_that_may_change_are_looked_at_in_turn_where_there_are_more_than_fit_into_a_look(
    tmp_path, counted, monkeypatch
):
    monkeypatch.setattr(files_module, "STATS_PER_POLL", 10)
    assert STATS_PER_POLL == 10_000
    for number in range(25):
        (tmp_path / f"{number}.txt").touch()
    files = files_of(tmp_path)
    poll(files)
    counted["stat"].clear()
    poll(files, 4)
    assert len(counted["stat"]) == 40
    assert set(counted["stat"]) == set(files.watched)


def test_a_folder_with_more_entries_than_a_look_takes_goes_on_in_the_next_one(tmp_path):
    for number in range(25):
        (tmp_path / f"{number}.txt").touch()
    folders = Folders(root=str(tmp_path))
    seen = []
    for expected in (10, 10, 5):
        (sight,) = folders.poll((), entries=10)
        assert len(sight.names) == expected
        seen += sight.names
    assert len(set(seen)) == 25
    assert sight.whole == frozenset(seen)
    assert folders.swept


def test_nested_folders_have_their_turns_and_those_in_which_something_goes_on_are_seen_every_time(tmp_path, counted):
    for number in range(200):
        (tmp_path / f"day_{number % 20}" / f"run_{number}").mkdir(parents=True)
        (tmp_path / f"day_{number % 20}" / f"run_{number}" / "scan.txt").touch()
    files = files_of(tmp_path)
    polls = 0
    while not files.folders.swept:
        counted["scandir"].clear()
        poll(files)
        polls += 1
        assert len(counted["scandir"]) <= FOLDERS_PER_POLL
    assert polls <= 8
    assert len(files.watched) == 200
    hot = tmp_path / "day_3" / "run_3"
    files.settle([path for path in files.watched if not path.startswith(str(hot))])
    for _ in range(3):
        counted["scandir"].clear()
        poll(files)
        assert str(hot) in counted["scandir"]


def test_a_new_folder_is_looked_into_at_once(tmp_path):
    for number in range(100):
        (tmp_path / f"old_{number}").mkdir()
    files = files_of(tmp_path)
    poll(files, 4)
    (tmp_path / "tonight" / "sample").mkdir(parents=True)
    (tmp_path / "tonight" / "sample" / "scan.txt").touch()
    poll(files, 4)
    assert list(files.watched) == [str(tmp_path / "tonight" / "sample" / "scan.txt")]


def test_links_to_folders_are_not_followed_and_hidden_and_unfinished_names_not_taken(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "loop").symlink_to(tmp_path)
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "zarr.json").touch()
    for name in (".hidden", "scan.part", "scan.h5.tmp", "scan.txt~"):
        (tmp_path / name).touch()
    (tmp_path / "link.txt").symlink_to(tmp_path / "target.txt")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "target.txt").touch()
    files = files_of(tmp_path)
    poll(files, 5)
    assert sorted(map(os.path.basename, files.watched)) == ["link.txt", "target.txt"]


def test_names_that_are_not_text_are_names(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9\n<b>.txt"
    with open(raw, "wb") as file:  # noqa: PTH123
        file.write(b"1")
    files = files_of(tmp_path)
    poll(files, 2)
    assert [os.fsencode(path) for path in files.watched] == [raw]
    os.unlink(raw)  # noqa: PTH108
    poll(files)
    assert files.watched == {}


def test_a_folder_that_cannot_be_listed_stops_no_other_and_is_tried_again(tmp_path, monkeypatch):
    for name in ("locked", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.txt").touch()
    scandir, locked = os.scandir, [True]

    class Locked:
        def __getattr__(self, name):
            return getattr(os, name)

        def scandir(self, folder):
            if locked[0] and folder.endswith("locked"):
                raise PermissionError(13, "Permission denied", folder)
            return scandir(folder)

    monkeypatch.setattr(folders_module, "os", Locked())
    files = files_of(tmp_path)
    poll(files, 3)
    assert list(files.watched) == [str(tmp_path / "open" / "scan.txt")]
    assert files.folders.faults == {str(tmp_path / "locked"): "Permission denied"}
    assert files.folders.swept
    locked[0] = False
    poll(files, 2)
    assert len(files.watched) == 2
    assert files.folders.faults == {}


def test_an_archive_that_is_unmounted_for_a_while_has_lost_nothing(tmp_path):
    root = tmp_path / "archive"
    (root / "day").mkdir(parents=True)
    for name in ("a.txt", "day/b.txt"):
        (root / name).touch()
    files = files_of(root)
    poll(files, 3)
    files.settle(list(files.watched))
    root.rename(tmp_path / "away")
    assert files.folders.known
    poll(files, 1)
    assert str(root) in files.folders.faults
    (tmp_path / "away").rename(root)
    poll(files, 3)
    known = set(files.settled) | set(files.watched)
    assert known == {str(root / "a.txt"), str(root / "day" / "b.txt")}


def test_what_is_gone_is_told_once(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
    files = files_of(tmp_path)
    poll(files, 2)
    files.settle([str(tmp_path / "a.txt")])
    (tmp_path / "a.txt").unlink(), (tmp_path / "b.txt").unlink()
    gone = [path for changes in poll(files, 3) for path in changes.gone]
    assert gone == [str(tmp_path / "a.txt")]
    shutil.rmtree(tmp_path)
