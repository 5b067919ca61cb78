"""What may go wrong while a job runs: every drill ends with all datasets done or recorded as failed, and equal."""

import os
import stat
import subprocess
from contextlib import suppress

import pytest
from store_damage import spoil_chunks

from hpcxrf.cluster.job.worker_terms import read_facts
from hpcxrf.runner.verify import do_again, find_damage
from hpcxrf.store.rundir import FAILED
from tests.cluster.drills import kill

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900), pytest.mark.more]

SLOW = {"slow_s": 0.5}


def reasons(drill):
    return {
        d.split("-")[0]: [x["reason"] for x in drill.run.read_journal(d) if x["event"] == FAILED]
        for d in drill.run.dataset_ids()
    }


def test_an_undisturbed_job_gives_what_one_process_gives_and_pins_its_gpus(drill):
    drill.prepare(2, gpus=2)
    drill.submit()
    drill.wait((drill.run.secrets / "workers" / "key.pem").exists)
    folder = drill.run.secrets / "workers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert sorted(f.cuda_visible_devices for f in read_facts(drill.run).values()) == ["0", "1"]
    assert any("PRETEND_GPUS" in alarm for alarm in drill.progress().alarms)
    assert drill.progress().state == "ended"
    assert list(drill.run.secrets.iterdir()) == []
    assert not drill.run.lock_file.exists()


def test_a_killed_worker_costs_one_tile_at_most(drill):
    executions = drill.tmp_path / "executions"
    executions.mkdir()
    drill.prepare(3, faults=SLOW | {"count": str(executions)})
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 5)
    _nanny, [worker] = drill.workers()["worker-0"]
    kill(worker.pid)
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert set(drill.times_finished().values()) == {1}
    # What was finished before is not done again: its record does not die with the worker.
    assert len(list(executions.iterdir())) <= 3 * 3 + 1


def test_a_killed_worker_and_supervisor_are_replaced_by_a_new_step(drill):
    drill.prepare(3, workers=1, faults=SLOW)
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    nanny, [worker] = drill.workers()["worker-0"]
    kill(nanny.pid)
    kill(worker.pid)
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert any("is started again" in alarm for alarm in drill.progress().alarms)
    assert read_facts(drill.run)["worker-0"].step_id == "1"


def test_a_killed_driver_is_resumed_with_what_is_missing(drill):
    drill.prepare(3, faults=SLOW)
    drill.submit()
    before = drill.wait(lambda: drill.pixel_tasks_done() >= 2 and drill.times_finished())
    kill(drill.driver())
    assert drill.wait_for_end() == "FAILED"
    # A kill leaves them; the next start removes them.
    assert (drill.run.secrets / "workers" / "key.pem").exists()
    assert drill.run.lock_file.exists()
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert {drill.times_finished()[task] for task in before} == {1}
    assert not (drill.run.secrets / "workers").exists()


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_near_its_time_limit_a_job_drains_and_is_run_again(drill, times):
    drill.prepare(4, faults=SLOW)
    drill.submit()
    for count in range(1, times + 1):
        drill.wait_for_work(count)
        drill.slurm.run("scancel", "--batch", "--signal=USR1", drill.job_id)
        drill.wait_for_event("requeued", count)
        drill.start_again_now()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert [e["restart_count"] for e in drill.events("started")] == list(range(times + 1))
    assert [e["exit_code"] for e in drill.events("ended")] == [0]
    # Draining let the tiles at work end and recorded them.
    assert set(drill.times_finished().values()) == {1}


@pytest.mark.slow
def test_where_requeueing_is_not_allowed_the_job_ends_as_resumable(drill):
    drill.prepare(3, faults=SLOW, site={"requeue": False})
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    drill.slurm.run("scancel", "--batch", "--signal=USR1", drill.job_id)
    assert drill.wait_for_end() == "FAILED"
    assert [e["exit_code"] for e in drill.events("ended")] == [75]
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
def test_a_cancelled_job_leaves_at_once_and_is_resumed(drill):
    drill.prepare(4, faults=SLOW)
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    drill.slurm.run("scancel", drill.job_id)
    assert drill.wait_for_end() == "CANCELLED"
    assert drill.events("ended")[-1]["exit_code"] == 75
    assert not drill.run.lock_file.exists()
    assert not (drill.run.secrets / "workers").exists()
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
def test_a_preempted_job_is_run_again_by_slurm_itself(drill):
    drill.prepare(4, faults=SLOW, site={"partition": "preempt"})
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    node = drill.slurm.run("squeue", "-h", "-o", "%N", "-j", drill.job_id).strip()
    drill.slurm.run("sbatch", "-p", "main", "-w", node, "-n8", "--mem=100", "-o", "/dev/null", "--wrap", "sleep 5")
    drill.wait(lambda: drill.events("ended"))
    drill.start_again_now()
    assert drill.events("requeued") == []
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert [e["restart_count"] for e in drill.events("started")] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("scans", [4, pytest.param(42, marks=pytest.mark.timeout(1800))])
def test_poisoned_scans_fail_alone(drill, scans):
    drill.prepare(scans, faults={"abort": ["s01"], "raise": ["s02"]})
    drill.submit()
    # Failed datasets among good ones do not fail the job, so that chains of jobs go on.
    assert drill.wait_for_end(1200.0) == "COMPLETED", drill.logs()
    drill.require_all_equal(but=["s01", "s02"])
    assert drill.events("ended")[-1]["exit_code"] == 6
    found = reasons(drill)
    assert "ended its worker 3 times" in found["s01"][0]
    # Its three tiles need each other for nothing: each was tried.
    assert found["s02"] == ["ValueError: this scan is cursed"] * 3
    log = (drill.run.logs / f"job-{drill.job_id}.log").read_text()
    assert f"datasets: {scans - 2} done, 2 failed" in log
    assert "1 x ValueError: this scan is cursed" in log
    assert not list(drill.run.path.rglob("core*"))


