"""Counts on disk: what a pixel takes, how fast spectra are read back, and what an ingest costs, by level and format.

Beside each figure stands that of version 0.1.0's method in the same run, its steps written out here: counts of two
bytes through Zarr, the source hashed before it is read, HDF5 by slices, MDA record by record.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from mda_files import write_step_scan
from zarr.codecs import ZstdCodec

from hpcxrf.formats.mda_layout import map_file, read_header, read_scan, read_values
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan, ReadOptions, ScanScalars
from hpcxrf.store.files import file_sha256, tree_bytes
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.schema import spectra_layout
from hpcxrf.store.spectra import open_spectra

pytestmark = pytest.mark.bench

SHAPE = (1, 128, 256, 2048)
PIXELS = SHAPE[1] * SHAPE[2]
LEVELS = (10, 180, 1700, 5300)
BLOCK_ROWS = 16
AXES = ReadOptions(energy_axis=2, energy_slope_kev=0.01, energy_offset_kev=0.0)


def made_counts(level: float) -> np.ndarray:
    """Peaks over a falling continuum, so many counts a pixel in the mean, each pixel another mixture; uint16."""
    rng = np.random.default_rng(20)
    channel = np.arange(SHAPE[3])
    places = np.array([174, 230, 369, 590, 640, 705, 802, 864, 957, 1086, 1200])
    peaks = np.exp(-0.5 * ((channel - places[:, None]) / (4 + places[:, None] / 200)) ** 2)
    columns = np.vstack([peaks, np.exp(-channel / 500) * (channel > 30)])
    columns *= rng.uniform(0.1, 1.0, (len(columns), 1)) / columns.sum(axis=1, keepdims=True)
    columns *= level / columns.sum()
    counts = np.empty(SHAPE, dtype=np.uint16)
    for y in range(SHAPE[1]):
        counts[0, y] = rng.poisson(rng.uniform(0, 2, (SHAPE[2], len(columns))) @ columns)
    return counts


def in_memory(counts: np.ndarray, source: Path) -> RawScan:
    source.write_bytes(b"counts")
    return RawScan(
        name="scan",
        format="made",
        files=(source,),
        shape=SHAPE,
        dtype=counts.dtype,
        rows_per_read=BLOCK_ROWS,
        read_counts=lambda rows: counts[:, rows],
        read_scalars=ScanScalars,
    )


def best_cpu_s(run: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of all threads of this process."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


# --- version 0.1.0 ------------------------------------------------------------------------------


def old_array(path: Path, shape: tuple[int, ...]) -> "zarr.Array[Any]":
    layout = spectra_layout(shape, 2)
    shutil.rmtree(path, ignore_errors=True)
    compressor = ZstdCodec(level=1, checksum=True)
    options = {"chunks": layout.chunks, "shards": layout.shards, "compressors": compressor, "fill_value": 0}
    array = zarr.create_array(path, shape=shape, dtype="u2", config={"write_empty_chunks": True}, **options)
    return array.with_config({"write_empty_chunks": True})


def old_ingest(source: Path, blocks: Iterator[np.ndarray], path: Path, shape: tuple[int, ...]) -> None:
    """Hash, read, check, write through Zarr, sum, hash what was written."""
    file_sha256(source)
    array, first = old_array(path, shape), 0
    total = np.zeros((shape[0], shape[3]))
    for block in blocks:
        assert block.min() >= 0
        assert block.max() < 65536
        assert block.dtype.kind == "u" or all((np.rint(row) == row).all() for one in block for row in one)
        rows = slice(first, first + block.shape[1])
        values = block.astype(np.uint16)
        array[:, rows], first = values, rows.stop
        total += [sum(row.sum(axis=0, dtype=np.float64) for row in detector) for detector in values]
        values.max(axis=(1, 2))
    for file in path.rglob("c/*"):
        if file.is_file():
            file_sha256(file)


def npy_blocks(path: Path) -> Iterator[np.ndarray]:
    stored = np.load(path, mmap_mode="r")
    return (np.array(stored[y : y + BLOCK_ROWS])[None] for y in range(0, SHAPE[1], BLOCK_ROWS))


def hdf5_blocks(path: Path) -> Iterator[np.ndarray]:
    with h5py.File(path, "r") as file:
        for y in range(0, SHAPE[1], BLOCK_ROWS):
            yield file["counts"][y : y + BLOCK_ROWS][None]


def maps_blocks(path: Path) -> Iterator[np.ndarray]:
    with h5py.File(path, "r") as file:
        for y in range(0, SHAPE[1], BLOCK_ROWS):
            yield np.moveaxis(file["MAPS/Spectra/mca_arr"][:, y : y + BLOCK_ROWS], 0, 2)[None].copy()


def mda_blocks(path: Path) -> Iterator[np.ndarray]:
    data = map_file(path)
    for row_at in read_scan(path, data, read_header(path, data).scan_at).sub_at:
        points = (read_scan(path, data, at) for at in read_scan(path, data, row_at).sub_at)
        # The file lists its detectors from the last to the first.
        yield np.stack([read_values(data, point) for point in points], axis=1)[::-1, None]


# --- files --------------------------------------------------------------------------------------


def write_npy(folder: Path, counts: np.ndarray) -> Path:
    np.save(folder / "scan.npy", counts[0])
    return folder / "scan.npy"


def write_hdf5(folder: Path, counts: np.ndarray) -> Path:
    with h5py.File(folder / "scan.h5", "w") as file:
        file["counts"] = counts[0]
    return folder / "scan.h5"


def write_maps(folder: Path, counts: np.ndarray) -> Path:
    """As XRF-Maps writes it: (channel, row, column), chunks (channels, 1, 1), gzip."""
    with h5py.File(folder / "scan.h50", "w") as file:
        layout = {"chunks": (SHAPE[3], 1, 1), "compression": "gzip", "compression_opts": 4}
        file.create_dataset("MAPS/Spectra/mca_arr", data=np.moveaxis(counts[0], 2, 0).astype("f4"), **layout)
    return folder / "scan.h50"


def write_mda(folder: Path, counts: np.ndarray) -> Path:
    return write_step_scan(folder / "scan.mda", counts.reshape(4, 64, 128, SHAPE[3]))


FORMATS = {
    "npy uint16": (write_npy, npy_blocks, AXES),
    "HDF5 uint16": (write_hdf5, hdf5_blocks, AXES),
    "MAPS float32 gzip": (write_maps, maps_blocks, ReadOptions()),
    "MDA float32": (write_mda, mda_blocks, ReadOptions()),
}


@pytest.mark.parametrize("level", LEVELS)
def test_counts_in_their_store(tmp_path, figure, level):
    counts = made_counts(level)
    record = ingest_scan(in_memory(counts, tmp_path / "scan"), tmp_path / "scan.zarr")
    before = old_array(tmp_path / "before.zarr", SHAPE)
    before[...] = counts
    store = open_spectra(record.path)
    np.testing.assert_array_equal(store.read_rows([0], slice(None)), counts)
    after_s = best_cpu_s(lambda: store.read_rows([0], slice(None)))
    before_s = best_cpu_s(lambda: before[...])
    names = {"peer": "uint16 zstd through Zarr (0.1.0)"}
    title = f"{level} counts a pixel"
    figure(
        name=f"{title}: read from the store",
        value=PIXELS / after_s,
        unit="spectra / CPU s",
        peer_value=PIXELS / before_s,
        **names,
    )
    size = tree_bytes(record.path / "counts") / PIXELS
    old_size = tree_bytes(tmp_path / "before.zarr") / PIXELS
    figure(name=f"{title}: on disk", value=size, unit="B / pixel", peer_value=old_size, **names)


@pytest.mark.parametrize("form", FORMATS)
def test_ingest_of_a_format(tmp_path, figure, form):
    write, read_before, options = FORMATS[form]
    source = write(tmp_path, made_counts(180))
    shape = open_scan(source, options).shape

    def ingest() -> None:
        shutil.rmtree(tmp_path / "after.zarr", ignore_errors=True)
        ingest_scan(open_scan(source, options), tmp_path / "after.zarr")

    after_s = best_cpu_s(ingest)
    before_s = best_cpu_s(lambda: old_ingest(source, read_before(source), tmp_path / "before.zarr", shape))
    before = zarr.open_array(tmp_path / "before.zarr", mode="r")[...]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "after.zarr" / "counts", mode="r")[...], before)
    figure(
        name=f"ingest of {form}",
        value=PIXELS / after_s,
        unit="spectra / CPU s",
        peer="method of 0.1.0",
        peer_value=PIXELS / before_s,
        includes="180 counts a pixel, 2048 channels; CPU seconds of all threads, the hash of the source included",
    )
    megabytes = open_scan(source, options).dtype.itemsize * before.size / 1e6
    figure(name=f"ingest of {form}, bytes of counts", value=megabytes / after_s, unit="MB / CPU s")
