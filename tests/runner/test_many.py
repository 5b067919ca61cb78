"""Runs of thousands of datasets: what the driver holds does not grow with their number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "samples" / "many_items.py"


def run_many(folder, number):
    done = subprocess.run(
        [sys.executable, SCRIPT, str(folder), str(number)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_memory_of_the_driver_is_flat_from_1200_to_12000_datasets(tmp_path):
    few, many = run_many(tmp_path / "few", 1200), run_many(tmp_path / "many", 12_000)
    assert (few["done"], many["done"]) == (1200, 12_000)
    # Scheduler and client are in the process that is measured: what they keep of ended tasks counts, too.
    assert many["held_mb"] < 1.2 * few["held_mb"], (few, many)
