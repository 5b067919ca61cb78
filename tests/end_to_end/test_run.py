"""The whole way of the data on this machine: from files to maps, interrupted, resumed, with bad files among them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from store_damage import spoil_chunks

from hpcxrf.simulate import demo_spec, read_truth, simulate_scan, write_scan
from hpcxrf.store.files import tree_sha256

pytestmark = pytest.mark.more

SHAPE = (2, 70, 40, 1536)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan of two detectors and two map blocks, written as MAPS v10, with its truth."""
    folder = tmp_path_factory.mktemp("scan")
    spec = demo_spec(seed=3, shape=SHAPE, name="small")
    write_scan(simulate_scan(spec), folder)
    return folder / "small.h50"


def _group(run: Path, group: str) -> xr.Dataset:
    return xr.open_zarr(_store(run, "results"), group=group, chunks=None)


def _elements() -> str:
    return ",".join(demo_spec(seed=3).listed_elements)


def _options(*more: str) -> list[str]:
    return ["--elements", _elements(), "--detectors", "both", *more]


def _store(run: Path, kind: str) -> Path:
    (store,) = (run / kind).glob("small-*.zarr")
    return store


def _maps_bytes(run: Path) -> dict[str, str]:
    """Checksum of every array of the results, but for the seconds that the fit took."""
    store = _store(run, "results")
    arrays = {p.parent for g in ("maps", "spectrum", "parameters", "basis") for p in (store / g).glob("*/zarr.json")}
    assert len(arrays) > 30
    return {str(a.relative_to(store)): tree_sha256(a) for a in arrays if a.name != "cpu_s"}


