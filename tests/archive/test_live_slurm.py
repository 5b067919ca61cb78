"""`hpcxrf live` in a job: the line of `docs/how-to/live.md`, and a step of an allocation that runs already."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_samples import spectrum, write_scan

from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.rundir import RunDir

pytestmark = [pytest.mark.slurm, pytest.mark.more, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = ("Si", "Fe", "Zn")


@pytest.fixture
def scans(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    means = np.broadcast_to(spectrum({"Si": 300.0, "Fe": 900.0, "Zn": 200.0}), (1, 4, 4, 1200))
    write_scan(tmp_path / "scans", means, elements=ELEMENTS)
    return tmp_path / "scans"


def live(scans, output, *more):
    options = ("--workers", "1", "--set", "regions.find=[]", "--set", "fit.suggest=false")
    words = [sys.executable, "-m", "hpcxrf", "live", str(scans), "-o", str(output), *options, *more]
    return " ".join(f"'{word}'" for word in words)


def wait_for(condition, job, slurm, patience_s=300.0):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, slurm.run("scontrol", "show", "job", job) + Path("out.log").read_text()
        time.sleep(0.2)


def submit(slurm, command, *options):
    told = slurm.run(
        "sbatch",
        "--parsable",
        "--output=out.log",
        "--ntasks=1",
        "--cpus-per-task=2",
        "--mem=3000",
        *options,
        f"--wrap={command}",
    )
    return told.strip()


def states(output):
    return {record.name: record.state for record in read_datasets(RunDir(path=output))}


def has_ended(slurm, job):
    return not slurm.run("squeue", "-h", "-j", job, check=False).strip()


def test_a_job_that_slurm_signals_before_its_time_limit_ends_in_order_and_the_same_line_goes_on(
    slurm_cluster, scans, tmp_path
):
    output = tmp_path / "out"
    job = submit(slurm_cluster, f"srun {live(scans, output)}", "--signal=INT@120")
    wait_for(lambda: output.is_dir() and states(output) == {"scan.npy": "done"}, job, slurm_cluster)
    wait_for(lambda: "scan.npy" in Path("out.log").read_text(), job, slurm_cluster)
    # What Slurm does two minutes before the limit.
    slurm_cluster.run("scancel", "--signal=INT", job)
    wait_for(lambda: has_ended(slurm_cluster, job), job, slurm_cluster)
    assert not RunDir(path=output).lock_file.exists()
    assert RunDir(path=output).report_file.is_file()
    (scans / "scan.npy").rename(scans / "first.npy")
    job = submit(slurm_cluster, f"srun {live(scans, output, '--once')}")
    wait_for(lambda: has_ended(slurm_cluster, job), job, slurm_cluster)
    # It is known by its bytes, and not done twice.
    assert states(output) == {"scan.npy": "done"}


def test_a_step_of_an_allocation_that_runs_already_uses_its_cores(slurm_cluster, scans, tmp_path):
    job = submit(slurm_cluster, "sleep 600")
    wait_for(lambda: "RUNNING" in slurm_cluster.run("squeue", "-h", "-o", "%T", "-j", job), job, slurm_cluster)
    step = ["srun", f"--jobid={job}", "--overlap", "--ntasks=1", sys.executable, "-m", "hpcxrf", "live", str(scans)]
    output = tmp_path / "out"
    more = ("-o", str(output), "--once", "--workers", "1", "--set", "regions.find=[]", "--set", "fit.suggest=false")
    done = subprocess.run(
        [*step, *more], env=slurm_cluster.env(), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert states(output) == {"scan.npy": "done"}
    slurm_cluster.run("scancel", job)
