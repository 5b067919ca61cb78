"""Any region of counts that is read from the shards themselves is that of the array, whatever lies beside it."""

import os

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_scans import made_scan

from hpcxrf.store import shards
from hpcxrf.store.chunk_codec import ShardFormat
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.shards import ShardReader, open_shards
from hpcxrf.store.spectra import open_spectra

SHAPE, CHUNK, SHARD = (2, 11, 23, 4), (1, 2, 3, 4), (2, 4, 24, 4)
BANDS = 3


OWN_CHECKSUM = (zarr.codecs.ZstdCodec(level=1, checksum=True),)
"""As version 0.1.0 wrote counts."""
SEALED = zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()


@pytest.fixture(scope="module", params=[("uint8", SEALED), ("uint16", SEALED), ("uint16", OWN_CHECKSUM)], ids=str)
def made(tmp_path_factory, request):
    """A sharded array, in which chunks of zeros are missing, and its reader."""
    dtype, codecs = request.param
    path = tmp_path_factory.mktemp("shards") / dtype
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 200, SHAPE).astype(dtype)
    for y, x in rng.integers(0, (5, 7), (12, 2)):
        counts[:, y * 2 : y * 2 + 2, x * 3 : x * 3 + 3] = 0
    root = zarr.create_group(path, zarr_format=3)
    about = {
        "fill_value": 0,
        "chunks": CHUNK,
        "shards": SHARD,
        "compressors": codecs,
        "config": {"write_empty_chunks": False},
    }
    array = root.create_array("counts", shape=SHAPE, dtype=dtype, **about)
    array[...] = counts
    names = [f"counts/{array.metadata.encode_chunk_key((0, band, 0, 0))}" for band in range(BANDS)]
    reader = open_shards(path, array.metadata.to_dict(), names, counts.dtype)
    assert isinstance(reader, ShardReader)
    return counts, reader


def ends(size):
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(
        lambda at: range(at[0], min(at[0] + at[1], size))
    )


@given(st.integers(0, 1), ends(SHAPE[1]), ends(SHAPE[2]), st.sampled_from([1, 50, 1 << 21]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_region_is_that_of_the_array(made, detector, rows, columns, read_bytes, wider):
    counts, reader = made
    target = np.full((len(rows), len(columns), SHAPE[3]), 7, dtype="uint16" if wider else counts.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_READ_BYTES", read_bytes)
        reader.read_into(target, detector, rows, columns)
    np.testing.assert_array_equal(target, counts[detector, rows.start : rows.stop, columns.start : columns.stop])


def test_a_row_of_chunks_of_an_ingested_scan_is_one_read(tmp_path, monkeypatch):
    ingest_scan(made_scan(tmp_path / "scan.raw", (1, 20, 40, 4096)), tmp_path / "scan.zarr")
    store = open_spectra(tmp_path / "scan.zarr")
    assert store.chunks == (1, 16, 8, 4096)
    expected = store.read_rows([0], slice(None))
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda path, *more, **named: opened.append(path) or real(path, *more, **named))
    np.testing.assert_array_equal(store.read_rows([0], slice(None)), expected)
    assert len(opened) == 2
    monkeypatch.setattr(shards, "_READ_BYTES", 1)
    np.testing.assert_array_equal(store.read_rows([0], slice(None)), expected)
    assert len(opened) == 2 + 2 * 5


def test_counts_as_they_are_stored_are_of_their_own_type(tmp_path):
    ingest_scan(made_scan(tmp_path / "scan.raw", (1, 20, 10, 512)), tmp_path / "scan.zarr")
    store = open_spectra(tmp_path / "scan.zarr")
    stored = store.read_stored(0, slice(3, 9), slice(2, 10))
    assert (stored.dtype, store.dtype) == (np.uint8, np.uint16)
    np.testing.assert_array_equal(stored, store.read_rows([0], slice(3, 9), slice(2, 10))[0])
    with pytest.raises(IndexError, match="no detector 1"):
        store.read_stored(1, slice(3))


@given(st.integers(0, 10**6), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_of_a_chunk_is_never_read_as_counts(place, bit):
    form = ShardFormat(shape=SHAPE, chunk=CHUNK, shard=SHARD, codec="zstd", options={"level": 1})
    values = np.random.default_rng(1).poisson(0.3, CHUNK).astype(np.uint8)
    content = bytearray(form.encode(values))
    target = np.empty_like(values)
    form.decode(bytes(content), target)
    np.testing.assert_array_equal(target, values)
    content[place % len(content)] ^= 1 << bit
    with pytest.raises(ValueError, match="checksum is another"):
        form.decode(bytes(content), target)
    for size in range(len(content)):
        with pytest.raises(ValueError, match=r"too early|is another"):
            form.decode(bytes(content[:size]), target)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("n", [0, 1, 10, 23, 25, 300, 70_000])
def test_a_frame_of_another_size_is_never_read_over_what_was_in_memory(n, sealed):
    form = ShardFormat(shape=SHAPE, chunk=CHUNK, shard=SHARD, codec="zstd", options={"level": 1}, sealed=sealed)
    target = np.zeros(CHUNK, np.uint8)
    content = form.encode(np.arange(n).astype(np.uint8))
    with pytest.raises(ValueError, match="of another size"):
        form.decode(content, target)
    assert not target.any()
    for size in (1, 255, 256, 257, 65791, 65792, 200_000):
        values = np.random.default_rng(size).integers(0, 4, size).astype(np.uint8)
        back = np.empty_like(values)
        form.decode(form.encode(values), back)
        np.testing.assert_array_equal(back, values)
