"""`hpcxrf export`: where files go, what is told, and how it ends."""

import json
import shutil

import pytest
from export_sample import NAME, make_run
from typer.testing import CliRunner

from hpcxrf.cli.app import app
from hpcxrf.errors import ConfigError, DatasetsFailedError, OutputError

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, layers=False, spectra=False, detectors=("0",))
    shutil.copytree(folder / "results" / f"{NAME}.zarr", folder / "results" / "root-1.zarr")
    return folder


def export(*arguments, **options):
    return RUNNER.invoke(app, ["export", *map(str, arguments)], **options)


def test_a_run_goes_into_a_folder_of_its_own_and_a_second_time_is_told(run):
    first = export(run, "--to", "nexus")
    assert first.exit_code == 0, first.output
    folder = run / "export" / "nexus"
    assert first.stdout.splitlines() == [str(folder / "root-1.nxs"), str(folder / f"{NAME}.nxs")]
    second = export(run, "--to", "nexus")
    assert second.stdout.splitlines() == ["2 written by an earlier export, and as they were"]


def test_one_result_goes_to_the_name_that_is_given_or_into_the_current_folder(run, tmp_path, monkeypatch):
    store = run / "results" / f"{NAME}.zarr"
    export(store, "--to", "pymca", "-o", tmp_path / "iron.h5")
    assert (tmp_path / "iron.h5").is_file()
    monkeypatch.chdir(tmp_path)
    export(store, "--to", "pymca")
    assert (tmp_path / f"{NAME}.h5").is_file()
    for _ in range(2):
        done = export(store, "--to", "override", "-o", tmp_path / "start")
        assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["maps_fit_parameters_override.txt0"]


def test_a_script_gets_json(run, tmp_path):
    done = export(run, "--to", "csv", "-o", tmp_path, "--where", "root-*", "--json")
    told = json.loads(done.stdout)
    assert (told["format"], told["unfinished"]) == ("csv", [])
    [row] = told["datasets"]
    assert (row["dataset"], row["state"], row["reason"]) == ("root-1", "written", None)
    assert str(tmp_path / "root-1_amplitudes.csv") in row["files"]


def test_notes_are_told_once(run, tmp_path):
    done = export(run, "--to", "maps", "-o", tmp_path)
    assert done.exit_code == 0
    assert done.stderr.count("2 datasets: without spectra") == 1


def test_one_of_many_that_fails_ends_with_6_and_alone_with_4(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run / "results", copy / "results")
    root = copy / "results" / "root-1.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["hpcxrf_schema_version"] = 99
    root.write_text(json.dumps(document))
    done = export(copy, "--to", "csv", "--json")
    assert isinstance(done.exception, DatasetsFailedError)
    assert "1 of 2 datasets could not be exported, all others are" in str(done.exception)
    states = {row["dataset"]: row["state"] for row in json.loads(done.stdout)["datasets"]}
    assert states == {NAME: "written", "root-1": "failed"}
    alone = export(copy / "results" / "root-1.zarr", "--to", "csv")
    assert isinstance(alone.exception, OutputError)
    assert "schema version 99, but this program reads 1 to" in str(alone.exception)


def test_the_exit_codes_are_those_of_the_errors(run, tmp_path):
    assert export(run, "--to", "xls").exception.exit_code == ConfigError.exit_code
    (tmp_path / f"{NAME}.nxs").write_text("another's")
    done = export(run, "--to", "nexus", "-o", tmp_path)
    assert done.exception.exit_code == OutputError.exit_code
    assert "--force replaces it" in str(done.exception)
    assert export(tmp_path / "nothing", "--to", "csv").exception.exit_code == OutputError.exit_code


def test_what_is_not_finished_is_left_out_and_told(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run / "results", copy / "results")
    root = copy / "results" / "root-1.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["complete"] = False
    root.write_text(json.dumps(document))
    done = export(copy, "--to", "csv", "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "not finished, and left out: 1" in done.stderr
