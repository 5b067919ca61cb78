"""The steps of an allocation: their commands, waves, deaths and pauses."""

import itertools
import os
import shlex
import signal
import time
from dataclasses import replace

import pytest

from hpcxrf.cluster.job.elastic import worker_script
from hpcxrf.cluster.job.steps import MOST_DEATHS, Step, StepWorkers, allocation_steps, step_command
from hpcxrf.cluster.job.worker_ends import MOST_STARTING
from hpcxrf.cluster.job.worker_terms import worker_facts, write_facts
from hpcxrf.errors import ConfigError, OutputError
from tests.samples.job_samples import REQUEST, TERMS


def steps_of(run, command, alarms, clock, names=("w-0",)):
    return StepWorkers(
        run=run,
        steps=[Step(name) for name in names],
        command=lambda _name: command,
        environment=os.environ,
        alarm=alarms.append,
        start_s=300.0,
        clock=clock,
    )


def test_a_step_that_ends_again_and_again_is_given_up_after_longer_and_longer_pauses(run):
    now, alarms, starts = [0.0], [], []
    steps = steps_of(run, ["sh", "-c", "echo OSError: no GPU today; exit 3"], alarms, lambda: now[0])
    while steps.end_error() is None:
        steps.supervise({})
        process = steps.steps[0].process
        if process is not None:
            starts.append(now[0])
            process.wait()
            steps.supervise({})
        now[0] += 0.25
        assert now[0] < 200
    assert len(starts) == MOST_DEATHS == len(alarms)
    pauses = [b - a for a, b in itertools.pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.5
    assert pauses[-1] >= 8
    assert alarms[0] == "w-0: OSError: no GPU today; its step ended with 3 (logs/w-0.log) and is started again"
    assert "it is given up" in alarms[-1]
    assert str(steps.end_error()) == "w-0: OSError: no GPU today"


def test_a_step_that_worked_for_long_has_all_its_lives_again(run):
    now, alarms = [0.0], []
    steps = steps_of(run, ["true"], alarms, lambda: now[0])
    for _ in range(3 * MOST_DEATHS):
        steps.supervise({"w-0": "tls://1"})
        steps.steps[0].process.wait()
        now[0] += 1000.0
        steps.supervise({"w-0": "tls://1"})
        now[0] += 100.0
    assert steps.end_error() is None


def test_a_step_whose_fault_another_start_would_not_mend_is_not_started_again(run):
    alarms = []
    steps = steps_of(run, ["true"], alarms, time.monotonic, names=("w-0", "w-1"))
    steps.supervise({})
    for name in ("w-0", "w-1"):
        facts = worker_facts(name, TERMS, None, {"SLURMD_NODENAME": "n1"})
        write_facts(run, replace(facts, fault="scratch /x is not a folder", exit_code=2, is_final=True))
    for step in steps.steps:
        step.process.wait()
    steps.supervise({})
    error = steps.end_error()
    assert isinstance(error, ConfigError)
    assert str(error) == "w-1 on n1: scratch /x is not a folder"
    assert [alarm.endswith("it is given up") for alarm in alarms] == [True, True]
    assert all(step.process is None for step in steps.steps)


def test_a_step_whose_worker_is_not_heard_of_is_ended(run):
    now, alarms = [0.0], []
    steps = steps_of(run, ["sleep", "600"], alarms, lambda: now[0])
    steps.supervise({})
    process = steps.steps[0].process
    now[0] = 299.0
    steps.supervise({"w-0": "tls://1"})
    now[0] = 598.0
    steps.supervise({})
    assert process.poll() is None
    now[0] = 600.0
    steps.supervise({})
    assert process.wait(10) == -signal.SIGKILL
    assert "has not heard of it for 300 s" in alarms[0]


def test_another_process_of_a_worker_is_an_alarm_with_the_reason(run):
    alarms = []
    steps = steps_of(run, ["sleep", "600"], alarms, time.monotonic)
    steps.supervise({})
    steps.supervise({"w-0": "tls://1"})
    steps.supervise({"w-0": "tls://1"})
    assert alarms == []
    write_facts(run, replace(worker_facts("w-0", TERMS, None, {}), fault="worker process 7 was killed by signal 9"))
    steps.supervise({"w-0": "tls://2"})
    steps.supervise({"w-0": "tls://2"})
    steps.end(patience_s=0.2)
    assert len(alarms) == 1
    assert "worker process 7 was killed by signal 9; its supervisor has started another process" in alarms[0]


def test_steps_start_in_waves(run):
    names = [f"w-{number}" for number in range(2 * MOST_STARTING + 5)]
    steps = steps_of(run, ["sleep", "600"], [], time.monotonic, names)

    def started():
        return [step.name for step in steps.steps if step.process is not None]

    try:
        for _ in range(3):
            steps.supervise({})
        assert started() == names[:MOST_STARTING]
        known = {name: f"tls://{name}" for name in names[:10]}
        steps.supervise(known)
        assert started() == names[: MOST_STARTING + 10]
        steps.supervise({name: f"tls://{name}" for name in started()})
        steps.supervise({name: f"tls://{name}" for name in started()})
        assert started() == names
    finally:
        steps.end(patience_s=0.2)


def test_steps_are_ended_at_the_end(run):
    steps = steps_of(run, ["sleep", "600"], [], time.monotonic)
    steps.supervise({})
    steps.end(patience_s=0.2)
    assert steps.steps[0].process.returncode == -signal.SIGTERM


def test_a_log_that_cannot_be_written_is_a_word_about_the_run_directory(run):
    run.logs.rmdir()
    run.logs.symlink_to("/proc/self/attr")
    steps = steps_of(run, ["true"], [], time.monotonic)
    with pytest.raises(OutputError, match="cannot be written"):
        steps.supervise({})


def test_the_command_of_a_step_pins_one_gpu_and_names_no_secret(tmp_path):
    words = step_command(replace(REQUEST, gpus_per_worker=1), tmp_path / "a b", "w-1")
    assert words[:8] == [
        "srun",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--mem=900M",
        "--gpus-per-task=1",
        "--job-name=worker",
    ]
    assert words[-4:] == ["--run", str(tmp_path / "a b"), "--name", "w-1"]
    assert "--gpus-per-task=1" not in step_command(REQUEST, tmp_path, "w-1")


def test_a_launcher_wraps_the_worker_and_not_srun(tmp_path):
    launcher = ("apptainer", "exec", "--nv", "my image.sif")
    request = replace(REQUEST, launcher=launcher, worker_python="python3", gpu_options=("--gres=gpu:a100:1",))
    words = step_command(replace(request, gpus_per_worker=1), tmp_path, "w-1")
    assert words[0] == "srun"
    assert "--gres=gpu:a100:1" in words
    start = words.index("apptainer")
    assert words[start : start + 7] == [*launcher, "python3", "-m", "hpcxrf.cluster.job.worker_main"]
    script = worker_script(tmp_path, replace(request, mode="elastic"), "worker-3")
    last = shlex.split(script.strip().splitlines()[-1])
    assert last[:7] == [*launcher, "python3", "-m", "hpcxrf.cluster.job.worker_main"]


def test_workers_of_whole_nodes_have_a_node_and_a_number_on_it(run, tmp_path, monkeypatch):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n')
    scontrol.chmod(0o700)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    request = replace(REQUEST, gpus_per_worker=1, gpu_options=(), node_gpus=2, workers=4)
    environment = {"SLURM_JOB_NODELIST": "n[1-2]"}
    steps = allocation_steps(run, request, "7", environment, print, print)
    where = []
    for step in steps.steps:
        words = steps.command(step.name)
        assert not any(word.startswith(("--gpus", "--gres")) for word in words)
        [node] = [word for word in words if word.startswith("--nodelist=")]
        where.append((node, *[word for word in words if word.startswith("--node-gpu")]))
    assert sorted(where) == [(f"--nodelist=n{n}", f"--node-gpu={gpu}/2") for n in (1, 2) for gpu in (0, 1)]
