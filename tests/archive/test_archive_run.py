"""Runs over a catalogue, from files to the index: what is done, what is done again, and what a donor is for."""

import dataclasses
import json
import sqlite3

import numpy as np
import pytest
from catalogue_samples import ELEMENTS, touch_later, write_archive, write_catalogue
from stub_workload import workers_here

import hpcxrf
from hpcxrf.cluster.failures import ask_again
from hpcxrf.config.run import check_config
from hpcxrf.errors import OutputError
from hpcxrf.pipeline.index import write_index
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.datasets import read_datasets, read_kept
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.dry_run import explain_run
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.store.packed import read_root
from hpcxrf.store.rundir import FINISHED, RunDir, create_or_resume

pytestmark = pytest.mark.timeout(900)

NAMES = ("a", "b", "c", "d")


def config_of(catalogue, **sections):
    raw = {
        "input": {"catalogue": str(catalogue)},
        "regions": {"find": []},
        "report": {"pages": "none"},
        "pixels": {"deviance": False},
        "store": {"pack": "zip"},
        "execution": {"device": "cpu"},
    }
    fit = {"suggest": False, "warm_start": "donor"} | sections.pop("fit", {})
    return check_config(raw | {"fit": fit} | sections, "x.yaml")


@pytest.fixture(scope="module")
def client():
    with workers_here(1) as client:
        yield client


def drive(client, config, folder):
    """Run what is missing; tasks that were run, by stem of the file."""
    run = create_or_resume(folder, "{}", SCAN.lasting(config), fixed=SCAN.fixed(config))
    before = count_lines(run)
    request = PlanRequest(config=config, run_dir=run.path, kept=read_kept(run))
    ended = run_items(SCAN, SCAN.plan(request), run, client, in_flight=8)
    after = count_lines(run)
    names = {record.dataset_id: record.name.removesuffix(".npy") for record in read_datasets(run)}
    new = {name: tasks[len(before.get(name, ())) :] for name, tasks in after.items()}
    return {names[name]: set(tasks) for name, tasks in new.items() if tasks}, ended


def count_lines(run):
    """Tasks that were run, by dataset; lines that only say other stamps of the same are none."""
    return {
        name: [one["task"] for one in run.read_journal(name) if one["event"] == FINISHED and not one.get("renewed")]
        for name in run.dataset_ids()
    }


def attributes_of(folder):
    run = RunDir(path=folder)
    return {
        record.name.removesuffix(".npy"): read_root(run.results_store(record.dataset_id))["attributes"]
        for record in read_datasets(run)
        if record.state == "done"
    }


def explain(config, folder):
    return {one.source.stem: (one.action, one.reason) for one in explain_run(SCAN, config, folder)}


@pytest.fixture(scope="module")
def finished(client, tmp_path_factory):
    """A run over four scans, of which the first is the donor of the others."""
    folder = tmp_path_factory.mktemp("archive")
    rows = write_archive(folder / "scans", NAMES)
    catalogue = write_catalogue(folder / "archive.sqlite", rows)
    config = config_of(catalogue)
    assert {action for action, _ in explain(config, folder / "run").values()} == {"run"}
    assert not (folder / "run").exists()
    executed, ended = drive(client, config, folder / "run")
    assert (ended.done, ended.failed) == (4, 0), ended.reasons
    assert {name: len(tasks) for name, tasks in executed.items()} == dict.fromkeys(NAMES, 4)
    write_index(RunDir(path=folder / "run"), config)
    return folder, rows, config


def test_each_dataset_keeps_where_its_fit_began_and_with_what(finished):
    folder, _, config = finished
    found = attributes_of(folder / "run")
    assert "warm_start" not in found["a"]
    donor = next(record.dataset_id for record in read_datasets(RunDir(path=folder / "run")) if record.name == "a.npy")
    for name in NAMES[1:]:
        assert found[name]["warm_start"]["donor"] == donor
        assert found[name]["warm_start"]["detectors"] == {"0": "warm"}
        assert found[name]["configuration"]["input"]["files"] == [str(folder / "scans" / f"{name}.npy")]
        assert set(ELEMENTS) <= set(hpcxrf.open_archive(folder / "run").maps(donor)["component"].values.tolist())
    assert config.fit.warm_start == "donor"


