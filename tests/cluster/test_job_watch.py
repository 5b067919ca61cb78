"""The watcher of a job: tasks that hang, workers that stall, alarms, and the account of a run."""

import time

import pytest

from hpcxrf.cluster.job.cluster import WorkerSight
from hpcxrf.cluster.job.pace import update_paces
from hpcxrf.cluster.job.watch import Watcher
from hpcxrf.cluster.job_files import append_event, read_progress
from hpcxrf.errors import ConfigError, OutputError
from tests.samples.job_samples import wait_until


class FakeCluster:
    def __init__(self, *sights):
        self.sights, self.restarted, self.error = list(sights), [], None

    def list_workers(self):
        return self.sights

    def supervise_workers(self, known):
        self.known = known

    def end_error(self):
        return self.error

    def restart(self, address):
        self.restarted.append(address)


def sight(name="w-0", status="running", at_work=()):
    return WorkerSight(address=f"tls://{name}", name=name, status=status, at_work=frozenset(at_work))


@pytest.fixture
def watcher(run):
    watcher = Watcher(run, job_id="7", workers_wanted=2, task_limit_s=0.6)
    yield watcher
    watcher.stop()


def test_a_task_beyond_its_time_ends_its_worker_once_and_no_other(watcher):
    cluster = FakeCluster(sight("slow", at_work=["pixels-1"]), sight("quick"))
    watcher.start(cluster)
    wait_until(lambda: cluster.restarted)
    cluster.sights = [sight("quick")]
    assert cluster.restarted == ["tls://slow"]
    assert "takes longer than 0.6 s" in watcher.progress().alarms[0]


def test_many_tasks_one_after_the_other_are_no_task_beyond_its_time(watcher):
    cluster = FakeCluster(sight())
    watcher.start(cluster)
    for number in range(8):
        cluster.sights = [sight(at_work=[f"pixels-{number}"])]
        time.sleep(0.3)
    assert cluster.restarted == []


def test_when_nobody_is_left_to_work_the_run_ends_with_a_word(watcher):
    cluster = FakeCluster()
    cluster.error = ConfigError("w-0 on n1: scratch /x is not a folder")
    watcher.start(cluster)
    wait_until(lambda: watcher.fault is not None)
    assert watcher.fault is cluster.error


def test_whatever_ends_the_watcher_ends_the_run(watcher, capfd):
    cluster = FakeCluster()
    cluster.supervise_workers = {}.__getitem__
    watcher.start(cluster)
    wait_until(lambda: watcher.fault is not None)
    assert str(watcher.fault).startswith("the watcher of the workers has failed: TypeError: ")
    assert "Traceback" in capfd.readouterr().err


def hang(name="w-0", **changes):
    return WorkerSight(**({"address": f"tls://{name}", "name": name, "status": "running"} | changes))


def test_a_task_that_neither_computes_nor_reads_is_an_alarm_and_one_that_works_for_hours_is_none():
    paces, now, stalled_s = {}, 0.0, 60.0
    at_work = frozenset({"pixels-3"})
    troubles = {}
    for second in range(4000):
        now = float(second)
        workers = [
            # Talking to the scheduler costs CPU, too.
            hang("hangs", at_work=at_work, busy_s=0.01 * now, io_bytes=int(8e3 * now)),
            hang("computes", at_work=at_work, busy_s=0.2 * now),
            hang("reads", at_work=at_work, busy_s=0.01 * now, io_bytes=int(5e5 * now)),
            hang("idle"),
            hang("many", at_work=frozenset({f"pixels-{second // 30}"})),
        ]
        paces = update_paces(paces, workers, now)
        for pace in paces.values():
            if (trouble := pace.trouble(now, stalled_s)) is not None:
                troubles.setdefault(pace.worker.name, (now, trouble))
    assert list(troubles) == ["hangs"]
    began, sentence = troubles["hangs"]
    assert 60 < began < 63
    assert sentence == f"hangs makes no progress for {began:.0f} s in pixels-3: it neither computes nor reads"


def test_a_worker_that_sends_no_heartbeat_is_an_alarm_although_it_was_busy():
    paces = update_paces({}, [hang(at_work=frozenset({"a"}), silent_s=0.3)], 0.0)
    paces = update_paces(paces, [hang(at_work=frozenset({"a"}), silent_s=61.0)], 61.0)
    assert "has sent no heartbeat for 61 s" in paces["tls://w-0"].trouble(61.0, 60.0)


