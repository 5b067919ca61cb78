"""A driver that is interrupted or killed leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.more

DRIVER = """
import signal, sys, time
from pathlib import Path
from hpcxrf.cluster.local.cluster import local_cluster

def deaf():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

if __name__ == "__main__":
    print("starting", flush=True)
    with local_cluster(2, 1, Path(sys.argv[1])) as running:
        workers_deaf = running.client.run(deaf).values()
        tasks = running.client.map(time.sleep, [600, 601])
        while len(running.client.processing()) < 2 or not all(running.client.processing().values()):
            time.sleep(0.02)
        print("busy" if all(workers_deaf) else "workers hear Ctrl-C", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    with process:
        yield process
        for pid in session(process.pid):
            os.kill(pid, signal.SIGKILL)


def session(leader: int) -> list[int]:
    """Processes that the driver started, directly or not, zombies apart."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_for_line(driver: subprocess.Popen[str], line: str) -> None:
    assert driver.stdout is not None
    assert driver.stdout.readline().strip() == line


def survivors(leader: int) -> list[int]:
    deadline = time.monotonic() + 30
    while session(leader) and time.monotonic() < deadline:
        time.sleep(0.05)
    return session(leader)


def test_ctrl_c_with_busy_workers_ends_every_process_quietly(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_for_line(driver, "starting")
    wait_for_line(driver, "busy")
    assert len(session(driver.pid)) >= 3
    assert (tmp_path / "run" / "secrets" / "dashboard.json").exists()
    os.killpg(driver.pid, signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGINT
    assert survivors(driver.pid) == []
    assert out == ""
    # One traceback, the driver's own: none of a worker, nothing of Dask.
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "distributed" not in err.replace("/distributed/", "")
    assert not (tmp_path / "run" / "secrets" / "dashboard.json").exists()
    assert not list(tmp_path.glob("hpcxrf-*"))


@pytest.mark.parametrize("delay_s", [0.1, 0.4, 0.8])
def test_ctrl_c_while_workers_start_ends_every_process_quietly(
    driver: subprocess.Popen[str], tmp_path: Path, delay_s: float
) -> None:
    wait_for_line(driver, "starting")
    time.sleep(delay_s)
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGINT
    assert survivors(driver.pid) == []
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("KeyboardInterrupt") == 1
    assert not list(tmp_path.glob("hpcxrf-*"))


def test_workers_end_when_the_driver_is_killed(driver: subprocess.Popen[str]) -> None:
    wait_for_line(driver, "starting")
    wait_for_line(driver, "busy")
    workers = session(driver.pid)
    driver.kill()
    driver.communicate(timeout=60)
    assert len(workers) >= 3
    assert survivors(driver.pid) == []
