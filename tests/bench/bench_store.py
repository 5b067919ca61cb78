"""How much sooner a cube is read back from its store than from the MAPS HDF5 file: `build/bench-store.json`."""

import json
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
RESULT = Path(__file__).parents[2] / "build" / "bench-store.json"


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
def test_reading_back_from_the_store_and_from_maps_hdf5(tmp_path):
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
    RESULT.parent.mkdir(exist_ok=True)
    figures = {
        "cube_bytes_float32": counts.nbytes,
        "read_maps_hdf5_s": maps_s,
        "read_store_s": store_s,
        "times_faster": maps_s / store_s,
        "maps_hdf5_bytes": maps.stat().st_size,
        "store_bytes": tree_bytes(record.path),
        "ingest_s": record.wall_s,
    }
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
