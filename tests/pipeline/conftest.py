"""What tests of bad input start from."""

from pathlib import Path

import pytest

from hpcxrf.simulate import demo_spec, draw_counts, simulate_scan
from tests.samples.bad_scans import SHAPE, write_whole


@pytest.fixture(scope="module")
def counts():
    """(detector, y, x, channel) of a leaf on soil."""
    return draw_counts(simulate_scan(demo_spec(seed=11, shape=SHAPE)), slice(0, SHAPE[1]))


@pytest.fixture(scope="module")
def good(counts, tmp_path_factory) -> Path:
    return write_whole(tmp_path_factory.mktemp("good") / "good.h5", counts)
