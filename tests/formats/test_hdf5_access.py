"""HDF5 files with filters that are missing, with a writer at work, and with one that was killed."""

import subprocess
import sys
import types

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats import hdf5_access
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import open_spectra

BITSHUFFLE = 32008
WRITER = """
import os, sys, h5py, numpy as np
file = h5py.File(sys.argv[1], "w", libver="latest")
counts = file.create_dataset("counts", (4, 5, 512), "u2", maxshape=(None, 5, 512), chunks=(1, 5, 512))
counts[:] = np.arange(4, dtype="u2")[:, None, None]
if sys.argv[2] == "swmr":
    file.swmr_mode = True
file.flush()
print("ready", flush=True)
for line in sys.stdin:
    if line.startswith("more"):
        counts.resize(7, axis=0)
        counts[4:] = 9
        counts.flush()
        print("more", flush=True)
os._exit(0)  # as a kill: nothing is closed
"""


@pytest.fixture
def writer(tmp_path):
    """Start a program that writes a file and has it open; it ends when its standard input does."""
    started = []

    def start(mode):
        path = tmp_path / "a.h5"
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return path, process

    yield start
    for process in started:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=60)


def end(process):
    process.stdin.close()
    process.wait(timeout=60)


def test_a_file_open_for_swmr_writing_is_read_as_far_as_it_was_written(writer, tmp_path):
    path, process = writer("swmr")
    scan = open_scan(path)
    assert scan.shape == (1, 4, 5, 512)
    assert any("(SWMR): rows 0 to 3 are read" in note.text and note.kind == "warning" for note in scan.notes)
    process.stdin.write("more\n")
    process.stdin.flush()
    assert process.stdout.readline() == "more\n"
    block = scan.read_counts(slice(0, 4))
    np.testing.assert_array_equal(block[0, :, 0, 0], [0, 1, 2, 3])
    assert open_scan(path).shape == (1, 7, 5, 512)
    ingest_scan(scan, tmp_path / "a.zarr")
    assert open_spectra(tmp_path / "a.zarr").shape == (1, 4, 5, 512)


def test_what_a_killed_swmr_writer_left_is_read_too(writer):
    path, process = writer("swmr")
    end(process)
    assert open_scan(path).read_counts(slice(3, 4)).max() == 3


@pytest.mark.parametrize("killed", [False, True])
def test_a_writer_at_work_or_killed_is_named_with_the_remedy(writer, killed):
    path, process = writer("plain")
    if killed:
        end(process)
    with pytest.raises(
        InputFileError, match=r"another program writes this file, or was killed .* h5clear --status a\.h5"
    ):
        open_scan(path)


def write_compressed(path):
    """A dataset whose chunks ask for a filter: written raw, so that no plugin is needed to make it."""
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((3, 4, 512))
        plan.set_filter(BITSHUFFLE, h5py.h5z.FLAG_OPTIONAL, (0, 2))
        space = h5py.h5s.create_simple((3, 4, 512))
        dataset = h5py.h5d.create(file.id, b"counts", h5py.h5t.STD_U16LE, space, plan)
        dataset.write_direct_chunk((0, 0, 0), b"\x00" * 100)
    return path


@pytest.fixture
def without_bitshuffle(monkeypatch):
    """HDF5 keeps a plugin that any test of the same process has loaded."""
    known = h5py.h5z.filter_avail
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != BITSHUFFLE and known(code))


@pytest.mark.usefixtures("without_bitshuffle")
def test_a_filter_that_is_not_installed_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_access, "PLUGINS", "no_such_package")
    path = write_compressed(tmp_path / "a.h5")
    scan = open_scan(path, ReadOptions(dataset_path="counts"))
    with pytest.raises(InputFileError, match=r"compressed with Bitshuffle \(number 32008\), .* pip install"):
        scan.read_counts(slice(0, 3))


@pytest.mark.usefixtures("without_bitshuffle")
def test_the_plugins_are_loaded_only_where_a_filter_is_missing(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        hdf5_access.importlib, "import_module", lambda name: loaded.append(name) or types.ModuleType(name)
    )
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file.create_dataset("counts", data=np.ones((3, 4, 512), "u2"), compression="gzip", shuffle=True)
    open_scan(tmp_path / "plain.h5").read_counts(slice(0, 3))
    assert loaded == []
    scan = open_scan(write_compressed(tmp_path / "a.h5"), ReadOptions(dataset_path="counts"))
    with pytest.raises(InputFileError, match="Bitshuffle"):
        scan.read_counts(slice(0, 3))
    assert set(loaded) == {"hdf5plugin"}


def test_bitshuffle_is_read_where_the_plugins_are_installed(tmp_path):
    plugins = pytest.importorskip("hdf5plugin", reason="not installed; pip install 'hpcxrf[filters]'")
    counts = np.random.default_rng(0).poisson(3.0, (3, 4, 512)).astype("u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("counts", data=counts, **plugins.Bitshuffle())
    np.testing.assert_array_equal(open_scan(tmp_path / "a.h5").read_counts(slice(0, 3))[0], counts)


def test_external_links_are_followed_only_where_they_are_allowed(tmp_path):
    counts = np.random.default_rng(0).poisson(3.0, (3, 4, 512)).astype("u2")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["entry/mca"] = counts
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["scan"] = h5py.ExternalLink("raw.h5", "/entry")
        file["gone"] = h5py.ExternalLink("none.h5", "/entry")
    with pytest.raises(InputFileError, match=r"2 external links were not followed \(gone -> none.h5, scan -> raw.h5\)"):
        open_scan(tmp_path / "master.h5")
    scan = open_scan(tmp_path / "master.h5", ReadOptions(allow_external=True))
    np.testing.assert_array_equal(scan.read_counts(slice(0, 3))[0], counts)


def test_a_file_that_this_program_has_open_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.ones((3, 4, 512), "u2")
    with h5py.File(tmp_path / "a.h5"):
        assert open_scan(tmp_path / "a.h5").read_counts(slice(0, 3)).sum() == 3 * 4 * 512
