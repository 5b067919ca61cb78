"""A small scan in one task: to the last bit what its tasks give one by one, and nothing else left anywhere."""

import dataclasses
import re

import numpy as np
import pytest
from normalise_samples import plan_timed, write_timed_scan
from run_samples import jobs_of, spectrum, write_scan
from scan_units import run_unit, units_of

import hpcxrf.pipeline.joined
from hpcxrf.archive.same import compare_stores
from hpcxrf.config.run import check_config
from hpcxrf.errors import OutputError
from hpcxrf.pipeline.joined import MOST_BYTES, is_joined, may_join, run_joined
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.records import Donor
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner import joined as runner_joined
from hpcxrf.runner.worker import forget_records
from hpcxrf.store import scratch
from hpcxrf.store.packed import is_packed, packed_file
from hpcxrf.store.rundir import RunDir, create_or_resume
from hpcxrf.store.spectra import open_spectra

ELEMENTS = ("Si", "Fe", "Zn")
PACKED = {"store": {"pack": "zip"}}


@pytest.fixture
def memory(tmp_path, monkeypatch):
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(scratch, "MEMORY", place)
    return place


@pytest.fixture
def scan(tmp_path):
    rich, poor = (spectrum({"Si": 300.0, "Fe": fe, "Zn": 200.0}) for fe in (3000.0, 30.0))
    write_scan(tmp_path / "in", [[[rich] * 6 + [poor] * 6] * 9] * 2, elements=ELEMENTS)
    return tmp_path / "in"


def both_ways(jobs):
    """The same scan in two run directories, in one task and by all of its own; jobs and records of both."""
    made = []
    for job in jobs:
        run = create_or_resume(job.run_dir, "input: {}\n", {})
        run.run_file.write_text("input: {}\n")
        done = []
        if not made:
            done = run_joined(job, units_of(job))
        else:
            for unit in units_of(job):
                done.append(run_unit(job, unit, done))
        made.append((job, done))
    return made


def require_same(made):
    (one, together), (other, apart) = made
    dataset_id, (first, second) = one.dataset_id, (RunDir(path=job.run_dir) for job in (one, other))
    assert is_packed(first.results_store(dataset_id))
    assert is_packed(first.spectra_store(dataset_id))
    same = compare_stores(first.results_store(dataset_id), second.results_store(dataset_id))
    assert same.compared > 30
    assert (same.differing, same.attributes) == ((), ())
    files = [packed_file(run.spectra_store(dataset_id)).read_bytes() for run in (first, second)]
    assert files[0] == files[1]
    # The seconds are of these very tasks.
    seconds = r"<dt>Time</dt>.*|<b>[\d.]+ s</b>"
    pages = [re.sub(seconds, "", run.page_file(dataset_id).read_text()) for run in (first, second)]
    assert pages[0] == pages[1]
    assert [record.task for record in together] == [unit.task for unit in units_of(one)]
    for mine, theirs in zip(together, apart, strict=True):
        assert without_seconds(mine.facts) == without_seconds(theirs.facts)
        assert mine.notes == theirs.notes
        assert mine.pixels == theirs.pixels
        named = [{k for k in record.checksums or {} if "cpu_s" not in k} for record in (mine, theirs)]
        assert named[0] == named[1]


def without_seconds(facts):
    if isinstance(facts, dict):
        return {name: without_seconds(value) for name, value in facts.items() if name != "cpu_s"}
    return [without_seconds(one) for one in facts] if isinstance(facts, list) else facts


def test_a_scan_with_regions_and_a_page_is_the_same_in_one_task(scan, tmp_path, memory):
    sections = {**PACKED, "regions": {"find": ["phases"]}, "fit": {"suggest": True}}
    made = both_ways([jobs_of(scan, tmp_path / name, **sections)[0] for name in ("one", "other")])
    require_same(made)
    tables = [RunDir(path=job.run_dir).regions_table(job.dataset_id) for job, _ in made]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    # In the run nothing but what a scan leaves, in memory nothing.
    left = {str(f.relative_to(tmp_path / "one")) for f in (tmp_path / "one").rglob("*") if f.is_file()}
    dataset_id = made[0][0].dataset_id
    stores = {f"{kind}/{dataset_id}.zarr.zip" for kind in ("spectra", "results")}
    wanted = stores | {f"pages/{dataset_id}.html", f"tables/{dataset_id}.regions.csv", "run.yaml", "effective.json"}
    assert left == wanted
    assert list(memory.iterdir()) == []


def test_normalised_maps_are_the_same_in_one_task(tmp_path, memory):
    write_timed_scan(tmp_path / "in")
    wanted = {"i0": "us_ic", "reference": 2e5}
    jobs = [plan_timed(tmp_path / "in", tmp_path / name, wanted, **PACKED).jobs[0] for name in ("one", "other")]
    assert may_join(jobs[0])
    require_same(both_ways(jobs))


@pytest.mark.parametrize("n_done", [1, 2, None])
def test_what_an_earlier_driver_left_is_for_the_tasks_one_by_one(scan, tmp_path, memory, n_done):
    (job,) = jobs_of(scan, tmp_path / "one", **PACKED)
    create_or_resume(job.run_dir, "input: {}\n", {})
    begun = []
    for unit in units_of(job)[:n_done]:
        begun.append(run_unit(job, unit, begun))
    assert run_joined(job, units_of(job)) is None


