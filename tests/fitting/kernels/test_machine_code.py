"""Where machine code is kept, and that it is made once."""

import errno
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
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


_TOGETHER = """
import os
from hpcxrf.fitting.kernels import machine_code
with machine_code._one_compiles(machine_code.kernel_folder(os.environ)):
    from trial import total
print(sum(total.stats.cache_misses.values()))
"""


def _start(folder: Path, environment: dict[str, str], code: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[3])])
    clean = {k: v for k, v in os.environ.items() if k not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _numbers_of(processes: list[subprocess.Popen[str]]) -> list[int]:
    written = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), written
    return [int(x) for out, _ in written for x in out.split()]


def _run(folder: Path, environment: dict[str, str]) -> list[int]:
    return _numbers_of([_start(folder, environment, _CALL)])


def test_the_second_process_loads_what_the_first_compiled(tmp_path):
    (tmp_path / "trial.py").write_text(_MODULE)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert _run(tmp_path, cache) == [0, 1]
    assert _run(tmp_path, cache) == [1, 0]
    assert list((tmp_path / "cache" / "hpcxrf" / "kernels").glob("*/*/trial.total*.nbi"))


def test_of_processes_that_start_at_once_one_compiles(tmp_path):
    (tmp_path / "trial.py").write_text(_MODULE)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    compiled = _numbers_of([_start(tmp_path, cache, _TOGETHER) for _ in range(3)])
    assert sorted(compiled) == [0, 0, 1]


_BITS = """
import hashlib
import torch
from hpcxrf.fitting.pixels.basis import pixel_basis
from hpcxrf.fitting.pixels.expected_deviance import compile_law, sample_basis, standardise
channel = torch.arange(400.0, dtype=torch.float64)
columns = torch.exp(-0.5 * ((channel[:, None] - torch.tensor([80.0, 150.0, 155.0, 300.0])) / 6.0) ** 2)
amplitude, background = torch.tensor([300.0, 20.0, 500.0, 80.0]).double(), torch.ones((1, 400)).double()
basis = pixel_basis(columns, amplitude, background, 1)
pixels = basis.coefficients * torch.rand(1000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
z = standardise(pixels.sum(1).float(), pixels.float(), compile_law(sample_basis(basis)))
print(int(hashlib.sha256(z.numpy().tobytes()).hexdigest()[:12], 16))
"""


def test_the_process_that_has_kernels_compiled_has_the_bits_of_those_that_load_them(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first, second = (_numbers_of([_start(tmp_path, cache, _BITS)]) for _ in range(2))
    assert first == second


def _wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_who_is_killed_while_kernels_are_compiled_leaves_no_process_behind(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "from hpcxrf.fitting.kernels.machine_code import load_kernels; load_kernels('spectrum')"
    with _start(tmp_path, cache, code) as process:
        waiting = psutil.Process(process.pid)
        _wait_for(lambda: waiting.children() or process.poll() is not None)
        (child,) = waiting.children()
        process.kill()
        process.wait()
    _wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5.0)
    assert not list((tmp_path / "cache").glob("hpcxrf/kernels/*/*.compiled"))


class _FullDisk(io.BytesIO):
    """A file on a disk with room for a name, and for little else."""

    def write(self, content):
        if len(content) > 1 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_a_folder_without_room_is_passed_over(tmp_path, monkeypatch):
    full, open_file = tmp_path / "full", tempfile.TemporaryFile

    def open_on_disk(**where):
        return _FullDisk() if full in (where["dir"], *where["dir"].parents) else open_file(**where)

    monkeypatch.setattr(tempfile, "TemporaryFile", open_on_disk)
    found = kernel_folder({"NUMBA_CACHE_DIR": str(full), "XDG_CACHE_HOME": str(tmp_path / "other")})
    assert found is not None
    assert found.parent == tmp_path / "other" / "hpcxrf" / "kernels"


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
