"""Which scans are taken, and when: growing, renamed, replaced, deleted, broken files, many detectors, wrong clocks."""

import dataclasses
import os
import shutil

import h5py
import numpy as np
import pytest
from landing import end_of, watch
from mda_files import write_step_scan

from hpcxrf.archive.live.landing import Until
from hpcxrf.archive.live.scans import Waiting
from hpcxrf.formats.registry import open_scan
from hpcxrf.runner.journal import finished_line
from hpcxrf.runner.records import TaskRecord, Unit
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.rundir import RunDir

COUNTS = np.random.default_rng(7).poisson(3.0, (1, 6, 4, 64)).astype(np.float32)
PLAIN = {"energy_axis": -1, "energy_slope_kev": 0.02, "energy_offset_kev": 0.0}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans").mkdir()
    return tmp_path / "scans"


def test_an_mda_scan_is_taken_when_its_last_row_is_there_and_told_of_while_it_grows(folder, tmp_path):
    watched = watch(folder, tmp_path / "run")
    file = folder / "scan.mda"
    write_step_scan(file, COUNTS, last_row=2)
    watched.play(12, {3: lambda: write_step_scan(file, COUNTS, last_row=4), 8: lambda: write_step_scan(file, COUNTS)})
    assert watched.names() == ["scan.mda"]
    # The look after the last change sees it, the next one that it rests: no more is waited for.
    assert watched.at_poll["scan.mda"] == 10
    rows = [event.values["rows_done"] for event in watched.events if event.kind == "growing"]
    assert rows[0] == 2
    assert rows[-1] == 4
    assert watched.taken[0].shape == (1, 6, 4, 64)


def test_a_file_whose_format_says_nothing_is_taken_when_it_has_rested_for_three_looks(folder, tmp_path):
    watched = watch(folder, tmp_path / "run", input=PLAIN)
    np.save(folder / "scan.npy", COUNTS)
    watched.play(6, {1: lambda: np.save(folder / "scan.npy", 2 * COUNTS)})
    assert watched.names() == ["scan.npy"]
    assert watched.at_poll["scan.npy"] == 5


@pytest.mark.parametrize("time_s", [0, 4e9, -1e9])
def test_a_clock_that_is_off_changes_nothing(folder, tmp_path, time_s):
    watched = watch(folder, tmp_path / "run", input=PLAIN)
    for name in ("scan.npy", "other.npy"):
        np.save(folder / name, COUNTS)
        os.utime(folder / name, (time_s, time_s))
    watched.play(6)
    assert sorted(watched.names()) == ["other.npy", "scan.npy"]
    assert set(watched.at_poll.values()) == {4}


def test_a_file_that_is_renamed_at_its_end_is_taken_under_its_last_name_alone(folder, tmp_path):
    watched = watch(folder, tmp_path / "run", input=PLAIN)
    np.save(folder / "scan.npy.tmp", COUNTS)
    (folder / "scan.npy.tmp.npy").rename(folder / "scan.npy.tmp")
    np.save(folder / ".hidden.npy", COUNTS)
    watched.play(10, {5: lambda: (folder / "scan.npy.tmp").rename(folder / "scan.npy")})
    assert watched.names() == ["scan.npy"]


def test_detectors_that_land_one_after_another_are_one_scan_and_later_ones_are_waited_for(folder, tmp_path):
    watched = watch(folder, tmp_path / "run")
    write = lambda name: shutil.copy(write_maps(tmp_path / "maps.h50"), folder / name)  # noqa: E731
    for number in range(3):
        write(f"a.h5{number}")
    watched.play(6)
    assert [job.shape[0] for job in watched.taken] == [3]
    # The next scan has as many detectors, the last of which comes late.
    watched.play(24, {1: lambda: write("b.h50"), 2: lambda: write("b.h51"), 15: lambda: write("b.h52")})
    assert [(job.source.name, job.shape[0]) for job in watched.taken] == [("a.h50", 3), ("b.h50", 3)]
    assert "2 of 3 detectors are there" in watched.texts("growing")
    assert watched.at_poll["b.h50"] >= 17
    # One that never gets them all is not waited for without end.
    watched.play(50, {1: lambda: write("c.h50")})
    assert [(job.source.name, job.shape[0]) for job in watched.taken][2:] == [("c.h50", 1)]


