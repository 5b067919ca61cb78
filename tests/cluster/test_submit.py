"""`hpcxrf submit` and what watches and steers a run, on a real Slurm; a stand-in does the work of the job."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hpcxrf.cluster.job_files import append_event, read_events, read_request
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir

pytestmark = pytest.mark.slurm

# In the place of Python in the job: says how it was called, then does what the test wants.
STAND_IN = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from hpcxrf.cluster.job_files import append_event
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir

run, job_id = RunDir(path=Path(sys.argv[-1])), os.environ["SLURM_JOB_ID"]
append_event(run, "started", job_id=job_id, host="here", pid=os.getpid())
print("called with", json.dumps(sys.argv[1:]), "in", os.getcwd(), oct(os.umask(0o77)), flush=True)
def leave(number, frame):
    append_event(run, "ended", job_id=job_id, exit_code=75, reason=signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, leave)
while not (Path({folder!r}) / "go").exists():
    time.sleep(0.02)
{body}
"""
GOOD = """
run.append("scan-00000000", {"task": "finalise", "event": "finished", "checksums": {}})
append_event(run, "ended", job_id=job_id, exit_code=0)
"""
BAD = """
print("and so it broke", flush=True)
run.append("scan-00000000", {"task": "ingest", "event": "failed", "reason": "is cut short", "traceback": "line 1"})
append_event(run, "ended", job_id=job_id, exit_code=6)
sys.exit(6)
"""


