"""Where machine code is kept, and that it is made once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcxrf.fitting.kernels.machine_code import kernel_folder

_MODULE = '''
"""A kernel of a test."""
import numpy as np
from hpcxrf.fitting.kernels.machine_code import kernel

@kernel("float64(float64[::1])")
def total(x):
    s = 0.0
    for i in range(x.shape[0]):
        s += x[i]
    return s
'''
_CALL = """
import numpy as np
from trial import total
stats = total.stats
assert total(np.array([1.0, 2.5])) == 3.5
assert np.isnan(total(np.array([1.0, np.nan])))
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def _run(folder: Path, environment: dict[str, str]) -> list[int]:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[3])])
    clean = {k: v for k, v in os.environ.items() if k not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}}
    command = [sys.executable, "-c", _CALL]
    done = subprocess.run(
        command, env=clean | {"PYTHONPATH": path} | environment, capture_output=True, text=True, check=True
    )
    return [int(x) for x in done.stdout.split()]


def test_the_second_process_loads_what_the_first_compiled(tmp_path):
    (tmp_path / "trial.py").write_text(_MODULE)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert _run(tmp_path, cache) == [0, 1]
    assert _run(tmp_path, cache) == [1, 0]
    assert list((tmp_path / "cache" / "hpcxrf" / "kernels").glob("*/*/trial.total*.nbi"))


def test_without_a_folder_that_can_be_written_kernels_are_compiled_and_work(tmp_path):
    (tmp_path / "trial.py").write_text(_MODULE)
    file = tmp_path / "no_folder"
    file.write_text("")
    nowhere = {"XDG_CACHE_HOME": str(file), "TMPDIR": str(file), "HOME": str(file)}
    assert _run(tmp_path, nowhere) == [0, 1]


def test_a_folder_that_others_may_write_is_passed_over(tmp_path):
    (tmp_path / "open" / "hpcxrf" / "kernels").mkdir(parents=True)
    (tmp_path / "open" / "hpcxrf" / "kernels").chmod(0o777)
    found = kernel_folder({"XDG_CACHE_HOME": str(tmp_path / "open"), "TMPDIR": str(tmp_path)})
    assert found is not None
    assert found.parent == tmp_path / f"hpcxrf-kernels-{os.getuid()}"
    assert found.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"NUMBA_CACHE_DIR": "{0}/given", "XDG_CACHE_HOME": "{0}/cache"}, "given"),
        ({"XDG_CACHE_HOME": "{0}/cache", "HOME": "{0}/home"}, "cache/hpcxrf/kernels"),
        ({"HOME": "{0}/home"}, "home/.cache/hpcxrf/kernels"),
    ],
)
def test_the_first_place_is_taken(tmp_path, environment, place):
    found = kernel_folder({key: value.format(tmp_path) for key, value in environment.items()})
    assert found is not None
    assert found.parent == tmp_path / place
