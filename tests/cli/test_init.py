"""`hpcxrf init` and `hpcxrf schema`: a run file to begin with, and what editors check it by."""

import sys
from pathlib import Path

import pytest
import yaml

from hpcxrf.config import workflow_files
from hpcxrf.config.run import load_run_file

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.yaml"))


def test_without_a_name_it_says_what_there_is(hpcxrf):
    done = hpcxrf("init")
    assert done.code == 0
    lines = done.out.strip().splitlines()
    assert [line.partition(":")[0] for line in lines] == NAMES
    assert all(len(line.partition(": ")[2]) > 20 for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_file_is_written_whole_and_means_the_same(hpcxrf, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert hpcxrf("init", name).code == 0
    written = (tmp_path / f"{name}.yaml").read_text(encoding="utf-8")
    assert "workflows/" not in written
    shipped = ROOT / "workflows" / f"{name}.yaml"
    assert yaml.safe_load(written) == yaml.safe_load(shipped.read_text(encoding="utf-8"))
    load_run_file(tmp_path / f"{name}.yaml")


def test_the_commands_in_its_comments_name_the_file_that_was_written(hpcxrf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert hpcxrf("init", "demo", "-o", "runs/leaf.yaml").code == 0
    text = (tmp_path / "runs" / "leaf.yaml").read_text(encoding="utf-8")
    assert "hpcxrf simulate -o runs/demo-scan" in text
    assert "hpcxrf run runs/leaf.yaml -o" in text


def test_a_file_that_is_there_stays(hpcxrf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.yaml").write_text("mine", encoding="utf-8")
    done = hpcxrf("init", "scan")
    assert done.code == 2
    assert "scan.yaml: exists already" in done.err
    assert (tmp_path / "scan.yaml").read_text(encoding="utf-8") == "mine"


def test_a_name_that_is_not_there_is_refused_with_those_that_are(hpcxrf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = hpcxrf("init", "scna")
    assert done.code == 2
    assert ", ".join(NAMES) in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_installation_finds_its_own_run_files(tmp_path, monkeypatch):
    (tmp_path / "lib" / "hpcxrf").mkdir(parents=True)
    (tmp_path / "share" / "hpcxrf" / "workflows").mkdir(parents=True)
    (tmp_path / "share" / "hpcxrf" / "workflows" / "scan.yaml").write_text("# One. Two.\n", encoding="utf-8")
    monkeypatch.setattr(workflow_files.hpcxrf, "__file__", str(tmp_path / "lib" / "hpcxrf" / "__init__.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (found,) = workflow_files.find_workflows().values()
    assert workflow_files.read_summary(found) == "One"


@pytest.mark.parametrize("which", ["run", "site"])
def test_a_schema_is_printed_with_descriptions(hpcxrf, which):
    schema = hpcxrf("schema", which).json
    options = [schema, *schema["$defs"].values()]
    described = [one for shape in options for one in shape["properties"].values()]
    assert sum("description" in one for one in described) > 0.9 * len(described) - 15
    assert all(shape["additionalProperties"] is False for shape in options)
