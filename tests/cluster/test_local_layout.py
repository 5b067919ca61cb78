"""Workers and threads of a local cluster, from what the machine has."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.cluster.local.cluster import default_layout, local_cluster, usable_cores
from hpcxrf.errors import ConfigError, OutputError


@given(n_cores=st.integers(1, 512), n_gpus=st.integers(0, 16))
def test_a_layout_never_asks_for_more_than_the_machine_has(n_cores: int, n_gpus: int) -> None:
    workers, threads = default_layout(n_cores, n_gpus)
    assert workers * threads <= max(n_cores, n_gpus)
    assert threads >= 1
    if n_gpus:
        assert workers == n_gpus
    else:
        assert 1 <= workers <= 16
        assert n_cores - workers * threads < threads


def test_layouts_of_known_machines() -> None:
    assert default_layout(2, 0) == (2, 1)
    assert default_layout(16, 0) == (16, 1)
    assert default_layout(64, 0) == (16, 4)
    assert default_layout(128, 0) == (16, 8)
    assert default_layout(64, 4) == (4, 16)
    assert default_layout(1, 2) == (2, 1)
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_an_impossible_layout_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"0 workers.*-1 threads.*2 GPUs"),
        local_cluster(0, -1, tmp_path, gpus=("0", "1")),
    ):
        pass
    with pytest.raises(ConfigError, match="0 cores"):
        default_layout(0, 0)
    assert not list(tmp_path.iterdir())


def test_a_run_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "run"
    blocked.write_text("a file")
    with pytest.raises(OutputError, match=r"run/logs/dask\.log"), local_cluster(1, 1, blocked):
        pass