@pytest.fixture(scope="module")
def finished(scan, tmp_path_factory):
    """One undisturbed run of it."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    _command(scan, run, "--workers", "2").check_returncode()
    return run


def _command(scan: Path, run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_arguments(scan, run, *more), capture_output=True, text=True, check=False)


def _arguments(scan: Path, run: Path, *more: str) -> list[str]:
    python = [sys.executable, "-m", "hpcxrf"]
    return [*python, "run", str(scan), "-o", str(run), *_options(*more)]


def test_a_run_ends_with_a_report_and_complete_stores(finished):
    assert (finished / "report.html").stat().st_size < 10e6
    for kind in ("spectra", "results"):
        root = json.loads((_store(finished, kind) / "zarr.json").read_text())
        assert root["attributes"]["complete"] is True


def test_every_group_opens_with_xarray_without_a_warning(finished):
    store = _store(finished, "results")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for group in ("maps", "spectrum", "parameters", "basis"):
            data = xr.open_zarr(store, group=group)
            assert data.sizes["detector"] == 3
        maps = xr.open_zarr(store, group="maps")
        xr.open_zarr(_store(finished, "spectra"))
    assert maps.amplitude.dims == ("detector", "component", "y", "x")
    assert maps.amplitude.attrs["units"] == "count"
    assert list(maps.detector.values) == ["sum", "0", "1"]


def test_the_maps_agree_with_the_truth_within_their_sigma(finished, scan):
    truth = read_truth(scan.with_name("small.truth.json"))
    maps = _group(finished, "maps")
    for element in ("K", "Ca", "Fe"):
        true = truth.amplitude[0, list(truth.components).index(element)]
        found = maps.amplitude.sel(detector="0", component=element).values
        sigma = maps.sigma.sel(detector="0", component=element).values
        pull = (found - true) / sigma
        # The simulation has physics that the model has not: a few per cent of a strong line are allowed.
        assert abs(found.sum() / true.sum() - 1.0) < 0.05
        assert np.nanstd(pull) < 1.6


def test_the_sum_is_the_sum_of_the_detectors_within_its_sigma(finished):
    maps = _group(finished, "maps")
    each = maps.amplitude.sel(detector=["0", "1"], component="Fe").sum("detector").values
    both = maps.amplitude.sel(detector="sum", component="Fe").values
    assert abs(each.sum() / both.sum() - 1.0) < 0.01


def test_pixels_add_up_to_the_fit_of_their_sum(finished):
    maps, spectrum = _group(finished, "maps"), _group(finished, "spectrum")
    for detector in ("0", "1", "sum"):
        total = maps.amplitude.sel(detector=detector, component="Fe").sum().item()
        one = spectrum.sel(detector=detector, component="Fe")
        assert abs(total - one.amplitude.item()) < 2.0 * max(one.sigma.item(), 0.01 * one.amplitude.item())


def test_the_result_is_bit_identical_for_any_task_size_and_number_of_workers(finished, scan, tmp_path):
    import yaml

    raw = {
        "input": {"files": [str(scan)]},
        "sample": {"elements": _elements().split(",")},
        "pixels": {"detectors": "both", "blocks_per_task": 1},
        "execution": {"workers": 1, "threads": 1, "dashboard": False},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(raw))
    run = tmp_path / "other"
    done = subprocess.run(
        [sys.executable, "-m", "hpcxrf", "run", str(tmp_path / "run.yaml"), "-o", str(run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert _maps_bytes(run) == _maps_bytes(finished)


def test_a_second_run_of_the_same_does_nothing(finished, scan):
    before = {p: p.stat().st_mtime_ns for p in (finished / "results").rglob("c/*") if p.is_file()}
    journal = next((finished / "state").glob("*.jsonl"))
    lines, end = journal.read_text(), (finished / "state" / "end.json").read_bytes()
    again = _command(scan, finished, "--workers", "2")
    assert again.returncode == 0, again.stderr
    assert journal.read_text() == lines
    # No worker is started for nothing, and the report goes on to say how the run went that did the work.
    assert "dashboard:" not in again.stderr
    assert (finished / "state" / "end.json").read_bytes() == end
    after = {p: p.stat().st_mtime_ns for p in (finished / "results").rglob("c/*") if p.is_file()}
    assert before == after


def test_another_configuration_is_refused_naming_the_difference(finished, scan):
    other = _command(scan, finished, "--background", "none")
    assert other.returncode == 4
    assert "fit.background" in other.stderr
    assert "hats" in other.stderr


def test_what_was_damaged_is_done_again_and_nothing_else(finished, scan, tmp_path):
    run = tmp_path / "damaged"
    shutil.copytree(finished, run)
    (lost,) = spoil_chunks(_store(run, "results") / "maps" / "amplitude", "c/0/0/0/0")
    told = subprocess.run(
        [sys.executable, "-m", "hpcxrf", "verify", str(run), "--redo"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert str(lost.relative_to(run)) in told.stdout.replace("\n", "")
    again = _command(scan, run, "--workers", "1")
    assert again.returncode == 0, again.stderr
    assert _maps_bytes(run) == _maps_bytes(finished)
    lines = [json.loads(x) for x in next((run / "state").glob("*.jsonl")).read_text().splitlines()]
    before = len(next((finished / "state").glob("*.jsonl")).read_text().splitlines())
    redone = {line.get("stage") for line in lines[before:]}
    assert redone - {None} == {"pixels", "regions", "refine", "finalise"}


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(finished, scan, tmp_path, number):
    run = tmp_path / "stopped"
    process = subprocess.Popen(_arguments(scan, run, "--workers", "1"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        journals = list((run / "state").glob("*.jsonl"))
        if journals and "integrated" in journals[0].read_text():
            break
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 75}[number]
    assert process.returncode == expected, said
    if number is not signal.SIGKILL:
        assert "goes on where it stopped" in said
        assert not (run / "secrets" / "dashboard.json").exists()
    again = _command(scan, run, "--workers", "2")
    assert again.returncode == 0, again.stderr
    assert _maps_bytes(run) == _maps_bytes(finished)


def test_a_bad_file_stops_no_other(scan, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    shutil.copy(scan, folder / "good.h50")
    whole = scan.read_bytes()
    (folder / "truncated.h50").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.h50").write_bytes(b"")
    run = tmp_path / "run"
    names = [str(folder / n) for n in ("good.h50", "truncated.h50", "empty.h50")]
    done = subprocess.run(
        [sys.executable, "-m", "hpcxrf", "run", *names, "-o", str(run), "--workers", "1", "--elements", "Si,Ca,Fe"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    assert "3 datasets: 2 failed, 1 done" in done.stderr
    results = [p.name for p in (run / "results").iterdir()]
    assert len(results) == 1
    assert results[0].startswith("good-")
    page = (run / "report.html").read_text()
    for name in ("truncated.h50", "empty.h50"):
        assert name in page
