"""A benchmark over a tiny simulated archive: its tables, a corrupt file, interruption and resume."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from hpcxrf.studies.benchmark.statistics import FAILED_STATUS, open_statistics
from tests.samples.small_archive import TORN, write_small_archive

pytestmark = pytest.mark.more

TASKS = ("initial", "refinement")
METHODS = ("separable", "product", "adam")
ARMS = ("separable-start", "separable", "product", "adam", "adam-guessed")
SECONDS = ("cpu_s", "wall_s")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """Three small scans with override file and truth, and a fourth cut in half."""
    folder = tmp_path_factory.mktemp("archive")
    write_small_archive(folder, seeds=(1, 2, 3))
    raw = {
        "input": {"files": ["small-*.h5", TORN]},
        "benchmark": {
            "methods": list(METHODS),
            "seed": 5,
            "adam_steps": 5,
            "datasets": {"adam": 3},
            "ablation": ["start"],
        },
        "execution": {"workers": 2, "dashboard": False},
    }
    (folder / "bench.yaml").write_text(yaml.safe_dump(raw))
    return folder / "bench.yaml"


def _arguments(run_file: Path, run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "hpcxrf", "benchmark", str(run_file), "-o", str(run), *more]


def _command(run_file: Path, run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_arguments(run_file, run, *more), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(run_file, tmp_path_factory):
    """One undisturbed benchmark of it, and what it said."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    return run, _command(run_file, run, "--json")


def _journal_lines(run: Path) -> dict[str, int]:
    return {p.stem: len(p.read_text().splitlines()) for p in (run / "state").glob("*.jsonl")}


def _without_seconds(run: Path):
    return open_statistics(run / "benchmark.zarr").drop_vars(SECONDS)


def test_a_corrupt_file_is_a_failure_that_stops_no_other(finished):
    run, done = finished
    assert done.returncode == 6, done.stderr
    assert "4 datasets: 1 failed, 3 done" in done.stderr
    told = json.loads(done.stdout)
    assert {f["source"] for f in told["failures"]} == {TORN}
    page = (run / "benchmark.html").read_text(encoding="utf-8")
    assert TORN in page


def test_every_method_has_fitted_every_sum(finished):
    run, _ = finished
    data = open_statistics(run / "benchmark.zarr")
    assert data["task"].values.tolist() == list(TASKS)
    assert data["method"].values.tolist() == list(ARMS)
    good = data.isel(dataset=[s.startswith("small") for s in data["source"].values])
    assert good.sizes["dataset"] == 3
    ours = good.sel({"method": ["separable", "product"]})
    assert (ours["r2"].values > 0.95).all()
    assert (ours["r2"].values <= 1.0).all()
    shorter = good["r2"].sel({"method": "separable-start"}).values
    assert (shorter <= good["r2"].sel({"method": "separable"}).values + 1e-6).all()
    # Five steps of Adam from random values lead nowhere, which is what they are here for.
    adam = good["r2"].sel({"method": "adam", "task": "initial"}).values
    assert (adam[np.isfinite(adam)] < 0.9).all()
    guessed = good["r2"].sel({"method": "adam-guessed", "task": "initial"}).values
    assert (guessed > adam)[np.isfinite(adam)].all()
    torn = data.isel(dataset=[s == TORN for s in data["source"].values])
    asked = torn["status"].values[0] != 0
    assert (torn["status"].values[0][asked] == FAILED_STATUS).all()


def test_a_sampled_method_has_its_number_of_datasets(finished):
    run, _ = finished
    status = open_statistics(run / "benchmark.zarr")["status"]
    assert (status.sel({"task": "initial"}).values != 0).sum(axis=0).tolist() == [4, 4, 4, 3, 3]


def test_the_truth_is_found_beside_the_scans(finished):
    told = json.loads(finished[1].stdout)
    strong = [r for r in told["amplitudes"] if r["strength"] == "strong"]
    assert {(r["task"], r["method"]) for r in strong} == {(t, m) for t in TASKS for m in ARMS}
    product = next(r for r in strong if (r["task"], r["method"]) == ("initial", "product"))
    assert abs(product["median"]) < 0.05
    for table in ("shared", "ablation"):
        assert {r["task"] for r in told[table]} == set(TASKS)
    assert [r["method"] for r in told["shared"][:4]] == ["separable", "adam", "adam-guessed", "product"]
    axis = [r for r in told["calibrations"] if r["method"] == "product"]
    assert all(r["median_abs_kev"] < 0.03 for r in axis)


