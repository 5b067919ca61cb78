"""Workers that cannot work, or hang, on the private Slurm: one sentence each, and little asked of the controller."""

import itertools
import os
import time
from dataclasses import replace

import pytest

from hpcxrf.cluster.job.worker_terms import read_facts
from hpcxrf.errors import ConfigError, SlurmError

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900), pytest.mark.more]

COUNTING = """#!/bin/sh
echo "{name} $(date +%s.%N) $*" >> {folder}/calls
exec {program} "$@"
"""


class Counted:
    """Programs of Slurm that count their calls; first in the PATH of jobs submitted since."""

    def __init__(self, drill, *names):
        self.folder = drill.tmp_path / "counted-bin"
        self.folder.mkdir()
        for name in names:
            found = drill.slurm.run("sh", "-c", f"command -v {name}").strip()
            (self.folder / name).write_text(COUNTING.format(folder=self.folder, name=name, program=found))
            (self.folder / name).chmod(0o700)

    def calls(self, name):
        """Times and arguments of all calls of a program."""
        file = self.folder / "calls"
        lines = [line.split(" ", 2) for line in file.read_text().splitlines()] if file.exists() else []
        return [(float(when), arguments) for program, when, arguments in lines if program == name]

    def submit(self, drill):
        with drill.monkeypatch.context() as patch:
            patch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")
            drill.submit()


def ended(drill):
    drill.wait_for_end()
    return drill.events("ended")[-1]


def test_a_scratch_that_is_not_there_ends_the_run_with_one_sentence_and_no_restart(drill):
    drill.prepare(2, site={"scratch": "/not/there"})
    drill.submit()
    end = ended(drill)
    assert end["exit_code"] == ConfigError.exit_code
    assert "scratch /not/there is not a folder; correct scratch of the site profile" in end["reason"]
    assert "on node1" in end["reason"]
    # Also for who looks afterwards.
    assert any("scratch /not/there" in alarm for alarm in drill.progress().alarms)
    assert {facts.step_id for facts in read_facts(drill.run).values()} == {"0", "1"}
    assert list(drill.run.secrets.iterdir()) == []


@pytest.mark.slow
def test_the_same_with_workers_that_are_jobs_submits_no_second_job(drill):
    drill.prepare(2, mode="elastic", site={"scratch": "/not/there"})
    counted = Counted(drill, "sbatch")
    counted.submit(drill)
    end = ended(drill)
    assert end["exit_code"] == ConfigError.exit_code
    assert "scratch /not/there is not a folder" in end["reason"]
    # The driver's own job was submitted from here.
    assert len(counted.calls("sbatch")) <= 2 + 1


@pytest.mark.slow
def test_workers_that_slurm_gives_two_devices_end_the_run_with_one_sentence(drill):
    drill.prepare(2, workers=1, gpus=2, site={"workers_per_node": 1})
    two = "--gpus-per-task=2"
    script = drill.prepared.script.replace("--gpus-per-task=1", two)
    drill.prepared = replace(drill.prepared, script=script, request=replace(drill.prepared.request, gpu_options=(two,)))
    drill.submit()
    end = ended(drill)
    assert end["exit_code"] == SlurmError.exit_code
    assert "CUDA_VISIBLE_DEVICES is '0,1', which names 2 devices" in end["reason"]


@pytest.mark.slow
def test_pending_worker_jobs_cost_one_squeue_every_ten_seconds_and_no_keys_stay(drill):
    drill.prepare(2, workers=12, mode="elastic", site={"workers_per_node": 12, "cores_per_node": 12})
    # Of 24 cores one is left, for the driver: workers that got others would end the run before it is looked at.
    blockers = [
        drill.slurm.run(
            "sbatch",
            "--parsable",
            f"-N{nodes}",
            f"--ntasks-per-node={tasks}",
            "-c1",
            "--mem=100",
            "-o",
            "/dev/null",
            "--wrap",
            "sleep 600",
        ).strip()
        for nodes, tasks in ((3, 7), (2, 1))
    ]
    counted = Counted(drill, "squeue", "sbatch", "scancel", "sinfo", "scontrol")
    counted.submit(drill)
    drill.wait(lambda: len(drill.slurm.run("squeue", "-h", "-o", "%A").split()) >= 10)
    began = time.time()
    drill.wait(lambda: time.time() - began > 45, 60)
    times = [when for when, _ in counted.calls("squeue") if when > began]
    # One every ten seconds at most; a busy machine is later with it.
    assert 2 <= len(times) <= 5
    assert min(b - a for a, b in itertools.pairwise(times)) >= 9.5
    assert max(arguments.count(",") for _, arguments in counted.calls("squeue")) >= 5
    assert not [name for name in drill.run.secrets.iterdir() if name.name.startswith(".")]
    drill.slurm.run("scancel", *blockers)
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert list(drill.run.secrets.iterdir()) == []
    assert len(counted.calls("scancel")) <= 2
    drill.wait(lambda: drill.slurm.run("squeue", "-h", "-o", "%A").split() == [])


@pytest.mark.slow
def test_a_worker_that_stands_still_is_an_alarm_with_its_name_and_one_that_works_long_is_none(drill):
    drill.prepare(2, workers=2, faults={"spin": ["s00"], "hang": ["s01"], "once": str(drill.tmp_path)})
    drill.submit()
    drill.wait(lambda: (p := drill.progress()) and any("makes no progress" in a for a in p.alarms))
    alarms = [a for a in drill.progress().alarms if "makes no progress" in a]
    assert len(alarms) == 1
    name = alarms[0].split()[0]
    nanny, [process] = drill.workers()[name]
    assert process.cpu_percent(interval=2.0) < 20
    process.kill()
    drill.wait(lambda: any("was killed by signal 9" in a and name in a for a in drill.progress().alarms))
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert any(
        f"{name} on node1: worker process {process.pid} was killed by signal 9" in a for a in drill.progress().alarms
    )
    assert nanny.is_running() is False
