"""Exports as a whole: resumed, never half, never over what is another's, one that fails stops no other."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from export_sample import COMPONENTS, NAME, make_run

import hpcxrf
from hpcxrf.errors import ConfigError, DatasetsFailedError, OutputError
from hpcxrf.results.export import csv_tables
from hpcxrf.results.export.formats import EXPORT_FORMATS
from hpcxrf.results.export.record import RECORD
from hpcxrf.results.export.source import make_names
from hpcxrf.results.export.write import export_results, find_exportable
from hpcxrf.store.packed import pack_store

FILES = {
    "maps": ["a.h5", "a.h50", "a.h51"],
    "nexus": ["a.nxs"],
    "pyxrf": ["a.h5"],
    "pymca": ["a.h5"],
    "tiff": ["a_det0_amplitude.tif"],
    "csv": ["a_amplitudes.csv", "a_parameters.csv", "a_regions.csv"],
    "override": ["a"],
    "png": ["a"],
    "ome-zarr": ["a_sum_sigma.ome.zarr"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, layers=False)
    return folder


@pytest.fixture
def stores(run):
    return find_exportable(run)[0]


@contextmanager
def largest_file(size):
    """The system refuses to let a file grow beyond `size`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != RECORD and path.is_file()}


@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_every_format_is_written_once_and_then_found(form, stores, tmp_path):
    [first] = export_results(stores, form, tmp_path / "a", is_folder=False)
    assert first.state == "written", first.reason
    names = {path.name for path in first.files}
    assert set(FILES[form]) <= names
    assert {path.name for path in tmp_path.iterdir()} == names | {RECORD}
    before = stamps(tmp_path)
    [second] = export_results(stores, form, tmp_path / "a", is_folder=False)
    assert (second.state, second.files) == ("there", first.files)
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_a_full_disk_leaves_no_part_of_a_file(form, stores, tmp_path):
    with largest_file(300):
        [ended] = export_results(stores, form, tmp_path / "a", is_folder=False)
    assert ended.state == "failed"
    assert os.strerror(errno.EFBIG) in ended.reason
    assert "choose another folder" in ended.reason
    assert list(tmp_path.iterdir()) == []
    [again] = export_results(stores, form, tmp_path / "a", is_folder=False)
    assert again.state == "written", again.reason


def test_hdf5_says_nothing_of_its_own_on_a_full_disk_and_does_not_crash(tmp_path):
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from hpcxrf.results.export.new_hdf5 import create_file
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    with create_file(Path(sys.argv[1])) as file:
        for number in range(50):
            group = file.create_group(f"group {number}")
            group.attrs["NX_class"] = "NXdata"
            for name in "abcdefgh":
                group.create_dataset(name, data=np.random.default_rng(number).random(900), compression="gzip")
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.h5")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{errno.EFBIG}\n")


@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_what_is_there_of_another_origin_is_refused_before_anything_is_written(form, stores, tmp_path):
    target = tmp_path / FILES[form][0]
    target.write_text("another's")
    with pytest.raises(OutputError, match=r"already there, of another result or origin; --force"):
        export_results(stores, form, tmp_path / "a", is_folder=False)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    [ended] = export_results(stores, form, tmp_path / "a", is_folder=False, force=True)
    assert ended.state == "written", ended.reason
    assert target.is_dir() or target.read_bytes() != b"another's"


def test_another_result_is_refused_and_with_force_takes_the_place_of_all_files(stores, tmp_path):
    make_run(tmp_path / "other", seed=4, detectors=("0",), layers=False, spectra=False)
    other = find_exportable(tmp_path / "other")[0]
    out = tmp_path / "out" / "a"
    export_results(stores, "tiff", out, is_folder=False)
    with pytest.raises(OutputError, match="another result"):
        export_results(other, "tiff", out, is_folder=False)
    [ended] = export_results(other, "tiff", out, is_folder=False, force=True)
    assert {path.name for path in out.parent.iterdir()} == {path.name for path in ended.files} | {RECORD}
    assert len(ended.files) == 3


def test_files_that_are_gone_or_cut_off_are_written_again(stores, tmp_path):
    [first] = export_results(stores, "csv", tmp_path / "a", is_folder=False)
    first.files[0].unlink()
    assert export_results(stores, "csv", tmp_path / "a", is_folder=False)[0].state == "written"
    first.files[1].write_text("cut")
    assert export_results(stores, "csv", tmp_path / "a", is_folder=False)[0].state == "written"
    assert first.files[1].read_text() != "cut"


def test_an_export_that_was_killed_while_it_gave_names_goes_on(stores, tmp_path, monkeypatch):
    replace = type(tmp_path).replace

    def die_at_the_second(path, target):
        if path.name == "a_parameters.csv":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export_results(stores, "csv", tmp_path / "a", is_folder=False)
    monkeypatch.undo()
    assert (tmp_path / "a_amplitudes.csv").exists()
    [ended] = export_results(stores, "csv", tmp_path / "a", is_folder=False)
    assert ended.state == "written"


