"""Arrays of results stores: what is written without Zarr is, file by file, what Zarr writes, and Zarr reads it."""

import json
import warnings

import numpy as np
import pytest
import zarr

from hpcxrf.errors import OutputError
from hpcxrf.results.store.storage import (
    ArrayPlan,
    create_array,
    create_group,
    create_texts,
    create_values,
    fill_rows,
    labels_of,
    read_attributes,
    update_attributes,
)
from hpcxrf.results.store.tiled import open_map
from hpcxrf.store.array_writer import pack_texts, unpack_texts
from hpcxrf.store.plain_arrays import is_plain
from hpcxrf.store.schema import VariableSpec

DOTS = {"name": "default", "separator": "."}
SIZES = {"detector": 3, "channel": 5, "region": 2, "y": 5, "x": 7}


def content_of(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def spec(dims, dtype):
    return VariableSpec(dims=dims, dtype=dtype, units="keV", long_name="meaning of it")


def of_zarr(group, name, spec, chunks, values, *, dots):
    array = zarr.open_group(group, mode="a").create_array(
        name,
        shape=values.shape,
        chunks=chunks,
        chunk_key_encoding=DOTS if dots else None,
        dtype=np.dtype(spec.dtype),
        fill_value=float("nan") if np.dtype(spec.dtype).kind == "f" else 0,
        dimension_names=spec.dims,
        attributes={"units": "keV", "long_name": "meaning of it"},
    )
    array[...] = values


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "uint16", "int64", "bool"])
@pytest.mark.parametrize("many_writers", [False, True])
def test_files_are_those_that_zarr_writes(tmp_path, dtype, many_writers):
    values = np.arange(3 * 5 * 7).reshape(3, 5, 7).astype(dtype)
    values[1] = np.nan if values.dtype.kind == "f" else 0
    about = spec(("detector", "y", "x"), dtype)
    plan = ArrayPlan(spec=about, sizes=SIZES, many_writers=many_writers, block_yx=(2, 4))
    for one in ("ours", "theirs"):
        create_group(tmp_path / one)
    create_array(tmp_path / "ours", "a", plan, values)
    of_zarr(tmp_path / "theirs", "a", about, plan.chunks, values, dots=not many_writers)
    ours, theirs = content_of(tmp_path / "ours"), content_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert len(ours) == (2 + 2 * 3 * 2 if many_writers else 3)
    assert json.loads(ours.pop("a/zarr.json")) == json.loads(theirs.pop("a/zarr.json"))
    assert json.loads(ours.pop("zarr.json")) == json.loads(theirs.pop("zarr.json"))
    assert ours == theirs


def test_strings_are_those_that_zarr_writes(tmp_path):
    texts = np.array([["Fe", "", "µm"], ["", "", ""]], dtype=object)
    for one in ("ours", "theirs"):
        create_group(tmp_path / one)
    create_texts(tmp_path / "ours", "a", ("region", "detector"), texts, {"long_name": "a"}, by_row=True)
    array = zarr.open_group(tmp_path / "theirs", mode="a").create_array(
        "a",
        shape=(2, 3),
        chunks=(1, 3),
        dtype=str,
        dimension_names=("region", "detector"),
        attributes={"long_name": "a"},
    )
    array[...] = texts.astype(np.dtypes.StringDType())
    ours, theirs = content_of(tmp_path / "ours"), content_of(tmp_path / "theirs")
    assert json.loads(ours.pop("a/zarr.json")) == json.loads(theirs.pop("a/zarr.json"))
    ours.pop("zarr.json"), theirs.pop("zarr.json")
    assert ours == theirs
    assert ours.keys() == {"a/c/0/0"}


def test_rows_may_come_one_by_one_and_twice_equals_once(tmp_path):
    values = np.random.default_rng(3).normal(size=(3, 5))
    whole, one_by_one = create_group(tmp_path / "whole"), create_group(tmp_path / "rows")
    plan = ArrayPlan(spec=spec(("detector", "channel"), "float64"), sizes=SIZES)
    create_array(whole, "a", plan, values)
    create_array(one_by_one, "a", plan)
    assert np.isnan(zarr.open_array(one_by_one / "a", mode="r")[...]).all()
    for row in (2, 0, 1, 0):
        fill_rows(one_by_one, {row: {"a": values[row]}})
    assert content_of(whole) == content_of(one_by_one)
    fill_rows(one_by_one, {0: {"a": np.full(5, np.nan)}, 2: {"a": values[0]}})
    expected = np.array([np.full(5, np.nan), values[1], values[0]])
    np.testing.assert_array_equal(zarr.open_array(one_by_one / "a", mode="r")[...], expected)


def test_a_row_with_a_chunk_of_its_own_touches_no_other(tmp_path):
    group = create_group(tmp_path / "g")
    about = spec(("region", "detector", "channel"), "float64")
    create_array(group, "a", ArrayPlan(spec=about, sizes=SIZES, many_writers=True))
    create_texts(group, "t", ("region", "detector"), np.full((2, 3), "", dtype=object), {}, by_row=True)
    fill_rows(group, {1: {"a": np.ones((3, 5)), "t": np.array(["", "x", "ü"], dtype=object)}})
    assert {name for name in content_of(group) if "/c/" in name} == {"a/c/1/0/0", "t/c/1/0"}
    np.testing.assert_array_equal(zarr.open_array(group / "a", mode="r")[1], 1.0)
    assert zarr.open_array(group / "t", mode="r")[...].tolist() == [["", "", ""], ["", "x", "ü"]]
    fill_rows(group, {1: {"a": np.full((3, 5), np.nan), "t": np.full(3, "", dtype=object)}})
    assert not {name for name in content_of(group) if "/c/" in name}


