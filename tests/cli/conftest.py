"""A simulated scan for the command line."""

from pathlib import Path

import pytest

from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from tests.samples.commands import SHAPE


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Path:
    """Two detectors whose calibrations differ, MAPS v10; no override file beside it."""
    folder = tmp_path_factory.mktemp("simulated")
    write_scan(simulate_scan(demo_spec(seed=5, shape=SHAPE, name="leaf")), folder)
    return folder / "leaf.h50"
