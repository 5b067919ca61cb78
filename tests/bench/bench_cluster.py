"""How long a job takes to begin, what scheduling costs, and how it scales; issue of `hpcxrf submit`, figures."""

import re
import time

import dask
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker

from hpcxrf.cluster.local import dask_settings
from hpcxrf.config import check_config
from hpcxrf.pipeline import graph
from hpcxrf.pipeline.driver import run_datasets
from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.records import DatasetJob, TaskRecord
from hpcxrf.store.rundir import create_or_resume
from tests.cluster.conftest import drill  # noqa: F401 (a fixture)

pytestmark = pytest.mark.bench


def sleeping_plan(folder, tiles: int) -> Plan:
    """One scan of so many pixel tasks."""
    raw = {"input": {"files": ["x"]}, "pixels": {"blocks_per_task": 1}, "regions": {"find": []}}
    job = DatasetJob(
        number=0, dataset_id="x-00000000", source=folder / "x", run_dir=folder, config=check_config(raw, "bench"),
        detectors=("0",), shape=(1, 64 * tiles, 256, 1000),
    )  # fmt: skip
    return Plan(jobs=(job,), refusals=(), notes=())


@pytest.fixture
def sleeping(monkeypatch):
    """Tasks that only sleep, run by workers in this process: what is left is the driver's and the scheduler's."""

    def measure(folder, *, workers: int, tiles: int, seconds: float) -> tuple[float, float]:
        def work(job, unit, _after):
            time.sleep(seconds if unit.stage == "pixels" else 0.0)
            return TaskRecord(
                task=unit.task, stage=unit.stage, dataset_id=job.dataset_id, wall_s=0.0, cpu_s=0.0
            )

        monkeypatch.setattr(graph, "_work", work)
        run = create_or_resume(folder, "{}", {})
        common = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
        worker = {"cls": Worker, "options": {**common, "nthreads": 1, "memory_limit": 0}}
        with dask.config.set(dask_settings(dashboard=False)):
            cluster = SpecCluster(
                workers=dict.fromkeys(range(workers), worker),
                scheduler={"cls": Scheduler, "options": {**common, "port": 0, "dashboard": False}},
                silence_logs=False,
            )  # fmt: skip
            with cluster, Client(cluster, set_as_default=False) as client, client.as_current():
                client.wait_for_workers(workers)
                wall, cpu = time.perf_counter(), time.process_time()
                outcomes = run_datasets(
                    sleeping_plan(folder, tiles), run, client, in_flight=8, progress=lambda _p: None
                )
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert [o.failure for o in outcomes] == [None]
        return wall, cpu

    return measure


def test_ten_thousand_tiny_tiles(sleeping, figure, tmp_path):
    wall, cpu = sleeping(tmp_path / "run", workers=8, tiles=10_000, seconds=0.0)
    figure(name="10 000 tiny tiles, 8 workers in one process", value=10_000 / wall, unit="tasks/s")
    figure(
        name="CPU of driver, scheduler and workers together, per tile",
        value=1e3 * cpu / 10_000,
        unit="ms",
    )


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16, 32, 64])
def test_scaling_of_tasks_that_sleep(sleeping, figure, tmp_path, workers):
    tiles = 4 * workers
    wall, _ = sleeping(tmp_path / "run", workers=workers, tiles=tiles, seconds=2.0)
    figure(
        name=f"efficiency, sleeping tiles of 2 s, {workers} workers",
        value=100 * 2.0 * tiles / workers / wall,
        unit="%",
    )


def test_overhead_on_tiles_of_two_seconds(sleeping, figure, tmp_path):
    wall, _ = sleeping(tmp_path / "run", workers=8, tiles=64, seconds=2.0)
    figure(
        name="overhead on tiles of 2 s, 8 workers", value=100 * (wall / 16.0 - 1), unit="% of wall"
    )


@pytest.mark.slurm
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_start_of_a_job_and_resume_of_a_finished_run(drill, figure, workers):  # noqa: F811
    drill.prepare(4, workers=workers)
    before = time.perf_counter()
    drill.submit()
    figure(name="submit returns", value=time.perf_counter() - before, unit="s")
    assert drill.wait_for_end() == "COMPLETED"
    log = (drill.run.logs / f"job-{drill.job_id}.log").read_text()
    ready = re.search(r"workers ready after ([0-9.]+) s", log)
    if ready is not None:
        figure(
            name=f"{workers} workers ready after the start of the job",
            value=float(ready[1]),
            unit="s",
        )
    first = re.search(r"first result after ([0-9.]+) s", log)
    figure(name=f"first result, {workers} workers", value=float(first[1]), unit="s")
    before = time.perf_counter()
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED"
    figure(
        name=f"resume of a finished run, {workers} workers wanted",
        value=time.perf_counter() - before,
        unit="s",
    )
