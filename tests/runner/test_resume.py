"""What counts as finished: the same files in, the same bytes out, and nothing of an earlier driver's misfortunes."""

import dataclasses
import json
import os

import numpy as np
import pytest
from scan_units import finished_tasks, run_unit, units_of
from store_damage import spoil_chunks

from hpcxrf.config.run import check_config
from hpcxrf.errors import DamagedStoreError, FitError, InputFileError
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.prepare.inputs import archive_root
from hpcxrf.pipeline.tasks import run_ingest, run_integrated, run_pixels
from hpcxrf.pipeline.workload import reopen
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.journal import finished_line
from hpcxrf.runner.verify import do_again, find_damage
from hpcxrf.runner.worker import (
    ATTEMPTS,
    WORKER_NAME,
    attempt,
    forget_attempts,
    forget_attempts_of,
    forget_records,
    read_kept_record,
)
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.rundir import RETRY, create_or_resume, read_or_set_aside
from hpcxrf.store.spectra import open_spectra

OVERRIDE = "CAL_OFFSET: 0.0\nCAL_SLOPE: 0.01\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: Si, Ca, Fe\n"


@pytest.fixture
def scan(tmp_path):
    """Two detectors, the second without a count, and an override file beside them."""
    folder = tmp_path / "in"
    folder.mkdir()
    channel = np.arange(1200)
    mean = 0.2 + sum(
        height * np.exp(-0.5 * ((channel - place) / 7.0) ** 2)
        for place, height in ((174, 3.0), (369, 5.0), (640, 8.0), (975, 3.0), (1000, 4.0))
    )
    counts = np.zeros((2, 6, 5, 1200), dtype=np.uint16)
    counts[0] = np.random.default_rng(0).poisson(np.broadcast_to(mean, (6, 5, 1200)))
    np.save(folder / "scan.npy", counts)
    (folder / "maps_fit_parameters_override.txt").write_text(OVERRIDE)
    return folder / "scan.npy"


def _plan(scan, tmp_path, fit=None, **pixels):
    raw = {"input": {"files": [str(scan)]}, "fit": fit or {}, "pixels": pixels}
    return make_plan(check_config(raw, "test"), tmp_path / "run").jobs[0]


def _run_all(job):
    """Every task of a dataset in this process, with the journal that the driver keeps."""
    run = create_or_resume(job.run_dir, "", {})
    done = []
    for unit in units_of(job):
        record = run_unit(job, unit, done)
        done.append(record)
        run.append(job.dataset_id, finished_line(record, job, unit))
    return run


