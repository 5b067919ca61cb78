"""Cancel, resume, retry, list, logs and status of a run on a real Slurm; a stand-in does the work of the job."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcxrf.cluster.job_files import append_event, read_events, read_request, run_comment
from hpcxrf.cluster.login.run_jobs import is_job_of, is_worker
from hpcxrf.cluster.slurm import JobState
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir
from tests.samples.stand_in_jobs import BAD, GOOD, queue, site, submitted, until, until_queue

pytestmark = pytest.mark.slurm


def test_a_run_is_cancelled_and_goes_on(hpcxrf, lab):
    first = submitted(hpcxrf)
    until(hpcxrf, "out", "running")
    assert hpcxrf("cancel", "out", "--json").json == {"cancelled": [first], "unknown": [], "process": None}
    until(hpcxrf, "out", "cancelled")
    ran = hpcxrf("resume", "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["job_id"] != first
    (lab / "go").touch()
    assert until(hpcxrf, "out", "done")["job_id"] == ran.json["job_id"]


def kill_driver(hpcxrf, lab: Path) -> None:
    """kill -9, once it has begun."""
    run = RunDir(path=lab / "out")
    while not (begun := [e for e in read_events(run) if e["event"] == "started"]):
        time.sleep(0.02)
    os.kill(begun[-1]["pid"], signal.SIGKILL)
    until(hpcxrf, "out", "stopped")


def worker_jobs(lab: Path, cluster, number: int) -> list[str]:
    """Worker jobs of the run `out`, as its driver would submit them."""
    options = read_request(RunDir(path=lab / "out")).worker_options
    argv = ["sbatch", "--parsable", "--job-name=hpcxrf", f"--chdir={lab}/out", "-o", "/dev/null", "--mem=100"]
    return [cluster.run(*argv, *options, "--wrap", "sleep 600").strip() for _ in range(number)]


def test_cancelling_ends_worker_jobs_that_a_killed_driver_left_and_no_other_job(hpcxrf, lab, slurm_cluster):
    submitted(hpcxrf, "--mode", "elastic", "--workers", "2")
    until(hpcxrf, "out", "running")
    other = submitted(hpcxrf, "--mode", "elastic", "--workers", "2", run="other")
    # Of the same user and folder, with the same name, but not of this run.
    foreign = slurm_cluster.run(
        "sbatch", "--parsable", "--job-name=hpcxrf", f"--chdir={lab}/out", "-o", "/dev/null", "--wrap", "sleep 600"
    ).strip()
    workers = worker_jobs(lab, slurm_cluster, 3)
    # An old journal names an id that Slurm has given to another job since.
    events = lab / "out" / "jobs" / "events.jsonl"
    reused = slurm_cluster.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600").strip()
    events.write_text(json.dumps({"event": "submitted", "job_id": reused}) + "\n" + events.read_text())
    kill_driver(hpcxrf, lab)
    ran = hpcxrf("cancel", "out", "--json")
    # Slurm tells them in an order of its own.
    assert ran.json | {"cancelled": sorted(ran.json["cancelled"])} == {
        "cancelled": sorted(workers),
        "unknown": [],
        "process": None,
    }, ran.err
    until_queue(slurm_cluster, {other, foreign, reused})
    assert "no job of this run is in the queue" in hpcxrf("cancel", "out").err


def test_a_run_that_a_process_of_this_machine_works_on_is_not_submitted(hpcxrf, lab, slurm_cluster):
    submitted(hpcxrf)
    (lab / "go").touch()
    until(hpcxrf, "out", "done")
    until_queue(slurm_cluster, set())
    with run_lock(RunDir(path=lab / "out")):
        ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out", "--insecure")
    assert ran.code == 4
    assert f"process {os.getpid()} works on this run; wait for it, or stop it first" in ran.err
    assert not read_request(RunDir(path=lab / "out")).insecure
    assert queue(slurm_cluster) == []


def test_orphaned_workers_are_ended_before_the_run_goes_on(hpcxrf, lab, slurm_cluster):
    driver = submitted(hpcxrf, "--mode", "elastic", "--workers", "2")
    until(hpcxrf, "out", "running")
    workers = worker_jobs(lab, slurm_cluster, 2)
    ran = hpcxrf("resume", "out")
    assert (ran.code, f"job {driver} of this run is RUNNING" in ran.err) == (4, True)
    assert set(workers) <= set(queue(slurm_cluster))
    kill_driver(hpcxrf, lab)
    job_id = hpcxrf("resume", "out", "--json").json["job_id"]
    until_queue(slurm_cluster, {job_id})


def test_jobs_that_version_0_1_0_submitted_without_a_comment_are_cancelled_by_id_name_and_folder(
    hpcxrf, lab, slurm_cluster
):
    submitted(hpcxrf)
    (lab / "go").touch()
    until(hpcxrf, "out", "done")
    until_queue(slurm_cluster, set())
    argv = ["sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600", f"--chdir={lab}/out", "--job-name"]
    old, foreign = (slurm_cluster.run(*argv, name).strip() for name in ("hpcxrf", "mine"))
    for job_id in (foreign, old):
        append_event(RunDir(path=lab / "out"), "submitted", job_id=job_id)
    assert hpcxrf("cancel", "out", "--json").json == {"cancelled": [old], "unknown": [], "process": None}
    assert foreign in queue(slurm_cluster)


def test_many_runs_are_listed_with_one_look_at_the_queue(hpcxrf, lab, slurm_cluster, wrapper):
    for name in ("one", "two", "three"):
        submitted(hpcxrf, run=name)
    wrapper("squeue", f'echo "$@" >> {lab}/calls; exec REAL "$@"')
    runs = hpcxrf("list", "--json").json["runs"]
    assert {r["verdict"] for r in runs} <= {"pending", "running"}
    assert len(runs) == 3
    assert len((lab / "calls").read_text().splitlines()) == 1
    wrapper("squeue", "echo no answer >&2; exit 1")
    runs = hpcxrf("list", "--json").json["runs"]
    assert all("no answer" in r["notes"][0] for r in runs)


def test_failures_are_told_by_reason_and_tried_again(hpcxrf, lab, slurm_cluster):
    site(lab, BAD)
    first = submitted(hpcxrf)
    (lab / "go").touch()
    status = until(hpcxrf, "out", "done with failures")
    until_queue(slurm_cluster, set())
    assert status["reasons"] == {"is cut short": 1}
    assert "and so it broke" in hpcxrf("logs", "out").out
    assert hpcxrf("logs", "out", "--failed").out == "scan-00000000 ingest: is cut short\nline 1"
    assert "no failed dataset matches --reason" in hpcxrf("retry", "out", "--failed", "--reason", "memory").err
    (lab / "go").unlink()
    ran = hpcxrf("retry", "out", "--failed", "--reason", "CUT", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["job_id"] != first
    journal = RunDir(path=lab / "out").read_journal("scan-00000000")
    assert {"task": "ingest", "event": "retry"} in journal
    # While its job is in the queue, nothing is marked that this command could not submit.
    again = hpcxrf("retry", "out", "--failed")
    assert again.code == 4
    assert f"job {ran.json['job_id']} of this run is" in again.err
    assert RunDir(path=lab / "out").read_journal("scan-00000000") == journal


def test_following_a_log_ends_with_the_run(lab, hpcxrf):
    submitted(hpcxrf)
    until(hpcxrf, "out", "running")
    follower = subprocess.Popen(
        [sys.executable, "-m", "hpcxrf", "logs", "out", "--follow"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert follower.stdout is not None
    with follower:
        assert follower.stdout.readline().startswith("called with")
        (lab / "go").touch()
        assert follower.wait(timeout=60) == 0


def test_watching_ends_with_the_run(lab, hpcxrf):
    submitted(hpcxrf)
    (lab / "go").touch()
    ran = hpcxrf("status", "out", "--watch")
    assert ran.code == 0
    assert "finished" in ran.out


def test_a_run_waits_for_another_job(hpcxrf, lab):
    first = submitted(hpcxrf)
    second = submitted(hpcxrf, "--after", first, run="other")
    status = until(hpcxrf, "other", "pending")
    assert (status["job_id"], status["slurm"]["reason"]) == (second, "Dependency")
    (lab / "go").touch()
    until(hpcxrf, "other", "done")


def test_a_pending_job_says_why(hpcxrf, lab, slurm_cluster):
    slurm_cluster.run("scontrol", "update", "PartitionName=preempt", "State=DRAIN")
    try:
        site(lab, GOOD, partition="preempt")
        # sinfo calls such a partition `drain`: hpcxrf would not submit; somebody drains it afterwards.
        slurm_cluster.run("scontrol", "update", "PartitionName=preempt", "State=DOWN")
        assert "partition preempt is down" in hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out").err
        slurm_cluster.run("scontrol", "update", "PartitionName=preempt", "State=UP")
        slurm_cluster.run("sbatch", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600")
        submitted(hpcxrf)
        status = until(hpcxrf, "out", "pending")
        assert status["slurm"]["reason"] in {"Resources", "Priority", "None"}
        assert "waits: " in status["said"]
    finally:
        slurm_cluster.run("scontrol", "update", "PartitionName=preempt", "State=UP")


def test_without_an_answer_of_slurm_status_tells_what_the_files_say(hpcxrf, lab, monkeypatch):
    job_id = submitted(hpcxrf)
    log = lab / "out" / "logs" / f"job-{job_id}.log"
    while not (log.is_file() and log.read_text()):
        time.sleep(0.02)
    monkeypatch.setattr("hpcxrf.cluster.slurm._TIMEOUT_S", 0.3)
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    status = hpcxrf("status", "out", "--json").json
    assert status["verdict"] == "running"
    assert "does not answer about job" in status["notes"][0]


@pytest.mark.parametrize("comment", ["hpcxrf:{id}:worker", "lab,hpcxrf:{id}:worker", "hpcxrf:{id}:worker,site=abc"])
def test_a_worker_job_is_one_wherever_its_mark_stands_in_the_comment(tmp_path, comment):
    mark = run_comment(tmp_path).removeprefix("hpcxrf:")
    job = JobState(
        job_id="7",
        state="RUNNING",
        reason="None",
        start="N/A",
        nodes="n1",
        elapsed="0:05",
        comment=comment.format(id=mark),
    )
    assert is_job_of(job, tmp_path, ())
    assert is_worker(job)
