"""How long a job takes to begin, what scheduling costs, and how it scales; issue of `hpcxrf submit`, figures."""

import os
import re
import time

import pytest
from pixel_scans import made_job, units
from stub_workload import STUB, StubItem, workers_here

from hpcxrf.cluster.local.cluster import local_cluster
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.worker import forget_records
from hpcxrf.store.rundir import create_or_resume
from tests.cluster.conftest import drill  # noqa: F401 (a fixture)

pytestmark = pytest.mark.bench


@pytest.fixture
def sleeping():
    """Measure tasks that only sleep, run by workers in this process: the rest is the driver's and the scheduler's."""

    def measure(folder, *, workers: int, tiles: int, seconds: float) -> tuple[float, float]:
        run = create_or_resume(folder, "{}", {})
        item = StubItem(number=0, run_dir=run.path, parts=tiles, sleep_s=seconds)
        with workers_here(workers) as client:
            wall, cpu = time.perf_counter(), time.process_time()
            ended = run_items(STUB, iter([item]), run, client, in_flight=8)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert ended.done == 1
        return wall, cpu

    return measure


def test_ten_thousand_tiny_tiles(sleeping, figure, tmp_path):
    wall, cpu = sleeping(tmp_path / "run", workers=8, tiles=10_000, seconds=0.0)
    figure(name="10 000 tiny tiles, 8 workers in one process", value=10_000 / wall, unit="tasks/s")
    figure(name="CPU of driver, scheduler and workers together, per tile", value=1e3 * cpu / 10_000, unit="ms")


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16, 32, 64])
def test_scaling_of_tasks_that_sleep(sleeping, figure, tmp_path, workers):
    tiles = 4 * workers
    # The two tasks around the tiles sleep as long as these.
    wall = sleeping(tmp_path / "run", workers=workers, tiles=tiles, seconds=2.0)[0] - 4.0
    figure(
        name=f"efficiency, sleeping tiles of 2 s, {workers} workers", value=100 * 2.0 * tiles / workers / wall, unit="%"
    )


def test_overhead_on_tiles_of_two_seconds(sleeping, figure, tmp_path):
    wall = sleeping(tmp_path / "run", workers=8, tiles=64, seconds=2.0)[0] - 4.0
    figure(name="overhead on tiles of 2 s, 8 workers", value=100 * (wall / 16.0 - 1), unit="% of wall")


def _loaded() -> None:
    """Wait for what the worker imports when it starts."""
    import hpcxrf.pipeline.tasks  # noqa: F401


def pixel_stage(job, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds of a scan's pixel tasks, from workers that are ready to maps on the disk."""
    forget_records(job)
    with local_cluster(workers, 1, job.run_dir, dashboard=False) as handle:
        handle.client.run(_loaded)
        wall = time.perf_counter()
        records = handle.client.gather(
            [handle.client.submit(SCAN.run_unit, job, unit, [], pure=False) for unit in units(job, "pixels")]
        )
        wall = time.perf_counter() - wall
    return wall, sum(record.cpu_s for record in records)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", ["linear", "poisson"])
def test_scaling_of_the_pixel_stage_on_cores(figure, tmp_path, method):
    rows = {"linear": 1024, "poisson": 256}[method]
    job = made_job(tmp_path, (1, rows, 512, 2048), pixels={"method": method, "blocks_per_task": 2})
    SCAN.run_unit(job, units(job, "integrated")[0], [])
    load = os.getloadavg()[0]
    one, two = pixel_stage(job, 1), pixel_stage(job, 2)
    title = f"pixel stage ({method}), 1 to 2 workers"
    told = f"load of the machine before {load:.1f} on {os.cpu_count()} cores"
    figure(name=f"{title}: wall of 1", value=one[0], unit="s", includes=told)
    figure(name=f"{title}: wall of 2", value=two[0], unit="s")
    figure(name=f"{title}: CPU of 1", value=one[1], unit="s")
    figure(name=f"{title}: CPU of 2", value=two[1], unit="s")
    figure(name=f"{title}: efficiency by wall", value=100 * one[0] / two[0] / 2, unit="%")
    # On a machine that does other work wall says what that left; CPU, what two workers cost each other.
    figure(name=f"{title}: efficiency by CPU", value=100 * one[1] / two[1], unit="%")


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
        figure(name=f"{workers} workers ready after the start of the job", value=float(ready[1]), unit="s")
    first = re.search(r"first result after ([0-9.]+) s", log)
    figure(name=f"first result, {workers} workers", value=float(first[1]), unit="s")
    before = time.perf_counter()
    drill.resume()
    assert drill.wait_for_end() == "COMPLETED"
    figure(name=f"resume of a finished run, {workers} workers wanted", value=time.perf_counter() - before, unit="s")