def write_maps(path):
    if not path.exists():
        write_scan(simulate_scan(demo_spec(seed=1, shape=(1, 3, 3, 1536), name="maps")), path.parent)
    return path


def test_a_detector_that_comes_after_its_scan_was_done_makes_it_again(folder, tmp_path):
    watched = watch(folder, tmp_path / "run")
    maps = write_maps(tmp_path / "maps.h50")
    shutil.copy(maps, folder / "a.h50")
    watched.play(6)
    shutil.copy(maps, folder / "a.h51")
    watched.play(6)
    assert [(job.dataset_id, job.shape[0], job.number) for job in watched.taken] == [
        (watched.taken[0].dataset_id, 1, 0),
        (watched.taken[0].dataset_id, 2, 1),
    ]


def test_a_file_that_is_deleted_before_it_is_complete_is_forgotten(folder, tmp_path):
    watched = watch(folder, tmp_path / "run")
    write_step_scan(folder / "scan.mda", COUNTS, last_row=2)
    watched.play(8, {4: (folder / "scan.mda").unlink})
    assert watched.taken == []
    assert watched.landing.list_left() == {}


def finish(watched, job):
    """What the driver leaves of a scan: its spectra, and the lines of its journal."""
    run = RunDir(path=job.run_dir)
    ingest_scan(open_scan(job.source), run.spectra_store(job.dataset_id))
    unit = Unit(task="ingest", stage="ingest", reads=("stamps",))
    record = TaskRecord(task="ingest", stage="ingest", dataset_id=job.dataset_id, wall_s=0.0, cpu_s=0.0)
    run.append(job.dataset_id, finished_line(record, job, unit))


def test_a_file_that_is_replaced_is_done_again_and_its_spectra_are_to_go(folder, tmp_path):
    watched = watch(folder, tmp_path / "run")
    write_step_scan(folder / "scan.mda", COUNTS)
    watched.play(4)
    finish(watched, watched.taken[0])
    write_step_scan(folder / "scan.mda", COUNTS + 1)
    watched.play(6)
    assert watched.names() == ["scan.mda", "scan.mda"]
    assert watched.told("replaced") == ["scan.mda"]
    last = RunDir(path=tmp_path / "run").read_journal(watched.taken[0].dataset_id)[-1]
    assert (last["event"], last["task"], last["damaged"]) == ("retry", "ingest", True)


def test_a_file_that_is_moved_after_it_was_done_is_not_done_again(folder, tmp_path):
    watched = watch(folder, tmp_path / "run")
    write_step_scan(folder / "scan.mda", COUNTS)
    watched.play(4)
    finish(watched, watched.taken[0])
    (folder / "done").mkdir()
    (folder / "scan.mda").rename(folder / "done" / "renamed.mda")
    watched.play(6)
    assert watched.names() == ["scan.mda"]
    assert watched.told("moved") == ["renamed.mda"]
    # Another scan of the same size and time is another scan.
    stamp = (folder / "done" / "renamed.mda").stat().st_mtime_ns
    write_step_scan(folder / "other.mda", COUNTS[:, ::-1])
    os.utime(folder / "other.mda", ns=(stamp, stamp))
    watched.play(6)
    assert watched.names() == ["scan.mda", "other.mda"]


