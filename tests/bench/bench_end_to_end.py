"""From the spectra store on disk to finished maps on disk: a scan of 300 000 pixels, two workers of one thread.

The scan is drawn from 64 mixtures of eight families and ingested before the clock starts. Counted are the integrated
fit, the maps (linear, with sigma, detection limits and status) and what closes the results store, tasks and scheduling
included; starting the workers is not.
"""

import time

import pytest
from distributed import wait
from pixel_scans import made_job

from hpcxrf.cluster.local.cluster import local_cluster
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.results.store.maps import is_complete
from hpcxrf.runner.graph import submit
from hpcxrf.runner.records import TaskRecord
from hpcxrf.store.files import tree_bytes
from hpcxrf.store.rundir import RunDir

pytestmark = pytest.mark.bench

SHAPE = (1, 500, 600, 2048)
WORKERS = 2
# With the pixels between them: of one scan nothing overlaps them, of many the pixels of others do.
ONE_AFTER_ANOTHER = {"integrated": "the integrated fit", "finalise": "closing the store and drawing its page"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("deviance", [False, True])
def test_from_the_store_to_the_maps(tmp_path, figure, deviance):
    job = made_job(tmp_path, SHAPE, pixels={"deviance": deviance})
    run = RunDir(path=job.run_dir)
    ingested = TaskRecord(task="ingest", stage="ingest", dataset_id=job.dataset_id, wall_s=0.0, cpu_s=0.0)
    with local_cluster(WORKERS, 1, job.run_dir, dashboard=False) as handle:
        # The first task of a worker imports the libraries: not what is measured.
        wait(handle.client.submit(time.sleep, 0.1, key=str(i)) for i in range(WORKERS))
        wait([handle.client.submit(_import, i) for i in range(8 * WORKERS)])
        began = time.perf_counter()
        futures = submit(handle.client, SCAN.run_unit, job, SCAN.units_of(job), {"ingest": ingested}, "bench")
        records = handle.client.gather(list(futures.values()))
        wall = time.perf_counter() - began
    assert is_complete(run.results_store(job.dataset_id))
    pixels = [r for r in records if r.stage == "pixels"]
    steps = {name: sum(getattr(r, f"{name}_s") for r in pixels) for name in ("read", "fit", "write")}
    longest = max(steps.values()) / WORKERS
    cpu = sum(r.cpu_s for r in records)
    stored = tree_bytes(run.spectra_store(job.dataset_id))
    n_pixels = SHAPE[1] * SHAPE[2]
    title = f"end to end, {n_pixels} x {SHAPE[3]}{', deviance' if deviance else ''}"
    told = {"threads": WORKERS, "includes": __doc__.split("\n\n", 1)[1].replace("\n", " ").strip()}
    figure(name=f"{title}: wall", value=wall, unit="s", **told)
    figure(name=f"{title}: spectra", value=n_pixels / wall, unit="spectra / s", threads=WORKERS)
    figure(name=f"{title}: store on disk", value=stored, unit="B", threads=WORKERS)
    for stage in ("integrated", "finalise"):
        seconds = sum(r.wall_s for r in records if r.stage == stage)
        figure(name=f"{title}: of it {ONE_AFTER_ANOTHER[stage]}", value=seconds, unit="s")
    for name, seconds in steps.items():
        figure(
            name=f"{title}: {name}, of all three", value=100 * seconds / sum(steps.values()), unit="%", threads=WORKERS
        )
    figure(
        name=f"{title}: CPU efficiency",
        value=100 * cpu / (WORKERS * wall),
        unit="%",
        threads=WORKERS,
        includes="CPU seconds of all tasks / (wall seconds x workers)",
    )
    pixel_wall = sum(r.wall_s for r in pixels) / WORKERS
    figure(
        name=f"{title}: pixel tasks' wall / longest step",
        value=pixel_wall / longest,
        unit="",
        threads=WORKERS,
        includes="1: reading, fitting and writing overlap wholly; their sum if not at all",
    )
    figure(name=f"{title}: pixel tasks", value=len(pixels), unit="", threads=WORKERS)


def _import(i: int) -> int:
    import hpcxrf.pipeline.regions.tasks
    import hpcxrf.pipeline.tasks
    from hpcxrf.fitting.pixels.compiled import load_map_kernels
    from hpcxrf.fitting.pixels.expected_deviance import load_deviance_kernel
    from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels

    # As the thread does that begins with the ingest of a run.
    load_spectrum_kernels()
    load_map_kernels()
    load_deviance_kernel()
    return i + len(hpcxrf.pipeline.tasks.__name__)
