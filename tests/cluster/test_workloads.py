"""Benchmark and case study as jobs: the numbers of a local run, whatever happens to workers and driver."""

import json

import numpy as np
import pytest
import yaml

from hpcxrf.cluster.job_files import read_events
from hpcxrf.cluster.local.run import run_here
from hpcxrf.cluster.login.submission import SubmitOptions, prepare_submission, submit_again
from hpcxrf.config.run import check_config
from hpcxrf.config.site import check_site
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.rundir import RunDir
from hpcxrf.studies.benchmark.statistics import open_statistics
from tests.cluster.drills import ROOT, Drill, kill
from tests.samples.small_archive import TORN, write_small_archive

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(280), pytest.mark.more]

METHODS = ("separable", "product", "adam", "sbplx")
# Seconds are measured, and so differ.
MEASURED = ("cpu_s", "wall_s")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three small scans with an override file, and a fourth cut in half; the run file of their benchmark."""
    folder = tmp_path_factory.mktemp("archive")
    write_small_archive(folder, seeds=(11, 12, 13))
    raw = {
        "input": {"files": [str(folder / "small-*.h5"), str(folder / TORN)]},
        "benchmark": {
            "methods": list(METHODS),
            "seed": 5,
            "adam_steps": 5,
            "sbplx_evaluations": 50,
            "datasets": {"sbplx": 2},
        },
        "execution": {"workers": 2, "dashboard": False},
    }
    return check_config(raw, "test"), yaml.safe_dump(raw)


@pytest.fixture(scope="module")
def local(archive, tmp_path_factory):
    """The same benchmark on this machine."""
    config, text = archive
    return run_here(config, text, tmp_path_factory.mktemp("local") / "run")


@pytest.fixture
def job(drill, archive):
    """A submission of it, on two workers."""
    config, text = archive
    return prepare_job(drill, config, text)


def prepare_job(drill: Drill, config, text: str, **site) -> Drill:
    profile = check_site(
        {
            "cores_per_node": 2,
            "memory_per_worker_mb": 1500,
            "driver_memory_mb": 500,
            "time_limit_h": 0.5,
            "drain_s": 30,
            "interface": "lo",
            "partition": "main",
            **site,
        },
        "test",
        name="drill",
    )
    drill.monkeypatch.setenv("PYTHONPATH", str(ROOT))
    drill.prepared = prepare_submission(config, text, drill.tmp_path / "run", profile, SubmitOptions(workers=2))
    return drill


def finished_fits(drill: Drill) -> int:
    lines = (line for name in drill.run.dataset_ids() for line in drill.run.read_journal(name))
    return sum(line["event"] == "finished" and line["stage"] != "sum" for line in lines)


def require_equal(run: RunDir, local) -> None:
    """R2, theta and amplitudes of every fit are those of the local run, exactly."""
    here = open_statistics(run.path / "benchmark.zarr").drop_vars(MEASURED, errors="ignore")
    there = open_statistics(local.run.path / "benchmark.zarr").drop_vars(MEASURED, errors="ignore")
    assert set(here.data_vars) == set(there.data_vars)
    assert {"r2", "theta"} <= set(here.data_vars)
    for name in here.data_vars:
        np.testing.assert_array_equal(here[name].values, there[name].values, err_msg=name)
    assert int(np.isfinite(here["r2"].values).sum()) > 15


def test_a_benchmark_on_slurm_has_the_numbers_of_a_local_one_though_a_worker_is_killed(job, local):
    job.submit()
    job.wait(lambda: finished_fits(job) >= 2, 120)
    _nanny, [worker] = job.workers()["worker-0"]
    kill(worker.pid)
    # A file that cannot be opened fails its own dataset, and not the chain of jobs.
    assert job.wait_for_end(200) == "COMPLETED", job.logs()
    require_equal(job.run, local)
    assert read_events(job.run)[-1]["exit_code"] == 6
    states = {record.name: record.state for record in read_datasets(job.run)}
    assert states.pop(TORN) == "failed"
    assert set(states.values()) == {"done"}
    assert job.progress().stages.keys() == {"sum", "initial", "refinement"}
    page = (job.run.path / "benchmark.html").read_text(encoding="utf-8")
    assert "2 workers x 1 thread" in page
    machine = {record.facts.get("machine") for record in read_datasets(job.run)} - {None}
    assert len(machine) == 1
    assert machine.pop() in page
    for name in ("benchmark.csv", "table.csv"):
        assert (job.run.path / name).stat().st_size > 100


def test_a_benchmark_whose_driver_is_killed_goes_on_with_what_is_missing(job, local):
    job.submit()
    job.wait(lambda: finished_fits(job) >= 2, 120)
    kill(job.driver())
    assert job.wait_for_end() == "FAILED"
    before = job.times_finished()
    job.job_id = submit_again(job.run)
    assert job.wait_for_end(200) == "COMPLETED", job.logs()
    require_equal(job.run, local)
    after = job.times_finished()
    assert set(after.values()) == {1}
    assert before.keys() < after.keys()


@pytest.mark.slow
def test_a_benchmark_that_is_requeued_before_its_time_limit_ends_with_the_same_numbers(job, local):
    job.submit()
    job.wait(lambda: finished_fits(job) >= 1, 120)
    job.slurm.run("scancel", "--signal=USR1", "--batch", job.job_id)
    job.wait_for_event("requeued", 1)
    job.start_again_now()
    job.wait(lambda: len(job.events("ended")) == 1, 200)
    assert job.wait_for_end(60) == "COMPLETED", job.logs()
    require_equal(job.run, local)


def test_a_case_study_on_slurm_writes_its_page(drill):
    raw = {
        "input": {"files": [str(drill.tmp_path / "scan" / "leaf.h50")]},
        "fit": {"calibration": "none"},
        "regions": {"find": ["squares"], "side": 6},
        "case_study": {
            "size": [24, 30],
            "starts": 1,
            "trials": 1,
            "draws": 2,
            "amplitudes": ["random"],
            "pixels": 2,
            "adam_steps": 5,
            "sbplx_evaluations": 20,
            "pixel_adam_steps": 3,
            "pixel_sbplx_evaluations": 10,
            "map_adam_steps": 2,
            "map_sbplx_evaluations": 5,
        },
        "execution": {"dashboard": False},
    }
    prepare_job(drill, check_config(raw, "test"), json.dumps(raw)).submit()
    assert drill.wait_for_end(250) == "COMPLETED", drill.logs()
    assert (drill.run.path / "case_study.html").is_file()
    assert {record.state for record in read_datasets(drill.run)} == {"done"}
    assert read_events(drill.run)[-1]["exit_code"] == 0