def test_a_writer_that_never_closes_its_file_is_told_of_and_stops_no_other(folder, tmp_path):
    waiting = Waiting(poll_s=1e-9, patience_s=20.0)
    watched = watch(folder, tmp_path / "run", input=PLAIN, waiting=waiting)
    with h5py.File(folder / "open.h5", "w", libver="latest") as writer:
        counts = writer.create_dataset("counts", (2, 4, 64), maxshape=(None, 4, 64), chunks=(1, 4, 64), dtype="u2")
        writer.swmr_mode = True
        counts[:] = 1
        counts.flush()
        np.save(folder / "scan.npy", COUNTS)
        watched.play(10)
        assert watched.names() == ["scan.npy"]
        assert watched.told("growing") == ["open.h5"]
        watched.play(15)
        assert watched.names() == ["scan.npy", "open.h5"]
        assert "SWMR" in watched.texts("incomplete")[0]
        counts.resize(3, axis=0)
        counts[2] = 2
        counts.flush()
    watched.play(8)
    assert [job.shape[1] for job in watched.taken[1:]] == [2, 3]


def test_a_broken_file_is_called_so_with_its_reason_after_a_while(folder, tmp_path):
    watched = watch(folder, tmp_path / "run", input=PLAIN)
    (folder / "broken.mda").write_bytes(write_step_scan(tmp_path / "whole.mda", COUNTS).read_bytes()[:-2])
    np.save(folder / "scan.npy", COUNTS)
    watched.play(22)
    assert watched.names() == ["scan.npy"]
    assert watched.at_poll["scan.npy"] == 4
    assert [one.source.name for one in watched.refused] == ["broken.mda"]
    assert "truncated" in watched.texts("failed")[0]
    assert watched.at_poll["broken.mda"] >= 15
    # Copied again, it is taken.
    write_step_scan(folder / "broken.mda", COUNTS)
    watched.play(5)
    assert watched.names()[1:] == ["broken.mda"]


def test_what_lies_beside_scans_is_left_out_and_a_run_directory_is_not_entered(folder, tmp_path):
    watched = watch(folder, folder / "run", input=PLAIN)
    (folder / "maps_fit_parameters_override.txt").write_text("ELEMENTS_TO_FIT: Fe\n")
    (folder / "notes.txt").write_text("beam lost at 3\n")
    (folder / "standards.txt").write_text("FILENAME: a\nELEMENTS_IN_STANDARD: Ca\n")
    np.save(folder / "run" / "inside.npy", COUNTS)
    np.save(folder / "scan.npy", COUNTS)
    watched.play(8)
    assert watched.names() == ["scan.npy"]
    # An override file is read with the scans beside it: nothing to tell.
    assert watched.told("left out") == ["standards.txt"]


def test_a_fly_scan_waits_for_its_spectra_whatever_comes_first(folder, tmp_path, shared_data):
    source = shared_data / "aps-2ide"
    (folder / "mda").mkdir()
    (folder / "flyXRF.h5").mkdir()
    watched = watch(folder, tmp_path / "run")
    name = "2xfm_0011_2xfm3__0.h5"
    shutil.copy(source / "mda" / "2xfm_0011.mda", folder / "mda")
    watched.play(12, {6: lambda: shutil.copy(source / "flyXRF.h5" / name, folder / "flyXRF.h5")})
    assert watched.names() == ["2xfm_0011.mda"]
    assert "its spectra" in watched.texts("growing")[0]
    assert len([one for one, _ in watched.taken[0].stamps if one.endswith((".mda", ".h5"))]) == 2
    shutil.rmtree(folder / "mda")
    later = watch(folder, tmp_path / "later")
    later.play(
        20, {8: lambda: shutil.copytree(source / "mda", folder / "mda", ignore=shutil.ignore_patterns("*10*", "axo*"))}
    )
    assert later.names() == ["2xfm_0011.mda"]
    # Other spectra make it another scan.
    with h5py.File(folder / "flyXRF.h5" / name, "r+") as file:
        file["MAPS_RAW/data_a"][200, 3, 3] += 7
    later.play(6)
    assert later.names() == ["2xfm_0011.mda", "2xfm_0011.mda"]