def test_warm_and_cold_fits_end_at_the_same_theta(client, finished, tmp_path):
    folder, _, config = finished
    cold = dataclasses.replace(config, fit=dataclasses.replace(config.fit, warm_start="none"))
    drive(client, cold, tmp_path / "cold")
    warm_table = hpcxrf.open_archive(folder / "run").table()
    write_index(RunDir(path=tmp_path / "cold"), cold)
    cold_table = hpcxrf.open_archive(tmp_path / "cold").table()
    assert set(cold_table["start"].values) == {""}
    assert sorted(warm_table["start"].values) == ["", "warm", "warm", "warm"]
    assert warm_table["dataset"].equals(cold_table["dataset"])
    deviance = warm_table["fit_deviance"].values.astype(float)
    # One optimum: the deviance differs by far less than the one unit that a standard deviation is.
    np.testing.assert_allclose(deviance, cold_table["fit_deviance"].values.astype(float), atol=0.02)


def test_the_same_command_does_nothing_and_a_touched_file_is_read_once(client, finished):
    folder, _, config = finished
    touch_later(folder / "scans" / "b.npy")
    assert explain(config, folder / "run")["b"] == ("nothing", "done; its files were touched and hold the same")
    assert drive(client, config, folder / "run")[0] == {}
    assert explain(config, folder / "run")["b"] == ("nothing", "done")
    # Also where the donor is the one that was touched.
    touch_later(folder / "scans" / "a.npy")
    assert drive(client, config, folder / "run")[0] == {}
    assert {reason for _, reason in explain(config, folder / "run").values()} == {"done"}
    assert all(record.facts["r2"] for record in read_datasets(RunDir(path=folder / "run")))


def test_the_index_is_the_table_of_all_results(finished):
    folder, rows, _ = finished
    archive = hpcxrf.open_archive(folder / "run")
    table = archive.table()
    assert table["state"].values.tolist() == ["done"] * 4
    assert sorted(table["scan_id"].values.tolist()) == [row.scan_id for row in rows]
    found = attributes_of(folder / "run")
    for number, path in enumerate(table["path"].values):
        one = found[path.rpartition("/")[2].removesuffix(".npy")]
        theta = table["theta"].isel(dataset=number).sel(detector="0")
        for name, value in one["theta_by_detector"]["0"].items():
            assert float(theta.sel(parameter=name)) == value
        assert float(table["fit_r2"].isel(dataset=number).sel(detector="0")) == one["merit_by_detector"]["0"]["r2"]
    assert len(archive.table("path like '%a.npy'")["dataset"]) == 1
    with pytest.raises(OutputError, match="write comparisons of columns: dataset_id"):
        archive.table("load_extension('x')")
    with pytest.raises(OutputError, match="make it with `hpcxrf index"):
        hpcxrf.open_archive(folder)
    with sqlite3.connect(folder / "run" / "index.sqlite") as base:
        assert base.execute("SELECT count(*) FROM fit").fetchone() == (4,)
    base.close()


