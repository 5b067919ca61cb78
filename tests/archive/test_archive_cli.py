"""The commands of runs over an archive: what would be run and why, and the index."""

import json

import pytest
from catalogue_samples import write_archive, write_catalogue
from commands import child, loaded_modules

from hpcxrf.config.run import check_config
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.datasets import append_dataset
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.rundir import create_or_resume

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def run_file(tmp_path):
    rows = write_archive(tmp_path / "scans", ["a", "b"])
    write_catalogue(tmp_path / "archive.sqlite", rows)
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: {catalogue: archive.sqlite}\ngroups:\n- where: path = 'a.npy'\n  sample: {elements: [Fe]}\n"
    )
    return file


def test_a_dry_run_is_one_json_object_and_loads_no_torch(run_file):
    loaded, done = loaded_modules("run", str(run_file), "-o", str(run_file.parent / "out"), "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert told["counts"] == {"run": 2}
    assert {one["reason"] for one in told["datasets"]} == {"new: nothing of it has been done"}
    assert not {"torch", "dask", "distributed", "xarray", "zarr"} & loaded
    assert not (run_file.parent / "out").exists()


def test_a_dry_run_for_people_counts_and_a_condition_that_is_none_is_refused(run_file):
    done = child("-m", "hpcxrf", "run", str(run_file), "-o", str(run_file.parent / "out"), "--dry-run")
    assert "2 datasets: 2 to run" in done.stdout
    refused = child("-m", "hpcxrf", "run", str(run_file), "--set", "input.where=shape_z > 1", "-o", "out", "--dry-run")
    assert refused.returncode == 2
    assert "input.where: 'shape_z > 1': shape_z is not a column" in refused.stderr.replace("\n", " ")


def test_the_index_of_a_run_is_written_by_its_command(run_file):
    config = check_config({"input": {"files": ["x.npy"]}}, "x")
    run = create_or_resume(run_file.parent / "out", "{}", SCAN.lasting(config))
    record = DatasetRecord(dataset_id="x-00000000", name="x.npy", source="/x.npy", state="failed", reason="cut <off>")
    append_dataset(run, record, 0)
    (run.path / "configuration.yaml").write_text("input: {files: [x.npy]}\n")
    loaded, done = loaded_modules("index", str(run.path), "--json")
    assert json.loads(done.stdout) == {"index": str(run.path / "index.sqlite")}
    assert not {"torch", "dask", "distributed", "xarray", "zarr"} & loaded
