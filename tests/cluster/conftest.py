"""Fixtures of more than one file: run directories, and drills on the private Slurm."""

import os
import shutil

import pytest
import yaml

from hpcxrf.store.rundir import create_or_resume
from tests.cluster.drills import Drill
from tests.samples.stand_in_jobs import GOOD, site


@pytest.fixture
def drill(slurm_cluster, tmp_path, monkeypatch):
    """A run on the private Slurm that a test may disturb."""
    return Drill(slurm=slurm_cluster, tmp_path=tmp_path, monkeypatch=monkeypatch)


@pytest.fixture
def run(tmp_path):
    """A run directory in which nothing has been done."""
    return create_or_resume(tmp_path / "run", "{}", {})


@pytest.fixture
def lab(slurm_cluster, tmp_path, monkeypatch):
    """A folder with a run file, a site profile, and no other profile of the machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path / "sites"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "sites").mkdir()
    (tmp_path / "scan.h50").touch()
    run_file = {"input": {"files": ["scan.h50"]}, "sample": {"elements": ["Fe"], "incident_energy_kev": 12}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_file))
    site(tmp_path, GOOD)
    return tmp_path


@pytest.fixture
def wrapper(lab, monkeypatch):
    """Put a shell script in the place of a program of Slurm; REAL in it is the program."""

    def put(name: str, body: str) -> None:
        path = lab / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + body.replace("REAL", str(shutil.which(name))) + "\n")
        path.chmod(0o700)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return put