def test_a_finished_scan_is_not_lost_to_another_one_of_its_name(scan, tmp_path, memory):
    (job,) = jobs_of(scan, tmp_path / "one", **PACKED)
    run = create_or_resume(job.run_dir, "input: {}\n", {})
    runner_joined.run_joined(SCAN.run_unit, SCAN.run_joined, job, units_of(job))
    forget_records(job)
    counts = open_spectra(run.spectra_store(job.dataset_id)).read_rows([0, 1], slice(None))
    results = packed_file(run.results_store(job.dataset_id)).read_bytes()
    write_scan(scan, [[[spectrum({"Si": 50.0, "Fe": 900.0, "Zn": 20.0})] * 12] * 9] * 2, elements=ELEMENTS, seed=4)
    (changed,) = jobs_of(scan, tmp_path / "one", **PACKED)
    [outcome] = runner_joined.run_joined(SCAN.run_unit, SCAN.run_joined, changed, units_of(changed))
    assert "another scan" in outcome.reason
    np.testing.assert_array_equal(
        open_spectra(run.spectra_store(job.dataset_id)).read_rows([0, 1], slice(None)), counts
    )
    assert packed_file(run.results_store(job.dataset_id)).read_bytes() == results


def test_a_scan_for_which_a_worker_has_no_memory_in_one_task_keeps_its_tasks(tmp_path):
    mean = spectrum({"Si": 300.0, "Fe": 30.0, "Zn": 200.0}, n_channels=1024)
    write_scan(tmp_path / "in", [[[mean] * 80] * 80], elements=ELEMENTS)
    raw = {"input": {"files": [str(tmp_path / "in" / "scan.npy")]}, **PACKED}
    plans = {
        mb: make_plan(check_config(raw, "test"), tmp_path / "one", worker_bytes=mb << 20) for mb in range(500, 900, 10)
    }
    found = [plan.jobs[0].join if plan.jobs else None for plan in plans.values()]
    # With more memory first refused, then in tasks of its own, then in one.
    assert list(dict.fromkeys(found)) == [None, False, True]


def test_a_scan_that_fails_says_what_its_task_says_and_keeps_what_was_finished(scan, tmp_path, memory, monkeypatch):
    (job,) = jobs_of(scan, tmp_path / "one", **PACKED)
    create_or_resume(job.run_dir, "input: {}\n", {})

    def refuse(*_of, **_named):
        raise OutputError("x.zarr: no room; make some")

    monkeypatch.setattr("hpcxrf.pipeline.tasks.write_spectrum_fits", refuse)
    outcomes = runner_joined.run_joined(SCAN.run_unit, SCAN.run_joined, job, units_of(job))
    assert [(one.task, one.reason) for one in outcomes] == [
        ("ingest", ""),
        ("integrated", "x.zarr: no room; make some"),
    ]
    assert RunDir(path=job.run_dir).spectra_store(job.dataset_id).is_dir()
    assert list(memory.iterdir()) == []


def test_a_full_memory_ends_in_the_tasks_one_by_one(scan, tmp_path, memory, monkeypatch):
    (job,) = jobs_of(scan, tmp_path / "one", **PACKED)
    create_or_resume(job.run_dir, "input: {}\n", {})

    def fill(**_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hpcxrf.pipeline.joined, "scratch_folder", fill)
    outcomes = runner_joined.run_joined(SCAN.run_unit, SCAN.run_joined, job, units_of(job))
    assert all(one.record is not None for one in outcomes)
    assert is_packed(RunDir(path=job.run_dir).results_store(job.dataset_id))


def test_a_worker_with_a_gpu_does_the_tasks_one_by_one(scan, tmp_path, monkeypatch):
    import torch

    (job,) = jobs_of(scan, tmp_path / "one", **PACKED)
    monkeypatch.setattr(hpcxrf.pipeline.joined, "choose_device", lambda _config: torch.device("cuda:0"))
    assert run_joined(job, units_of(job)) is None


def test_what_may_join_is_small_and_needs_nothing_of_others(scan, tmp_path):
    (job,) = jobs_of(scan, tmp_path / "one", **PACKED)

    def changed(**sections):
        raw = {"input": {"files": ["x.npy"]}, **PACKED, **sections}
        return dataclasses.replace(job, config=check_config(raw, "test"))

    assert may_join(job)
    assert may_join(changed())
    side = int((MOST_BYTES / 2 / 2048) ** 0.5)
    assert may_join(dataclasses.replace(job, shape=(1, side, side, 2048)))
    assert is_joined(dataclasses.replace(job, join=True))
    assert not is_joined(dataclasses.replace(job, join=False))
    # The plan of an archive gives a donor to a scan that was opened before.
    assert not is_joined(dataclasses.replace(job, join=True, donor=Donor(dataset_id="a-00000000", stamp="1")))
    others = [
        dataclasses.replace(job, pack=False),
        dataclasses.replace(job, shape=(1, side, side + 1, 2048)),
        dataclasses.replace(job, donor=Donor(dataset_id="a-00000000", stamp="1")),
        dataclasses.replace(job, after=(3,)),
        changed(execution={"join_tasks": "never"}),
        changed(execution={"device": "cuda"}),
        changed(fit={"posterior": "hmc"}),
        dataclasses.replace(changed(pixels={"method": "full"}), shape=(1, 64, 64, 2048)),
    ]
    assert [may_join(one) for one in others] == [False] * len(others)