@pytest.mark.slow
def test_a_hung_task_is_ended_and_tried_again(drill):
    drill.prepare(3, faults={"hang": ["s01"], "once": str(drill.tmp_path)}, task_limit_s=15.0)
    drill.submit()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert any("takes longer than 15 s" in alarm for alarm in drill.progress().alarms)


@pytest.mark.slow
def test_a_full_disk_under_a_task_fails_its_scan_and_a_resume_does_it(drill):
    drill.prepare(3, faults={"full": ["s01"], "once": str(drill.tmp_path)}, site={"fail_job_on_failed_dataset": True})
    drill.submit()
    assert drill.wait_for_end() == "FAILED"
    drill.require_all_equal(but=["s01"])
    assert "No space left on device" in reasons(drill)["s01"][0]
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
def test_a_changed_result_is_done_again(drill):
    drill.prepare(2)
    drill.submit()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    store = drill.run.results_store(drill.run.dataset_ids()[0])
    assert len(spoil_chunks(store / "maps" / "amplitude", "c/0/0/0/0")) == 1
    # A resumed run trusts its journals; `hpcxrf verify RUN --redo` looks at contents and marks what changed.
    (damage,) = find_damage(drill.run)
    do_again(drill.run, damage)
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    again = {task for task, times in drill.times_finished().items() if times == 2}
    # That tile, and the end that follows from it.
    assert len(again) == 2


@pytest.mark.slow
def test_the_second_of_two_drivers_is_refused(drill):
    drill.prepare(3, faults=SLOW)
    drill.submit()
    first = drill.job_id
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    script = (drill.run.path / "jobs" / "job.sh").read_text()
    from hpcxrf.cluster.slurm import submit

    second = submit(script, [f"--chdir={drill.run.path}"])
    log = drill.run.logs / f"job-{second}.log"
    drill.wait(lambda: log.exists() and "error:" in log.read_text())
    assert f"pid {drill.driver()}, Slurm job {first}" in log.read_text()
    assert os.uname().nodename in log.read_text()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert set(drill.times_finished().values()) == {1}


@pytest.mark.slow
def test_a_lost_node_costs_its_workers_only(drill):
    drill.prepare(6, nodes=2, faults={"slow_s": 1.0})
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    nodes = {facts.node for facts in read_facts(drill.run).values()}
    batch = drill.slurm.run("squeue", "-h", "-o", "%B", "-j", drill.job_id).strip()
    [other] = nodes - {batch}
    try:
        drill.slurm.kill_node(other)
        assert drill.wait_for_end() == "COMPLETED", drill.logs()
    finally:
        drill.slurm.start_node(other)
    drill.require_all_equal()


@pytest.mark.slow
def test_workers_that_are_jobs_of_their_own_are_replaced_when_one_is_cancelled(drill):
    drill.prepare(4, gpus=2, mode="elastic", faults={"slow_s": 1.0})
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    first = drill.wait(lambda: len(f := read_facts(drill.run)) == 2 and f)
    assert {facts.job_id for facts in first.values()}.isdisjoint({drill.job_id})
    assert all("," not in facts.cuda_visible_devices for facts in first.values())
    drill.slurm.run("scancel", first["worker-0"].job_id)
    drill.wait(
        lambda: len({f.job_id for f in read_facts(drill.run).values()} | {f.job_id for f in first.values()}) == 3
    )
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()
    assert any("its job has ended" in alarm for alarm in drill.progress().alarms)
    # With the driver its workers go.
    drill.wait(lambda: drill.slurm.run("squeue", "-h", "-o", "%A").split() == [])


@pytest.mark.slow
def test_worker_jobs_end_with_a_driver_that_is_killed(drill):
    drill.prepare(3, mode="elastic", faults={"slow_s": 1.0})
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1)
    kill(drill.driver())
    assert drill.wait_for_end() == "FAILED"
    drill.wait(lambda: drill.slurm.run("squeue", "-h", "-o", "%A").split() == [])
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_under_the_run_directory_ends_the_job_and_loses_nothing(drill):
    drill.prepare(4, faults=SLOW)
    folder = drill.tmp_path / "run"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "drill", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system here: {mounted.stderr.strip()}")
    try:
        drill.submit()
        drill.wait(lambda: drill.pixel_tasks_done() >= 1)
        fill(folder / "logs" / "ballast")
        assert drill.wait_for_end() == "FAILED"
        (folder / "logs" / "ballast").unlink()
        drill.resume()
        assert drill.wait_for_end() == "COMPLETED", drill.logs()
        drill.require_all_equal()
    finally:
        drill.slurm.cancel_all()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path):
    """Take what is left of a file system."""
    with path.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
