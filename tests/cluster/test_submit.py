"""`hpcxrf submit` on a real Slurm: what becomes a job, and what is refused; a stand-in does the work of the job."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest

from hpcxrf.cluster.job_files import read_events, read_request
from hpcxrf.store.rundir import RunDir
from tests.samples.stand_in_jobs import GOOD, queue, site, submitted, until

pytestmark = pytest.mark.slurm


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
