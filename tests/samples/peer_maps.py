"""Maps as XRF-Maps, PyXRF and PyMca lay them out in their files, written by hand."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

REAL_S, ICR, OCR = 0.5, 1000.0, 800.0
LIVE_S = REAL_S * OCR / ICR


def write_xrf_maps(path: Path, maps: Mapping[str, np.ndarray], *, method: str = "NNLS", times: bool = True) -> Path:
    """MAPS HDF5 of version 10: rates of each component, and one map that is none of a component."""
    shape = next(iter(maps.values())).shape
    with h5py.File(path, "w") as file:
        root = file.create_group("MAPS")
        fitted = root.create_group(f"XRF_Analyzed/{method}")
        fitted["Counts_Per_Sec"] = np.stack([*maps.values(), np.full(shape, 7.0)]).astype("f4")
        fitted["Channel_Names"] = np.array([*maps, "Num_Iter"], dtype="S256")
        if times:
            for name, value in (
                ("Elapsed_Livetime", 99.0),
                ("Elapsed_Realtime", REAL_S),
                ("Input_Counts", ICR),
                ("Output_Counts", OCR),
            ):
                root[f"Spectra/{name}"] = np.full(shape, value, dtype="f4")
    return path


def write_xrf_maps_v9(path: Path, maps: Mapping[str, np.ndarray], *, live_time_s: float) -> Path:
    """MAPS HDF5 of version 9: the live time is a scaler."""
    shape = next(iter(maps.values())).shape
    with h5py.File(path, "w") as file:
        root = file.create_group("MAPS")
        root["XRF_fits"] = np.stack(list(maps.values())).astype("f4")
        root["channel_names"] = np.array(list(maps), dtype="S256")
        root["scaler_names"] = np.array(["SRcurrent", "ELT1"], dtype="S256")
        root["scalers"] = np.stack([np.full(shape, 102.0), np.full(shape, live_time_s)]).astype("f4")
    return path


def write_pyxrf(path: Path, groups: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """PyXRF HDF5: counts of whole families, by `detsum` or `det1`, `det2` .."""
    with h5py.File(path, "w") as file:
        for group, maps in groups.items():
            file[f"xrfmap/{group}/xrf_fit"] = np.stack(list(maps.values()))
            file[f"xrfmap/{group}/xrf_fit_name"] = np.array(list(maps), dtype="S20")
    return path


def write_pymca(path: Path, maps: Mapping[str, np.ndarray]) -> Path:
    """HDF5 of PyMca's batch fit: a dataset for each free parameter."""
    with h5py.File(path, "w") as file:
        results = file.create_group("scan/xrf_fit/results")
        for name, values in maps.items():
            results[f"parameters/{name}"] = values
            results[f"uncertainties/{name}"] = np.sqrt(np.abs(values))
        file["scan/xrf_fit/configuration"] = "text"
    return path
