"""`hpcxrf live` as a process that is interrupted and killed: nothing is lost, and nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from run_samples import spectrum, write_scan

from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.rundir import FINISHED, RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = ("Si", "Fe", "Zn")
OPTIONS = ("--workers", "1", "--set", "regions.find=[]", "--set", "fit.suggest=false", "--json")


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    write_scan(folder, means(), elements=ELEMENTS)
    (folder / "scan.npy").rename(folder / "a.npy")
    return folder


def means():
    return np.broadcast_to(spectrum({"Si": 300.0, "Fe": 900.0, "Zn": 200.0}), (1, 4, 4, 1200))


def add(folder, name, seed):
    counts = np.random.default_rng(seed).poisson(means()).astype(np.uint16)
    np.save(folder / "partial.tmp.npy", counts)
    (folder / "partial.tmp.npy").rename(folder / f"{name}.npy")


def live(folder, output, *more):
    command = [sys.executable, "-m", "hpcxrf", "live", str(folder), "-o", str(output), *OPTIONS, *more]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for(process, kind, name):
    for line in process.stdout:
        event = json.loads(line)
        if (event["event"], event["name"]) == (kind, name):
            return event
    raise AssertionError(f"it ended before {kind} {name}: {process.stderr.read()}")


def survivors(leader):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        if not found:
            return []
        time.sleep(0.1)
    return found


def finished_tasks(run):
    return Counter(
        (name, line["task"])
        for name in run.dataset_ids()
        for line in run.read_journal(name)
        if line["event"] == FINISHED
    )


def test_a_process_that_is_killed_loses_nothing_and_the_next_one_does_nothing_twice(scans, tmp_path, hpcxrf):
    run = RunDir(path=tmp_path / "out")
    with live(scans, run.path) as first:
        wait_for(first, "done", "a.npy")
        # A second one on the same output is refused, and disturbs nothing.
        with live(scans, run.path) as second:
            _, told = second.communicate(timeout=600)
            assert second.returncode == 4, told
            assert f"pid {first.pid}" in told
        add(scans, "b", 2)
        wait_for(first, "taken", "b.npy")
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=60)
    assert survivors(first.pid) == []
    before = finished_tasks(run)
    add(scans, "c", 3)
    with live(scans, run.path, "--once") as again:
        out, told = again.communicate(timeout=600)
        assert again.returncode == 0, told
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["name"] for event in events if event["event"] == "found before"] == ["a.npy"]
    assert sorted(event["name"] for event in events if event["event"] == "done") == ["b.npy", "c.npy"]
    assert {record.name: record.state for record in read_datasets(run)} == dict.fromkeys(
        ("a.npy", "b.npy", "c.npy"), "done"
    )
    after = finished_tasks(run)
    assert set(after.values()) == {1}
    assert before.keys() <= after.keys()
    # The command of a plain run finds nothing left to do in it.
    assert hpcxrf("resume", run.path).code == 0
    assert finished_tasks(run) == after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_the_lock_and_every_process_are_gone(scans, tmp_path, number):
    run = RunDir(path=tmp_path / "out")
    with live(scans, run.path) as process:
        wait_for(process, "done", "a.npy")
        os.kill(process.pid, number)
        _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert survivors(process.pid) == []
    assert not run.lock_file.exists()
    assert run.report_file.is_file()
    assert json.loads((run.path / "live" / "status.json").read_text())["state"] == "ended"
