"""Ingest: exact, repeatable, bounded in memory, and loud about what it cannot do."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import store_scans
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_scans import interrupt_at, made_scan, tree_content, whole, write_source

from hpcxrf.errors import InputFileError, OutputError
from hpcxrf.formats.scan import ScanScalars
from hpcxrf.store import array_writer, files, filling, schema, shard_writer
from hpcxrf.store.ingest import ingest_scan, progress_file
from hpcxrf.store.schema import SCHEMA_VERSION, spectra_layout
from hpcxrf.store.spectra import open_spectra


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path)


@pytest.fixture
def small_bands(monkeypatch):
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", store_scans.SMALL_BAND_BYTES)


def replace_counts(scan, counts):
    return dataclasses.replace(scan, shape=counts.shape, dtype=counts.dtype, read_counts=lambda rows: counts[:, rows])


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 12), st.integers(1, 130)),
    rows_per_read=st.integers(1, 50),
    band_bytes=st.sampled_from([1, 3000, 1 << 24]),
)
def test_what_is_read_back_is_what_was_measured_for_any_shape_and_block(
    tmp_path_factory, monkeypatch, shape, rows_per_read, band_bytes
):
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", band_bytes)
    monkeypatch.setattr(schema, "BAND_BYTES_MAX", max(band_bytes, 3000))
    folder = tmp_path_factory.mktemp("any")
    scan = made_scan(write_source(folder), shape=shape, rows_per_read=rows_per_read)
    ingest_scan(scan, folder / "s.zarr")
    store = open_spectra(folder / "s.zarr")
    counts = whole(scan)
    np.testing.assert_array_equal(store.read_rows(range(shape[0]), slice(None)), counts)
    for detector in range(shape[0]):
        expected = counts[detector].sum(axis=(0, 1), dtype=np.float64)
        np.testing.assert_array_equal(store.integrated(detector), expected)
        highest = counts[detector].max(axis=(0, 1))
        np.testing.assert_array_equal(store.max_channel_spectrum(detector), highest)


def test_a_second_ingest_changes_not_even_a_modification_time(tmp_path, source):
    path = tmp_path / "spectra" / "s.zarr"
    first = ingest_scan(made_scan(source), path)
    before = {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")}
    second = ingest_scan(made_scan(source), path)
    assert (first.unchanged, second.unchanged) == (False, True)
    assert {file: file.stat().st_mtime_ns for file in path.parent.rglob("*")} == before
    assert dataclasses.replace(second, unchanged=False, wall_s=first.wall_s) == first


@pytest.mark.parametrize(
    ("highest", "dtype"),
    [
        (255.0, "uint8"),
        (256.0, "uint16"),
        (65535.0, "uint16"),
        (65536.0, "uint32"),
        (0.5, "float32"),
        (4294967040.0, "uint32"),
    ],
)
def test_the_stored_type_is_the_narrowest_that_is_exact(tmp_path, source, small_bands, highest, dtype):
    scan = made_scan(source)
    counts = whole(scan)
    counts[-1, -1, -1, -1] = highest
    record = ingest_scan(replace_counts(scan, counts), tmp_path / "s.zarr")
    assert record.bands > 1
    assert zarr.open_array(tmp_path / "s.zarr" / "counts", mode="r").dtype == dtype
    store = open_spectra(tmp_path / "s.zarr")
    # In memory nothing is narrower than two bytes: sums of one would overflow.
    assert store.dtype.name == record.dtype == ("uint16" if dtype == "uint8" else dtype)
    np.testing.assert_array_equal(store.read_rows([0, 1], slice(None)), counts)


def test_bands_that_were_finished_narrow_are_not_read_from_the_source_again(tmp_path, source, small_bands):
    scan = made_scan(source)
    counts = whole(scan)
    counts[-1, -1, -1, -1] = 256.0
    wide, read = replace_counts(scan, counts), []

    def read_rows(rows):
        read.append(rows.start)
        return wide.read_counts(rows)

    ingest_scan(dataclasses.replace(wide, read_counts=read_rows), tmp_path / "a.zarr")
    # The block of the highest count comes twice, and the one before, which ends within its band.
    assert len(read) == len(set(read)) + 2 > 6
    store = open_spectra(tmp_path / "a.zarr")
    np.testing.assert_array_equal(store.read_rows([0, 1], slice(None)), counts)
    np.testing.assert_array_equal(store.integrated(1), counts[1].sum(axis=(0, 1)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", source.name]


@pytest.mark.parametrize(("mean", "codec"), [(2.0, "zstd"), (20.0, "blosc")])
def test_bright_counts_of_two_bytes_have_the_codec_that_reads_faster_and_every_reader_has_it(
    tmp_path, source, mean, codec
):
    scan = made_scan(source)
    counts = np.random.default_rng(1).poisson(mean, scan.shape).astype(np.float32)
    counts[0, 0, 0, 0] = 300.0
    ingest_scan(replace_counts(scan, counts), tmp_path / "s.zarr")
    array = zarr.open_array(tmp_path / "s.zarr" / "counts", mode="r")
    names = [one["name"] for one in array.metadata.to_dict()["codecs"][0]["configuration"]["codecs"]]
    assert codec in names
    np.testing.assert_array_equal(xarray.open_zarr(tmp_path / "s.zarr")["counts"].values, counts)


def test_a_scan_that_turns_wide_then_fractional_ends_as_one_that_was_fractional_from_the_start(
    tmp_path, source, small_bands
):
    scan = made_scan(source)
    counts = whole(scan)
    counts[0, 10, 0, 0], counts[0, 30, 0, 0] = 70000.0, 1.5
    ingest_scan(replace_counts(scan, counts), tmp_path / "a.zarr")
    counts = counts.copy()
    direct = dataclasses.replace(replace_counts(scan, counts), rows_per_read=100)
    ingest_scan(direct, tmp_path / "b.zarr")
    assert tree_content(tmp_path / "a.zarr") == tree_content(tmp_path / "b.zarr")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_cannot_be_a_count_is_refused_with_file_rows_and_value(tmp_path, source, value):
    scan = made_scan(source)
    counts = whole(scan)
    counts[1, 22, 3, 4] = value
    bad = replace_counts(scan, counts)
    with pytest.raises(InputFileError, match=r"scan\.raw, rows 20\.\.24: counts .*must be"):
        ingest_scan(bad, tmp_path / "s.zarr")
    with pytest.raises(OutputError, match="not finished"):
        open_spectra(tmp_path / "s.zarr")


def test_times_scalers_and_provenance_are_kept(tmp_path, source):
    scan = made_scan(source)
    ingest_scan(scan, tmp_path / "s.zarr")
    store = open_spectra(tmp_path / "s.zarr")
    scalars = scan.read_scalars()
    times = store.times(slice(3, 7))
    assert times.live_time_s.dtype == np.float32
    np.testing.assert_allclose(times.live_time_s, scalars.live_time_s[:, 3:7], rtol=1e-7)
    assert np.isnan(times.icr_hz).all()
    np.testing.assert_array_equal(store.scaler("café current"), scalars.scaler_values[1])
    np.testing.assert_array_equal(store.measured(), scalars.measured)
    np.testing.assert_array_equal(store.positions_um()[0], scalars.x_um)
    assert store.scaler_units == ("cts/s", "mA")
    assert store.calibration == scan.calibration
    assert store.incident_energy_kev == 10.0
    assert store.notes == scan.notes
    # sha256sum of the 25 bytes, by coreutils
    sha = subprocess.run(["sha256sum", source], capture_output=True, text=True, check=True)
    assert store.sources[0].sha256 == sha.stdout.split()[0]
    assert store.sources[0].size_bytes == 25


def test_a_region_is_the_same_part_of_the_whole(tmp_path, source, small_bands):
    scan = made_scan(source)
    ingest_scan(scan, tmp_path / "s.zarr")
    store = open_spectra(tmp_path / "s.zarr")
    counts = whole(scan)
    region = store.read_rows([1], slice(5, 30), slice(2, 8))
    np.testing.assert_array_equal(region, counts[1:, 5:30, 2:8])
    with pytest.raises(IndexError, match="no detector 2"):
        store.read_rows([2], slice(0, 1))
    with pytest.raises(ValueError, match="step"):
        store.read_rows([0], slice(0, 10, 2))


@pytest.mark.parametrize("with_scalers", [True, False])
def test_xarray_opens_every_group_without_a_warning(tmp_path, source, with_scalers):
    scan = made_scan(source)
    if not with_scalers:
        scan = dataclasses.replace(scan, read_scalars=ScanScalars)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ingest_scan(scan, tmp_path / "s.zarr")
        with xarray.open_zarr(tmp_path / "s.zarr") as dataset:
            loaded = dataset.load()
    expected = set(schema.SPECTRA_VARIABLES) - (set() if with_scalers else {"scaler"})
    assert set(loaded.data_vars) - {"unit"} == expected
    for name in expected:
        spec = schema.SPECTRA_VARIABLES[name]
        assert loaded[name].dims == spec.dims
        assert loaded[name].attrs["units"] == spec.units
        assert loaded[name].dtype == spec.dtype
    assert list(loaded["detector"].values) == ["0", "1"]
    assert loaded.attrs["complete"] is True
    np.testing.assert_array_equal(loaded["counts"].sel(detector="1"), whole(scan)[1])


def test_counts_need_only_codecs_of_the_zarr_specification(tmp_path, source):
    ingest_scan(made_scan(source), tmp_path / "s.zarr")
    metadata = json.loads((tmp_path / "s.zarr/counts/zarr.json").read_bytes())
    sharding = metadata["codecs"][0]["configuration"]
    assert [codec["name"] for codec in sharding["codecs"]] == ["bytes", "zstd", "crc32c"]
    assert [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]


def test_metadata_and_shards_are_those_that_zarr_writes(tmp_path, source, small_bands):
    path, other = tmp_path / "s.zarr", tmp_path / "other.zarr"
    ingest_scan(made_scan(source), path)
    shutil.copytree(path, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(other)
    ours, theirs = (json.loads((one / "zarr.json").read_bytes()) for one in (path, other))
    assert ours == theirs
    counts = zarr.open_array(other / "counts", mode="r+").with_config({"write_empty_chunks": True})
    values = counts[...]
    for shard in (other / "counts").glob("c.*"):
        shard.unlink()
    counts[...] = values
    assert tree_content(other / "counts").keys() == tree_content(path / "counts").keys()
    sizes = [{file.name: file.stat().st_size for file in (one / "counts").glob("c.*")} for one in (path, other)]
    assert sizes[0] == sizes[1]


def test_interrupted_after_any_band_it_goes_on_and_ends_equal(tmp_path, source, small_bands):
    whole_path = tmp_path / "whole.zarr"
    bands = ingest_scan(made_scan(source), whole_path).bands
    assert bands > 4
    for stop_after in range(bands):
        path = tmp_path / f"{stop_after}.zarr"
        with pytest.raises(KeyboardInterrupt):
            ingest_scan(made_scan(source), path, progress=interrupt_at(stop_after))
        assert progress_file(path).exists()
        record = ingest_scan(made_scan(source, rows_per_read=7), path)
        assert record.resumed_bands == stop_after
        assert tree_content(path) == tree_content(whole_path)
        assert not progress_file(path).exists()


def test_a_disk_that_fills_at_any_write_is_named_and_resumed_from(tmp_path, source, small_bands, monkeypatch):
    whole_path = tmp_path / "whole.zarr"
    ingest_scan(made_scan(source), whole_path)
    write = files.write_blocks
    messages = []
    for failing in range(100):
        path = tmp_path / f"{failing}.zarr"
        calls = iter(range(1000))

        def full_disk(file, blocks, calls=calls, failing=failing, **options):
            if next(calls) == failing:
                file.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, blocks, **options)

        with monkeypatch.context() as patch:
            for module in (array_writer, shard_writer):
                patch.setattr(module, "write_blocks", full_disk)
            try:
                ingest_scan(made_scan(source), path)
            except OutputError as error:
                messages.append(str(error))
            else:
                break
        ingest_scan(made_scan(source), path)
        assert tree_content(path) == tree_content(whole_path)
    assert len(messages) > 20
    start = f"{tmp_path}: disk or quota is full (needs up to "
    assert all(text.startswith(start) and "bytes are free" in text for text in messages)


def test_a_torn_shard_is_not_trusted(tmp_path, source, small_bands):
    whole_path, path = tmp_path / "whole.zarr", tmp_path / "s.zarr"
    ingest_scan(made_scan(source), whole_path)
    with pytest.raises(KeyboardInterrupt):
        ingest_scan(made_scan(source), path, progress=interrupt_at(3))
    shard = path / "counts/c.0.1.0.0"
    shard.write_bytes(shard.read_bytes()[:-100])
    with progress_file(path).open("a") as journal:
        journal.write('{"event":"band","ba')
    assert ingest_scan(made_scan(source), path).resumed_bands == 2
    assert tree_content(path) == tree_content(whole_path)


def test_another_source_or_option_under_the_same_name_is_refused(tmp_path, source):
    path = tmp_path / "s.zarr"
    ingest_scan(made_scan(source), path)
    before = tree_content(path)
    other = dataclasses.replace(made_scan(source), incident_energy_kev=12.5)
    with pytest.raises(OutputError, match=r"incident_energy_kev: stored 10\.0, now 12\.5\n.*remove"):
        ingest_scan(other, path)
    source.write_bytes(b"another measurement")
    with pytest.raises(OutputError, match=r"holds another scan than .*scan\.raw[^$]*SHA-256"):
        ingest_scan(made_scan(source), path)
    assert tree_content(path) == before


def test_an_unfinished_store_of_a_source_that_was_replaced_is_begun_anew(tmp_path, source, small_bands):
    path = tmp_path / "s.zarr"

    def interrupt(rows_done, rows):
        if rows_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_scan(made_scan(source), path, progress=interrupt)
    source.write_bytes(b"the file, copied whole this time")
    assert ingest_scan(made_scan(source), path).resumed_bands == 0


def test_a_source_that_changes_while_it_is_read_gives_no_finished_store(tmp_path, source):
    path = tmp_path / "s.zarr"
    with pytest.raises(InputFileError, match=r"scan\.raw: changed while it was being read"):
        ingest_scan(made_scan(source), path, progress=lambda rows_done, rows: source.write_bytes(b"more"))
    with pytest.raises(OutputError, match="not finished"):
        open_spectra(path)


def test_a_store_of_another_schema_version_is_refused_with_both_versions(tmp_path, source):
    path = tmp_path / "s.zarr"
    ingest_scan(made_scan(source), path)
    root = path / "zarr.json"
    metadata = json.loads(root.read_bytes())
    metadata["attributes"][schema.SCHEMA_ATTRIBUTE] = 99
    root.write_text(json.dumps(metadata))
    message = rf"schema version 99, .*1 to {SCHEMA_VERSION}; remove the store"
    with pytest.raises(OutputError, match=message):
        ingest_scan(made_scan(source), path)
    with pytest.raises(OutputError, match=message):
        open_spectra(path)


def test_a_folder_that_is_not_ours_is_not_touched(tmp_path, source):
    path = tmp_path / "s.zarr"
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not a store of hpcxrf"):
        ingest_scan(made_scan(source), path)
    assert (path / "thesis.tex").read_text() == "years of work"


def test_a_store_that_lost_a_shard_is_refused_not_read_as_zeros(tmp_path, source, small_bands):
    path = tmp_path / "s.zarr"
    ingest_scan(made_scan(source), path)
    (path / "counts/c.0.2.0.0").unlink()
    with pytest.raises(OutputError, match=r"y-bands 2 of .* are gone; the next run"):
        open_spectra(path)


def test_a_folder_that_cannot_be_written_is_named_with_room_needed_and_free(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/spectra: cannot be written: .* bytes are free"):
        ingest_scan(made_scan(source), tmp_path / "file" / "spectra" / "s.zarr")


def test_no_right_to_write_is_named(tmp_path, source, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filling, "create_template", refuse)
    with pytest.raises(OutputError, match=r"cannot be written: Permission denied .*check its rights"):
        ingest_scan(made_scan(source), tmp_path / "s.zarr")


def test_a_source_that_is_gone_is_named(tmp_path):
    with pytest.raises(InputFileError, match=r"gone\.raw: cannot be read: No such file"):
        ingest_scan(made_scan(tmp_path / "gone.raw"), tmp_path / "s.zarr")


def test_an_all_zero_scan_is_kept_as_such(tmp_path, source):
    scan = made_scan(source)
    ingest_scan(replace_counts(scan, np.zeros((1, 5, 4, 16))), tmp_path / "s.zarr")
    store = open_spectra(tmp_path / "s.zarr")
    assert store.shape == (1, 5, 4, 16)
    assert not store.read_rows([0], slice(None)).any()


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([512, 2048, 4096]))
def test_shards_are_whole_chunks_and_a_scan_is_tens_of_files(detectors, rows, columns, channels):
    shape = (detectors, rows, columns, channels)
    layout = spectra_layout(shape, 2)
    assert all(shard % chunk == 0 for shard, chunk in zip(layout.shards, layout.chunks, strict=True))
    assert layout.chunks[3] == channels
    assert 2 * np.prod(layout.chunks) <= 32 << 20
    bands = -(-rows // layout.band_rows)
    row_bytes = detectors * columns * channels * 2
    total = row_bytes * rows
    assert bands <= max(2 * total / (16 << 20), 2 * total / max(row_bytes, 64 << 20)) + 1
    if bands > 1:
        assert layout.band_rows == 1 << (layout.band_rows.bit_length() - 1)


@pytest.mark.parametrize(
    ("shape", "chunk_mb", "files"),
    [((1, 1000, 1000, 2048), 1.05, 63), ((4, 1000, 1000, 2048), 1.05, 125), ((1, 512, 512, 2048), 1.05, 32)],
)
def test_layouts_of_typical_scans(shape, chunk_mb, files):
    layout = spectra_layout(shape, 2)
    assert 2 * np.prod(layout.chunks) / 1e6 == pytest.approx(chunk_mb, abs=0.05)
    assert -(-shape[1] // layout.band_rows) == files


CHILD = Path(__file__).parents[1] / "samples" / "store_scans.py"


def start_child(**options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHILD.parents[2])}
    return subprocess.Popen([sys.executable, CHILD, json.dumps(options)], stdout=subprocess.PIPE, env=environment)


def kill_until(kills, tmp_path, source, seed):
    """Kill the ingesting process at random times, then let it end; returns what the last one said."""
    rng = np.random.default_rng(seed)
    options = {
        "source": str(source),
        "store": str(tmp_path / "killed.zarr"),
        "shape": [2, 400, 16, 256],
        "rows_per_read": 3,
        "band_bytes": 1 << 16,
        "pause_s": 0.004 * kills,
    }
    # Reading alone takes longer than all kills together wait, so that each finds the ingest at work; the
    # first waits for a finished band besides, so that there is something to resume on any machine.
    longest_s = 0.8 * options["pause_s"] * (400 / 3) / kills
    journal = progress_file(tmp_path / "killed.zarr")
    for kill in range(kills):
        with start_child(**options) as child:
            assert child.stdout.readline() == b"READY\n"
            while kill == 0 and not (journal.exists() and '"sha256"' in journal.read_text()):
                time.sleep(0.001)
            try:
                child.wait(timeout=rng.uniform(0.0, longest_s))
            except subprocess.TimeoutExpired:
                child.kill()
            assert child.wait() == -9
    with start_child(**options) as child:
        said = child.stdout.read().splitlines()
        assert child.wait() == 0
    return options, json.loads(said[1])


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_times_it_resumes_and_ends_equal(tmp_path, source, monkeypatch, kills):
    options, answer = kill_until(kills, tmp_path, source, seed=kills)
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", options["band_bytes"])
    monkeypatch.setattr(schema, "BAND_BYTES_MAX", options["band_bytes"])
    scan = made_scan(source, shape=tuple(options["shape"]), rows_per_read=400)
    ingest_scan(scan, tmp_path / "undisturbed.zarr")
    assert answer["bands"] == 100
    assert answer["resumed"] > 0
    assert tree_content(tmp_path / "killed.zarr") == tree_content(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize(
    ("shape", "limit_mb"),
    [
        ((1, 256, 256, 2048), 100),
        ((4, 64, 256, 2048), 100),
        pytest.param((4, 512, 512, 2048), 900, marks=pytest.mark.slow),
    ],
)
def test_memory_above_the_idle_process_is_bounded(tmp_path, source, shape, limit_mb):
    # The source is float32: 512 MB and 8 GB; stored, the cubes are 256 MB and 4 GB.
    with start_child(source=str(source), store=str(tmp_path / "s.zarr"), shape=shape, rows_per_read=4) as child:
        said = child.stdout.read().splitlines()
    answer = json.loads(said[1])
    above_idle_mb = (answer["peak_kb"] - answer["idle_kb"]) / 1024
    assert above_idle_mb < limit_mb, answer
