"""Spectra per second of every pixel method on one CUDA device, and the table of them in README.md beside this file.

Counted in wall seconds after a synchronisation: from device memory (uint16 counts there, results there), and from the
spectra store to the maps by one worker, with the bandwidth of copies from pinned memory as the limit.
"""

import time
from pathlib import Path

import pytest
import torch
from bench_pixels import SHAPE, inside, solver_of
from bench_pixels import cube as cube  # noqa: PLC0414 (a fixture)
from bench_pixels import fitted as fitted  # noqa: PLC0414 (a fixture)
from bench_pixels import table as table  # noqa: PLC0414 (a fixture)
from pixel_scans import made_job, run_stage

from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.pipeline.pixels.device import first_batch

pytestmark = [
    pytest.mark.bench,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch sees"),
]
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- GPU table -->", "<!-- end of GPU table -->"
PIXELS = {"linear": 40_000, "nnls": 40_000, "poisson": 40_000, "nonlinear": 40_000, "full": 512}


def seconds(run, device, repeats=5):
    best = float("inf")
    for _ in range(repeats):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        run()
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best


@pytest.mark.timeout(900)
def test_all_methods_on_one_device(cube, fitted, figure, tmp_path):
    device = torch.device("cuda:0")
    counts = inside(cube, fitted, dtype=torch.uint16).contiguous()
    pinned, there = counts.pin_memory(), counts.to(device)
    copy_s = seconds(lambda: there.copy_(pinned, non_blocking=True), device)
    rows = [("copy from pinned memory", len(counts) / copy_s, f"{counts.nbytes / copy_s:.3g} B/s")]
    for method, n in PIXELS.items():
        solver = solver_of(method, fitted, 4, len(cube[0]), device)
        for errors in (False, True):
            every = torch.ones(n, dtype=torch.bool, device=device)
            some, batch = there[:n], first_batch(device, solver, method)
            took = seconds(
                lambda some=some, every=every, solver=solver, errors=errors, batch=batch: fit_pixels(
                    some, every, solver, errors=errors, deviance=errors, batch=batch
                ),
                device,
            )
            included = "with sigma, limits, status, deviance" if errors else "amplitudes, status"
            rows.append((f"{method}, from device memory", n / took, included))
    job = made_job(tmp_path, (1, SHAPE[0], SHAPE[1], SHAPE[2]), execution={"device": "cuda"})
    run_stage(job, "integrated")
    began = time.perf_counter()
    records = run_stage(job, "pixels")
    wall = time.perf_counter() - began
    rows.append(("linear, store to maps, one worker", sum(r.pixels for r in records) / wall, ""))
    for name, rate, included in rows:
        figure(name=f"GPU: {name}", value=rate, unit="spectra / s", includes=included)
    write_table(torch.cuda.get_device_name(device), rows)


def write_table(device, rows):
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = [f"Measured on one {device}, torch {torch.__version__}:", ""]
    lines += ["| what | spectra / s | included |", "|---|---|---|"]
    lines += [f"| {name} | {rate:.3g} | {included} |" for name, rate, included in rows]
    README.write_text(before + "\n".join([BEGIN, *lines, END]) + after, encoding="utf-8")
