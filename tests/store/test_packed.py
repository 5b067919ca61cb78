"""Closed stores: one shard an array, one zip a store, and what a kill at any step of the change leaves."""

import hashlib
import json
import os
import shutil
import sys
import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr
import zarr

from hpcxrf.errors import DamagedStoreError
from hpcxrf.store import packed
from hpcxrf.store.files import ABSENT, tree_sha256
from hpcxrf.store.gather import gather_chunks, scatter_chunks
from hpcxrf.store.packed import (
    StoreFiles,
    has_store,
    is_packed,
    locate_store,
    pack_store,
    packed_file,
    read_root,
    unpack_store,
)

SHAPE, CHUNK = (2, 5, 7), (1, 2, 3)
VALUES = np.random.default_rng(5).normal(size=SHAPE).astype("f4")
VALUES[0, :2, :3] = np.nan  # fill values: a chunk without a file


@pytest.fixture
def store(tmp_path):
    """A store whose arrays `map` and `text` have a file for each chunk."""
    path = tmp_path / "x.zarr"
    group = zarr.create_group(path, zarr_format=3, attributes={"complete": True})
    about = {"dimension_names": ("detector", "y", "x")}
    group.create_array("map", shape=SHAPE, chunks=CHUNK, dtype="f4", fill_value=np.nan, **about)[:] = VALUES
    text = group.create_array("text", shape=(4,), chunks=(1,), dtype=str, dimension_names=("name",))
    text[2] = np.array(["Fe"], dtype=np.dtypes.StringDType())
    return path


def files_of(path):
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def checksums_of(path):
    return {name: hashlib.sha256(content).hexdigest() for name, content in files_of(path).items()}


def require_same_values(path):
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["map"][:], VALUES)
    assert group["text"][:].tolist() == ["", "", "Fe", ""]


def test_gathered_chunks_are_read_by_zarr_and_come_back_byte_for_byte(store):
    before = files_of(store)
    gather_chunks(store)
    assert sorted(files_of(store)) == ["map/c.0.0.0", "map/zarr.json", "text/c.0", "text/zarr.json", "zarr.json"]
    require_same_values(store)
    # Zarr's own index of the shard: it reads one chunk of it alone.
    assert zarr.open_group(store, mode="r")["map"].shards == (2, 6, 9)
    scatter_chunks(store)
    require_same_values(store)
    after = files_of(store)
    assert {n: c for n, c in after.items() if "zarr.json" not in n} == {
        n: c for n, c in before.items() if "zarr.json" not in n
    }
    assert all(json.loads(after[n]) == json.loads(before[n]) for n in before if "zarr.json" in n)


def test_checksums_of_what_tasks_wrote_hold_in_every_form(store):
    known = {n: s for n, s in checksums_of(store).items() if "/c/" in n}
    known |= {"map/c/1": tree_sha256(store / "map" / "c" / "1"), "map/c/0/0/0": ABSENT, "none": ABSENT}

    def found():
        return {name: StoreFiles(store).checksum(name) for name in known}

    assert found() == known
    assert pack_store(store)
    assert found() == known
    unpack_store(store)
    gather_chunks(store)
    assert found() == known
    assert pack_store(store)
    assert found() == known
    content = bytearray(packed_file(store).read_bytes())
    content[content.index(b"map/c.0.0.0") + 20] ^= 0xFF  # within the first chunk of the shard
    packed_file(store).write_bytes(content)
    assert len([name for name in known if found()[name] != known[name]]) == 1


def test_a_zip_is_opened_without_warnings_and_is_the_same_for_the_same_folder(store):
    gather_chunks(store)
    shutil.copytree(store, store.with_name("y.zarr"))
    assert pack_store(store)
    assert pack_store(store.with_name("y.zarr"))
    assert not store.exists()
    assert packed_file(store).read_bytes() == packed_file(store.with_name("y.zarr")).read_bytes()
    assert zipfile.ZipFile(packed_file(store)).testzip() is None
    assert read_root(store)["attributes"] == read_root(packed_file(store))["attributes"] == {"complete": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error", zarr.errors.ZarrUserWarning)
        opened = xr.open_zarr(f"zip://::{packed_file(store)}", consolidated=False, chunks=None)
    np.testing.assert_array_equal(opened["map"].values, VALUES)


KILLED = """
import os, sys
from pathlib import Path
from hpcxrf.store.gather import gather_chunks, scatter_chunks
from hpcxrf.store.packed import pack_store, unpack_store
left = int(sys.argv[3])
CHANGES = {"os.rename", "os.remove", "shutil.rmtree", "os.rmdir"}
def hook(event, arguments):
    global left
    written = event == "open" and isinstance(arguments[1], str) and arguments[1] not in {"r", "rb"}
    if event in CHANGES or written:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
change = {"gather": gather_chunks, "scatter": scatter_chunks, "pack": pack_store, "unpack": unpack_store}[sys.argv[1]]
sys.addaudithook(hook)
change(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("change", ["gather", "scatter", "pack", "unpack"])
def test_a_kill_at_any_step_leaves_a_whole_store_and_the_same_call_ends_the_change(store, change):
    if change in {"scatter", "pack", "unpack"}:
        gather_chunks(store)
    if change == "unpack":
        pack_store(store)
    wanted = {"gather": gather_chunks, "scatter": scatter_chunks, "pack": pack_store, "unpack": unpack_store}[change]
    origin = store.parent.with_name(f"{store.parent.name}-origin")
    shutil.copytree(store.parent, origin)
    steps, ended = 0, False
    while not ended:
        shutil.rmtree(store.parent)
        shutil.copytree(origin, store.parent)
        pid = os.fork()
        if pid == 0:  # in a process of its own, without the start of another interpreter for every step
            sys.argv = ["", change, str(store), str(steps)]
            exec(KILLED, {"__name__": "killed"})  # noqa: S102 -- the text above
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert has_store(store)
        place = locate_store(store)
        require_same_values(zarr.storage.ZipStore(place, mode="r") if is_packed(store) else place)
        wanted(store)
        require_same_values(store if not is_packed(store) else zarr.storage.ZipStore(locate_store(store), mode="r"))
        assert is_packed(store) == (change == "pack")
        left = sorted(f.name for f in store.parent.iterdir())
        assert left == ([packed_file(store).name] if change == "pack" else [store.name]), steps
        assert not list(store.rglob("*.partial"))
        steps += 1
    assert steps > 3


def test_a_zip_that_is_cut_off_is_named_with_the_remedy(store):
    pack_store(store)
    packed_file(store).write_bytes(packed_file(store).read_bytes()[:-30])
    with pytest.raises(DamagedStoreError, match=r"x\.zarr\.zip: not a zip .*; remove it"):
        read_root(store)


def test_a_zip_of_a_stranger_writes_nothing_outside_of_its_folder(store):
    with zipfile.ZipFile(packed_file(store), "w") as hostile:
        hostile.writestr("../escaped", b"x")
    with pytest.raises(DamagedStoreError, match="outside"):
        unpack_store(store)
    assert not (store.parent.parent / "escaped").exists()


def test_a_large_store_stays_a_folder(store, monkeypatch):
    monkeypatch.setattr(packed, "MOST_PACKED_BYTES", 100)
    assert not pack_store(store)
    require_same_values(store)
