"""A simulated archive, some of it broken, in one command: the figures of `tests/figures/whole_archive.py`, small."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "figures" / "whole_archive.py"
SCANS = 24

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(3000)]


def whole_archive(what, folder, *more):
    command = [sys.executable, "-m", "tests.figures.whole_archive", what, str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPT.parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Packed, so that each scan is one task, as in a run of more than 50.
@pytest.mark.parametrize("pack", ["folder", "zip"])
def test_an_archive_in_one_command_here_and_on_slurm_where_it_is_killed_again_and_again(slurm_programs, tmp_path, pack):
    folder = tmp_path / "archive"
    sizes = ("--scans", str(SCANS), "--seed", "3", "--side", "6", "--detectors", "1", "--share", "0.42", "--pack", pack)
    whole_archive("make", folder, *sizes)
    here = whole_archive("here", folder)
    assert "all 10 failed for their own reasons" in here
    killed = whole_archive("slurm", folder, "--kills", "3", "--seed", "3")
    assert killed.count("killed: ") == 3
    assert "all 10 failed for their own reasons" in killed
    assert f"all {SCANS - 10} bit-identical" in killed
    assert '"tasks finished more than once": 0' in killed
