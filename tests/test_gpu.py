"""The same numbers on a CUDA device, within a ten-thousandth of their uncertainty."""

from dataclasses import replace

import pytest
import torch
from pixel_samples import BASIS, METHODS, SOLVERS, poisson_pixels, prepare
from pixel_scans import made_job, run_stage

from hpcxrf.config.execution import ExecutionConfig
from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.pipeline.pixels.device import Batches, Staging, first_batch, wait_for
from hpcxrf.results.store.maps import open_results
from hpcxrf.store.rundir import RunDir

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch sees; needs a CUDA build"),
]
DEVICE = torch.device("cuda:0")


def pixels(method):
    n = 12 if method == "full" else 5000
    counts = poisson_pixels((3.0 * BASIS.coefficients).expand(n, -1)).to(torch.uint16)
    return counts, torch.ones(n, dtype=torch.bool)


@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_pixels_agree_across_devices(method, errors):
    counts, every = pixels(method)
    here = fit_pixels(counts, every, SOLVERS[method], errors=errors)
    there = fit_pixels(counts.to(DEVICE), every.to(DEVICE), prepare(method, device=DEVICE), errors=errors)
    sigma = fit_pixels(counts, every, SOLVERS["linear"]).sigma
    # A likelihood is maximised to a deviance of 0.005, wherever that is reached first.
    allowed = 2e-2 if method == "poisson" else 1e-4
    assert float(((there.amplitude.cpu() - here.amplitude).abs() / sigma).max()) < allowed
    assert bool((there.status.cpu() == here.status).all())
    torch.testing.assert_close(there.deviance.cpu(), here.deviance, rtol=1e-4, atol=1e-4)
    if errors:
        torch.testing.assert_close(there.sigma.cpu(), here.sigma, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [256, 1024, None])
def test_the_size_of_batches_changes_nothing_that_counts(batch):
    counts, every = pixels("linear")
    solver = prepare("linear", device=DEVICE)
    whole = fit_pixels(counts.to(DEVICE), every.to(DEVICE), solver, batch=8192)
    parts = fit_pixels(counts.to(DEVICE), every.to(DEVICE), solver, batch=batch)
    assert float(((parts.amplitude - whole.amplitude).abs() / whole.sigma).max()) < 1e-4


@pytest.mark.parametrize("errors", [False, True])
def test_a_captured_batch_has_the_numbers_of_its_operations(errors):
    """Not run yet, as there was no CUDA device; `fitting/test_devices.py` holds the same on one that is not there."""
    solver = prepare("linear", device=DEVICE)
    plain = replace(solver, graph=None)
    for seed in range(4):
        counts = poisson_pixels((2.0 * BASIS.coefficients).expand(3000, -1), seed).to(torch.uint16).to(DEVICE)
        measured = torch.arange(3000, device=DEVICE) % 100 != seed
        found = fit_pixels(counts, measured, solver, errors=errors, batch=1024)
        expected = fit_pixels(counts, measured, plain, errors=errors, batch=1024)
        for name in ("amplitude", "sigma", "detection_limit", "deviance", "deviance_z", "status"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4, equal_nan=True
            )
    assert solver.graph.captured is not None


def test_tiles_come_through_pinned_memory_as_they_were_read():
    staging = Staging(device=DEVICE)
    generator = torch.Generator().manual_seed(0)
    for n in (300, 200, 500, 500, 100):
        counts = torch.randint(0, 60_000, (n, 64), generator=generator).to(torch.uint16)
        tile = staging.put(counts.numpy()[:, 5:40], torch.ones(n, dtype=torch.bool).numpy())
        wait_for(tile)
        assert torch.equal(tile.counts.cpu(), counts[:, 5:40])


def test_more_pixels_than_the_memory_holds_are_fitted_in_halves():
    """A batch that no device holds is halved until it fits."""
    free, _ = torch.cuda.mem_get_info(DEVICE)
    too_many = free // (4 * 1024) * 4
    batches = Batches(device=DEVICE, size=1 << (too_many.bit_length()))
    found = batches.run(lambda size: torch.empty((size, 1024), device=DEVICE).shape[0])
    assert batches.notes
    assert found == batches.size
    assert first_batch(DEVICE, SOLVERS["linear"], "linear") is not None


def test_a_pixel_task_on_the_device_writes_the_maps_of_the_cpu(tmp_path):
    maps = {}
    for device in ("cpu", "cuda"):
        job = made_job(tmp_path / device, (1, 70, 90, 512))
        config = replace(job.config, execution=ExecutionConfig(device=device))
        job = replace(job, config=config)
        run_stage(job, "integrated")
        (record,) = run_stage(job, "pixels")
        assert record.device.startswith(device)
        path = RunDir(path=job.run_dir).results_store(job.dataset_id)
        maps[device] = open_results(path)["maps"].load()
    off = abs(maps["cuda"].amplitude - maps["cpu"].amplitude) / maps["cpu"].sigma
    assert float(off.max()) < 1e-4
    assert bool((maps["cuda"].status == maps["cpu"].status).all())
