"""Ingest after a power cut: whatever file was emptied or halved, the same command ends with the same bytes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import store_scans
from store_scans import made_scan, tree_content, write_source

from hpcxrf.errors import OutputError
from hpcxrf.store import schema
from hpcxrf.store.files import WRITER_PATIENCE_S, one_writer
from hpcxrf.store.ingest import ingest_scan, progress_file

REPOSITORY = Path(__file__).parents[2]


class PowerCutError(BaseException):
    """The end of the process, in the middle of it."""


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path)


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", store_scans.SMALL_BAND_BYTES)


def interrupt(scan, path, rows=8):
    """Ingest the scan until so many rows are done."""

    def stop(done, _rows):
        if done >= rows:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        ingest_scan(scan, path, progress=stop)


def damage(file, how):
    content = file.read_bytes()
    file.write_bytes(b"" if how == "emptied" else content[: len(content) // 2])


def list_files(path):
    every = [file.relative_to(path.parent) for file in path.rglob("*") if file.is_file()]
    return sorted([*every, *([progress_file(path).relative_to(path.parent)] if progress_file(path).exists() else [])])


@pytest.mark.parametrize("how", ["emptied", "halved"])
def test_any_file_of_an_unfinished_store_may_be_torn(tmp_path, source, how):
    scan = made_scan(source)
    ingest_scan(scan, tmp_path / "undisturbed.zarr")
    wanted = tree_content(tmp_path / "undisturbed.zarr")
    interrupt(scan, tmp_path / "probe" / "a.zarr")
    torn = list_files(tmp_path / "probe" / "a.zarr")
    assert len(torn) >= 4
    for number, name in enumerate(torn):
        folder = tmp_path / f"case{number}"
        interrupt(scan, folder / "a.zarr")
        damage(folder / name, how)
        assert not ingest_scan(scan, folder / "a.zarr").unchanged, name
        assert tree_content(folder / "a.zarr") == wanted, name
        assert not progress_file(folder / "a.zarr").exists()


@pytest.mark.parametrize("how", ["emptied", "halved"])
def test_a_finished_store_of_which_any_file_was_torn_is_made_again(tmp_path, source, how):
    scan = made_scan(source)
    path = tmp_path / "a.zarr"
    ingest_scan(scan, path)
    wanted = tree_content(path)
    for name in wanted:
        damage(path / name, how)
        assert not ingest_scan(scan, path).unchanged, name
        assert tree_content(path) == wanted, name
    assert ingest_scan(scan, path).unchanged


def test_a_store_without_checksums_of_its_files_as_version_0_1_0_wrote_it_is_kept(tmp_path, source):
    import json

    path = tmp_path / "a.zarr"
    ingest_scan(made_scan(source), path)
    root = json.loads((path / "zarr.json").read_bytes())
    del root["attributes"][schema.FILES_ATTRIBUTE]
    (path / "zarr.json").write_text(json.dumps(root))
    assert ingest_scan(made_scan(source), path).unchanged


def test_what_is_not_a_store_of_spectra_is_not_taken_for_a_torn_one(tmp_path, source):
    path = tmp_path / "a.zarr"
    (path / "counts").mkdir(parents=True)
    (path / "counts" / "zarr.json").write_text('{"dimension_names": ["t", "y"]}')
    (path / "zarr.json").write_text("")
    with pytest.raises(OutputError, match=r"not a store of hpcxrf|damaged"):
        ingest_scan(made_scan(source), path)
    assert (path / "counts" / "zarr.json").exists()


def test_two_that_ingest_into_one_folder_both_end_well(tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).poisson(2.0, (60, 40, 512)).astype(np.uint16))
    command = [sys.executable, "-m", "hpcxrf", "ingest", "scan.npy", "-o", "stores"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, env={"PYTHONPATH": str(REPOSITORY)})
        for _ in range(2)
    ]
    texts = [one.communicate(timeout=200)[1].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0], texts
    assert not any("Traceback" in text for text in texts)
    assert sorted(one.suffix for one in (tmp_path / "stores").iterdir()) == [".zarr"]


def test_a_writer_that_waits_too_long_names_the_other(tmp_path, monkeypatch):
    assert WRITER_PATIENCE_S > 1.0
    monkeypatch.setattr("hpcxrf.store.files.WRITER_PATIENCE_S", 0.2)
    other = one_writer(tmp_path / "a.zarr")
    with one_writer(tmp_path / "a.zarr"), pytest.raises(OutputError, match=r"a\.zarr: another hpcxrf writes it"):
        other.__enter__()
    with one_writer(tmp_path / "a.zarr"):
        pass
    assert list(tmp_path.iterdir()) == []