def test_a_finished_dataset_has_nothing_left_to_do(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    assert set(finished_tasks(run, job)) == {u.task for u in units_of(job)}


def test_chunks_of_nothing_but_fill_values_count_as_written(scan, tmp_path):
    # No deviance, and a detector without counts: such chunks have no file.
    job = _plan(scan, tmp_path, deviance=False)
    run = _run_all(job)
    assert set(finished_tasks(run, job)) == {u.task for u in units_of(job)}


def test_a_chunk_that_was_lost_is_found_by_verify_and_done_again_with_what_rests_on_it(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    assert list(find_damage(run)) == []
    maps = run.results_store(job.dataset_id) / "maps" / "amplitude"
    lost = spoil_chunks(maps, "c/0/")[0]
    # A journal line is trusted: contents are compared where somebody asks for it.
    assert set(finished_tasks(run, job)) == {u.task for u in units_of(job)}
    [damage] = find_damage(run)
    assert (damage.task, damage.path) == ("pixels-sum-00000-00001", str(lost.relative_to(run.path)))
    do_again(run, damage)
    left = {u.task for u in units_of(job)} - set(finished_tasks(run, job))
    assert {"pixels-sum-00000-00001", "regions", "finalise"} <= left
    assert not left & {"ingest", "integrated", "pixels-1-00000-00001"}


def test_a_journal_that_cannot_be_read_is_found_by_verify_and_its_dataset_is_done_again_whole(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    journal = run.journal_file(job.dataset_id)
    lines = journal.read_bytes().splitlines(keepends=True)
    garbled = lines[0] + b'{"event":"fin\x00\n' + b"".join(lines[1:])
    journal.write_bytes(garbled)
    [damage] = find_damage(run)
    assert (damage.dataset_id, damage.task) == (job.dataset_id, "journal")
    assert run.path / damage.path == journal
    do_again(run, damage)
    # Nothing is added to what cannot be read.
    assert journal.read_bytes() == garbled
    assert read_or_set_aside(run, job.dataset_id) == []
    assert journal.with_suffix(".damaged").read_bytes() == garbled


def test_spectra_with_a_lost_band_name_it_and_are_ingested_again(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    store = run.spectra_store(job.dataset_id)
    band = min((store / "counts").glob("c.*"))
    band.unlink()
    [damage] = find_damage(run)
    assert (damage.task, damage.path) == ("ingest", str(band.relative_to(run.path)))
    with pytest.raises(DamagedStoreError, match=f"{store}: y-bands 0 of 1 are gone"):
        run_pixels(job, units_of(job)[2].work, [])
    run.append(job.dataset_id, {"event": RETRY, "task": "ingest", "damaged": True})
    reopen(job, last_lines(run.read_journal(job.dataset_id)))
    assert finished_tasks(run, job) == {}
    assert not store.exists()


def test_results_whose_root_is_damaged_are_made_again(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    store = run.results_store(job.dataset_id)
    (store / "zarr.json").write_text('{"attributes": {"compl')
    reopen(job, last_lines(run.read_journal(job.dataset_id)))
    assert not store.exists()
    assert "ingest" in finished_tasks(run, job)
    assert "integrated" not in finished_tasks(run, job)


def test_spectra_that_cannot_be_decoded_name_store_and_rows(scan, tmp_path):
    job = _plan(scan, tmp_path)
    store = _run_all(job).spectra_store(job.dataset_id)
    band = min((store / "counts").glob("c.*"))
    band.write_bytes(b"\0" * band.stat().st_size)
    with pytest.raises(DamagedStoreError, match=f"{store}: counts of rows 0 to 5 cannot be read"):
        open_spectra(store).read_rows([0], slice(0, 6))


def test_flipped_bits_of_stored_counts_are_never_read_as_counts(scan, tmp_path):
    job = _plan(scan, tmp_path)
    store = _run_all(job).spectra_store(job.dataset_id)
    band = min((store / "counts").glob("c.*"))
    good = band.read_bytes()
    places = np.linspace(0, len(good) - 1, 60).astype(int)
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 0x41
        band.write_bytes(bad)
        with pytest.raises(DamagedStoreError, match=f"{store}: counts of rows 0 to 5 cannot be read"):
            open_spectra(store).read_rows([0, 1], slice(0, 6))


def test_a_scan_that_changes_while_the_run_goes_on_is_noticed_at_the_end_of_its_ingest(scan, tmp_path):
    job = _plan(scan, tmp_path)
    create_or_resume(job.run_dir, "", {})
    np.save(scan, np.load(scan)[:, :, :4])
    with pytest.raises(InputFileError, match=r"scan\.npy changed during the run"):
        run_ingest(dataclasses.replace(job, shape=(2, 6, 4, 1200)))


def test_a_scan_that_was_replaced_is_not_finished(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    np.save(scan, np.load(scan)[:, :, :4])
    later = _plan(scan, tmp_path)
    assert finished_tasks(run, later) == {}


def test_a_scan_that_was_touched_only_is_verified_and_not_refused(scan, tmp_path):
    job = _plan(scan, tmp_path)
    _run_all(job)
    os.utime(scan, ns=(1, 1))
    later = _plan(scan, tmp_path)
    assert later.stamps != job.stamps
    assert run_ingest(later).bytes_written > 0


def test_an_override_file_that_was_edited_undoes_the_fits(scan, tmp_path):
    job = _plan(scan, tmp_path)
    run = _run_all(job)
    override = scan.with_name("maps_fit_parameters_override.txt")
    override.write_text(OVERRIDE.replace("Si, Ca, Fe", "Si, Ca, Fe, Mn"))
    later = _plan(scan, tmp_path)
    assert "integrated" not in finished_tasks(run, later)
    record = run_integrated(later, [])
    store = run.results_store(job.dataset_id)
    names = json.loads((store / "maps" / "amplitude" / "zarr.json").read_text())["shape"]
    assert names[1] == 4 + 2
    [unit] = [unit for unit in units_of(later) if unit.task == "integrated"]
    assert finished_line(record, later, unit)["made_from"] == {"stamps": dict(later.stamps)}


def test_a_detector_without_counts_has_no_theta_in_the_store_and_can_be_drawn_and_exported(scan, tmp_path):
    import xarray as xr

    from hpcxrf.results.export.csv_tables import parameters_to_csv
    from hpcxrf.results.export.source import read_source
    from hpcxrf.results.report.plots import draw_spectrum_figure, encode

    job = _plan(scan, tmp_path)
    store = _run_all(job).results_store(job.dataset_id)
    attributes = json.loads((store / "zarr.json").read_text())["attributes"]
    assert attributes["theta_by_detector"]["1"] is None
    assert attributes["theta_by_detector"]["0"]["energy_slope"] == pytest.approx(0.01, rel=0.01)
    with xr.open_zarr(store, group="parameters") as table:
        assert np.isnan(table["value"].sel(detector="1")).all()
        assert np.isfinite(table["value"].sel(detector="0")).all()
        assert np.isfinite(table["initial"]).all()
    parameters_to_csv(read_source(store), tmp_path / "theta.csv")
    assert "1,energy_slope,keV/channel,," in (tmp_path / "theta.csv").read_text()
    with xr.open_zarr(store, group="spectrum") as spectrum:
        assert encode(draw_spectrum_figure(spectrum, "1", "log"))


@pytest.mark.parametrize(("pages", "drawn"), [("all", True), ("failed", False), ("none", False)])
def test_a_good_dataset_has_the_page_that_the_run_file_asks_for(scan, tmp_path, pages, drawn):
    raw = {"input": {"files": [str(scan)]}, "regions": {"find": []}, "report": {"pages": pages}}
    job = make_plan(check_config(raw, "test"), tmp_path / "run").jobs[0]
    run = _run_all(job)
    assert run.page_file(job.dataset_id).exists() == drawn
    assert (run.results_store(job.dataset_id) / "zarr.json").exists()


def test_an_earlier_fit_that_changed_undoes_what_was_started_from_it(scan, tmp_path):
    counts = np.load(scan)
    counts[1] = counts[0]
    np.save(scan, counts)
    earlier = _plan(scan, tmp_path / "earlier")
    store = _run_all(earlier).results_store(earlier.dataset_id)
    fit = {"calibration": "previous", "previous": str(store)}
    job = _plan(scan, tmp_path, fit=fit)
    run = _run_all(job)
    assert set(finished_tasks(run, _plan(scan, tmp_path, fit=fit))) == {u.task for u in units_of(job)}
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["theta_by_detector"]["0"]["compton_angle"] += 1.0
    (store / "zarr.json").write_text(json.dumps(root))
    later = _plan(scan, tmp_path, fit=fit)
    assert finished_tasks(run, later) == {}


def test_three_deaths_under_one_driver_end_a_task_and_a_new_driver_begins_anew(scan, tmp_path):
    job = _plan(scan, tmp_path)
    create_or_resume(job.run_dir, "", {})
    folder = job.run_dir / ATTEMPTS
    folder.mkdir()
    for n in range(3):
        (folder / f"{job.dataset_id}.ingest.{n}").touch()
    with pytest.raises(FitError, match="ended its worker 3 times"), attempt(job, "ingest"):
        pass
    forget_attempts(job.run_dir)
    with attempt(job, "ingest"):
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []


def test_a_task_that_ends_well_forgets_the_deaths_before_it_and_no_other_tasks(scan, tmp_path):
    job = _plan(scan, tmp_path)
    folder = job.run_dir / ATTEMPTS
    folder.mkdir(parents=True)
    for task in ("ingest", "integrated"):
        (folder / f"{job.dataset_id}.{task}.0").touch()
    with attempt(job, "ingest"):
        assert len(list(folder.iterdir())) == 3
    assert [marker.name for marker in folder.iterdir()] == [f"{job.dataset_id}.integrated.0"]


def test_a_task_that_is_run_again_under_the_same_driver_undoes_nothing(scan, tmp_path):
    # As Dask does when the worker dies that holds the result: the integrated fit would remove the pixels.
    job = _plan(scan, tmp_path, deviance=False)
    run = _run_all(job)
    before = tree_sha256(run.results_store(job.dataset_id))
    records = [run_unit(job, unit, []) for unit in units_of(job)]
    assert tree_sha256(run.results_store(job.dataset_id)) == before
    assert records == list(finished_tasks(run, job).values())
    forget_records(job)
    assert read_kept_record(job, "integrated") is None


def test_a_new_driver_trusts_no_record_that_an_earlier_one_kept(scan, tmp_path):
    job = _plan(scan, tmp_path)
    _run_all(job)
    assert read_kept_record(job, "integrated") is not None
    forget_attempts(job.run_dir)
    assert read_kept_record(job, "integrated") is None


def test_what_a_worker_of_a_lost_node_was_at_counts_as_no_attempt(scan, tmp_path, monkeypatch):
    job = _plan(scan, tmp_path)
    create_or_resume(job.run_dir, "", {})
    folder = job.run_dir / ATTEMPTS
    folder.mkdir()
    monkeypatch.setenv(WORKER_NAME, "worker-1")
    with attempt(job, "ingest"):
        [marker] = folder.iterdir()
        (folder / f"{job.dataset_id}.other.0").write_text("worker-11")
        assert forget_attempts_of(job.run_dir, "worker-1") == 1
        assert not marker.exists()
    assert [m.name for m in folder.iterdir()] == [f"{job.dataset_id}.other.0"]


def test_an_exception_leaves_no_marker(scan, tmp_path):
    job = _plan(scan, tmp_path)
    create_or_resume(job.run_dir, "", {})
    with pytest.raises(RuntimeError), attempt(job, "ingest"):
        raise RuntimeError
    assert list((job.run_dir / ATTEMPTS).iterdir()) == []


def test_the_archive_is_what_was_given_and_not_what_was_found(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert archive_root([str(tmp_path / "a")]) == tmp_path / "a"
    assert archive_root([str(tmp_path / "a" / "*" / "x.mda")]) == tmp_path / "a"
    assert archive_root([str(tmp_path / "a" / "x.mda")]) == tmp_path / "a"
    assert archive_root([str(tmp_path / "a"), str(tmp_path / "c" / "y.mda")]) == tmp_path


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"gamma_offset": 0.0}, "gamma_offset is 0, must lie between 1 and 6"),
        ({"energy_slope": 0.0, "fwhm_fanoprime": -1e-3}, "fwhm_fanoprime is -0.001"),
        ({"energy_quadratic": -9e-6}, "makes the axis fall"),
        ({"energy_slop": 0.01}, "no parameter is called energy_slop"),
    ],
)
def test_starting_values_that_no_detector_has_are_refused(scan, tmp_path, start, said):
    from hpcxrf.errors import ConfigError
    from hpcxrf.pipeline.single import fit_file

    raw = {"input": {"files": [str(scan)]}, "fit": {"start": start}}
    with pytest.raises(ConfigError, match=said):
        fit_file(scan, check_config(raw, "test"), "0")


def test_shapes_of_an_override_file_that_no_detector_has_are_moved_and_it_says_so(scan, tmp_path):
    from hpcxrf.pipeline.single import fit_file

    override = scan.with_name("maps_fit_parameters_override.txt")
    override.write_text(OVERRIDE + "GAMMA_OFFSET: 0.0\nFWHM_OFFSET: 0.0\n")
    raw = {"input": {"files": [str(scan)]}}
    result = fit_file(scan, check_config(raw, "test"), "0")
    assert result.fit.r2 > 0.9
    assert any("gamma_offset 0 is taken as 1" in note.text for note in result.notes)