@pytest.fixture
def lab(slurm_cluster, tmp_path, monkeypatch):
    """A folder with a run file, a site profile, and no other profile of the machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path / "sites"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "sites").mkdir()
    (tmp_path / "scan.h50").touch()
    run_file = {"input": {"files": ["scan.h50"]}, "sample": {"elements": ["Fe"], "incident_energy_kev": 12}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_file))
    site(tmp_path, GOOD)
    return tmp_path


def site(folder: Path, body: str, **fields) -> None:
    """The profile `lab`, in whose jobs the stand-in is the interpreter."""
    stand_in = folder / "python"
    path = [p for p in sys.path if p]
    stand_in.write_text(STAND_IN.format(python=sys.executable, path=path, folder=str(folder), body=body))
    stand_in.chmod(0o700)
    usual = {
        "partition": "main",
        "cores_per_node": 8,
        "gpus_per_node": 4,
        "workers_per_node": 2,
        "memory_per_worker_mb": 1000,
        "driver_memory_mb": 200,
        "time_limit_h": 0.2,
        "drain_s": 30,
        "python": str(stand_in),
        "login_host": "login.lab.org",
    }
    (folder / "sites" / "lab.yaml").write_text(yaml.safe_dump({**usual, **fields}))


def until(hpcxrf, run, verdict: str, patience_s: float = 20.0):
    deadline = time.monotonic() + patience_s
    while (status := hpcxrf("status", run, "--json").json)["verdict"] != verdict:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def submitted(hpcxrf, *more, run="out") -> str:
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", run, *more, "--json")
    assert ran.code == 0, ran.err
    return ran.json["job_id"]


def test_a_run_is_submitted_watched_and_found_done(hpcxrf, lab, slurm_cluster):
    job_id = submitted(hpcxrf)
    run = RunDir(path=lab / "out")
    assert until(hpcxrf, "out", "running")["slurm"]["nodes"] == "node1"
    (lab / "go").touch()
    status = until(hpcxrf, "out", "done")
    assert (status["job_id"], status["done"], status["failed"]) == (job_id, 1, 0)
    log = hpcxrf("logs", "out").out
    assert log == f'called with ["-m", "hpcxrf.cluster.job", "{lab}/out"] in {lab}/out 0o77\n'
    events = read_events(run)
    assert {e["event"] for e in events} == {"submitted", "started", "ended"}
    assert read_request(run).gpus_per_worker == 1
    listed = hpcxrf("list", "--json").json["runs"]
    assert [(r["run"], r["verdict"]) for r in listed] == [("out", "done")]
    # Nothing is missing: no second job.
    ran = hpcxrf("resume", "out", "--json")
    assert (ran.code, ran.json["job_id"]) == (0, None)


def test_nobody_else_can_read_the_run_directory(hpcxrf, lab):
    old = os.umask(0)
    try:
        job_id = submitted(hpcxrf)
    finally:
        os.umask(old)
    (lab / "go").touch()
    until(hpcxrf, "out", "done")
    assert stat.S_IMODE((lab / "out").stat().st_mode) == 0o700
    assert stat.S_IMODE((lab / "out" / "jobs" / "job.sh").stat().st_mode) == 0o600
    for path in (lab / "out").iterdir():
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert (lab / "out" / "logs" / f"job-{job_id}.log").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_user_is_refused_at_the_door(hpcxrf, lab):
    submitted(hpcxrf)
    for folder in (lab, *lab.parents[:2]):
        folder.chmod(0o755)
    code = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    for look in ("os.listdir", "lambda p: open(p + '/run.yaml')", "lambda p: open(p + '/jobs/events.jsonl')"):
        ran = subprocess.run(
            [sys.executable, "-c", f"{code}({look})({str(lab / 'out')!r})"], capture_output=True, text=True, check=False
        )
        assert "PermissionError" in ran.stderr


def test_a_run_is_cancelled_and_goes_on(hpcxrf, lab):
    first = submitted(hpcxrf)
    until(hpcxrf, "out", "running")
    assert hpcxrf("cancel", "out", "--json").json == {"cancelled": [first], "unknown": []}
    until(hpcxrf, "out", "cancelled")
    ran = hpcxrf("resume", "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["job_id"] != first
    (lab / "go").touch()
    assert until(hpcxrf, "out", "done")["job_id"] == ran.json["job_id"]


def test_a_second_job_on_the_same_run_is_refused_at_once(hpcxrf, lab):
    first = submitted(hpcxrf)
    for command in (("resume", "out"), ("submit", "run.yaml", "--site", "lab", "-o", "out")):
        ran = hpcxrf(*command)
        assert ran.code == 4
        assert f"job {first} of this run is" in ran.err


def test_a_refused_submission_leaves_the_job_in_the_queue_as_it_was(hpcxrf, lab, slurm_cluster):
    slurm_cluster.run("sbatch", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600")
    submitted(hpcxrf)
    before = {path: path.read_bytes() for path in sorted((lab / "out").rglob("*")) if path.is_file()}
    ran = hpcxrf(
        "submit", "run.yaml", "--site", "lab", "-o", "out", "--insecure", "--mode", "elastic", "--workers", "1"
    )
    assert ran.code == 4
    assert "of this run is PENDING; wait for it, or `hpcxrf cancel` it first" in ran.err
    assert {path: path.read_bytes() for path in before} == before
    assert not read_request(RunDir(path=lab / "out")).insecure


def test_a_second_submission_while_the_first_waits_for_sbatch_is_refused(hpcxrf, lab, slurm_cluster, wrapper):
    wrapper("sbatch", f'touch {lab}/inside; while [ ! -e {lab}/let ]; do sleep 0.05; done; exec REAL "$@"')
    argv = [sys.executable, "-m", "hpcxrf", "submit", "run.yaml", "--site", "lab", "-o", "out"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(argv, env=env) as first:
        while not (lab / "inside").exists():
            time.sleep(0.02)
        script = (lab / "out" / "jobs" / "job.sh").read_text()
        ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out", "--time", "30")
        assert (ran.code, "another submission of this run is under way" in ran.err) == (4, True), ran.err
        (lab / "let").touch()
        assert first.wait(timeout=30) == 0
    assert (lab / "out" / "jobs" / "job.sh").read_text() == script


@pytest.fixture
def wrapper(lab, monkeypatch):
    """Put a shell script in the place of a program of Slurm; REAL in it is the program."""

    def put(name: str, body: str) -> None:
        path = lab / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + body.replace("REAL", str(shutil.which(name))) + "\n")
        path.chmod(0o700)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return put


def queue(cluster) -> list[str]:
    return cluster.run("squeue", "-h", "-o", "%A").split()


def test_a_job_that_cannot_be_recorded_is_cancelled_again(hpcxrf, lab, slurm_cluster, wrapper):
    spoil = f"rm {lab}/out/jobs/events.jsonl; mkdir {lab}/out/jobs/events.jsonl"
    wrapper("sbatch", f'REAL "$@"; {spoil}')
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out")
    assert ran.code == 4
    assert "was cancelled, since this run cannot record it" in ran.err
    assert ran.err.strip().count("\n") == 0
    deadline = time.monotonic() + 20
    while queue(slurm_cluster):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Nor is one submitted where it is seen before.
    wrapper("sbatch", f"touch {lab}/was-called")
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out")
    assert (ran.code, "events.jsonl" in ran.err or "cannot be" in ran.err) == (4, True)
    assert not (lab / "was-called").exists()


@pytest.mark.parametrize("name", ["jobs", "logs"])
def test_into_a_run_directory_that_cannot_be_written_nothing_is_submitted(hpcxrf, lab, slurm_cluster, name):
    site(lab, GOOD, options=["--licenses=gold:1"])
    assert hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out").code == 7
    site(lab, GOOD)
    folder = lab / "out" / name
    shutil.rmtree(folder)
    folder.touch()
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out")
    assert ran.code == 4
    assert str(folder) in ran.err
    assert ran.err.strip().count("\n") == 0
    assert queue(slurm_cluster) == []


def test_a_job_that_sbatch_submitted_without_saying_so_is_found_and_recorded(hpcxrf, lab, slurm_cluster, wrapper):
    wrapper("sbatch", 'REAL "$@" > /dev/null; echo Welcome')
    job_id = submitted(hpcxrf)
    assert queue(slurm_cluster) == [job_id]
    assert [e["job_id"] for e in read_events(RunDir(path=lab / "out")) if e["event"] == "submitted"] == [job_id]
    (lab / "go").touch()
    assert until(hpcxrf, "out", "done")["job_id"] == job_id


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_run_directory_of_somebody_else_is_refused_for_root_too(hpcxrf, lab, slurm_cluster):
    (lab / "out").mkdir()
    os.chown(lab / "out", 65534, 65534)
    refusals = [hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out")]
    assert list((lab / "out").iterdir()) == []
    submitted(hpcxrf, run="mine")
    os.chown(lab / "mine", 65534, 65534)
    refusals += [
        hpcxrf(*command) for command in (("resume", "mine"), ("cancel", "mine"), ("retry", "mine", "--failed"))
    ]
    for ran in refusals:
        assert ran.code == 4
        assert "belongs to user nobody; work as that user, or name a folder of your own" in ran.err


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
    assert ran.json == {"cancelled": workers, "unknown": []}, ran.err
    deadline = time.monotonic() + 20
    while set(queue(slurm_cluster)) != {other, foreign, reused}:
        assert time.monotonic() < deadline, queue(slurm_cluster)
        time.sleep(0.05)
    assert "no job of this run is in the queue" in hpcxrf("cancel", "out").err


def test_a_run_that_a_process_of_this_machine_works_on_is_not_submitted(hpcxrf, lab, slurm_cluster):
    submitted(hpcxrf)
    (lab / "go").touch()
    until(hpcxrf, "out", "done")
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
    deadline = time.monotonic() + 20
    while set(queue(slurm_cluster)) != {job_id}:
        assert time.monotonic() < deadline, queue(slurm_cluster)
        time.sleep(0.05)


def test_jobs_that_version_0_1_0_submitted_without_a_comment_are_cancelled_by_id_name_and_folder(
    hpcxrf, lab, slurm_cluster
):
    submitted(hpcxrf)
    (lab / "go").touch()
    until(hpcxrf, "out", "done")
    argv = ["sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600", f"--chdir={lab}/out", "--job-name"]
    old, foreign = (slurm_cluster.run(*argv, name).strip() for name in ("hpcxrf", "mine"))
    for job_id in (foreign, old):
        append_event(RunDir(path=lab / "out"), "submitted", job_id=job_id)
    assert hpcxrf("cancel", "out", "--json").json == {"cancelled": [old], "unknown": []}
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


def test_failures_are_told_by_reason_and_tried_again(hpcxrf, lab):
    site(lab, BAD)
    first = submitted(hpcxrf)
    (lab / "go").touch()
    status = until(hpcxrf, "out", "done with failures")
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nodes", "4"), "4 nodes are requested, partition main has 3"),
        (("--time", "2-00"), "a time limit of 48:00:00 is requested, partition main allows 24:00:00"),
        (("--workers", "9", "--nodes", "3"), "room for 2 on a node, 6 in all"),
        (("--after", "1;x"), "must be the number of a job"),
        (("--site", "nowhere"), "no site profile 'nowhere'"),
        (("--time", "soon"), "must be minutes, or"),
    ],
)
def test_what_would_never_start_is_refused_and_nothing_is_made(hpcxrf, lab, options, said):
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out", *options)
    assert ran.code == 2
    assert said in ran.err
    assert not (lab / "out").exists()


def test_a_refusal_of_sbatch_is_told_and_the_run_can_be_submitted_again(hpcxrf, lab):
    site(lab, GOOD, account="nobodys", options=["--licenses=gold:1"])
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out")
    assert ran.code == 7
    assert "Invalid license" in ran.err
    assert hpcxrf("status", "out", "--json").json["verdict"] == "new"
    site(lab, GOOD)
    submitted(hpcxrf)


def test_an_input_that_is_not_there_is_refused(hpcxrf, lab):
    (lab / "scan.h50").unlink()
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out")
    assert ran.code == 3
    assert f"{lab}/scan.h50" in ran.err
    assert not (lab / "out").exists()


def test_a_dry_run_prints_the_script_and_makes_nothing(hpcxrf, lab, slurm_cluster):
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out", "--dry-run", "--nodes", "2", "--time", "90")
    assert ran.code == 0
    assert ran.out.startswith("#!/bin/bash\n")
    assert "#SBATCH --time=01:30:00" in ran.out
    assert "#SBATCH --nodes=2" in ran.out
    assert f"sbatch --chdir={lab}/out --output={lab}/out/logs/job-%j.log" in ran.err
    assert not (lab / "out").exists()
    assert slurm_cluster.run("squeue", "-h") == ""


def test_insecure_is_said_loudly_and_asked_of_the_job(hpcxrf, lab):
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "out", "--insecure")
    assert "plain TCP" in ran.err
    assert read_request(RunDir(path=lab / "out")).insecure


HOSTILE = [*("with blank", "it's", '"', "$(touch pwned)", "#SBATCH --wrap=x", "-rf", "%j", "%%", "ü ☢", "*", "<b>")]


def test_hostile_names_do_nothing_and_their_runs_work(hpcxrf, lab):
    (lab / "go").touch()
    jobs = {name: submitted(hpcxrf, run=f"./{name}") for name in HOSTILE}
    for name, job_id in jobs.items():
        assert until(hpcxrf, f"./{name}", "done")["job_id"] == job_id
        log = (lab / name / "logs" / f"job-{job_id}.log").read_text()
        called = json.loads(log.removeprefix("called with ").split(" in ")[0])
        assert called == ["-m", "hpcxrf.cluster.job", f"{lab}/{name}"]
    assert not list(lab.rglob("pwned"))
    assert sorted(p.name for p in lab.iterdir()) == sorted([*HOSTILE, "go", "python", "run.yaml", "scan.h50", "sites"])


def test_a_name_with_a_line_end_is_refused(hpcxrf, lab):
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", "a\n#SBATCH -N3")
    assert ran.code == 2
    assert "has a control character in it" in ran.err


def test_submitting_takes_less_than_a_second_and_loads_neither_torch_nor_dask(lab):
    code = (
        "import sys, json\n"
        "sys.argv = ['hpcxrf', 'submit', 'run.yaml', '--site', 'lab', '-o', 'out']\n"
        "from hpcxrf.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "is in the queue" in done.stderr
    assert not set(json.loads(done.stdout)) & {"torch", "dask", "distributed", "zarr", "h5py", "xarray"}


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


def test_a_profile_is_proposed_from_what_sinfo_says(hpcxrf, lab):
    text = hpcxrf("site", "init").out
    proposed = yaml.safe_load(text)
    assert (proposed["partition"], proposed["gpus_per_node"], proposed["memory_per_node_mb"]) == ("main", 4, 6000)
    assert hpcxrf("site", "init", "--name", "mine").code == 0
    ran = hpcxrf("submit", "run.yaml", "--site", "mine", "--dry-run", "--workers", "2")
    assert ran.code == 0, ran.err
    assert "#SBATCH --gpus-per-task=1" in ran.out
    assert "exists already" in hpcxrf("site", "init", "--name", "mine").err
    assert hpcxrf("site", "list", "--json").json["sites"]["mine"].startswith(str(lab / "config"))


def test_plan_refuses_what_the_partition_cannot_give(hpcxrf, lab):
    write_scan(simulate_scan(demo_spec(seed=1, shape=(1, 4, 4, 2048), name="scan")), lab)
    assert hpcxrf("plan", "run.yaml", "--site", "lab").code == 0
    site(lab, GOOD, nodes=5)
    ran = hpcxrf("plan", "run.yaml", "--site", "lab", "--json")
    assert ran.code == 2
    assert ran.json["faults"] == ["5 nodes are requested, partition main has 3"]
    site(lab, GOOD, gpu_memory_mb=80_000)
    ran = hpcxrf("plan", "run.yaml", "--site", "lab", "--json")
    assert ran.code == 0, ran.err
    least = ran.json["device_bytes"]["least"]
    assert 1e9 < least < ran.json["device_bytes"]["most"] < 80e9
    site(lab, GOOD, gpu_memory_mb=1000)
    ran = hpcxrf("plan", "run.yaml", "--site", "lab")
    assert ran.code == 2
    assert f"gpu_memory_mb: pixels need {least / 1e9:.2f} GB of a GPU" in ran.err


def test_the_doctor_lets_slurm_try_the_job_of_a_site_and_submits_nothing(lab, slurm_cluster):
    from hpcxrf.cluster.login.doctor import _slurm, _try_check
    from hpcxrf.cluster.login.sites import find_site

    assert "to start at" in _slurm(None)
    assert "site lab: Job" in _slurm(find_site("lab"))
    site(lab, GOOD, partition="nope")
    found = _try_check("Slurm", lambda: _slurm(find_site("lab")))
    assert not found["ok"]
    assert "Invalid partition" in found["found"]
    assert slurm_cluster.run("squeue", "-h", "-t", "all", "-n", "hpcxrf", "-o", "%T").count("PENDING") == 0
