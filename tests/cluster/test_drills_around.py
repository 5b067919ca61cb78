"""What may go wrong around a job: a Slurm that does not answer, file times that jump, markers that are damaged."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hpcxrf.cluster.job.worker_terms import read_facts
from hpcxrf.runner.verify import do_again, find_damage
from tests.cluster.drills import kill

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900), pytest.mark.more]

DAY_S = 86400.0
WRAPPER = """#!/bin/sh
if [ -e {folder}/down ]; then
    echo {name} >> {folder}/asked
    echo "{name}: error: Unable to contact slurm controller (connect failure)" >&2
    exit 1
fi
exec {program} "$@"
"""


class Outage:
    """Programs of Slurm that answer nothing while a file is there; first in the PATH of jobs submitted since."""

    def __init__(self, drill, *names):
        self.folder = drill.tmp_path / "slurm-bin"
        self.folder.mkdir()
        self.path = f"{self.folder}:{os.environ['PATH']}"
        for name in names:
            found = drill.slurm.run("sh", "-c", f"command -v {name}").strip()
            wrapper = self.folder / name
            wrapper.write_text(WRAPPER.format(folder=self.folder, name=name, program=found))
            wrapper.chmod(0o700)

    def begin(self):
        (self.folder / "down").touch()

    def end(self):
        (self.folder / "down").unlink()

    def asked(self):
        """Programs that gave no answer, in the order of asking."""
        file = self.folder / "asked"
        return file.read_text().split() if file.exists() else []


def submit_under(drill, outage):
    with drill.monkeypatch.context() as patch:
        patch.setenv("PATH", outage.path)
        drill.submit()


def watching(drill, outage):
    """`hpcxrf status --watch` as a user has it open."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpcxrf", "status", str(drill.run.path), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=drill.slurm.env() | {"PATH": outage.path},
    )


@pytest.mark.slow
def test_a_job_and_who_watches_it_go_on_while_slurm_answers_nothing(drill):
    drill.prepare(4, workers=1, faults={"slow_s": 0.5})
    outage = Outage(drill, "squeue", "scontrol", "sinfo")
    submit_under(drill, outage)
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    with watching(drill, outage) as watch:
        outage.begin()
        nanny, [worker] = drill.workers()["worker-0"]
        kill(nanny.pid)
        kill(worker.pid)
        # Whoever watches asks squeue, the driver whether the node of the dead worker is lost.
        drill.wait(lambda: {"squeue", "sinfo"} <= set(outage.asked()))
        assert watch.poll() is None
        before = drill.pixel_tasks_done()
        drill.wait(lambda: drill.pixel_tasks_done() > before)
        outage.end()
        assert drill.wait_for_end() == "COMPLETED", drill.logs()
        assert watch.wait(timeout=60) == 0
        assert "finished" in watch.stdout.read()
    drill.require_all_equal()
    assert any("whether its node was lost is not known" in a for a in drill.progress().alarms)


@pytest.mark.slow
def test_a_requeue_that_slurm_does_not_hear_is_asked_for_again(drill):
    drill.prepare(3, faults={"slow_s": 0.5})
    outage = Outage(drill, "scontrol")
    submit_under(drill, outage)
    drill.wait_for_work(1)
    outage.begin()
    drill.slurm.run("scancel", "--batch", "--signal=USR1", drill.job_id)
    drill.wait(lambda: len(outage.asked()) >= 2)
    assert drill.events("ended") == []
    outage.end()
    drill.wait_for_event("requeued", 1)
    drill.start_again_now()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert set(drill.times_finished().values()) == {1}


@pytest.mark.slow
def test_lost_worker_jobs_are_replaced_when_slurm_answers_again(drill):
    drill.prepare(5, mode="elastic", faults={"slow_s": 1.0})
    outage = Outage(drill, "squeue", "scontrol", "sinfo", "sbatch", "scancel")
    submit_under(drill, outage)
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    first = drill.wait(lambda: len(f := read_facts(drill.run)) == 2 and f)
    outage.begin()
    for facts in first.values():
        drill.slurm.run("scancel", facts.job_id)
    drill.wait(lambda: "squeue" in outage.asked())
    # For so long that whoever takes silence for an end would have acted.
    time.sleep(5.0)
    assert drill.state() == "RUNNING", drill.logs()
    outage.end()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
def test_worker_jobs_that_sbatch_refuses_for_a_while_are_asked_for_again(drill):
    drill.prepare(4, mode="elastic", faults={"slow_s": 1.0})
    outage = Outage(drill, "sbatch")
    submit_under(drill, outage)
    outage.begin()
    drill.wait(lambda: "sbatch" in outage.asked())
    assert drill.state() == "RUNNING", drill.logs()
    outage.end()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()


def shift_times(folder: Path, hours: float) -> int:
    """Give every file and folder a time that no clock here ever showed; how many there were."""
    moved = time.time() + 3600.0 * hours
    number = 0
    for path in [folder, *folder.rglob("*")]:
        # What a worker is just renaming is gone when it is its turn.
        with suppress(FileNotFoundError):
            os.utime(path, (moved, moved), follow_symlinks=False)
            number += 1
    return number


@pytest.mark.parametrize("hours", [-30.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_file_times_of_another_clock_change_nothing(drill, hours):
    drill.prepare(3, faults={"slow_s": 0.5})
    drill.submit()
    before = drill.wait(lambda: drill.pixel_tasks_done() >= 2 and drill.times_finished())
    for sign in (1, -1):
        assert shift_times(drill.run.path, sign * hours) > 50
        done = drill.pixel_tasks_done()
        drill.wait(lambda now=done: drill.pixel_tasks_done() > now)
    kill(drill.driver())
    assert drill.wait_for_end() == "FAILED"
    shift_times(drill.run.path, hours)
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    # Neither is an old file taken for a stale one, nor a new one for a change.
    assert {drill.times_finished()[task] for task in before} == {1}
    shift_times(drill.run.path, -hours)
    finished = drill.times_finished()
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    assert drill.times_finished() == finished


def change_checksum(journal):
    """Record another checksum for one of the files of a journal."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    checksums = next(line["checksums"] for line in reversed(lines) if line.get("checksums"))
    name, value = next(iter(checksums.items()))
    checksums[name] = ("0" if value[0] != "0" else "1") + value[1:]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
def test_damaged_markers_cost_their_own_dataset_and_no_other(drill):
    drill.prepare(4)
    drill.submit()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    before = drill.times_finished()
    garbled, unmarked, changed, untouched = drill.run.dataset_ids()
    journal = drill.run.journal_file(garbled)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b'{"event":"fin\x00\n' + b"".join(lines[1:]))
    (drill.run.results_store(unmarked) / "zarr.json").write_text('{"attributes": {"compl')
    change_checksum(drill.run.journal_file(changed))
    # A resumed run trusts its records; `hpcxrf verify RUN --redo` looks at contents and marks what is damaged.
    found = list(find_damage(drill.run))
    assert {damage.dataset_id for damage in found} == {garbled, unmarked, changed}
    for damage in found:
        do_again(drill.run, damage)
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    after = drill.times_finished()
    assert {t: n for t, n in after.items() if t[0] == untouched} == {
        t: n for t, n in before.items() if t[0] == untouched
    }
    assert after[unmarked, "finalise"] == 2
