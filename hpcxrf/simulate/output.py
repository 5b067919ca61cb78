"""Simulated scans as files, with the truth beside them."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError, OutputError
from hpcxrf.formats.maps_writer import write_array_hdf5, write_maps_v10
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.scan import (
    ROWS_PER_READ,
    SimulatedScan,
    draw_counts,
    file_calibration,
    row_truth,
    scan_scalars,
    true_theta,
)
from hpcxrf.simulate.spec import DetectorSpec, PhaseSpec, ScanSpec, ScatterSpec, StructureSpec

ScanFormat = Literal["maps-v10", "array"]
TRUTH_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTruth:
    """The truth of a simulated scan, read back."""

    spec: ScanSpec
    components: tuple[str, ...]
    theta: tuple[dict[str, float], ...]
    """One per detector, MAPS names."""
    amplitude: NDArray[np.float64]
    """(detector, component, y, x) expected recorded counts, those in pile-up left out."""
    pileup: NDArray[np.float64]
    """(detector, y, x) expected recorded counts of pile-up."""
    spectra: NDArray[np.float64]
    """(detector, component, channel), each summing to 1."""
    density: NDArray[np.float64]
    """(phase, y, x)."""


def write_scan(
    scan: SimulatedScan, folder: Path, *, scan_format: ScanFormat = "maps-v10", truth_folder: Path | None = None
) -> tuple[Path, ...]:
    """Write the scan, and last its truth (`<name>.truth.json`, `<name>.truth.hdf5`).

    Args:
        scan: what is written.
        folder: of the scan; made if it is not there.
        scan_format: layout of the scan's files.
        truth_folder: of the truth; that of the scan if not given.

    Returns:
        The files of the scan: `<name>.h50`, `<name>.h51` ... or `<name>.h5`.

    Raises:
        OutputError: the folder cannot be written.
    """
    place_of_truth = folder if truth_folder is None else truth_folder
    make_folder(folder)
    make_folder(place_of_truth)
    scalars = scan_scalars(scan)
    write = write_maps_v10 if scan_format == "maps-v10" else write_array_hdf5
    files = write(
        folder / f"{scan.spec.name}.h5",
        lambda rows: draw_counts(scan, rows),
        live_time_s=_require(scalars.live_time_s),
        real_time_s=_require(scalars.real_time_s),
        icr_hz=_require(scalars.icr_hz),
        ocr_hz=_require(scalars.ocr_hz),
        energy_calibration=file_calibration(scan.spec),
        scaler_names=scalars.scaler_names,
        scaler_units=scalars.scaler_units,
        scaler_values=scalars.scaler_values,
        x_um=scalars.x_um,
        y_um=scalars.y_um,
        incident_energy_kev=scan.spec.file_energy_kev or scan.spec.incident_energy_kev,
        rows_per_block=ROWS_PER_READ,
    )
    write_truth(scan, place_of_truth)
    return files


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another") from error


def _require(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if values is None:
        raise TypeError("a simulated scan has all its times")
    return values


def write_truth(scan: SimulatedScan, folder: Path) -> tuple[Path, Path]:
    """Write `<name>.truth.json` (specification, theta) and `<name>.truth.hdf5` (arrays)."""
    head = folder / f"{scan.spec.name}.truth.json"
    body = folder / f"{scan.spec.name}.truth.hdf5"
    content = {
        "version": TRUTH_VERSION,
        "spec": asdict(scan.spec),
        "components": scan.components,
        "theta": [true_theta(scan.spec, d) for d in scan.spec.detectors],
        "unlisted_elements": unlisted_elements(scan),
        "absent_elements": absent_elements(scan),
    }
    text = json.dumps(content, indent=1)
    _replace(body, lambda path: _write_arrays(scan, path))
    _replace(head, lambda path: path.write_text(text, encoding="utf-8"))
    return head, body


def unlisted_elements(scan: SimulatedScan) -> tuple[str, ...]:
    """Families that are in the scan and not in the user's list."""
    return tuple(n for n in scan.components[:-3] if n not in scan.spec.listed_elements)


def absent_elements(scan: SimulatedScan) -> tuple[str, ...]:
    """Families that are in the user's list and not in the scan."""
    return tuple(n for n in scan.spec.listed_elements if n not in scan.components)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name beside the target, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}; choose another folder") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_arrays(scan: SimulatedScan, path: Path) -> None:
    import h5py

    detectors, height, width, _ = scan.spec.shape
    phases, components = len(scan.spec.phases), len(scan.components)
    shapes = {
        "amplitude": (detectors, components, height, width),
        "pileup": (detectors, height, width),
        "density": (phases, height, width),
    }
    with h5py.File(path, "w") as file:
        file.attrs["hpcxrf_truth_version"] = TRUTH_VERSION
        file.create_dataset("spectra", data=scan.spectra, compression="gzip", shuffle=True)
        file["component"] = np.array(scan.components, dtype=object)
        for name, shape in shapes.items():
            file.create_dataset(name, shape, dtype="f8")
        for row in range(height):
            truth = row_truth(scan, row)
            file["amplitude"][:, :, row] = truth.amplitude
            file["pileup"][:, row] = truth.pileup.sum(axis=1)
            file["density"][:, row] = truth.density


def read_truth(path: Path) -> ScanTruth:
    """Read `<name>.truth.json` and the arrays beside it.

    Raises:
        InputFileError: a file is missing, is not a truth, or is of another version.
    """
    import h5py

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != TRUTH_VERSION:
            raise InputFileError(
                f"{path}: truth of version {content['version']}, this program reads {TRUTH_VERSION}; "
                "simulate the scan again"
            )
        with h5py.File(path.with_suffix(".hdf5"), "r") as file:
            arrays = {n: file[n][()] for n in ("amplitude", "pileup", "spectra", "density")}
        return ScanTruth(
            spec=spec_from_json(content["spec"]),
            components=tuple(content["components"]),
            theta=tuple(content["theta"]),
            **arrays,
        )
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputFileError(
            f"{path}: not the truth of a simulated scan ({error}); name the .truth.json file"
        ) from error


def spec_from_json(content: dict[str, Any]) -> ScanSpec:
    """A specification from what `dataclasses.asdict` made of it and JSON kept."""
    claimed = content["file_calibration"]
    nested = {
        "shape": tuple(content["shape"]),
        "listed_elements": tuple(content["listed_elements"]),
        "detectors": tuple(
            DetectorSpec(**{**d, "calibration": EnergyCalibration(**d["calibration"])}) for d in content["detectors"]
        ),
        "phases": tuple(PhaseSpec(**{**p, "structure": StructureSpec(**p["structure"])}) for p in content["phases"]),
        "scatter": ScatterSpec(**content["scatter"]),
        "file_calibration": claimed and tuple(EnergyCalibration(**c) for c in claimed),
    }
    return ScanSpec(**{**content, **nested})
