"""Sums of 16 x 16 pixels beside the counts: exactly those of the counts, however the scan was cut, read or resumed."""

import dataclasses
import errno
import json
import shutil
import warnings

import numpy as np
import pytest
import store_scans
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_scans import interrupt_at, made_scan, tree_content, whole, write_source

from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.store import schema, tile_sums
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.packed import pack_store
from hpcxrf.store.schema import TILE_SIDE
from hpcxrf.store.spectra import open_spectra
from hpcxrf.store.tile_sums import sum_tiles


def add_up(counts: np.ndarray) -> np.ndarray:
    """Sums of the tiles of counts (detector, y, x, channel), by filling up and reshaping."""
    detectors, n_y, n_x, channels = counts.shape
    full = np.zeros((detectors, -(-n_y // TILE_SIDE) * TILE_SIDE, -(-n_x // TILE_SIDE) * TILE_SIDE, channels))
    full[:, :n_y, :n_x] = counts
    return full.reshape(detectors, -1, TILE_SIDE, full.shape[2] // TILE_SIDE, TILE_SIDE, channels).sum(axis=(2, 4))


@pytest.fixture
def every_scan(monkeypatch):
    monkeypatch.setattr(tile_sums, "TILED_PIXELS", 0)


@pytest.fixture
def small_bands(monkeypatch):
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", store_scans.SMALL_BAND_BYTES)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 40), st.integers(1, 70)),
    rows_per_read=st.integers(1, 50),
    band_bytes=st.sampled_from([1, 3000, 1 << 24]),
    chunk_bytes=st.sampled_from([1, 1000, 1 << 20]),
    scale=st.sampled_from([1.0, 3000.0, 1e6]),
)
def test_tiles_are_the_sums_of_their_counts_for_any_shape_and_block(
    tmp_path_factory, monkeypatch, every_scan, shape, rows_per_read, band_bytes, chunk_bytes, scale
):
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", band_bytes)
    monkeypatch.setattr(schema, "BAND_BYTES_MAX", max(band_bytes, 3000))
    monkeypatch.setattr(tile_sums, "_CHUNK_BYTES", chunk_bytes)
    folder = tmp_path_factory.mktemp("any")
    scan = made_scan(write_source(folder), shape=shape, rows_per_read=rows_per_read, scale=scale)
    ingest_scan(scan, folder / "s.zarr")
    store = open_spectra(folder / "s.zarr")
    expected = add_up(whole(scan))
    for detector in range(shape[0]):
        np.testing.assert_array_equal(store.tile_sums(detector), expected[detector])
    with xarray.open_zarr(folder / "s.zarr") as dataset:
        np.testing.assert_array_equal(dataset["tile_sums"], expected)
        assert dataset["tile_sums"].dtype == ("uint64" if store.dtype == np.uint32 else "uint32")
    last = store.tile_sums(0, slice(expected.shape[1] - 1, None), slice(0, 1))
    np.testing.assert_array_equal(last, expected[0, -1:, :1])


@pytest.mark.parametrize("first_row", [0, 5, 15, 16, 37])
def test_the_tiles_of_a_band_begin_at_the_rows_of_the_scan(first_row):
    rows = np.random.default_rng(first_row).integers(0, 9, (40, 35, 6), dtype=np.uint8)
    sums, highest = sum_tiles(rows, first_row)
    scan = np.concatenate([np.zeros((first_row % TILE_SIDE, *rows.shape[1:])), rows])
    np.testing.assert_array_equal(sums, add_up(scan[None])[0])
    np.testing.assert_array_equal(highest, rows.max(axis=(0, 1)))


def test_sums_do_not_overflow(tmp_path, every_scan):
    source = write_source(tmp_path)
    for highest in (255, 65535, 2**32 - 1):
        counts = np.full((1, 16, 16, 3), highest, dtype=np.uint32)
        scan = dataclasses.replace(
            made_scan(source, shape=counts.shape), dtype=counts.dtype, read_counts=lambda rows, c=counts: c[:, rows]
        )
        path = tmp_path / f"{highest}.zarr"
        ingest_scan(scan, path)
        np.testing.assert_array_equal(open_spectra(path).tile_sums(0), np.full((1, 1, 3), 256 * highest))


def test_small_scans_and_fractions_have_none_and_say_so(tmp_path):
    source = write_source(tmp_path)
    small, fractions = tmp_path / "small.zarr", tmp_path / "fractions.zarr"
    ingest_scan(made_scan(source), small)
    ingest_scan(made_scan(source, shape=(1, 70, 70, 8), scale=0.3), fractions)
    for path in (small, fractions):
        store = open_spectra(path)
        assert not store.has_tiles
        assert not (path / "tile_sums").exists()
        with pytest.raises(ValueError, match="has no sums of tiles"):
            store.tile_sums(0)


def test_interrupted_after_any_band_it_ends_with_the_same_bytes(tmp_path, every_scan, small_bands):
    source = write_source(tmp_path)
    whole_path = tmp_path / "whole.zarr"
    bands = ingest_scan(made_scan(source), whole_path).bands
    assert bands > 4
    assert (whole_path / "tile_sums/c.0.0.0.0").is_file()
    for stop_after in range(bands):
        path = tmp_path / f"{stop_after}.zarr"
        with pytest.raises(KeyboardInterrupt):
            ingest_scan(made_scan(source), path, progress=interrupt_at(stop_after))
        ingest_scan(made_scan(source, rows_per_read=7), path)
        assert tree_content(path) == tree_content(whole_path)


def test_a_disk_that_fills_up_is_named_and_resumed_from(tmp_path, every_scan, small_bands, monkeypatch):
    source = write_source(tmp_path)
    ingest_scan(made_scan(source), tmp_path / "whole.zarr")
    write = tile_sums.write_whole
    messages = []
    for failing in range(100):
        path = tmp_path / f"{failing}.zarr"
        calls = iter(range(1000))

        def full_disk(file, block, calls=calls, failing=failing):
            if next(calls) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(file, block)

        with monkeypatch.context() as patch:
            patch.setattr(tile_sums, "write_whole", full_disk)
            try:
                ingest_scan(made_scan(source), path)
            except OutputError as error:
                messages.append(str(error))
            else:
                break
        ingest_scan(made_scan(source), path)
        assert tree_content(path) == tree_content(tmp_path / "whole.zarr")
    assert len(messages) > 2
    assert all("disk or quota is full" in text for text in messages)


def test_metadata_are_those_that_zarr_writes_and_a_zip_has_them_too(tmp_path, every_scan):
    path, other = tmp_path / "s.zarr", tmp_path / "other.zarr"
    ingest_scan(made_scan(write_source(tmp_path)), path)
    shutil.copytree(path, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(other)
    ours, theirs = (json.loads((one / "zarr.json").read_bytes()) for one in (path, other))
    assert ours == theirs
    before = open_spectra(path).tile_sums(1)
    assert pack_store(path)
    np.testing.assert_array_equal(open_spectra(path).tile_sums(1), before)


def test_a_damaged_or_lost_shard_is_refused(tmp_path, every_scan):
    path = tmp_path / "s.zarr"
    scan = made_scan(write_source(tmp_path))
    ingest_scan(scan, path)
    shard = path / "tile_sums/c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    store = open_spectra(path)
    with pytest.raises(DamagedStoreError, match=r"sums of tiles cannot be read.*ingests the scan again"):
        [store.tile_sums(detector) for detector in range(2)]
    shard.unlink()
    with pytest.raises(DamagedStoreError):
        open_spectra(path)
    ingest_scan(scan, path)
    np.testing.assert_array_equal(open_spectra(path).tile_sums(0), add_up(whole(scan))[0])
