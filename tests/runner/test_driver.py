"""The driver, with tasks that do nothing but fail when they are told to: what it tries again, and what it leaves."""

import dask
import pytest
from distributed import Client, SpecCluster, Worker

from hpcxrf.cluster.dashboard import guarded_scheduler
from hpcxrf.cluster.failures import ask_again, failures
from hpcxrf.cluster.local.cluster import dask_settings
from hpcxrf.config.run import check_config
from hpcxrf.errors import FitError
from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.records import DatasetJob, TaskRecord
from hpcxrf.pipeline.units import units_of
from hpcxrf.runner import graph
from hpcxrf.runner.driver import run_datasets
from hpcxrf.store.rundir import create_or_resume, left_alone

NAMES = ("good-00000000", "hungry-00000000", "cursed-00000000")


@pytest.fixture
def client():
    """Of two workers in this process."""
    common = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    worker = {"cls": Worker, "options": {**common, "nthreads": 1, "memory_limit": 0}}
    options = {**common, "port": 0, "dashboard": False, "token": "secret"}
    with (
        dask.config.set(dask_settings(dashboard=False)),
        SpecCluster(
            workers={0: worker, 1: worker}, scheduler={"cls": guarded_scheduler, "options": options}, silence_logs=False
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):
        yield client


@pytest.fixture
def drive(client, tmp_path, monkeypatch):
    """Runs the plan once; `broken` says why the pixels of which dataset fail. Gives what was executed, and outcomes."""
    run = create_or_resume(tmp_path / "run", "{}", {})
    raw = {"input": {"files": ["x"]}, "pixels": {"blocks_per_task": 1}, "regions": {"find": []}}
    jobs = tuple(
        DatasetJob(
            number=number,
            dataset_id=name,
            source=tmp_path / name,
            run_dir=run.path,
            config=check_config(raw, "test"),
            detectors=("0",),
            shape=(1, 128, 4, 100),
        )
        for number, name in enumerate(NAMES)
    )
    for name in NAMES:
        run.results_store(name).mkdir()
        (run.results_store(name) / "zarr.json").write_text('{"attributes": {}}')

    def driven(broken, progress=lambda _p: None):
        executed = set()

        def work(job, unit, _after):
            executed.add((job.dataset_id, unit.task))
            if unit.stage == "pixels" and job.dataset_id in broken:
                raise FitError(broken[job.dataset_id])
            return TaskRecord(task=unit.task, stage=unit.stage, dataset_id=job.dataset_id, wall_s=0.0, cpu_s=0.0)

        monkeypatch.setattr(graph, "_work", work)
        plan = Plan(jobs=jobs, refusals=(), notes=())
        outcomes = run_datasets(plan, run, client, in_flight=8, progress=progress)
        return executed, {o.job.dataset_id: o.failure for o in outcomes}

    driven.run, driven.jobs = run, jobs
    return driven


BROKEN = {"hungry-00000000": "out of memory", "cursed-00000000": "is cursed"}


def test_a_failed_dataset_stops_no_other_and_the_next_driver_tries_it_again(drive):
    _, outcomes = drive(BROKEN)
    assert outcomes == {"good-00000000": None, **BROKEN}
    executed, outcomes = drive({})
    assert outcomes == dict.fromkeys(NAMES)
    assert {name for name, _ in executed} == set(BROKEN)
    assert {task for _, task in executed} == {"pixels-0-00000-00001", "pixels-0-00001-00002", "finalise"}


def test_only_what_failed_for_the_reason_given_is_tried_again(drive):
    drive(BROKEN)
    asked = ask_again(drive.run, "MEMORY")
    assert {failure.dataset_id for failure in asked} == {"hungry-00000000"}
    told = []
    executed, outcomes = drive({}, told.append)
    assert {name for name, _ in executed} == {"hungry-00000000"}
    assert outcomes == dict.fromkeys(NAMES) | {"cursed-00000000": "is cursed"}
    assert {f.dataset_id for f in failures(drive.run)} == {"cursed-00000000"}
    # Every task of the plan is accounted for, or the share that is done would stay below what it is.
    assert len(told) == sum(len(units_of(job)) for job in drive.jobs)
    # What a driver that came to its end was asked is history.
    assert left_alone(drive.run) == {}
    executed, outcomes = drive({})
    assert {name for name, _ in executed} == {"cursed-00000000"}
    assert outcomes == dict.fromkeys(NAMES)


def test_tasks_wait_for_a_free_worker_and_never_behind_each_other(drive, client):
    most = []

    def look(_progress):
        most.append(max(len(tasks) for tasks in client.processing().values()))

    drive({}, look)
    assert set(most) <= {0, 1}
