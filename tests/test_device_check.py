"""The check of a machine with a GPU, run as far as it goes without one."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bench" / "device_check.sh"


@pytest.mark.more
def test_the_check_of_a_gpu_runs_on_the_pretend_device():
    done = subprocess.run([str(SCRIPT), "--dry-run", sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16384 spectra of 512 channels on cpu" in done.stdout
    assert "pixels" in done.stdout.splitlines()[-1]


def test_the_check_says_what_a_machine_without_a_gpu_lacks():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([str(SCRIPT), sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "torch sees no CUDA device" in done.stderr
