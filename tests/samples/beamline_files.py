"""HDF5 files in the layouts of beamlines and instruments, written by h5py from their documentation."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

DETECTORS, ROWS, COLUMNS, CHANNELS = 3, 4, 6, 512
POINTS = ROWS * COLUMNS


def make_counts(shape: tuple[int, ...] = (DETECTORS, ROWS, COLUMNS, CHANNELS), dtype: str = "u4") -> NDArray[Any]:
    """Counts that differ in every pixel and detector."""
    return np.random.default_rng(11).poisson(3.0, shape).astype(dtype)


def write_pyxrf(path: Path, counts: NDArray[Any], *, under: str = "", with_sum: bool = True) -> Path:
    """PyXRF: counts (detector, y, x, channel)."""
    size = counts.shape[1:3]
    with h5py.File(path, "w") as file:
        for number, one in enumerate(counts, 1):
            file[f"xrfmap/{under}det{number}/counts"] = one
        if with_sum:
            file["xrfmap/detsum/counts"] = counts.sum(axis=0)
        file["xrfmap/scalers/name"] = [b"i0", b"sclr1_ch4"]
        file["xrfmap/scalers/val"] = np.arange(2.0 * size[0] * size[1]).reshape(*size, 2)
        file["xrfmap/positions/name"] = [b"x_pos", b"y_pos"]
        file["xrfmap/positions/pos"] = np.stack(np.meshgrid(np.arange(size[1]) * 0.5, np.arange(size[0]) * 2.0))
        metadata = file.create_group("xrfmap/scan_metadata")
        metadata.attrs.update({"file_format": "NSLS2-XRF-MAP", "instrument_mono_incident_energy": 12.0})
    return path


def write_larch(path: Path, counts: NDArray[Any], *, version: int = 2, spare_rows: int = 2) -> Path:
    """GSECARS: rows are allocated in advance, `Last_Row` says how many are written; times are microseconds."""
    n_detectors, n_rows, n_columns, n_channels = counts.shape
    root, name = ("xrmmap", "mca") if version == 2 else ("xrfmap", "det")
    allocated = n_rows + spare_rows
    with h5py.File(path, "w") as file:
        top = file.create_group(root)
        top.attrs.update({"Version": f"{version}.0.0", "Last_Row": n_rows - 1, "N_Detectors": n_detectors})
        top.create_group("config")
        for number, one in enumerate(counts, 1):
            group = top.create_group(f"{name}{number}")
            group.attrs["type"] = "mca detector"
            stored = group.create_dataset("counts", (allocated, n_columns, n_channels), "u4", chunks=(1, n_columns, 64))
            stored[:n_rows] = one
            energy = group.create_dataset("energy", data=0.001 * number + 0.01 * np.arange(n_channels))
            energy.attrs.update({"cal_offset": 0.001 * number, "cal_slope": 0.01, "cal_quad": 0.0})
            for kind, value in (("realtime", 200_000), ("livetime", 190_000), ("dtfactor", 1.25), ("inpcounts", 9.0)):
                group.create_dataset(kind, (allocated, n_columns), "f4" if kind == "dtfactor" else "i8")[:n_rows] = (
                    value
                )
        top["mcasum/counts" if version == 2 else "detsum/counts"] = np.zeros((allocated, n_columns, n_channels))
        if version == 2:
            top["scalars/I0"] = np.full((allocated, n_columns), 7.0, "f4")
        else:
            top["roimap/det_name"] = [b"I0", b"Fe Ka (mca1)"]
            top["roimap/det_raw"] = np.stack(
                [np.full((allocated, n_columns), 7), np.ones((allocated, n_columns), int)], -1
            )
        top["positions/name"] = [b"Fine X", b"Fine Y", b"mca realtime"]
        top["positions/pos"] = np.stack(
            [*np.meshgrid(np.arange(n_columns) * 1e-3, np.arange(allocated) * 2e-3), np.zeros((allocated, n_columns))],
            -1,
        )
    return path


def write_bliss(
    path: Path,
    counts: NDArray[Any],
    *,
    scan: str = "1.1",
    title: str = "",
    parameters: bool = False,
    turned: bool = False,
    positions: bool = True,
    n_points: int | None = None,
) -> Path:
    """BLISS: lists of points; `measurement` links to `instrument`; positions in mm; every second row may run back."""
    _, n_rows, n_columns, n_channels = counts.shape
    x, y = np.meshgrid(np.arange(float(n_columns)), 10.0 + np.arange(float(n_rows)))
    stored = counts.copy()
    if turned:
        x[1::2], stored[:, 1::2] = x[1::2, ::-1], stored[:, 1::2, ::-1]
    taken = slice(0, n_points if n_points is not None else n_rows * n_columns)
    with h5py.File(path, "a") as file:
        file[f"{scan}/title"] = title
        instrument = file.create_group(f"{scan}/instrument")
        measurement = file.create_group(f"{scan}/measurement")
        for number, one in enumerate(stored):
            name = f"fx_det{number}"
            points = one.reshape(-1, n_channels)[taken]
            instrument[f"{name}/data"] = points
            for kind, value in (
                ("elapsed_time", 0.5),
                ("live_time", 0.1),
                ("trigger_count_rate", 2e4),
                ("event_count_rate", 1.5e4),
            ):
                instrument[f"{name}/{kind}"] = np.full(len(points), value)
            measurement[name] = h5py.SoftLink(f"/{scan}/instrument/{name}/data")
        for name, values in (("samy", x), ("samz", y)) if positions else ():
            motor = instrument.create_dataset(f"positioners/{name}", data=values.reshape(-1)[taken])
            motor.attrs["units"] = "mm"
        instrument["I0/data"] = np.arange(float(n_rows * n_columns))[taken]
        instrument["epoch/data"] = 1.7e9 + np.arange(float(n_rows * n_columns))[taken]
        energy = instrument.create_dataset("positioners_start/energy", data=12.5)
        energy.attrs["units"] = "keV"
        if parameters:
            file[f"{scan}/scan_parameters/slow_npoints"] = n_rows
            file[f"{scan}/scan_parameters/fast_npoints"] = n_columns
    return path


def write_soleil(path: Path, counts: NDArray[Any], *, as_points: bool = False) -> Path:
    """SOLEIL: actuators of dimension 1 (fast) and 2."""
    n_rows, n_columns, n_channels = counts.shape[1:]
    size = (n_rows * n_columns,) if as_points else (n_rows, n_columns)
    with h5py.File(path, "w") as file:
        group = file.create_group("flyscan_00012/scan_data")
        for number, one in enumerate(counts):
            group[f"channel{number:02d}"] = one.reshape(*size, n_channels)
            for kind, value in (("realtime", 0.25), ("icr", 4e4), ("ocr", 3e4)):
                group[f"{kind}{number:02d}"] = np.full(size, value)
        group["actuator_1_1"] = np.arange(float(n_columns))
        group["actuator_2_1"] = np.arange(float(n_rows))
        group["data_01"] = np.full(size, 5.0)
    return path


def write_oxford(path: Path, counts: NDArray[Any]) -> Path:
    """h5oina 7.0: pixels in one list, energies in eV, every header value of shape (1,)."""
    n_rows, n_columns, n_channels = counts.shape[1:]
    x, y = np.meshgrid(np.arange(float(n_columns)) * 0.5, np.arange(float(n_rows)) * 0.5)
    with h5py.File(path, "w") as file:
        file["Format Version"] = "7.0"
        for number, one in enumerate(counts, 1):
            name = "EDS" if len(counts) == 1 else f"EDS{number}"
            data = {
                "Spectrum": one.reshape(-1, n_channels).astype("i4"),
                "Live Time": np.full((n_rows * n_columns, 1), 0.1, "f4"),
                "X": x.reshape(-1, 1).astype("f4"),
                "Y": y.reshape(-1, 1).astype("f4"),
            }
            for key, value in data.items():
                options = {"compression": "lzf"} if key == "Spectrum" else {}
                file.create_dataset(f"1/{name}/Data/{key}", data=value, **options)
            header = {"X Cells": n_columns, "Y Cells": n_rows, "Channel Width": 10.0, "Start Channel": -200.0}
            for key, number_value in header.items():
                file[f"1/{name}/Header/{key}"] = np.array([number_value])
    return path
