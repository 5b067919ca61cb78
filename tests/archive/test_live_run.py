"""The whole engine on scans that land: the same results as of finished files, and what a first view is."""

import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from landing import watch
from run_samples import run_all, spectrum, write_scan
from stub_workload import workers_here

from hpcxrf.archive.live.landing import Landing
from hpcxrf.archive.live.preview import list_found, view_rows
from hpcxrf.config.run import check_config
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.results.store.maps import open_results
from hpcxrf.runner.datasets import next_number, read_datasets
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.ending import read_end
from hpcxrf.runner.hooks import Hooks
from hpcxrf.store.rundir import FINISHED, RunDir, create_or_resume

SECTIONS = {"regions": {"find": []}, "fit": {"suggest": False}, "report": {"pages": "none"}}


@pytest.fixture
def scans(tmp_path):
    mean = np.stack([[spectrum({"Si": 300.0, "Fe": 900.0, "Zn": 200.0 + 50 * x}) for x in range(4)] for _ in range(4)])
    write_scan(tmp_path / "scans", mean[None], elements=("Si", "Fe", "Zn"))
    return tmp_path / "scans"


def drive(landing: Landing, run: Path, client):
    """The driver over a landing, whose looks end when nothing is left."""
    hooks = Hooks(stopping=landing.stop.is_set, record=landing.ended.put)
    return run_items(SCAN, landing.items(), RunDir(path=run), client, in_flight=4, hooks=hooks)


def make_landing(folder, run, **options):
    watched = watch(folder, run, **SECTIONS, **options)
    landing = watched.landing
    landing.list_found = list_found

    def after_poll():
        watched.now[0] += 1.0
        if landing.polls > 4 and not landing.at_work:
            landing.stop.set()

    landing.after_poll = after_poll
    return watched, landing


def test_the_results_of_a_scan_that_landed_are_those_of_its_finished_file_also_where_it_was_another_one_before(
    scans, tmp_path
):
    file = scans / "scan.npy"
    whole = np.load(file)
    run = tmp_path / "run"
    np.save(file, whole[:, :3])
    with workers_here(1) as client:
        watched, landing = make_landing(scans, run)
        drive(landing, run, client)
        assert watched.told("done") == ["scan.npy"]
        np.save(file, whole)
        watched, landing = make_landing(
            scans, run, kept={one.dataset_id: one for one in read_datasets(RunDir(path=run))}
        )
        landing.number = next_number(RunDir(path=run))
        drive(landing, run, client)
    (record,) = read_datasets(RunDir(path=run))
    assert (record.state, record.shape) == ("done", (1, 4, 4, 1200))
    assert watched.told("replaced") == ["scan.npy"]
    event = next(one for one in watched.events if one.kind == "done")
    assert set(event.values["elements"]) >= {"Fe", "Si", "Zn"}
    assert event.values["late_s"] >= 0

    raw = {"input": {"files": [str(scans)]}, **SECTIONS}
    (job,) = make_plan(check_config(raw, "test"), tmp_path / "finished").jobs
    run_all(job)
    assert job.dataset_id == record.dataset_id
    ours = open_results(RunDir(path=run).results_store(record.dataset_id))
    theirs = open_results(RunDir(path=tmp_path / "finished").results_store(record.dataset_id))
    for group in ("maps", "spectrum", "parameters"):
        xr.testing.assert_identical(
            ours[group].to_dataset().drop_attrs().drop_vars("cpu_s", errors="ignore"),
            theirs[group].to_dataset().drop_attrs().drop_vars("cpu_s", errors="ignore"),
        )
    # Every task of the second file was done once, and a third call has nothing to do.
    finished = [line["task"] for line in RunDir(path=run).read_journal(record.dataset_id) if line["event"] == FINISHED]
    assert sorted(finished) == sorted(2 * sorted(set(finished)))
    third, landing = make_landing(scans, run, kept={record.dataset_id: record})
    landing.stop = threading.Event()
    assert [one.record.dataset_id for one in third.play(5).found] == [record.dataset_id]
    assert third.taken == []


def test_a_first_view_is_the_fit_over_the_rows_that_are_complete(scans):
    config = check_config({"input": {"files": [str(scans)]}, **SECTIONS}, "test")
    seen = view_rows(scans / "scan.npy", config, 2)
    assert seen["rows"] == 2
    assert seen["elements"][0] == "Fe"
    assert set(seen["elements"]) >= {"Si", "Zn"}
    # Of a file that does not say how many rows are complete, the last one may be half written.
    assert view_rows(scans / "scan.npy", config, None)["rows"] == 3
    assert view_rows(scans / "scan.npy", config, 2) == seen


def test_a_folder_in_which_nothing_landed_has_a_report_too(tmp_path):
    run = create_or_resume(tmp_path / "run", "{}", {})
    config = check_config({"input": {"files": [str(tmp_path)]}, **SECTIONS}, "test")
    SCAN.summarise(config, read_end(run))
    assert "0</b> datasets done" in run.report_file.read_text()
