"""A run directory that becomes unwritable while its job runs: one sentence, exit code 4, no job without a record."""

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcxrf.cluster.job_files import run_comment
from tests.cluster.drills import kill

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600), pytest.mark.more]


@contextmanager
def unwritable(folder: Path):
    """Nothing below the folder can be written by its path, as after a quota or a file server's fault.

    Rights do not bind root, so the folder is mounted upon itself, read-only; that needs root, as in a container. What
    is open already, as the log of a job, goes on.
    """
    stage = folder.with_name("read-only")
    stage.mkdir()
    # Read-only before it is in the place: whoever opened a file in between would keep the folder writable.
    steps = (("--bind", folder, stage), ("-o", "remount,ro,bind", stage), ("--bind", stage, folder))
    if os.geteuid() != 0 or any(subprocess.run(["mount", *step], check=False).returncode != 0 for step in steps):
        subprocess.run(["umount", "-l", stage], check=False)
        pytest.skip("a folder cannot be mounted read-only here")
    subprocess.run(["umount", "-l", stage], check=True)
    try:
        yield
    finally:
        # What still looks at the folder keeps its own sight of it.
        subprocess.run(["umount", "-l", folder], check=True)


def jobs_of_run(drill) -> dict[str, str]:
    """State by id of every job that Slurm still knows of this run, with the workers' own."""
    shown = drill.slurm.run("squeue", "-t", "all", "-h", "-o", "%A %T %k").splitlines()
    mine = run_comment(drill.run.path)
    return {line.split()[0]: line.split()[1] for line in shown if mine in line}


def recorded(drill) -> set[str]:
    """Ids of all jobs that the run directory names."""
    workers = drill.run.path / "jobs" / "worker-jobs.jsonl"
    lines = workers.read_text().splitlines() if workers.exists() else []
    return {json.loads(line)["job_id"] for line in lines} | {e["job_id"] for e in drill.events("submitted")}


def require_one_sentence(drill) -> None:
    """The job ended with 4 and said once, in one line, what cannot be written."""
    shown = drill.slurm.run("scontrol", "show", "job", drill.job_id)
    assert "ExitCode=4:0" in shown, drill.logs()
    log = (drill.run.logs / f"job-{drill.job_id}.log").read_text()
    assert "Traceback" not in log
    [error] = [line for line in log.splitlines() if line.startswith("error: ")]
    assert f"error: {drill.run.path}" in error
    assert "cannot be written: " in error
    assert log.splitlines()[-1] == error


def require_nothing_left(drill) -> None:
    """Every job that was submitted is recorded or was cancelled, and none goes on."""
    ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
    drill.wait(lambda: set(jobs_of_run(drill).values()) <= ended, 60)
    jobs = jobs_of_run(drill)
    assert drill.job_id in jobs
    assert {jobs[job_id] for job_id in jobs.keys() - recorded(drill)} <= {"CANCELLED"}, (jobs, recorded(drill))


def test_a_run_directory_that_cannot_be_written_any_more_ends_the_job_and_the_next_one_does_what_is_missing(
    drill, hpcxrf
):
    drill.prepare(4, faults={"slow_s": 1.0})
    drill.submit()
    drill.wait_for_work(1)
    with unwritable(drill.run.path):
        assert drill.wait_for_end() == "FAILED", drill.logs()
        require_one_sentence(drill)
        require_nothing_left(drill)
        before = jobs_of_run(drill)
        ran = hpcxrf("resume", drill.run.path)
        assert ran.code == 4
        assert ran.err.startswith(f"error: {drill.run.path}")
        assert ran.err.strip().count("\n") == 0
        assert jobs_of_run(drill) == before
    done = drill.times_finished()
    assert done
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    # What a journal had is not done again.
    assert {drill.times_finished()[task] for task in done} == {1}


def test_a_worker_job_that_cannot_be_recorded_is_cancelled_and_the_run_ends(drill, tmp_path):
    once = tmp_path / "once"
    once.mkdir()
    # Tasks that do not end, so that it is the lost worker that must be recorded.
    drill.prepare(2, mode="elastic", faults={"hang": ["s00", "s01"], "once": str(once)})
    drill.submit()
    drill.wait(lambda: len(list(once.iterdir())) == 2)
    nanny, [worker] = drill.workers()["worker-0"]
    with unwritable(drill.run.path):
        known = set(jobs_of_run(drill))
        kill(nanny.pid)
        kill(worker.pid)
        assert drill.wait_for_end() == "FAILED", drill.logs()
        require_one_sentence(drill)
        require_nothing_left(drill)
        # One was submitted in the place of the lost one.
        assert len(set(jobs_of_run(drill)) - known) == 1
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
