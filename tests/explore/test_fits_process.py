"""The process that fits, and its client: nothing waits, the newest request wins, and whoever dies is started again."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from explore_runs import copy_run, film_run

from hpcxrf.errors import ConfigError
from hpcxrf.explore import fits as client
from hpcxrf.explore.fit_session import FitSession
from hpcxrf.explore.fits import FitProcess
from hpcxrf.explore.requests import FitRequest

PATIENCE_S = 120.0
SLOW = """
import json, signal, sys, time
class Left(BaseException): pass
def leave(*_): raise Left
def say(**one): print(json.dumps(one), flush=True)
deaf = "deaf" in sys.argv
signal.signal(signal.SIGUSR1, signal.SIG_IGN if deaf else signal.SIG_IGN)
say(state="ready", seconds=0.0)
for line in sys.stdin:
    request = json.loads(line)
    if not deaf: signal.signal(signal.SIGUSR1, leave)
    try:
        time.sleep(float(request["values"].get("energy_offset", 0.0)))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        say(id=request["id"], state="done", fit={"of": request["id"], "counts": request["counts"]})
    except Left:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        say(id=request["id"], state="cancelled")
"""


def ask(seconds=0.0):
    return FitRequest(
        detector="0", selection={"kind": "all"}, elements=("Fe",), values={"energy_offset": seconds}, bounds={}
    )


def wait(source, job_id, states=("done", "failed", "cancelled")):
    until = time.monotonic() + PATIENCE_S
    while (found := source.poll(job_id))["state"] not in states:
        assert time.monotonic() < until, found
        time.sleep(0.005)
    return found


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """A process of the client that sleeps as long as it is told to, in the place of fits."""
    made = []

    def start(*arguments):
        one = FitProcess(tmp_path, "none")
        monkeypatch.setattr(one, "_command", (client.sys.executable, "-c", SLOW, *arguments))
        made.append(one)
        one.start()
        return one

    yield start
    for one in made:
        one.close()


def test_no_method_waits_for_a_fit_or_for_the_process(pretend):
    process = pretend()
    began = time.monotonic()
    first = process.submit(ask(30.0))
    process.poll(first)
    process.submit(ask(30.0), session="other")
    process.cancel(first)
    assert time.monotonic() - began < 0.1


def test_a_request_that_has_not_begun_gives_way_to_a_newer_one_of_the_same_page(pretend):
    process = pretend()
    running = process.submit(ask(0.5), session="a")
    wait(process, running, ("running",))
    waiting = process.submit(ask(), session="b")
    newer = process.submit(ask(), session="b")
    assert process.poll(waiting)["state"] == "cancelled"
    assert process.poll(waiting)["reason"] == client.REPLACED
    assert wait(process, running)["state"] == "done"
    assert wait(process, newer)["state"] == "done"


def test_a_running_request_is_left_for_a_newer_one_of_the_same_page_without_a_new_process(pretend):
    process = pretend()
    running = process.submit(ask(60.0))
    wait(process, running, ("running",))
    time.sleep(0.2)
    pid, began = process.pid, time.monotonic()
    newer = process.submit(ask())
    assert process.poll(running)["state"] == "cancelled"
    assert wait(process, newer)["fit"]["of"] == newer
    assert time.monotonic() - began < 1.0
    assert process.pid == pid


def test_a_process_that_does_not_leave_what_is_over_is_killed_and_started_again(pretend):
    process = pretend("deaf")
    running = process.submit(ask(60.0))
    wait(process, running, ("running",))
    pid = process.pid
    newer = process.submit(ask())
    assert process.poll(running)["state"] == "cancelled"
    assert wait(process, newer)["fit"]["of"] == newer
    assert process.pid != pid


def test_answers_are_those_of_their_requests_whatever_is_cancelled_between(pretend):
    process = pretend()
    done = 0
    rng = np.random.default_rng(5)
    for _ in range(60):
        counts = {0: rng.integers(0, 1000, 7)}
        job_id = process.submit(ask(float(rng.choice([0.0, 0.01]))), counts)
        if rng.random() < 0.5:
            time.sleep(float(rng.random()) * 0.02)
            process.cancel(job_id)
        found = wait(process, job_id) if rng.random() < 0.7 else process.poll(job_id)
        if found["state"] == "done":
            done += 1
            assert found["fit"]["of"] == job_id
            sent = json.loads(client.pack_request(job_id, ask(), counts))["counts"]
            assert found["fit"]["counts"] == sent
    assert done > 5


def test_what_is_cancelled_says_so_and_what_has_ended_stays(pretend):
    process = pretend()
    done = process.submit(ask())
    wait(process, done)
    assert process.cancel(done)["state"] == "done"
    running = process.submit(ask(60.0))
    wait(process, running, ("running",))
    assert process.cancel(running)["state"] == "cancelled"
    assert process.cancel("nobody") is None
    assert process.poll("nobody") is None


def test_a_process_that_cannot_open_its_dataset_says_why(tmp_path):
    process = FitProcess(tmp_path / "gone", "scan-1a2b3c4d")
    try:
        found = wait(process, process.submit(ask()))
        assert found["state"] == "failed"
        assert "fits are not possible" in found["reason"]
        assert "is not a run directory" in found["reason"]
        assert process.pid is None
    finally:
        process.close()


def test_closing_ends_the_process_and_every_request(pretend):
    process = pretend()
    running, other = process.submit(ask(60.0)), process.submit(ask(), session="b")
    wait(process, running, ("running",))
    pid = process.pid
    process.close()
    assert process.poll(running)["state"] == process.poll(other)["state"] == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert process.poll(process.submit(ask()))["state"] == "failed"
    assert "fits" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}


@pytest.fixture(scope="module")
def session(shared_data, tmp_path_factory):
    small = copy_run(film_run(shared_data), tmp_path_factory.mktemp("process") / "run")
    one = FitSession(small.run_dir, small.dataset_id)
    one.start()
    yield one
    one.close()


def full(session, **request):
    return wait(session, session.submit({"detector": "0", **request})["id"])


def test_a_killed_fit_process_is_started_again_and_the_fit_says_so(session):
    assert full(session)["state"] == "done"
    pid = session._process.pid
    slow = session.submit({"detector": "0", "elements": ["Fe", "Ca", "Si", "Cu", "Ti", "Zn"]})["id"]
    os.kill(pid, signal.SIGKILL)
    found = wait(session, slow)
    assert found["state"] == "failed"
    assert found["reason"].startswith("the fit process was ended by signal 9; it is started again, ask for")
    again = full(session)
    assert again["state"] == "done"
    assert session._process.pid != pid


def test_an_interrupted_fit_leaves_the_process_as_it_was(session):
    before, pid = full(session)["fit"], session._process.pid
    theta = {"fwhm_offset": {"mode": "fix", "value": 0.13}}
    for pause in np.linspace(0.0, 0.12, 25):
        job_id = session.submit({"detector": "0", "theta": theta})["id"]
        time.sleep(pause)
        session.cancel(job_id)
    after = full(session)["fit"]
    assert session._process.pid == pid
    assert after["parameters"] == before["parameters"]
    assert after["amplitudes"] == before["amplitudes"]


def test_while_dragging_only_the_last_fit_is_made_to_the_end(session):
    full(session)
    ids = []
    for value in np.linspace(0.11, 0.13, 20):
        theta = {"fwhm_offset": {"mode": "fit", "value": float(value)}}
        ids.append(session.submit({"detector": "0", "kind": "amplitudes", "theta": theta})["id"])
    last = wait(session, ids[-1])
    assert last["state"] == "done"
    shown = {row["name"]: row["value"] for row in last["fit"]["parameters"]}
    assert shown["fwhm_offset"] == 0.13
    assert {session.poll(one)["state"] for one in ids[:-1]} <= {"cancelled", "done"}


def test_the_fault_of_a_fit_is_a_result_with_its_reason(session):
    nothing = {0: np.zeros(session.opened.n_pixels + 1949, np.int64)}
    request = {"detector": "0", "selection": {"kind": "pixel", "y": 0, "x": 0}}
    job_id = session.submit(request, nothing, n_pixels=1)["id"]
    found = wait(session, job_id)
    assert (found["state"], found["fit"]) == ("failed", None)
    assert found["reason"] == "these pixels have no counts; choose others"


def test_counts_that_are_missing_and_ids_that_are_not_known_are_refused(session):
    with pytest.raises(ConfigError, match="the counts of the selection are missing"):
        session.submit({"detector": "1", "selection": {"kind": "pixel", "y": 0, "x": 0}}, {0: np.zeros(9)})
    for call in (session.poll, session.cancel, session.one):
        with pytest.raises(ConfigError, match="nobody"):
            call("nobody")
    with pytest.raises(ConfigError, match="'9' is not a fitted detector; choose sum or 0 or 1"):
        session.elements("9")