def test_a_stalled_worker_is_named_in_the_account_as_long_as_it_stalls(run, capfd):
    watcher = Watcher(run, job_id="7", workers_wanted=1, task_limit_s=600.0, stalled_s=0.3)
    cluster, log = FakeCluster(hang(at_work=frozenset({"pixels-3"}))), []
    try:
        watcher.start(cluster)
        wait_until(lambda: any("w-0 makes no progress" in alarm for alarm in watcher.progress().alarms))
        wait_until(lambda: log.append(capfd.readouterr().err) or "w-0 makes no progress" in "".join(log))
        cluster.sights = [hang(at_work=frozenset({"pixels-4"}))]
        wait_until(lambda: not watcher.progress().alarms)
    finally:
        watcher.stop()
    assert "".join([*log, capfd.readouterr().err]).count("w-0 makes no progress") == 1


def test_of_many_stalled_workers_some_are_named_and_all_are_counted(run):
    watcher = Watcher(run, job_id="7", workers_wanted=1, task_limit_s=600.0, stalled_s=0.1)
    try:
        watcher.start(FakeCluster(*[hang(f"w-{n}", at_work=frozenset({"a"})) for n in range(50)]))
        wait_until(lambda: len(watcher.progress().alarms) > 2)
        alarms = watcher.progress().alarms
    finally:
        watcher.stop()
    assert len(alarms) == 9
    assert alarms[-1] == "42 more workers make no progress"


def test_a_run_directory_that_takes_nothing_for_long_ends_the_run_with_that_word(run, capfd):
    watcher = Watcher(run, job_id="7", workers_wanted=1, task_limit_s=600.0, unwritable_s=0.2)
    (run.path / "jobs").mkdir(exist_ok=True)
    (run.path / "jobs" / "progress.json").mkdir()
    (run.path / "jobs" / "progress.json" / "x").touch()
    watcher.account()
    assert watcher.fault is None
    time.sleep(0.3)
    watcher.account()
    watcher.account()
    assert isinstance(watcher.fault, OutputError)
    assert capfd.readouterr().err.count("alarm:") == 1


def test_the_last_alarms_are_in_the_account_that_stays(run, watcher):
    watcher.start(FakeCluster())
    watcher.alarm("w-0 on n1: MemoryError")
    watcher.stop()
    assert "w-0 on n1: MemoryError" in read_progress(run).alarms


def test_the_account_counts_what_the_driver_told(watcher, run):
    watcher.count.units({"ingest": 1, "pixels": 4})
    watcher.count.units({"ingest": 1, "pixels": 5})
    for event in ("planned", "failed", "planned", "begun", "planned", "begun"):
        watcher.count.dataset(event)
    watcher.count.task("ingest", 0, ok=True, found=True)
    watcher.count.task("pixels", 50, ok=True, found=False)
    watcher.count.task("pixels", 0, ok=False, found=False)
    watcher.count.task("pixels", 0, ok=False, found=False, tried=False)
    watcher.count.dataset("ended")
    watcher.count.dataset("done")
    watcher.account()
    told = read_progress(run)
    assert (told.datasets, told.datasets_done, told.datasets_failed, told.datasets_running) == (3, 1, 1, 1)
    assert told.stages["pixels"].done == told.stages["pixels"].failed == told.stages["pixels"].not_tried == 1
    assert (told.stages["pixels"].total, told.stages["ingest"].total) == (9, 2)
    assert told.stages["pixels"].pixels == 50
    assert told.stages["ingest"].done == 1
    assert told.workers_wanted == 2


def test_status_shows_why_workers_died_although_the_driver_has_ended(run, watcher, hpcxrf):
    append_event(run, "started", job_id="7", host="n1", pid=1, restart_count=0)
    watcher.start(FakeCluster())
    watcher.alarm("w-0 on n1: MemoryError; its step ended with 1")
    watcher.stop()
    append_event(run, "ended", job_id="7", host="n1", exit_code=2, reason="w-0 on n1: scratch /x is not a folder")
    shown = " ".join(hpcxrf("status", run.path).out.split())
    assert "w-0 on n1: MemoryError" in shown
    assert "scratch /x is not a folder" in shown
