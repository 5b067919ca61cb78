"""A small run to explore, made once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from explore_samples import MadeRun, make_run

from hpcxrf.explore.opening import open_session
from hpcxrf.explore.session import Session
from hpcxrf.explore.targets import find_target


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> MadeRun:
    """Nothing may change it: tests that do take a copy."""
    return make_run(tmp_path_factory.mktemp("explored") / "out")


@pytest.fixture(scope="session")
def session(made) -> Session:
    target = find_target(made.folder)
    assert target is not None
    return open_session(target, target.dataset(None))


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The run of `hpcxrf demo`, or the one that `HPCXRF_DEMO_RUN` names; nothing may change it."""
    if made_before := os.environ.get("HPCXRF_DEMO_RUN"):
        return Path(made_before)
    folder = tmp_path_factory.mktemp("demo")
    root = str(Path(__file__).resolve().parents[2])
    argv = [sys.executable, "-m", "hpcxrf", "demo", "-o", str(folder), "--workers", "2"]
    ran = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root}, timeout=800
    )
    assert ran.returncode == 0, ran.stderr
    return folder / "run"