def test_only_what_a_change_touches_is_done_again(client, finished, tmp_path):
    folder, rows, config = finished
    run = folder / "run"
    # A group: its dataset is fitted again, and nothing is ingested again.
    changed = config_of(config.input.catalogue, groups=[{"where": "path = 'd.npy'", "fit": {"kbeta_sd": 0.1}}])
    assert explain(changed, run) == {
        "d": ("run", "fit settings: changed fit"),
        **dict.fromkeys("abc", ("nothing", "done")),
    }
    executed, _ = drive(client, changed, run)
    assert {name: "ingest" in tasks for name, tasks in executed.items()} == {"d": False}
    assert attributes_of(run)["d"]["configuration"]["fit"]["kbeta_sd"] == 0.1
    # d has another configuration, and so another donor: itself begins cold.
    assert "warm_start" not in attributes_of(run)["d"]
    assert json.loads((run / "effective.json").read_text())["groups"][0]["where"] == "path = 'd.npy'"
    # Other pages: no fit.
    pages = dataclasses.replace(changed, report=dataclasses.replace(changed.report, pages="all"))
    executed, _ = drive(client, pages, run)
    assert set(map(frozenset, executed.values())) == {frozenset({"finalise"})}
    # Another scan in the place of one: everything of it.
    scan = folder / "scans" / "c.npy"
    counts = np.load(scan)
    counts[..., 300] += 50
    np.save(scan, counts)
    assert explain(pages, run)["c"] == ("run", f"input: changed {scan}")
    executed, ended = drive(client, pages, run)
    assert (set(executed), ended.failed) == ({"c"}, 0)
    assert "ingest" in executed["c"]
    # Another donor: all that began at its fit.
    scan = folder / "scans" / "a.npy"
    np.save(scan, np.load(scan) + 1)
    reasons = explain(pages, run)
    assert {name: action for name, (action, _) in reasons.items()} == {
        "a": "run",
        "b": "run",
        "c": "run",
        "d": "nothing",
    }
    assert reasons["b"][1].startswith("donor: changed a-")
    executed, ended = drive(client, pages, run)
    assert {name: "ingest" in tasks for name, tasks in executed.items()} == {"a": True, "b": False, "c": False}
    # Another catalogue is another run.
    other = config_of(write_catalogue(tmp_path / "other.sqlite", rows))
    with pytest.raises(OutputError, match=r"input.catalogue: the run has"):
        explain(other, run)


def test_a_donor_that_fails_leaves_the_others_cold_and_stops_none(client, tmp_path):
    rows = write_archive(tmp_path / "scans", ["a", "b"])
    np.save(tmp_path / "scans" / "a.npy", np.zeros((1, 2, 3, 1200), dtype=np.uint16))
    config = config_of(write_catalogue(tmp_path / "archive.sqlite", rows))
    _, ended = drive(client, config, tmp_path / "run")
    assert (ended.done, ended.failed, ended.not_tried) == (1, 1, 0)
    started = attributes_of(tmp_path / "run")["b"]["warm_start"]
    assert started["detectors"]["0"].startswith("cold: the donor has no results")
    [note] = [
        note
        for record in read_datasets(RunDir(path=tmp_path / "run"))
        for note in record.notes
        if "does not begin at that of a-" in note.text
    ]
    assert note.kind == "fact"
    path = write_index(RunDir(path=tmp_path / "run"), config)
    with sqlite3.connect(path) as base:
        found = dict(base.execute("SELECT name, coalesce(start, state) FROM result"))
    base.close()
    assert found == {"a.npy": "failed", "b.npy": "cold"}
    assert hpcxrf.open_archive(tmp_path / "run").is_current
    # What failed is tried again by the text of its reason alone.
    run = RunDir(path=tmp_path / "run")
    assert ask_again(run, "out of memory") == []
    assert [one.task for one in ask_again(run, "NO COUNTS")] == ["integrated"]
    assert explain(config, run.path)["a"] == ("run", "integrated is to be done again: hpcxrf retry")
    executed, ended = drive(client, config, run.path)
    assert (executed, ended.failed) == ({}, 1)
    assert not hpcxrf.open_archive(run.path).is_current


@pytest.mark.slow
def test_results_do_not_depend_on_what_is_at_work_at_a_time(client, finished, tmp_path):
    _, _, config = finished
    found = []
    for in_flight in (1, 3):
        run = create_or_resume(tmp_path / f"of-{in_flight}", "{}", SCAN.lasting(config), fixed=SCAN.fixed(config))
        request = PlanRequest(config=config, run_dir=run.path, kept={})
        assert run_items(SCAN, SCAN.plan(request), run, client, in_flight=in_flight).done == len(NAMES)
        found.append({name: one["theta_by_detector"] for name, one in attributes_of(run.path).items()})
    assert found[0] == found[1]
