"""What is stored is computed on one thread, whatever the worker has: sums of several threads round as they are cut."""

import numpy as np
import pytest
import torch
from run_samples import jobs_of, spectrum, write_scan
from scan_units import run_unit, units_of

from hpcxrf.pipeline import tasks
from hpcxrf.pipeline.regions import tasks as region_tasks
from hpcxrf.store.rundir import create_or_resume

ELEMENTS = ("Si", "Fe", "Zn")
COMPUTED = (
    (tasks, ("fit_clean", "choose_for_pixels", "photon_variance", "write_spectrum_fits", "write_basis", "_solver")),
    (region_tasks, ("_refine",)),
)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_task_computes_on_one_thread_and_gives_the_worker_its_own_back(tmp_path, monkeypatch, three_threads):
    rich, poor = (spectrum({"Si": 300.0, "Fe": fe, "Zn": 200.0}) for fe in (9000.0, 90.0))
    means = np.where(np.arange(10)[None, :, None, None] < 5, rich, poor) * np.ones((1, 10, 10, 1))
    write_scan(tmp_path / "in", means, elements=ELEMENTS)
    seen = {}

    def watch(module, name):
        real = getattr(module, name)

        def watched(*arguments, **options):
            seen[name] = torch.get_num_threads()
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    for module, names in COMPUTED:
        for name in names:
            watch(module, name)
    (job,) = jobs_of(tmp_path / "in", tmp_path / "out", regions={"find": ["phases"]})
    create_or_resume(job.run_dir, "", {})
    done = []
    for unit in units_of(job):
        done.append(run_unit(job, unit, done))
        assert torch.get_num_threads() == 3
    assert seen == dict.fromkeys((name for _, names in COMPUTED for name in names), 1)
