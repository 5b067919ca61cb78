"""Bad files among good ones, and disks that fill up: nothing else is lost.

Ctrl-C, SIGTERM and SIGKILL are in `end_to_end/test_run.py`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from mda_files import write_step_scan

from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.formats.maps_writer import write_maps_v10
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.files import append_line, read_lines
from hpcxrf.store.rundir import RunDir
from tests.samples.bad_scans import AXIS, FIT, SHAPE, cut, write_array, write_whole

pytestmark = pytest.mark.more

WRITE_FAILED = 4
SOME_FAILED = 6
LAST_ROW, LAST_POINT = 2, 3
"""The scan that stopped: rows 0 and 1 and three points of row 2."""
ZERO_PIXELS = ((1, 1), (3, 5))


def bad_files(folder: Path, counts) -> dict[str, str]:
    """Writes one of each; what the reason of its failure must say, by name."""
    spoiled = counts.astype(np.float32)
    spoiled[0, 0] = -1.0
    write_array(folder / "negative.h5", spoiled)
    spoiled = counts.astype(np.float32)
    spoiled[0, 0, 0, 100] = np.nan
    write_array(folder / "nan.h5", spoiled)
    write_array(folder / "dark.h5", np.zeros_like(counts))
    np.save(folder / "rank.npy", np.ones((1, 1, 1, 1, 64), np.uint16))
    (folder / "empty.mda").touch()
    (folder / "notes.h50").write_text("nothing to see")
    whole = write_step_scan(folder / "whole.mda", counts)
    cut(whole, folder / "cut.mda", 0.6)
    whole.unlink()
    whole = write_whole(folder / "whole.h5", counts, write_maps_v10)
    cut(whole, folder / "cut.h50", 0.6)
    for rest in folder.glob("whole.*"):
        rest.unlink()
    return {
        "negative.h5": "-1",
        "nan.h5": "nan",
        "dark.h5": "no counts",
        "rank.npy": "1 to 4 axes",
        "empty.mda": "0 bytes",
        "notes.h50": "no known format",
        "cut.mda": "copy it again",
        "cut.h50": "copy it again",
        "missing.mda": "no such file",
    }


def good_files(folder: Path, counts) -> list[str]:
    write_array(folder / "good.h5", counts)
    write_array(folder / "dead.h5", counts * np.array([1, 0])[:, None, None, None])
    some = counts.copy()
    for y, x in ZERO_PIXELS:
        some[:, y, x] = 0
    write_array(folder / "zeros.h5", some)
    write_step_scan(folder / "half.mda", counts, last_row=LAST_ROW, last_point=LAST_POINT)
    return ["good", "dead", "zeros", "half"]


@pytest.fixture(scope="module")
def archive(counts, tmp_path_factory):
    """(run directory, how the command ended, reasons expected) of good and bad files in one run."""
    folder = tmp_path_factory.mktemp("archive")
    reasons = bad_files(folder, counts)
    names = good_files(folder, counts)
    inputs = [*sorted(folder.iterdir()), folder / "missing.mda"]
    run = tmp_path_factory.mktemp("runs") / "run"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hpcxrf",
            "run",
            *map(str, inputs),
            "-o",
            str(run),
            *FIT,
            *AXIS,
            "--workers",
            "1",
            "--detectors",
            "both",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "300"},
    )
    return run, done, reasons, names


def maps_of(run: Path, name: str) -> xr.Dataset:
    (store,) = (run / "results").glob(f"{name}-*.zarr")
    return xr.open_zarr(store, group="maps", chunks=None)


def test_bad_files_of_a_run_are_named_with_their_reason_and_the_others_are_done(archive):
    run, done, reasons, names = archive
    assert done.returncode == SOME_FAILED, done.stderr
    assert f"datasets: {len(reasons)} failed, {len(names)} done" in done.stderr
    assert f"{len(names)} of {len(reasons) + len(names)} datasets done" in done.stderr
    assert "Traceback" not in done.stderr
    finished = {p.name.rsplit("-", 1)[0] for p in (run / "results").iterdir() if complete(p)}
    assert finished == set(names)
    page = (run / "report.html").read_text()
    failed = {}
    for journal in (run / "state").glob("*.jsonl"):
        for line in map(json.loads, journal.read_text().splitlines()):
            if line["event"] == "failed":
                failed[journal.name] = line["reason"]
    assert len(failed) == len(reasons)
    for name, reason in reasons.items():
        assert name in page
        (found,) = [text for text in failed.values() if name in text]
        assert reason in found.lower() or reason in found


def complete(store: Path) -> bool:
    return json.loads((store / "zarr.json").read_text())["attributes"].get("complete") is True


def test_a_dead_detector_reads_nan_and_empty_and_the_other_has_maps(archive):
    run = archive[0]
    maps, whole = maps_of(run, "dead"), maps_of(run, "good")
    dead = maps.sel(detector="1")
    assert np.isnan(dead.amplitude).all()
    assert np.isnan(dead.sigma).all()
    assert (dead.status == FitStatus.EMPTY).all()
    for variable in ("amplitude", "sigma", "status"):
        alive = maps[variable].sel(detector="0")
        xr.testing.assert_identical(alive, whole[variable].sel(detector="0"))
    total = maps.amplitude.sel(detector="sum", component="Fe").values
    assert np.allclose(total, maps.amplitude.sel(detector="0", component="Fe"), rtol=0.05, atol=3)


def test_pixels_without_counts_are_zero_and_empty_and_the_others_keep_their_values(archive):
    maps, whole = (maps_of(archive[0], name) for name in ("zeros", "good"))
    empty = np.zeros(SHAPE[1:3], dtype=bool)
    empty[tuple(np.transpose(ZERO_PIXELS))] = True
    assert ((maps.status == FitStatus.EMPTY).values == empty).all()
    amplitude = maps.amplitude.sel(component="Fe")
    # a spectrum was recorded and holds nothing: that is a zero with an uncertainty, not a gap
    assert (amplitude.values[..., empty] == 0.0).all()
    assert (maps.sigma.values[..., empty] > 0.0).all()
    assert np.isfinite(maps.sigma.values).all()
    change = (amplitude - whole.amplitude.sel(component="Fe")).values[..., ~empty]
    assert np.abs(change).max() < 0.1 * float(whole.amplitude.sel(component="Fe").max())


def test_a_scan_that_stopped_half_way_has_maps_of_what_was_measured(archive):
    maps = maps_of(archive[0], "half")
    place = np.arange(SHAPE[1] * SHAPE[2]).reshape(SHAPE[1:3])
    measured = place < LAST_ROW * SHAPE[2] + LAST_POINT
    assert maps.amplitude.shape[-2:] == SHAPE[1:3]
    assert (np.isfinite(maps.amplitude).values == measured).all()
    assert ((maps.status == FitStatus.NOT_MEASURED).values == ~measured).all()
    (store,) = (archive[0] / "spectra").glob("half-*.zarr")
    notes = json.loads((store / "zarr.json").read_text())["attributes"]["notes"]
    assert any("15 of 24" in note or "stopped" in note for note in notes), notes


def test_bad_files_of_an_ingest_stop_no_other(hpcxrf, counts, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    reasons = bad_files(folder, counts)
    good_files(folder, counts)
    ran = hpcxrf("ingest", *sorted(folder.iterdir()), "-o", tmp_path / "stores", "--json")
    assert ran.code == SOME_FAILED, ran.err
    # a scan without counts is a scan
    assert {Path(p).name for p in ran.json["failed"]} == reasons.keys() - {"missing.mda", "dark.h5"}
    assert {Path(p).name for p in ran.json["stores"]} == {"good.h5", "dead.h5", "zeros.h5", "half.mda", "dark.h5"}
    for path, reason in ran.json["failed"].items():
        assert path in reason


@pytest.fixture
def small_disk(tmp_path):
    """A folder of 200 kB and a function that makes it large; needs root, as in a container."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if os.geteuid() != 0 or shutil.which("mount") is None or mount("size=200k") != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield disk, lambda: mount("remount,size=50m")
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_while_results_are_written_and_then_room(good, small_disk):
    disk, enlarge = small_disk
    listed = ("--elements", "Si,P,S,Cl,K,Ca,Ti,Mn,Fe,Cu,Zn,Pb_L", "--energy", "13.5")
    command = [sys.executable, "-m", "hpcxrf", "run", str(good), "-o", str(disk / "run"), *listed]
    options = {"capture_output": True, "text": True, "env": {**os.environ, "COLUMNS": "400"}}
    done = subprocess.run([*command, "--workers", "1"], check=False, **options)
    # The report is larger than what is left, too: its error ends the run, and the record names the results.
    assert done.returncode == WRITE_FAILED, done.stderr
    assert "report.html: No space left on device; free space" in done.stderr
    (record,) = read_datasets(RunDir(path=disk / "run"))
    assert record.state == "failed"
    assert "results/good-" in record.reason
    assert "No space left on device; free space" in record.reason
    assert enlarge() == 0
    again = subprocess.run([*command, "--workers", "1"], check=False, **options)
    assert again.returncode == 0, again.stderr
    assert np.isfinite(maps_of(disk / "run", "good").amplitude).all()


def test_a_journal_line_that_fits_only_in_part_is_an_output_error(tmp_path):
    """A disk that fills up takes the part of a line that fits; a limit on the file's size does the same."""
    import resource

    path = tmp_path / "journal.jsonl"
    append_line(path, {"event": "begin"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            append_line(path, {"event": "finished", "task": "ingest"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, {"event": "finished", "task": "ingest"})
    assert [line["event"] for line in read_lines(path)] == ["begin", "finished"]
