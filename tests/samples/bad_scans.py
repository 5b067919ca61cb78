"""Small scans for bad input, and the files that they become."""

from pathlib import Path

import h5py
import numpy as np

from hpcxrf.formats.maps_writer import write_array_hdf5
from hpcxrf.formats.scan import EnergyCalibration

SHAPE = (2, 4, 6, 2048)
FIT = ("--elements", "Si,K,Ca,Fe", "--energy", "13.5")
AXIS = ("--energy-offset", "0.006", "--energy-slope", "0.00952")


def write_array(path: Path, values, **attributes) -> Path:
    with h5py.File(path, "w") as file:
        file["counts"] = values
        file["counts"].attrs.update(attributes)
    return path


def write_whole(path: Path, counts, writer=write_array_hdf5) -> Path:
    """With times and calibration, as the simulation writes it."""
    ones = np.ones(counts.shape[:3])
    one = EnergyCalibration(offset_kev=0.006, slope_kev=0.00952)
    files = writer(
        path,
        counts,
        live_time_s=ones,
        real_time_s=ones,
        icr_hz=ones,
        ocr_hz=ones,
        energy_calibration=(one,) * counts.shape[0],
        incident_energy_kev=13.5,
    )
    return files[0]


def cut(path: Path, to: Path, share: float) -> Path:
    content = path.read_bytes()
    to.write_bytes(content[: int(share * len(content))])
    return to
