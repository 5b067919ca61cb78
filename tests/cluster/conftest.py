"""The fixture of the drills."""

import pytest

from tests.cluster.drills import Drill


@pytest.fixture
def drill(slurm_cluster, tmp_path, monkeypatch):
    """A run on the private Slurm that a test may disturb."""
    return Drill(slurm=slurm_cluster, tmp_path=tmp_path, monkeypatch=monkeypatch)
