"""The same counts in every container of plain arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.formats.scan import RawScan, ReadOptions

SHAPE = (2, 5, 4, 64)
NO_OPTIONS = ReadOptions()


def make_counts(shape: tuple[int, ...] = SHAPE, dtype: str = "u2") -> NDArray[Any]:
    return np.random.default_rng(3).poisson(4.0, shape).astype(dtype)


def save_npy(folder: Path, counts: NDArray[Any]) -> Path:
    np.save(folder / "a.npy", counts)
    return folder / "a.npy"


def save_npz(folder: Path, counts: NDArray[Any]) -> Path:
    np.savez_compressed(folder / "a.npz", counts=counts)
    return folder / "a.npz"


def save_hdf5(folder: Path, counts: NDArray[Any]) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["deep/counts"] = counts
    return folder / "a.h5"


def save_zarr(folder: Path, counts: NDArray[Any]) -> Path:
    group = zarr.open_group(folder / "a.zarr", mode="w")
    group.create_array("deep/counts", data=counts)
    return folder / "a.zarr"


def save_zarr_2(folder: Path, counts: NDArray[Any]) -> Path:
    array = zarr.create_array(folder / "b.zarr", data=counts, zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["detector", "y", "x", "energy"][-counts.ndim :]
    return folder / "b.zarr"


SAVERS = [save_npy, save_npz, save_hdf5, save_zarr, save_zarr_2]
Saver = Callable[[Path, NDArray[Any]], Path]


def read_head(path: Path) -> bytes:
    return b"" if path.is_dir() else path.read_bytes()[:4096]


def read_all(scan: RawScan) -> NDArray[Any]:
    return scan.read_counts(slice(0, scan.shape[1]))


def write_hdf5(folder: Path, **datasets: Any) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return folder / "a.h5"
