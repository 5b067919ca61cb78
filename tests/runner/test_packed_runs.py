"""Runs whose finished stores are zips: everything that opens, compares, or redoes them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from scan_units import finished_tasks, run_unit, units_of
from typer.testing import CliRunner

import hpcxrf
from hpcxrf.cli.app import app
from hpcxrf.config.run import check_config
from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.plan_size import count_inodes
from hpcxrf.pipeline.prepare.inputs import input_stamps, is_unchanged
from hpcxrf.pipeline.prepare.previous import require_previous
from hpcxrf.pipeline.workload import reopen
from hpcxrf.results.export.csv_tables import amplitudes_to_csv
from hpcxrf.results.export.source import read_source
from hpcxrf.results.store.maps import is_complete, open_results
from hpcxrf.runner.datasets import append_dataset, summarise
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.journal import finished_line
from hpcxrf.runner.verify import do_again, find_damage
from hpcxrf.runner.worker import forget_records
from hpcxrf.store.gather import list_chunks
from hpcxrf.store.lock import run_lock
from hpcxrf.store.packed import StoreFiles, is_packed, packed_file, unpack_store
from hpcxrf.store.rundir import RETRY, RunDir, create_or_resume
from hpcxrf.store.spectra import open_spectra

OVERRIDE = "CAL_OFFSET: 0.0\nCAL_SLOPE: 0.01\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: Si, Ca, Fe\n"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    channel = np.arange(1200)
    mean = 0.2 + sum(
        height * np.exp(-0.5 * ((channel - place) / 7.0) ** 2)
        for place, height in ((174, 3.0), (369, 5.0), (640, 8.0), (975, 3.0), (1000, 4.0))
    )
    counts = np.random.default_rng(0).poisson(np.broadcast_to(mean, (1, 70, 5, 1200))).astype(np.uint16)
    np.save(folder / "scan.npy", counts)
    (folder / "maps_fit_parameters_override.txt").write_text(OVERRIDE)
    return folder / "scan.npy"


@pytest.fixture(scope="module")
def finished(scan, tmp_path_factory):
    """Job and run directory, all tasks done in this process, with the journal that the driver keeps."""
    raw = {
        "input": {"files": [str(scan)]},
        "regions": {"find": [], "rectangles": {"low": [0, 20, 0, 5]}},
        "fit": {"suggest": False},
        "pixels": {"blocks_per_task": 1},
        "store": {"pack": "zip"},
    }
    (job,) = make_plan(check_config(raw, "test"), tmp_path_factory.mktemp("out") / "run").jobs
    run = create_or_resume(job.run_dir, "", {})
    journal_of(job, run, units_of(job))
    append_dataset(run, summarise(job, ()), 0)
    return job, run


def journal_of(job, run, units):
    done = []
    for unit in units:
        done.append(run_unit(job, unit, done))
        run.append(job.dataset_id, finished_line(done[-1], job, unit))
    forget_records(job)


@pytest.fixture
def copy(finished, tmp_path):
    """The same in a folder of the test's own."""
    job, run = finished
    shutil.copytree(run.path, tmp_path / "run")
    return dataclasses.replace(job, run_dir=tmp_path / "run"), RunDir(path=tmp_path / "run")


def redo(job, run):
    """Do what a resumed driver does."""
    done = finished_tasks(run, job)
    reopen(job, last_lines(run.read_journal(job.dataset_id)))
    left = [unit for unit in units_of(job) if unit.task not in done]
    for unit in left:
        done[unit.task] = run_unit(job, unit, list(done.values()))
        run.append(job.dataset_id, finished_line(done[unit.task], job, unit))
    forget_records(job)
    return [unit.task for unit in left]


def maps_of(run, job):
    return open_results(run.results_store(job.dataset_id))["maps"].to_dataset().load()


def spoil(store, array, chunk):
    """Flip a byte of a chunk of a gathered array in a zip."""
    files, file = StoreFiles(store), packed_file(store)
    shard = files.part(f"{array}/c.0.0.0.0")
    metadata = json.loads(files.part(f"{array}/zarr.json").read())
    content = bytearray(file.read_bytes())
    content[list_chunks(metadata, shard)[chunk].offset] ^= 0xFF
    file.write_bytes(content)