def test_the_region_is_part_of_the_map(finished):
    run, _ = finished
    for file in (run / "benchmark").glob("small-*/sum.npz"):
        with np.load(file) as sums:
            whole, region = sums["initial"], sums["refinement"]
        assert (region <= whole).all()
        assert 0.1 < region.sum() / whole.sum() < 0.6  # 9 of 36 pixels


def test_a_lost_result_is_fitted_again_and_nothing_else(finished, run_file, tmp_path):
    run = tmp_path / "lost"
    shutil.copytree(finished[0], run)
    lost = next(iter(sorted((run / "benchmark").glob("small-*/initial-product.json"))))
    lost.unlink()
    before = _journal_lines(run)
    assert _command(run_file, run).returncode == 6
    new = [
        json.loads(line)["task"]
        for name, count in before.items()
        if not name.startswith("torn")
        for line in (run / "state" / f"{name}.jsonl").read_text().splitlines()[count:]
    ]
    assert new == ["initial-product"]
    assert _without_seconds(run).identical(_without_seconds(finished[0]))


def test_a_benchmark_that_was_killed_goes_on_and_ends_the_same(finished, run_file, tmp_path):
    run = tmp_path / "killed"
    shutil.copytree(finished[0], run)
    (lost,) = (run / "benchmark").glob("small-3-*")
    shutil.rmtree(lost)
    journal = run / "state" / f"{lost.name}.jsonl"
    before = len(journal.read_text().splitlines())
    with subprocess.Popen(_arguments(run_file, run), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            # The sums and one fit are done, the others are not.
            if len(journal.read_text().splitlines()) >= before + 2:
                break
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(journal.read_text().splitlines()) < before + 1 + 2 * len(ARMS)
    assert _command(run_file, run).returncode == 6
    assert _without_seconds(run).identical(_without_seconds(finished[0]))


def _changed(run_file: Path, folder: Path, **benchmark: object) -> Path:
    raw = yaml.safe_load(run_file.read_text())
    raw["input"]["files"] = [str(run_file.parent / name) for name in raw["input"]["files"]]
    raw["benchmark"] |= benchmark
    (folder / "other.yaml").write_text(yaml.safe_dump(raw))
    return folder / "other.yaml"


def test_other_methods_and_numbers_go_on_with_the_fits_that_there_are(finished, run_file, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    before = _journal_lines(run)
    for file in (run / "state").glob("small-1-*.jsonl"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if '"initial-product"' not in line))
    fewer = _changed(run_file, tmp_path, methods=["product", "separable"], datasets={}, ablation=[])
    assert _command(fewer, run).returncode == 6
    after = _journal_lines(run)
    assert {n: c for n, c in after.items() if not n.startswith("torn")} == {
        n: c for n, c in before.items() if not n.startswith("torn")
    }
    found = open_statistics(run / "benchmark.zarr")
    assert found["method"].values.tolist() == ["product", "separable"]
    whole = open_statistics(finished[0] / "benchmark.zarr")
    kept = whole["r2"].sel({"method": ["product", "separable"]})
    np.testing.assert_array_equal(found["r2"], kept)


def test_another_seed_on_the_same_folder_is_refused(finished, run_file, tmp_path):
    done = _command(_changed(run_file, tmp_path, seed=6), finished[0])
    assert done.returncode == 4
    assert "benchmark.seed: the run has 5, this command 6" in done.stderr


def test_the_page_of_a_benchmark_is_written_again_by_the_command_that_writes_that_of_a_run(finished, hpcxrf):
    page = finished[0] / "benchmark.html"
    before = page.stat().st_mtime_ns
    told = hpcxrf("report", finished[0])
    assert told.code == 0, told.err
    assert page.stat().st_mtime_ns > before
    assert TORN in page.read_text(encoding="utf-8")
    assert not (finished[0] / "report.html").exists()