def test_arrays_with_other_chunks_are_left_to_zarr(tmp_path):
    group = create_group(tmp_path / "g")
    values = np.random.default_rng(4).normal(size=(3, 5))
    of_zarr(group, "a", spec(("detector", "channel"), "float64"), (1, 2), np.zeros((3, 5)), dots=False)
    fill_rows(group, {1: {"a": values[1]}})
    np.testing.assert_array_equal(zarr.open_array(group / "a", mode="r")[...], values * [[0.0], [1.0], [0.0]])
    sharded = zarr.open_group(group, mode="a").create_array("s", shape=(4,), shards=(4,), chunks=(2,), dtype="f8")
    assert not is_plain(sharded.metadata.to_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fill_rows(group, {2: {"s": np.array(5.0)}})
    assert sharded[...].tolist() == [0.0, 0.0, 5.0, 0.0]


def test_numbers_that_come_whole(tmp_path):
    group = create_group(tmp_path / "g")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    create_values(group, "a", ("chain", "draw"), values, {"long_name": "a"})
    create_values(group, "none", ("chain", "draw"), np.zeros((0, 3)), {})
    np.testing.assert_array_equal(zarr.open_array(group / "a", mode="r")[...], values)
    assert zarr.open_array(group / "none", mode="r").shape == (0, 3)
    with pytest.raises(ValueError, match=r"b: shape \(2,\), must be \(5,\)"):
        create_array(group, "b", ArrayPlan(spec=spec(("channel",), "float64"), sizes=SIZES), np.zeros(2))


def test_a_damaged_chunk_and_damaged_metadata_are_named(tmp_path):
    group = create_group(tmp_path / "g")
    create_array(group, "a", ArrayPlan(spec=spec(("detector", "channel"), "float64"), sizes=SIZES), np.ones((3, 5)))
    (group / "a/c.0.0").write_bytes(b"nonsense")
    with pytest.raises(OutputError, match=r"g/a: damaged .*remove the store"):
        fill_rows(group, {0: {"a": np.zeros(5)}})
    (group / "a/zarr.json").write_text("{")
    with pytest.raises(OutputError, match=r"a/zarr\.json"):
        fill_rows(group, {0: {"a": np.zeros(5)}})


def test_attributes_are_added_in_one_rename(tmp_path):
    group = create_group(tmp_path / "g", {"a": 1, "b": {"c": 2}})
    update_attributes(group, {"b": 3, "d": [4]})
    assert read_attributes(group) == dict(zarr.open_group(group, mode="r").attrs) == {"a": 1, "b": 3, "d": [4]}
    assert [file.name for file in group.iterdir()] == ["zarr.json"]


@pytest.mark.parametrize("dims", [("detector", "region", "y", "x"), ("detector", "y", "x")])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_tiles_of_blocks_are_those_that_zarr_writes(tmp_path, dims, dtype):
    """Several blocks at a time, those at the ends of the scan filled up, one of nothing, one over another."""
    about = spec(dims, dtype)
    shape = tuple(SIZES[dim] for dim in dims)
    values = (1 + np.arange(np.prod(shape))).reshape(shape).astype(dtype)
    values[1, ..., :2, :4] = np.nan if dtype == "float32" else 0
    plan = ArrayPlan(spec=about, sizes=SIZES, many_writers=True, block_yx=(2, 4))
    for one in ("ours", "theirs"):
        create_array(create_group(tmp_path / one), "a", plan)
    theirs = zarr.open_array(tmp_path / "theirs/a", mode="r+")
    tiles = [(0, slice(0, 4), slice(0, 7)), (1, slice(0, 2), slice(0, 4)), (1, slice(2, 5), slice(4, 7))]
    for first, y, x in [(1, slice(0, 2), slice(0, 4)), *tiles]:
        part = values[first, ..., y, x] if (first, y, x) in tiles else values[0, ..., y, x]
        open_map(tmp_path / "ours/a").write(first, y, x, part)
        theirs[first, ..., y, x] = part
    assert content_of(tmp_path / "ours/a") == content_of(tmp_path / "theirs/a")


def test_tiles_of_an_array_with_other_chunks_are_left_to_zarr(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(2, 6, 8), chunks=(2, 3, 8), dtype="float32", fill_value=np.nan)
    open_map(tmp_path / "a").write(1, slice(0, 6), slice(0, 8), np.ones((6, 8), np.float32))
    assert np.isnan(array[0]).all()
    assert (array[1] == 1.0).all()


def test_labels_are_read_as_zarr_reads_them(tmp_path):
    texts = np.array(["Fe", "", "µm", "a" * 300], dtype=object)
    create_texts(create_group(tmp_path / "s"), "name", ("name",), texts, {"long_name": "name"})
    create_texts(tmp_path / "s", "empty", ("name",), np.array(["", ""], dtype=object), {"long_name": "name"})
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert labels_of(group, "name") == tuple(group["name"][:]) == tuple(texts)
    assert labels_of(group, "empty") == ("", "")
    chunk = tmp_path / "s/name/c.0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(OutputError, match=r"name: damaged .* remove the store"):
        labels_of(group, "name")
    with pytest.raises(OutputError, match="missing from the store"):
        labels_of(group, "nothing")


@pytest.mark.parametrize(
    "content", [b"", b"\x01", pack_texts(["Fe"])[:-1], pack_texts(["Fe"]) + b"x", b"\x01\0\0\0\x01\0\0\0\xff"]
)
def test_what_are_no_strings_is_refused(content):
    assert unpack_texts(pack_texts(["", "µ", "Fe"])) == ["", "µ", "Fe"]
    with pytest.raises(ValueError, match="not strings of variable length"):
        unpack_texts(content)
