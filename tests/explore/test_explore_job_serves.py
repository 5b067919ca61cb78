"""The job of an explorer at work: reached by the file that it left, and gone with socket and file at its end."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from explore_samples import NAME
from test_serving import NOBODY, UnixConnection, ask, enter

from hpcxrf.cluster.explorer_address import read_address
from hpcxrf.store.rundir import RunDir
from tests.conftest import skip_or_fail

ROOT = Path(__file__).resolve().parents[2]
MODULE = (sys.executable, "-P", "-m", "hpcxrf.explore.job")


@contextmanager
def working(folder, *arguments):
    """The job at work, as its script begins it, with its address and its log."""
    with tempfile.TemporaryDirectory(prefix="x", dir="/tmp") as scratch, tempfile.TemporaryFile("w+") as log:
        argv = [*MODULE, str(folder), "--scratch", "$SCRATCH", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "17", "SCRATCH": scratch}
        with subprocess.Popen(argv, stdout=log, stderr=log, env=env) as process:
            try:
                ends = time.monotonic() + 120
                while (address := read_address(RunDir(path=folder), "17")) is None:
                    log.seek(0)
                    assert process.poll() is None, log.read()
                    assert time.monotonic() < ends
                    time.sleep(0.05)
                yield process, address, log
            finally:
                process.kill()
        assert list(Path(scratch).iterdir()) == []


@pytest.fixture
def explored(made, tmp_path):
    """A copy of the run: a job writes its address into it."""
    return Path(shutil.copytree(made.folder, tmp_path / "explored"))


def test_it_is_reached_by_what_it_left_and_takes_everything_along_when_it_is_told_to_end(explored):
    with working(explored, "--idle-h", "1") as (process, address, log):
        place = Path(address.socket)
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        with closing(UnixConnection(address.socket)) as connection:
            assert ask(connection, "GET", "/api/scan")[0].status == 403
            assert ask(connection, "POST", "/open", {"secret": "another"})[0].status == 403
            cookie = enter(connection, f"#{address.secret}")
            assert json.loads(ask(connection, "GET", "/api/scan", Cookie=cookie)[1])["dataset_id"] == NAME
            runs = json.loads(ask(connection, "GET", "/api/runs", Cookie=cookie)[1])
            assert runs["alone"]
            # What would run in the job would end with it.
            wanted = {"run": runs["runs"][0]["key"]}
            answer, body = ask(connection, "POST", "/api/runs/prepare", wanted, Cookie=cookie)
            assert (answer.status, "a job of one core" in json.loads(body)["error"]) == (400, True), body
        for name in ("cmdline", "environ"):
            assert address.secret.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not place.parent.exists()
        assert read_address(RunDir(path=explored), "17") is None
        log.seek(0)
        said = log.read().splitlines()
    assert said == [f"listens on {address.host}, {address.socket}", "ended: it was told to, or its time limit is near"]
    for path in explored.rglob("*"):
        assert not path.is_file() or address.secret.encode() not in path.read_bytes()


def test_it_ends_by_itself_when_nobody_asks(explored):
    with working(explored, "--idle-h", "0.0003") as (process, address, log):
        assert process.wait(60) == 0
        assert not Path(address.socket).parent.exists()
        assert read_address(RunDir(path=explored), "17") is None
        log.seek(0)
        assert "ended: nothing was asked for 0.0003 h" in log.read()


def test_another_user_gets_neither_the_secret_nor_the_socket(explored):
    if os.getuid() != 0:
        skip_or_fail("only root can act as another user; run the tests as root in a container")
    for folder in (explored, *explored.parents[:2]):
        folder.chmod(0o755)
    code = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "one = socket.socket(socket.AF_UNIX)\n"
        "for act in (lambda: open(sys.argv[1]), lambda: one.connect(sys.argv[2])):\n"
        "    try:\n        act()\n        sys.exit(1)\n"
        "    except PermissionError:\n        pass\n"
        "sys.exit(13)\n"
    )
    with working(explored, "--idle-h", "1") as (process, address, _):
        file = explored / "secrets" / "explorer" / "job-17.json"
        assert address.secret in file.read_text()
        argv = [sys.executable, "-c", code, str(file), address.socket]
        assert subprocess.run(argv, check=False).returncode == 13
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ((), {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID is not set"),
        (("--dataset", "other"), {}, "not a dataset"),
        (("--scratch", "/nowhere/at/all"), {}, "a socket needs a folder"),
    ],
)
def test_one_that_cannot_begin_says_why_in_its_log_and_leaves_nothing(explored, arguments, environment, told):
    argv = [*MODULE, str(explored), "--idle-h", "1", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "17", **environment}
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=120)
    assert ran.returncode in {2, 4}
    assert told in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert read_address(RunDir(path=explored), "17") is None