def test_what_a_killed_export_left_is_removed(stores, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    for pid in (dead.pid, os.getpid()):
        (tmp_path / f".a.{host}.{pid}.partial").mkdir()
    (tmp_path / f".a.{host}.1.partial").mkdir()
    export_results(stores, "csv", tmp_path / "a", is_folder=False)
    assert [path.name for path in tmp_path.glob(".*.partial")] == [f".a.{host}.1.partial"]


def test_a_packed_store_is_the_same_result(tmp_path):
    store = make_run(tmp_path / "run", layers=False, spectra=False)
    [first] = export_results({NAME: store}, "csv", tmp_path / "a", is_folder=False)
    assert pack_store(store)
    packed = find_exportable(tmp_path / "run")[0]
    [second] = export_results(packed, "csv", tmp_path / "a", is_folder=False)
    assert (second.state, second.files) == ("there", first.files)
    [nexus] = export_results(packed, "nexus", tmp_path / "b", is_folder=False)
    assert nexus.state == "written", nexus.reason


def test_one_that_fails_stops_no_other(run, tmp_path):
    copy = tmp_path / "run"
    for name in ("a", "b", "c"):
        shutil.copytree(run / "results" / f"{NAME}.zarr", copy / "results" / f"{name}.zarr")
    for chunk in (copy / "results" / "b.zarr" / "maps" / "amplitude").rglob("*"):
        if chunk.is_file() and chunk.name != "zarr.json":
            chunk.write_bytes(b"damaged")
    with pytest.raises(DatasetsFailedError, match=r"1 of 3 could not be exported:\n  b: "):
        hpcxrf.open_results(copy).to("nexus", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.nxs", "c.nxs", RECORD}


def test_a_result_of_a_newer_schema_is_named_and_the_others_are_exported(run, tmp_path):
    for name in ("new", "old"):
        shutil.copytree(run / "results" / f"{NAME}.zarr", tmp_path / "results" / f"{name}.zarr")
    root = tmp_path / "results" / "new.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["hpcxrf_schema_version"] = 99
    root.write_text(json.dumps(document))
    found, refused, unfinished = find_exportable(tmp_path)
    assert (list(found), list(refused), unfinished) == (["old"], ["new"], ())
    assert "schema version 99" in refused["new"]
    with pytest.raises(OutputError, match="schema version 99"):
        find_exportable(tmp_path / "results" / "new.zarr")


@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_layers_may_have_a_sum_that_the_maps_lack(form, tmp_path):
    store = make_run(tmp_path / "run", detectors=("0", "1"), layer_detectors=("sum",))
    [ended] = export_results({NAME: store}, form, tmp_path / "a", is_folder=False)
    assert ended.state == "written", ended.reason
    names = {path.name for path in ended.files}
    if form in {"tiff", "ome-zarr"}:
        assert {"a_sum_areal_density", "a_det0_amplitude"} <= {name.partition(".")[0] for name in names}
    if form == "maps":
        assert names == {"a.h50", "a.h51"}


def test_datasets_are_chosen_by_patterns_of_their_names(run, tmp_path):
    for name in ("leaf-1", "leaf-2", "root-1"):
        shutil.copytree(run / "results" / f"{NAME}.zarr", tmp_path / "results" / f"{name}.zarr")
    results = hpcxrf.open_results(tmp_path)
    files = results.to("csv", tmp_path / "out", where=["leaf-*", "*-1"])
    assert {path.name.partition("_")[0] for path in files} == {"leaf-1", "leaf-2", "root-1"}
    [table, *_] = results.to("csv", tmp_path / "only", where="root*")
    assert table.parent == tmp_path
    with pytest.raises(ConfigError, match=r"--where bark\*: no dataset of this name; there are leaf-1, leaf-2, root-1"):
        results.to("csv", tmp_path / "out", where=["bark*"])


def test_an_unknown_format_names_those_that_there_are(stores, tmp_path):
    with pytest.raises(ConfigError, match=r"--to xls: not a format of export; there are maps, nexus, pyxrf"):
        export_results(stores, "xls", tmp_path / "a", is_folder=False)


def test_maps_alone_are_refused_where_a_format_needs_more(run, tmp_path):
    hpcxrf.register_accessor()
    maps = hpcxrf.open_results(run).maps()
    for form in ("maps", "csv", "override"):
        with pytest.raises(ConfigError, match=r"needs .*parameters, which maps alone do not have"):
            maps.xrf.to(form, tmp_path / "a")
    [folder] = maps.xrf.to("png", tmp_path / "a")
    with pytest.raises(OutputError, match="already there"):
        maps.xrf.to("png", tmp_path / "a")
    assert maps.xrf.to("png", tmp_path / "a", force=True) == (folder,)
    with pytest.raises(ConfigError, match="axes component are not those of a map"):
        maps.isel(detector=0, y=0, x=0).xrf.to("png", tmp_path / "b")


def test_names_are_safe_and_all_different():
    assert make_names(["Ti/Cr", "Ti_Cr", "../x", "Fe"]) == ("Ti_Cr", "Ti_Cr_2", "_x", "Fe")
    assert len(set(make_names(COMPONENTS))) == len(COMPONENTS)


def test_the_table_of_formats_is_read_without_what_writes_them():
    code = (
        "import sys\nimport hpcxrf.cli.export\n"
        "print(sorted({'h5py', 'xarray', 'torch', 'zarr', 'tifffile', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_row_has_its_module():
    for name, row in EXPORT_FORMATS.items():
        assert row.summary, name
        assert row.programs, name
        assert Path(csv_tables.__file__).with_name(f"{row.module}.py").is_file()


def test_the_page_tells_of_every_format():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "take-results-elsewhere.md"
    told = page.read_text(encoding="utf-8")
    assert [name for name in EXPORT_FORMATS if f"| `{name}` |" not in told] == []
