"""First fit, maps, regions and refinements in one run, without a hand in between."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from store_damage import spoil_chunks

from hpcxrf.runner.verify import do_again, find_damage
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.rundir import open_run

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_scan(simulate_scan(demo_spec(seed=3, shape=(2, 70, 60, 1536), name="small")), folder)
    return folder / "small.h50"


def run_file(scan: Path, folder: Path, workers: int) -> Path:
    raw = {
        "input": {"files": [str(scan)]},
        "sample": {"elements": list(demo_spec(seed=3).listed_elements)},
        "regions": {"find": ["phases", "squares", "hot_spots"], "remap": True},
        "execution": {"workers": workers, "threads": 1, "dashboard": False},
    }
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(raw))
    return folder / "run.yaml"


def run(scan: Path, folder: Path, workers: int) -> Path:
    command = [sys.executable, "-m", "hpcxrf", "run", str(run_file(scan, folder, workers))]
    done = subprocess.run([*command, "-o", str(folder / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def finished(scan, tmp_path_factory):
    return run(scan, tmp_path_factory.mktemp("two"), 2)


def store_of(out: Path) -> Path:
    (store,) = (out / "results").glob("small-*.zarr")
    return store


def test_one_command_finds_the_regions_and_refines_them(finished):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regions = xr.open_zarr(store_of(finished), group="regions")
        remapped = xr.open_zarr(store_of(finished), group="regions/maps")
    kinds = regions.kind.values.tolist()
    assert kinds.count("squares") == 3
    assert kinds.count("phases") >= 2
    assert kinds.count("hot_spots") >= 1
    assert (regions.status == 1).all()
    assert (regions.r2 > 0.97).all()
    assert (regions.n_pixels.values[np.array(kinds) == "squares"] == 625).all()
    strong = regions.sel(component=["K", "Ca"])
    assert (strong.sigma > 0).all()
    total = remapped.amplitude.sel(component="Ca").sum(("y", "x")).values
    fitted = strong.sel(component="Ca")
    assert (np.abs(total - fitted.amplitude.values) < 3 * fitted.sigma.values).all()
    page = (finished / "report.html").read_text()
    assert "square-3" in page
    assert len(list((finished / "tables").glob("small-*.regions.csv"))) == 1


def test_regions_are_bit_identical_for_any_number_of_workers(finished, scan, tmp_path):
    other = run(scan, tmp_path / "one", 1)
    assert tree_sha256(store_of(other) / "regions") == tree_sha256(store_of(finished) / "regions")
    tables = [next((out / "tables").iterdir()).read_text() for out in (other, finished)]
    assert tables[0] == tables[1]


def test_a_lost_refinement_is_done_again_and_nothing_else(finished, scan, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    store = store_of(tmp_path / "out")
    before = tree_sha256(store / "regions")
    assert spoil_chunks(store / "regions" / "theta", "c/1/")
    # A resumed run trusts its journals; `hpcxrf verify` looks at contents.
    opened = open_run(tmp_path / "out")
    for damage in list(find_damage(opened)):
        do_again(opened, damage)
    run(scan, tmp_path, 2)
    assert tree_sha256(store / "regions") == before
    journals = [next((out / "state").glob("*.jsonl")) for out in (finished, tmp_path / "out")]
    old, new = (journal.read_text().splitlines() for journal in journals)
    lines = [json.loads(line) for line in new[len(old) :]]
    redone = [line["task"] for line in lines if line["event"] == "finished"]
    assert redone == ["refine-01", "finalise"]