def test_a_second_call_takes_nothing_that_is_done_and_what_changed_meanwhile(folder, tmp_path):
    first = watch(folder, tmp_path / "run", input=PLAIN)
    for name in ("a.npy", "b.npy"):
        np.save(folder / name, COUNTS)
    first.play(6)
    np.save(folder / "b.npy", COUNTS + 1)
    np.save(folder / "c.npy", COUNTS)
    second = watch(folder, tmp_path / "run", input=PLAIN, kept=dict(first.landing.kept)).play(6)
    assert sorted(second.names()) == ["b.npy", "c.npy"]
    assert second.told("found before") == ["a.npy"]
    assert [one.record.name for one in second.found] == ["a.npy"]


def test_a_detector_that_came_between_two_calls_is_noticed(folder, tmp_path):
    maps = write_maps(tmp_path / "maps.h50")
    shutil.copy(maps, folder / "a.h50")
    first = watch(folder, tmp_path / "run").play(6)
    shutil.copy(maps, folder / "a.h51")
    second = watch(folder, tmp_path / "run", kept=dict(first.landing.kept)).play(6)
    assert [job.shape[0] for job in second.taken] == [2]


def test_once_takes_what_is_complete_and_names_the_rest(folder, tmp_path):
    watched = watch(folder, tmp_path / "run", input=PLAIN, until=Until(once=True))
    np.save(folder / "scan.npy", COUNTS)
    write_step_scan(folder / "half.mda", COUNTS, last_row=3)
    (folder / "broken.mda").write_bytes(write_step_scan(tmp_path / "whole.mda", COUNTS).read_bytes()[:-2])
    watched.play(100)
    assert watched.landing.polls < 30
    assert watched.names() == ["scan.npy"]
    assert [one.source.name for one in watched.refused] == ["broken.mda"]
    assert watched.landing.list_left() == {"half.mda": "3 of 6 rows are finished"}


def test_it_ends_by_itself_when_nothing_has_happened_for_long_and_not_while_something_is_at_work(folder, tmp_path):
    watched = watch(folder, tmp_path / "run", input=PLAIN, until=Until(idle_s=30.0))
    np.save(folder / "scan.npy", COUNTS)
    watched.play(200)
    assert 30 <= watched.landing.polls <= 45
    slow = watch(folder, tmp_path / "slow", input=PLAIN, until=Until(idle_s=30.0))
    slow.holds = True
    slow.play(100)
    assert slow.landing.polls == 100


def test_a_scan_that_changes_while_it_is_computed_is_not_handed_out_twice_at_a_time(folder, tmp_path):
    watched = watch(folder, tmp_path / "run", input=PLAIN)
    watched.holds = True
    np.save(folder / "scan.npy", COUNTS)
    watched.play(10, {6: lambda: np.save(folder / "scan.npy", COUNTS + 1)})
    assert len(watched.taken) == 1
    watched.holds = False
    watched.landing.ended.put(dataclasses.replace(end_of(watched.taken[0]), state="failed", reason="changed"))
    watched.play(8)
    assert len(watched.taken) == 2


def test_first_views_are_asked_for_when_there_are_new_rows_one_at_a_time(folder, tmp_path):
    begun = []

    class Later:
        def done(self):
            return len(begun) < 2

        def cancel(self):
            begun.append("given up")

        def result(self):
            return {"rows": begun[-1][1], "elements": ["Fe"], "r2": 0.9, "verdict": "good"}

    def begin(path, rows):
        begun.append((path.name, rows))
        return Later()

    watched = watch(folder, tmp_path / "run", views=begin)
    write_step_scan(folder / "a.mda", COUNTS, last_row=2)
    watched.play(40, {20: lambda: write_step_scan(folder / "a.mda", COUNTS, last_row=5)})
    assert begun == [("a.mda", 2), ("a.mda", 5)]
    # The second one does not end.
    watched.play(130)
    assert begun[2:] == ["given up"]
    assert [event.values["rows"] for event in watched.events if event.kind == "view"] == [2]
