"""Worker jobs of an elastic run: requested, replaced, given up and cancelled."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from hpcxrf.cluster.job.elastic import ASK_S, MOST_IN_VAIN, SlurmCalls, WorkerJobs, script_options, worker_script
from hpcxrf.cluster.job.worker_ends import MOST_STARTING
from hpcxrf.cluster.job.worker_terms import worker_facts, write_facts
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import OutputError, SlurmError
from tests.samples.job_samples import REQUEST, TERMS, known


def test_a_worker_job_is_requested_as_the_site_says_and_quotes_the_folder(tmp_path):
    folder = tmp_path / "it's 100% $(here)"
    request = replace(REQUEST, mode="elastic", gpus_per_worker=1)
    script = worker_script(folder, request, "worker-0")
    assert "#SBATCH --partition=main" in script
    assert "#SBATCH --gpus-per-task=1" in script
    assert "#SBATCH --mem=900M" in script
    assert "module load x" in script
    assert script.startswith("#!/bin/bash -l\n")
    words = shlex.split(script.strip().splitlines()[-1])
    assert words[1:3] == ["-m", "hpcxrf.cluster.job.worker_main"]
    assert words[words.index("--run") + 1] == str(folder)
    assert words[words.index("--name") + 1] == "worker-0"
    log = f"{tmp_path}/it's 100%% $(here)/logs/worker-job-%j.log"
    assert script_options(folder) == [f"--chdir={folder}", f"--output={log}"]


def test_worker_jobs_are_made_by_the_thread_that_watches(run):
    """In a process of its own: dask-jobqueue can be imported by the main thread alone."""
    code = (
        "import sys, threading\n"
        "from tests.samples.job_samples import REQUEST\n"
        "from hpcxrf.cluster.job.elastic import worker_jobs, worker_script\n"
        "from hpcxrf.store.rundir import RunDir\n"
        "from pathlib import Path\n"
        "run = RunDir(path=Path(sys.argv[1]))\n"
        "worker_jobs(run, REQUEST, print, print)\n"
        "thread = threading.Thread(target=lambda: print(worker_script(run.path, REQUEST, 'worker-7')))\n"
        "thread.start(), thread.join()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    argv = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert "--name worker-7" in done.stdout, done.stderr


def test_a_worker_job_has_nothing_of_a_jobqueue_yaml(tmp_path):
    import dask

    request = replace(REQUEST, mode="elastic")
    theirs = {"queue": "other", "account": "other", "walltime": "9:99:99"}
    with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in theirs.items()}):
        assert "other" not in worker_script(tmp_path, request, "worker-0")
        assert "9:99:99" not in worker_script(tmp_path, request, "worker-0")


class FakeSlurm:
    """Jobs of a Slurm that can be told what becomes of them, and that counts what it is asked."""

    def __init__(self):
        self.states, self.names, self.asked, self.cancelled = {}, {}, [], []
        self.refuses, self.silent, self.first_state = False, False, "PENDING"

    def submit(self, name):
        if self.refuses:
            raise SlurmError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        job_id = str(100 + len(self.states))
        self.states[job_id], self.names[name] = self.first_state, job_id
        return job_id

    def ask(self, job_ids):
        self.asked.append(list(job_ids))
        if self.silent:
            raise SlurmError("squeue: no answer in 30 s")
        usual = {"reason": "None", "start": "N/A", "nodes": "n1", "elapsed": "0:01"}
        return {i: JobState(job_id=i, state=self.states[i], **usual) for i in job_ids if self.states[i] is not None}

    def cancel(self, job_ids):
        if job_ids:
            self.cancelled.append(list(job_ids))


def worker_jobs(run, wanted=3):
    now, alarms, slurm = [0.0], [], FakeSlurm()
    jobs = WorkerJobs(
        run=run,
        wanted=wanted,
        calls=SlurmCalls(submit=slurm.submit, states=slurm.ask, cancel=slurm.cancel),
        alarm=alarms.append,
        start_s=300.0,
        clock=lambda: now[0],
    )
    (run.path / "jobs").mkdir(exist_ok=True)
    return jobs, slurm, now, alarms


def test_a_worker_job_that_slurm_ended_is_replaced_and_no_other(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    jobs.supervise({})
    assert list(jobs.jobs) == ["worker-0", "worker-1", "worker-2"]
    now[0] = 20.0
    jobs.supervise(known("worker-0", "worker-1"))
    assert alarms == []
    slurm.states[slurm.names["worker-1"]] = "FAILED"
    now[0] = 40.0
    jobs.supervise(known("worker-0"))
    assert list(jobs.jobs) == ["worker-0", "worker-2", "worker-3"]
    assert alarms == ["worker-1; its job has ended (FAILED), another is submitted"]
    now[0] = 60.0
    jobs.supervise(known("worker-0", "worker-2", "worker-3"))
    assert list(jobs.jobs) == ["worker-0", "worker-2", "worker-3"]
    recorded = [json.loads(line) for line in (run.path / "jobs" / "worker-jobs.jsonl").read_text().splitlines()]
    assert {line["name"]: line["job_id"] for line in recorded} == slurm.names


def test_one_call_of_squeue_every_ten_seconds_is_for_all_jobs_whose_worker_is_unknown(run):
    jobs, slurm, now, _ = worker_jobs(run, wanted=200)
    for tick in range(400):
        now[0] = 0.25 * tick
        jobs.supervise({})
    assert len(jobs.jobs) == 200
    assert len(slurm.asked) == 10
    assert sorted(slurm.asked[-1]) == sorted(slurm.states)
    # When everybody works there is nothing to ask.
    for tick in range(400, 800):
        now[0] = 0.25 * tick
        jobs.supervise(known(*jobs.jobs))
    assert len(slurm.asked) == 10


def test_worker_jobs_start_in_waves_but_those_that_wait_for_room_do_not_count(run):
    jobs, slurm, now, _ = worker_jobs(run, wanted=100)
    slurm.first_state = "RUNNING"
    for tick in range(100):
        now[0] = 0.25 * tick
        jobs.supervise({})
    assert len(jobs.jobs) == MOST_STARTING
    for tick in range(100, 140):
        now[0] = 0.25 * tick
        jobs.supervise(known(*list(slurm.names)[:20]))
    assert len(jobs.jobs) == MOST_STARTING + 20
    for name in slurm.names.values():
        slurm.states[name] = "PENDING"
    for tick in range(140, 240):
        now[0] = 0.25 * tick
        jobs.supervise(known(*list(slurm.names)[:20]))
    assert len(jobs.jobs) > MOST_STARTING + 40


def test_a_slurm_that_is_silent_says_nothing_of_the_workers(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    jobs.supervise({})
    slurm.silent = True
    for step in range(100):
        now[0] = 11.0 * step
        jobs.supervise({})
    assert (len(jobs.jobs), alarms, jobs.end_error()) == (3, [], None)


def test_worker_jobs_that_sbatch_refuses_are_submitted_again_and_given_up_after_long(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    slurm.refuses = True
    for step in range(200):
        now[0] = 11.0 * step
        jobs.supervise(known("elsewhere") if step == 100 else {})
        assert jobs.end_error() is None or step > 200 - 40
    # One sentence, not two hundred.
    assert alarms == [
        f"worker-0: sbatch refused its job (sbatch: error: QOSMaxSubmitJobPerUserLimit); it is submitted again every "
        f"{ASK_S:g} s"
    ]
    now[0] += 2000.0
    assert "QOSMaxSubmitJobPerUserLimit" in str(jobs.end_error())
    assert jobs.end_error().exit_code == SlurmError.exit_code


def test_worker_jobs_that_end_before_they_work_are_given_up_with_the_reason(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    for step in range(200):
        now[0] = 11.0 * step
        jobs.supervise({})
        for job_id in slurm.states:
            slurm.states[job_id] = "FAILED"
            (run.logs / f"worker-job-{job_id}.log").write_text("bash: line 9: module: command not found\n")
        if jobs.end_error() is not None:
            break
    assert "module: command not found" in str(jobs.end_error())
    assert len(alarms) == 3 * MOST_IN_VAIN
    made = jobs.made
    now[0] += 1000.0
    jobs.supervise({})
    assert jobs.made == made


def test_a_node_that_ends_every_job_does_not_end_the_run_of_those_who_work(run):
    jobs, slurm, now, _ = worker_jobs(run)
    for step in range(200):
        now[0] = 11.0 * step
        jobs.supervise(known("worker-0"))
        for job_id in list(slurm.states)[1:]:
            slurm.states[job_id] = "FAILED"
    assert jobs.end_error() is None
    assert jobs.made <= 1 + 3 * MOST_IN_VAIN + 2
    now[0] += 11.0
    jobs.supervise({})
    assert jobs.end_error() is not None


def test_a_fault_that_another_job_would_have_too_ends_the_run_without_another_job(run):
    jobs, slurm, now, _ = worker_jobs(run)
    jobs.supervise({})
    for name, job_id in slurm.names.items():
        facts = worker_facts(name, TERMS, None, {"SLURMD_NODENAME": "n1"})
        write_facts(run, replace(facts, fault="scratch /x is not a folder", exit_code=2, is_final=True))
        slurm.states[job_id] = "FAILED"
    now[0] = 11.0
    jobs.supervise({})
    assert str(jobs.end_error()) == "worker-2 on n1: scratch /x is not a folder"
    assert jobs.end_error().exit_code == 2
    assert jobs.made == 3


def test_a_job_whose_worker_never_comes_is_cancelled_after_its_window(run):
    jobs, slurm, now, alarms = worker_jobs(run, wanted=1)
    jobs.supervise({})
    # However long it waits in the queue.
    now[0] = 5000.0
    jobs.supervise({})
    assert slurm.cancelled == []
    slurm.states["100"] = "RUNNING"
    for seconds in (5010.0, 5200.0, 5309.0):
        now[0] = seconds
        jobs.supervise({})
    assert alarms == []
    now[0] = 5320.0
    jobs.supervise({})
    assert slurm.cancelled[-1] == ["100"]
    assert "has not heard of it for 300 s" in alarms[0]


def test_only_a_job_that_failed_by_itself_is_held_against_its_tasks(run):
    jobs, slurm, now, _ = worker_jobs(run, wanted=4)
    forgiven = []
    jobs.forgive = forgiven.append
    jobs.supervise({})
    ends = ["NODE_FAIL", "PREEMPTED", "FAILED", "OUT_OF_MEMORY"]
    slurm.states = dict(zip(slurm.states, ends, strict=True))
    now[0] = 11.0
    jobs.supervise({})
    assert forgiven == ["worker-0", "worker-1"]


def test_a_job_that_cannot_be_recorded_is_cancelled_and_ends_the_run(run):
    jobs, slurm, _, _ = worker_jobs(run)
    (run.path / "jobs" / "worker-jobs.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        jobs.supervise({})
    assert slurm.cancelled == [["100"]]
    assert len(slurm.states) == 1


def test_at_the_end_one_scancel_is_for_all_jobs(run):
    jobs, slurm, _, _ = worker_jobs(run)
    jobs.supervise({})
    jobs.end()
    assert slurm.cancelled == [["100", "101", "102"]]
