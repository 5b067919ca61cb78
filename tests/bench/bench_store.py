"""How much sooner a cube is read back from its store than from the MAPS HDF5 file."""

import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcxrf.formats.scan import RawScan, ScanScalars
from hpcxrf.store.files import tree_bytes
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import open_spectra

SHAPE = (1, 128, 256, 2048)


def sparse_counts() -> np.ndarray:
    """About 900 counts a pixel in peaks over a falling background, float32, 256 MB."""
    rng = np.random.default_rng(0)
    channel = np.arange(SHAPE[3])
    mean = 0.02 * np.exp(-channel / 600)
    for place, height in ((200, 0.5), (370, 3), (640, 8), (705, 1), (864, 0.6), (1100, 2)):
        mean = mean + height * np.exp(-0.5 * ((channel - place) / 9) ** 2) / 22.5
    counts = np.empty(SHAPE, dtype=np.float32)
    for y in range(SHAPE[1]):
        counts[0, y] = rng.poisson(mean * rng.uniform(5, 60, (SHAPE[2], 1)))
    return counts


def write_maps(path: Path, counts: np.ndarray) -> None:
    """As XRF-Maps writes it: (channel, row, column), chunks (channels, 1, 1), gzip level 7."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "MAPS/Spectra/mca_arr",
            data=np.moveaxis(counts[0], -1, 0),
            chunks=(SHAPE[3], 1, 1),
            compression="gzip",
            compression_opts=7,
        )


def read_maps(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return np.asarray(file["MAPS/Spectra/mca_arr"][...])


def best_s(read: Callable[[], np.ndarray], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


@pytest.mark.bench
def test_reading_back_from_the_store_and_from_maps_hdf5(tmp_path, figure):
    counts = sparse_counts()
    maps = tmp_path / "scan.h50"
    write_maps(maps, counts)
    scan = RawScan(
        name="scan",
        format="maps-v10",
        files=(maps,),
        shape=SHAPE,
        dtype=counts.dtype,
        rows_per_read=8,
        read_counts=lambda rows: counts[:, rows],
        read_scalars=ScanScalars,
    )
    record = ingest_scan(scan, tmp_path / "scan.zarr")
    store_s = best_s(lambda: open_spectra(record.path).read_rows([0], slice(None)), 3)
    maps_s = best_s(lambda: read_maps(maps), 2)
    np.testing.assert_array_equal(open_spectra(record.path).read_rows([0], slice(None)), counts)
    megabytes = counts.nbytes / 1e6
    figure(
        name="read a 256 MB cube back from its store",
        value=megabytes / store_s,
        unit="MB/s",
        peer="MAPS HDF5",
        peer_value=megabytes / maps_s,
    )
    figure(
        name="size of that store",
        value=tree_bytes(record.path) / 1e6,
        unit="MB",
        peer="MAPS HDF5",
        peer_value=maps.stat().st_size / 1e6,
    )
    figure(name="ingest that cube from memory", value=megabytes / record.wall_s, unit="MB/s")