def test_a_finished_dataset_is_two_files_that_everything_opens(finished, tmp_path):
    job, run = finished
    stores = [run.results_store(job.dataset_id), run.spectra_store(job.dataset_id)]
    assert sorted(p for name in ("results", "spectra") for p in (run.path / name).iterdir()) == [
        packed_file(store) for store in stores
    ]
    assert list(find_damage(run)) == []
    assert set(finished_tasks(run, job)) == {unit.task for unit in units_of(job)}
    opened = hpcxrf.open_results(run.path)
    assert list(opened) == [job.dataset_id]
    assert opened.maps().sizes["y"] == 70
    for path in (stores[0], packed_file(stores[0])):
        assert is_complete(path)
        assert set(open_results(path).children) == {"basis", "maps", "parameters", "regions", "spectrum"}
        assert hpcxrf.open_results(path).maps()["amplitude"].identical(opened.maps()["amplitude"])
        require_previous(path)
    amplitudes_to_csv(read_source(stores[0]), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().count("\n") == 1 + 5
    np.testing.assert_array_equal(open_spectra(stores[1]).read_rows([0], slice(None)), np.load(job.source))


def test_a_plan_knows_the_files_and_folders_that_a_dataset_leaves(copy):
    job, run = copy

    def left():
        return len([one for one in run.path.rglob("*") if job.dataset_id in str(one.relative_to(run.path))])

    # Two zips, journal, page, table of regions.
    assert left() == count_inodes(job) == 5
    for store in (run.results_store(job.dataset_id), run.spectra_store(job.dataset_id)):
        unpack_store(store)
    foreseen = count_inodes(dataclasses.replace(job, pack=False))
    assert left() <= foreseen <= 1.5 * left()


def test_an_earlier_fit_has_the_same_stamp_in_either_form(copy, scan):
    job, run = copy
    store = run.results_store(job.dataset_id)
    raw = {"input": {"files": [str(scan)]}, "fit": {"calibration": "previous", "previous": str(store)}}
    stamps = input_stamps(check_config(raw, "test"), open_scan(scan), scan)
    assert any(str(store) in name for name, _ in stamps)
    unpack_store(store)
    assert input_stamps(check_config(raw, "test"), open_scan(scan), scan) == stamps
    assert all(is_unchanged(type(scan)(name), stamp) for name, stamp in stamps)


def test_a_damaged_chunk_in_a_zip_is_the_damage_of_its_task_which_alone_is_done_again(copy):
    job, run = copy
    before, store = maps_of(run, job), run.results_store(job.dataset_id)
    spoil(store, "maps/amplitude", "c/0/0/1/0")
    (damage,) = find_damage(run)
    assert damage.task == "pixels-0-00001-00002"
    do_again(run, damage)
    again = redo(job, run)
    assert again[0] == "pixels-0-00001-00002"
    assert "integrated" not in again
    assert is_packed(store)
    assert not store.exists()
    assert list(find_damage(run)) == []
    assert maps_of(run, job).identical(before)


def test_a_kill_between_the_zip_and_its_journal_line_is_gone_on_from(copy):
    job, run = copy
    before = maps_of(run, job)
    *_, last = units_of(job)
    run.append(job.dataset_id, {"event": RETRY, "task": last.task})
    # Without a new driver: the next worker takes it up.
    run_unit(job, last, [])
    assert is_packed(run.results_store(job.dataset_id))
    forget_records(job)
    assert redo(job, run) == [last.task]
    assert is_packed(run.results_store(job.dataset_id))
    assert list(find_damage(run)) == []
    assert maps_of(run, job).identical(before)


def test_zips_that_cannot_be_opened_are_made_again(copy):
    job, run = copy
    before = maps_of(run, job)
    for store in (run.results_store(job.dataset_id), run.spectra_store(job.dataset_id)):
        packed_file(store).write_bytes(packed_file(store).read_bytes()[:-50])
    with pytest.raises(DamagedStoreError, match="not a zip"):
        open_spectra(run.spectra_store(job.dataset_id))
    assert {damage.task for damage in find_damage(run)} == {unit.task for unit in units_of(job)}
    assert redo(job, run) == [unit.task for unit in units_of(job)]
    assert list(find_damage(run)) == []
    assert maps_of(run, job).amplitude.identical(before.amplitude)


def test_pack_and_unpack_refuse_a_run_at_work_and_change_nothing_else(copy):
    job, run = copy
    store = run.results_store(job.dataset_id)
    with run_lock(run):
        refused = CliRunner().invoke(app, ["unpack", str(run.path)])
    assert isinstance(refused.exception, OutputError)
    assert "another hpcxrf works on this run" in str(refused.exception)
    zipped = packed_file(store).read_bytes()
    for command, packed in (("unpack", False), ("unpack", False), ("pack", True), ("pack", True)):
        done = CliRunner().invoke(app, [command, str(run.path)])
        assert done.exit_code == 0, done.output
        assert [is_packed(one) for one in (store, run.spectra_store(job.dataset_id))] == [packed, packed]
        assert list(find_damage(run)) == []
    assert packed_file(store).read_bytes() == zipped


def test_a_damaged_store_is_named_and_the_others_are_packed(copy):
    job, run = copy
    store, spectra = run.results_store(job.dataset_id), run.spectra_store(job.dataset_id)
    assert CliRunner().invoke(app, ["unpack", str(run.path)]).exit_code == 0
    (store / "zarr.json").write_text('{"attributes": {"compl')
    told = CliRunner().invoke(app, ["pack", str(run.path)])
    assert isinstance(told.exception, OutputError)
    assert str(store) in str(told.exception)
    assert "metadata that cannot be read, not packed" in str(told.exception)
    assert [is_packed(one) for one in (store, spectra)] == [False, True]
