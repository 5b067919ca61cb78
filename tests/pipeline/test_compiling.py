"""Kernels that are compiled beside the first ingest."""

import os
import subprocess
import sys

import pytest

_NAMED = """
import sys
from hpcxrf.fitting.pixels.fit import load_method, name_kernels
load_method(sys.argv[1])
names = sorted(name_kernels(sys.argv[1]))
assert all(f"hpcxrf.fitting.kernels.{one}" in sys.modules for one in names), names
from hpcxrf.fitting.kernels.machine_code import kernel_folder
import os
made = sorted({one.name.rpartition("-")[0] for one in kernel_folder(os.environ).glob("*.compiled")})
print(made == names, *made)
"""


@pytest.mark.more
@pytest.mark.parametrize("method", ["linear", "poisson", "nnls", "nonlinear", "full"])
def test_the_kernels_of_a_method_are_those_that_it_names(method, tmp_path):
    """On a machine without any, loading the method compiles these modules and no others."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _NAMED, method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "True", done.stdout


_CODE = """
import sys, threading
from hpcxrf.config.run import check_config
from hpcxrf.pipeline.pixels.compiling import begin_compiling
raw = {"input": {"files": ["-"]}, "sample": {"elements": ["Fe"], "incident_energy_kev": 12.0}}
raw |= {"pixels": {"method": sys.argv[1]}, "execution": {"device": sys.argv[2]}}
config = check_config(raw, "test")
begin_compiling(config)
begin_compiling(config)
threads = [one for one in threading.enumerate() if one.name == "compiling"]
for one in threads:
    one.join()
kernels = ("spectrum", "maps", "poisson", "tangent", "true_model")
print(len(threads), *(one for one in kernels if f"hpcxrf.fitting.kernels.{one}" in sys.modules))
"""


@pytest.mark.parametrize(
    ("method", "device", "expected"),
    [
        ("linear", "cpu", ["1", "spectrum", "maps"]),
        ("poisson", "cpu", ["1", "spectrum", "maps", "poisson"]),
        ("nonlinear", "cpu", ["1", "spectrum", "maps", "tangent"]),
        ("full", "cpu", ["1", "spectrum", "true_model"]),
        ("linear", "cuda", ["1", "spectrum"]),
        ("full", "cuda", ["1", "spectrum"]),
    ],
)
def test_what_fits_and_pixels_will_need_is_loaded_once_in_a_thread(method, device, expected):
    command = [sys.executable, "-c", _CODE, method, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected
