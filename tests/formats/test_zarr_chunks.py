"""Chunks of a Zarr store are read as zarr reads them, and one that lies about its size costs nothing."""

import struct

import numcodecs
import numpy as np
import pytest
import zarr

from hpcxrf.errors import InputFileError
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.zarr_chunks import read_region, read_texts

TEXTS = np.array(["ring", "", "Zeit µs", "x" * 300, "last"], dtype=object)
REGIONS = [np.s_[:], np.s_[1:4], np.s_[4:5]]


def write(path, texts=TEXTS, **options):
    group = zarr.open_group(path, mode="w", zarr_format=options.pop("zarr_format", 3))
    array = group.create_array("names", shape=texts.shape, dtype=str, **options)
    array[...] = texts
    return zarr.open_group(path, mode="r")["names"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("options", [{}, {"compressors": None}, {"chunks": (2,)}, {"chunks": (7,)}])
def test_texts_are_those_that_zarr_reads(tmp_path, zarr_format, options):
    if zarr_format == 3 and options.get("compressors", 0) is not None:
        options = options | {"compressors": [zarr.codecs.GzipCodec()]}
    array = write(tmp_path / "a.zarr", zarr_format=zarr_format, **options)
    for region in REGIONS:
        np.testing.assert_array_equal(read_texts(array, (region,)), np.asarray(array[region], dtype=object))


def test_two_axes_and_chunks_that_were_never_written(tmp_path):
    array = write(tmp_path / "a.zarr", TEXTS[:4].reshape(2, 2), chunks=(1, 2))
    assert read_texts(array, np.s_[0:2, 1:2]).tolist() == [[""], ["x" * 300]]
    (tmp_path / "a.zarr" / "names" / "c" / "0" / "0").unlink()
    assert read_texts(array, np.s_[0:2, 0:2]).tolist() == [["", ""], ["Zeit µs", "x" * 300]]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (struct.pack("<I", 2**32 - 1), "5 texts claims another number"),
        (b"", "5 texts claims another number"),
        (struct.pack("<I", 5), "ends early"),
        (struct.pack("<II", 5, 2**31), "longer than its chunk"),
    ],
)
def test_a_chunk_that_lies_is_refused_before_anything_is_made_of_it(tmp_path, zarr_format, content, fault):
    path = tmp_path / "a.zarr"
    write(path, zarr_format=zarr_format, compressors=None)
    group = zarr.open_group(path, mode="a")
    group.create_array("counts", data=np.ones((3, 4, 256), "u2"))
    group.create_array("scaler_values", data=np.ones((5, 3, 4)))
    (path / "names").rename(path / "scaler_names")
    (path / "scaler_names" / ("0" if zarr_format == 2 else "c/0")).write_bytes(content)
    with pytest.raises(InputFileError, match=rf"a\.zarr.*{fault}"):
        open_scan(path).read_scalars()


def test_texts_in_shards_or_too_many_are_refused_by_name(tmp_path):
    sharded = write(tmp_path / "a.zarr", chunks=(1,), shards=(5,))
    with pytest.raises(ValueError, match="names: texts with the codecs sharding_indexed"):
        read_texts(sharded, np.s_[:])
    group = zarr.open_group(tmp_path / "b.zarr", mode="w")
    many = group.create_array("names", shape=(100_001,), dtype=str)
    with pytest.raises(ValueError, match=r"names: an array \(100001,\) of texts, at most 100000"):
        read_texts(many, np.s_[:])


COUNTS = np.random.default_rng(2).poisson(3.0, (5, 4, 300)).astype("u2")


def write_counts(path, zarr_format):
    blosc = zarr.codecs.BloscCodec(cname="lz4") if zarr_format == 3 else numcodecs.Blosc(cname="lz4")
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("counts", data=COUNTS, chunks=(2, 4, 256), compressors=blosc)
    return path / "counts" / ("1.0.0" if zarr_format == 2 else "c/1/0/0")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_of_blosc_are_those_that_zarr_reads(tmp_path, zarr_format):
    chunk = write_counts(tmp_path / "a.zarr", zarr_format)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["counts"]
    for region in (np.s_[0:5, 0:4, 0:300], np.s_[1:3, 2:3, 250:260], np.s_[4:5, 0:4, 299:300], np.s_[2:2, 0:4, 0:300]):
        np.testing.assert_array_equal(read_region(array, region), COUNTS[region])
    chunk.unlink()
    assert not read_region(array, np.s_[2:4, 0:4, 0:256]).any()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [(12, 2037391649, "claims 2037391649 bytes"), (4, 2**31, "for 2147483648"), (12, 17, "claims 17 bytes")],
)
def test_a_blosc_header_that_lies_is_refused_and_rows_of_other_chunks_are_read(
    tmp_path, zarr_format, place, value, fault
):
    path = tmp_path / "a.zarr"
    chunk = write_counts(path, zarr_format)
    content = bytearray(chunk.read_bytes())
    content[place : place + 4] = struct.pack("<I", value)
    chunk.write_bytes(content)
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.read_counts(slice(0, 2))[0], COUNTS[:2])
    with pytest.raises(InputFileError, match=rf"a\.zarr.*{fault}"):
        scan.read_counts(slice(1, 3))
    chunk.write_bytes(b"short")
    with pytest.raises(InputFileError, match="a chunk of 5 bytes, which has no Blosc header"):
        scan.read_counts(slice(2, 4))


def test_a_blosc_header_of_texts_that_lies_is_refused(tmp_path):
    array = write(tmp_path / "a.zarr", zarr_format=2, compressors=numcodecs.Blosc())
    chunk = tmp_path / "a.zarr" / "names" / "0"
    content = bytearray(chunk.read_bytes())
    content[12:16] = struct.pack("<I", 2037391649)
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"names.0: its Blosc header claims 2037391649 bytes"):
        read_texts(array, np.s_[:])
