"""Results of real runs made again by the command: every stage of the workload, bit for bit, or what differs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

from hpcxrf.results.store.storage import update_attributes
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from hpcxrf.store.packed import pack_store, read_root

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = ["Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "La_L"]


def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hpcxrf", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "dumb"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def run(folder: Path, raw: dict) -> Path:
    execution = {"workers": 2, "threads": 1, "dashboard": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump({**raw, "execution": execution}))
    call("run", folder / "run.yaml", "-o", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def measured(shared_data, tmp_path_factory):
    """A scan of four detectors: normalised, quantified by a standard, with regions that are fitted again."""
    folder = tmp_path_factory.mktemp("measured")
    data = folder / "data"
    shutil.copytree(shared_data / "aps-2ide" / "mda", data / "mda")
    for file in (shared_data / "aps-2ide").glob("maps_*"):
        shutil.copy(file, data)
    return run(
        folder,
        {
            "input": {"files": [str(data / "mda" / "2xfm_0010.mda")]},
            "sample": {"elements": ELEMENTS, "incident_energy_kev": 10.0},
            "regions": {"find": ["squares"], "side": 4, "k": 2, "rectangles": {"left": [0, 6, 0, 5]}, "remap": True},
            "normalise": {"i0": "us_ic", "reference": str(data / "mda" / "axo_std.mda")},
            "quantify": {"standards": [str(data / "mda" / "axo_std.mda")]},
        },
    )


def test_every_stage_of_a_measured_scan_is_the_same_bits_again(measured):
    done = call("rerun", measured, "--json")
    assert json.loads(done.stdout)["identical"] is True
    (store,) = (measured / "results").glob("*.zarr")
    groups = {name.partition("/")[0] for name, _ in zarr.open_group(store, mode="r").members()}
    assert {"maps", "spectrum", "parameters", "basis", "regions", "normalised", "areal_density"} <= groups
    assert json.loads(done.stdout)["arrays"]["compared"] > 60
    told = read_root(store)["attributes"]["provenance"]
    kinds = [one["kind"] for one in told["inputs"]]
    assert kinds.count("scan") == 1
    assert {"standard", "scan of the I0 reference"} <= set(kinds)
    assert told["other_environments"] == []


def test_inputs_that_were_moved_are_found_and_the_bits_are_the_same(measured, tmp_path):
    (store,) = (measured / "results").glob("*.zarr")
    shutil.copytree(store, tmp_path / store.name)
    assert pack_store(tmp_path / store.name)
    data = measured.parent / "data"
    data.rename(tmp_path / "moved")
    try:
        lost = call("rerun", tmp_path / f"{store.name}.zip", code=3)
        assert "--source" in lost.stderr
        found = call("rerun", tmp_path / f"{store.name}.zip", "--source", tmp_path, "-o", tmp_path / "again", "--json")
        assert json.loads(found.stdout)["identical"] is True
        assert json.loads(found.stdout)["run"] == str(tmp_path / "again")
    finally:
        (tmp_path / "moved").rename(data)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    spec = demo_spec(seed=3, shape=(2, 12, 14, 1536), name="small")
    write_scan(simulate_scan(spec), folder)
    return run(
        folder,
        {
            "input": {"files": [str(folder / "small.h50")]},
            "sample": {"elements": list(spec.listed_elements)},
            "regions": {"find": []},
        },
    )


def test_a_result_that_somebody_changed_is_told_by_array_and_sigma(small, tmp_path):
    (store,) = (small / "results").glob("*.zarr")
    changed = tmp_path / store.name
    shutil.copytree(store, changed)
    amplitude = zarr.open_array(changed / "maps" / "amplitude", mode="r+")
    sigma = np.asarray(zarr.open_array(changed / "maps" / "sigma", mode="r")[0, 1, 2, 3])
    values = np.asarray(amplitude[:])
    values[0, 1, 2, 3] += np.float32(2.0) * sigma
    amplitude[:] = values
    done = call("rerun", changed, code=8)
    assert "maps/amplitude: 1 of " in done.stdout
    assert "at most 2 sigma" in done.stdout
    kept = Path(done.stderr.strip().rpartition(" ")[2])
    assert (kept / "results").is_dir()
    shutil.rmtree(kept)


def test_another_option_in_the_configuration_gives_other_numbers(small, tmp_path):
    """The comparison can fail: the same scan fitted otherwise is not the same."""
    (store,) = (small / "results").glob("*.zarr")
    changed = tmp_path / store.name
    shutil.copytree(store, changed)
    configuration = dict(read_root(changed)["attributes"]["configuration"])
    configuration["fit"] = {**configuration["fit"], "start": {"compton_angle": 100.0}, "fixed": ["compton_angle"]}
    update_attributes(changed, {"configuration": configuration})
    done = call("rerun", changed, "--json", code=8)
    answer = json.loads(done.stdout)
    assert answer["differences"] == []
    assert answer["most_sigma"] > 0.1
    assert {"maps/amplitude", "parameters/value"} <= {one["array"] for one in answer["arrays"]["differing"]}
    shutil.rmtree(answer["run"])


def test_two_runs_of_one_scan_are_the_same_and_another_background_is_not(small, tmp_path):
    assert "1 same; 0 changed" in call("diff", small, small, "--fail-on-change").stdout
    raw = yaml.safe_load((small / "run.yaml").read_text())
    other = run(tmp_path, {**raw, "fit": {"background": "snip"}})
    done = call("diff", small, other, "--json", "--fail-on-change", "-o", tmp_path / "page.html", code=8)
    answer = json.loads(done.stdout)
    assert [one["name"] for one in answer["summary"]["configuration"]] == ["fit.background"]
    assert answer["summary"]["versions"] == []
    assert answer["datasets"][0]["matched_by"] == "dataset_id"
    assert answer["datasets"][0]["largest"] > 1.0
    assert (tmp_path / "page.html").stat().st_size < 1_000_000
