"""MAPS HDF5 of XRF-Maps, versions 9 and 10: `X.h50` .. `X.h5N` are the detectors of one scan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.hdf5_chunks import SpectrumChunks, has_spectrum_chunks, index_chunks, read_slices, read_spectra
from hpcxrf.formats.hdf5_files import (
    HDF5_FAULTS,
    check_rows,
    find_dataset,
    open_hdf5,
    read_floats,
    read_texts,
    refuse_bad_counts,
    refuse_large_rows,
    rows_per_block,
)
from hpcxrf.formats.hdf5_links import has_path
from hpcxrf.formats.maps_raw import live_time, rate
from hpcxrf.formats.scan import EnergyCalibration, FloatMap, RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.signatures import MEMBER_NAME, is_hdf5
from hpcxrf.formats.table import FileFormat
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="maps-v10",
        files="MAPS of XRF-Maps .h5, one scan in .h50 to .h5N",
        reads="maps of each detector; axis, times, rates, scalers, positions, incident energy",
    ),
    FileFormat(
        name="maps-v9",
        files="MAPS .h5 of version 9",
        reads="maps of one detector; axis, times, scalers, positions, incident energy",
    ),
)
SPECTRA: Final = ("/MAPS/Spectra/mca_arr", "/MAPS/mca_arr")
MARKS: Final = (*SPECTRA, "/MAPS/Spectra", "/MAPS/Scan", "/MAPS/Scalers", "/MAPS/scalers")
"""Members that tell a MAPS file, with spectra or without: what else it holds is no array of spectra."""
CALIBRATION: Final = ("/MAPS/Spectra/Energy_Calibration", "/MAPS/energy_calib")
INTEGRATED: Final = ("/MAPS/Spectra/Integrated_Spectra/Spectra", "/MAPS/int_spec")
OVERRIDE: Final = "/MAPS/Fit_Parameters_Override"
SCALER_NAMES: Final = ("/MAPS/Scalers/Names", "/MAPS/scaler_names")
SCALER_UNITS: Final = ("/MAPS/Scalers/Units", "/MAPS/scaler_units")
SCALER_VALUES: Final = ("/MAPS/Scalers/Values", "/MAPS/scalers")
TIMES: Final = {"ELT": "Elapsed_Livetime", "ERT": "Elapsed_Realtime", "ICR": "Input_Counts", "OCR": "Output_Counts"}
"""Names of the times: among the scalers of version 9 (`ELT1` ..), and of the datasets of version 10."""
MILLIMETRE_UM: Final = 1000.0
UNITS_UM: Final = {"um": 1.0, "µm": 1.0, "microns": 1.0, "mm": 1000.0, "nm": 1e-3, "m": 1e6}
LARGEST_PARAMETERS: Final = 10_000
Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """Facts of one file."""

    path: Path
    version: str
    shape: tuple[int, int, int]
    """(y, x, channel)."""
    dtype: np.dtype[np.generic]
    chunk_rows: int
    calibration: EnergyCalibration | None
    incident_energy_kev: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """Times of one detector (y, x); counts in and out as the file has them."""

    real_s: FloatMap | None
    live_s: FloatMap | None
    counts_in: FloatMap | None
    counts_out: FloatMap | None
    are_counts: bool
    """Input and output are counts of the pixel, not rates."""


def sniff(path: Path, head: bytes) -> bool:
    """True where the file is laid out as a MAPS file, also where its spectra are missing: opening it says so."""
    if not is_hdf5(head):
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return any(has_path(file, name) for name in MARKS)
    except HDF5_FAULTS:
        return False


def find_members(path: Path) -> tuple[Path, ...]:
    """Files of the scan that `path` (`X.h5N`) belongs to, detectors in numeric order; itself otherwise."""
    match = MEMBER_NAME.match(path.name)
    if match is None or not path.parent.is_dir():
        return (path,)
    found: list[tuple[int, Path]] = []
    for other in path.parent.iterdir():
        name = MEMBER_NAME.match(other.name)
        if name is not None and name["stem"] == match["stem"] and other.is_file():
            found.append((int(name["number"]), other))
    return tuple(other for _, other in sorted(found)) or (path,)


def find_originals(path: Path) -> tuple[Path, ...]:
    """The members `X.h50` .. beside `X.h5`, of which it is XRF-Maps' average; empty if there are none."""
    first = path.with_name(f"{path.name}0")
    return find_members(first) if path.suffix == ".h5" and first.is_file() else ()


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """All detectors of the scan that the file belongs to.

    Raises:
        InputFileError: truncated, damaged, files that do not fit together, or data outside the files.
    """
    files = find_members(path)
    heads = [_read_head(file, options) for file in files]
    _refuse_misfits(heads)
    height, width, channels = heads[0].shape
    shape = (len(heads), height, width, channels)
    dtype = np.result_type(*(head.dtype for head in heads))
    row_bytes = shape[0] * width * channels * dtype.itemsize
    refuse_large_rows(path, shape, row_bytes)
    # Once a scan: the places of its chunks take as long to find as some rows to read.
    find_chunks = cache(partial(_find_chunks, files, options.allow_external))
    calibrations = [h.calibration for h in heads if h.calibration is not None]
    energies = [h.incident_energy_kev for h in heads if h.incident_energy_kev is not None]
    return RawScan(
        name=_name(path),
        format=f"maps-{heads[0].version}",
        files=(path, *(file for file in files if file.name != path.name)),
        shape=shape,
        dtype=dtype,
        rows_per_read=rows_per_block(row_bytes=row_bytes, chunk_rows=heads[0].chunk_rows, height=height),
        read_counts=partial(_read_counts, files, shape, dtype, options.allow_external, find_chunks),
        read_scalars=partial(_read_scalars, files, shape, options.allow_external),
        calibration=tuple(calibrations) if len(calibrations) == len(heads) else None,
        incident_energy_kev=energies[0] if energies else None,
        notes=_write_notes(path, files, heads),
    )


def _name(path: Path) -> str:
    match = MEMBER_NAME.match(path.name)
    return match["stem"] if match is not None else path.stem


def _read_head(path: Path, options: ReadOptions) -> _Head:
    with open_hdf5(path) as file:
        counts = _find_spectra(file, allow_external=options.allow_external)
        if counts.ndim != 3 or counts.dtype.kind not in "iuf" or 0 in counts.shape:
            raise InputFileError(
                f"{path}: {counts.name} is {counts.dtype} {counts.shape}; must be numbers "
                "(channel, row, column), none of them 0: write the file again"
            )
        channels, height, width = (int(n) for n in counts.shape)
        return _Head(
            path=path,
            version="v10" if has_path(file, SPECTRA[0]) else "v9",
            shape=(height, width, channels),
            dtype=counts.dtype,
            chunk_rows=int(counts.chunks[1]) if counts.chunks else 1,
            calibration=_read_calibration(path, file, options),
            incident_energy_kev=_read_incident_energy_kev(file, options),
        )


def _find_spectra(file: h5py.File, *, allow_external: bool) -> h5py.Dataset:
    found = find_dataset(file, SPECTRA, allow_external=allow_external)
    if found is None:
        raise InputFileError(
            f"{file.filename}: a MAPS file without spectra: neither {' nor '.join(SPECTRA)} is a dataset, and results "
            "without their spectra cannot be fitted; name the raw file, or another array of this one (--dataset-path)"
        )
    return found


def _read_calibration(path: Path, file: h5py.File, options: ReadOptions) -> EnergyCalibration | None:
    """Offset, slope, quadratic; None where the file has zeros, nothing, or a fall that the user corrects."""
    stored = find_dataset(file, CALIBRATION, allow_external=options.allow_external)
    if stored is None or stored.shape != (3,):
        return None
    offset, slope, quadratic = (float(v) for v in stored[()])
    if slope == 0 or not np.all(np.isfinite([offset, slope, quadratic])):
        return None
    if slope < 0 and options.energy_slope_kev is not None:
        return None
    if slope < 0:
        raise InputFileError(
            f"{path}: {stored.name}: {slope:g} keV per channel, so the energy axis falls; it must rise: "
            "give the right one (--energy-slope, --energy-offset)"
        )
    return EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)


def _read_incident_energy_kev(file: h5py.File, options: ReadOptions) -> float | None:
    outside = options.allow_external
    names = find_dataset(file, (f"{OVERRIDE}/Fit_Parameters_Names",), allow_external=outside)
    values = find_dataset(file, (f"{OVERRIDE}/Fit_Parameters_Values",), allow_external=outside)
    if names is None or values is None or values.ndim != 2 or values.size > LARGEST_PARAMETERS:
        return None
    texts = read_texts(names, LARGEST_PARAMETERS)
    if "COHERENT_SCT_ENERGY" not in texts[: values.shape[0]]:
        return None
    energy_kev = float(values[texts.index("COHERENT_SCT_ENERGY"), 0])
    return energy_kev if 0.1 <= energy_kev <= 200.0 else None


def _refuse_misfits(heads: list[_Head]) -> None:
    first = heads[0]
    faults = [f"{h.path.name} has {h.shape}" for h in heads if h.shape != first.shape]
    if faults:
        raise InputFileError(
            f"{first.path}: the detectors of one scan must have one shape (row, column, channel): "
            f"{first.path.name} has {first.shape}, {', '.join(faults)}; move files of other scans away"
        )


def _write_notes(path: Path, files: tuple[Path, ...], heads: list[_Head]) -> tuple[Note, ...]:
    notes: list[Note] = []
    numbers = [int(m["number"]) for f in files if (m := MEMBER_NAME.match(f.name)) is not None]
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    if missing:
        names = ", ".join(f"{_name(path)}.h5{n}" for n in missing)
        notes.append(Note("warning", f"{names} missing: the other detectors are counted from 0"))
    derived = path.with_name(f"{_name(path)}.h5")
    if numbers and derived.is_file():
        notes.append(Note("fact", f"{derived.name} ignored: it is made from the detectors' files"))
    if find_originals(path):
        text = f"the sum that XRF-Maps made of {derived.name}0 ..; open that file to keep the detectors apart"
        notes.append(Note("warning", text))
    if any(head.calibration is None for head in heads):
        notes.append(Note("warning", "no usable energy calibration in the file"))
    return tuple(notes)


def _find_chunks(files: tuple[Path, ...], allow_external: bool, detector: int) -> SpectrumChunks | None:  # noqa: FBT001
    """Places of the spectra of a detector; None where its dataset is laid out otherwise than XRF-Maps does."""
    with open_hdf5(files[detector]) as file:
        stored = _find_spectra(file, allow_external=allow_external)
        return index_chunks(stored) if has_spectrum_chunks(stored) else None


def _read_counts(
    files: tuple[Path, ...],
    shape: Shape,
    dtype: np.dtype[np.generic],
    allow_external: bool,  # noqa: FBT001 - bound by partial
    find_chunks: Callable[[int], SpectrumChunks | None],
    rows: slice,
) -> NDArray[np.generic]:
    wanted = check_rows(files[0], rows, shape[1])
    block = np.empty((shape[0], wanted.stop - wanted.start, *shape[2:]), dtype=dtype)
    for detector, path in enumerate(files):
        chunks = find_chunks(detector)
        if chunks is None:
            with open_hdf5(path) as file:
                read_slices(_find_spectra(file, allow_external=allow_external), wanted, block[detector])
        else:
            read_spectra(chunks, wanted, block[detector])
        refuse_bad_counts(block[detector], path=path, detector=detector, first_row=wanted.start)
    return block


def _read_scalars(
    files: tuple[Path, ...],
    shape: Shape,
    allow_external: bool,  # noqa: FBT001 - bound by partial
) -> ScanScalars:
    size = shape[1:3]
    with open_hdf5(files[0]) as file:
        names, units, values = _read_scalers(file, size, allow_external=allow_external)
        x_um = _read_axis_um(file, "x_axis", size, allow_external=allow_external)
        y_um = _read_axis_um(file, "y_axis", size, allow_external=allow_external)
    scalers = dict(zip(names, values, strict=True))
    times = [
        _read_times(path, size, scalers, detector + 1, allow_external=allow_external)
        for detector, path in enumerate(files)
    ]
    return ScanScalars(
        live_time_s=_stack([live_time(t.real_s, t.counts_in, t.counts_out, t.live_s) for t in times]),
        real_time_s=_stack([t.real_s for t in times]),
        icr_hz=_stack([_compute_rate(t, t.counts_in) for t in times]),
        ocr_hz=_stack([_compute_rate(t, t.counts_out) for t in times]),
        scaler_names=names,
        scaler_units=units,
        scaler_values=values if names else None,
        x_um=x_um,
        y_um=y_um,
    )


def read_live_time_s(path: Path, size: tuple[int, int]) -> FloatMap | None:
    """Live time (y, x) of the pixels of one file, as XRF-Maps computes it: real time x OCR / ICR; None without any.

    Args:
        path: one file, of one detector.
        size: rows and columns of its maps.

    Raises:
        InputFileError: the file is damaged, or its times have another shape.
    """
    match = MEMBER_NAME.match(path.name)
    with open_hdf5(path) as file:
        names, _, values = _read_scalers(file, size, allow_external=False)
    number = 1 if match is None else int(match["number"]) + 1
    times = _read_times(path, size, dict(zip(names, values, strict=True)), number, allow_external=False)
    return live_time(times.real_s, times.counts_in, times.counts_out, times.live_s)


def _compute_rate(times: _Times, values: FloatMap | None) -> FloatMap | None:
    return rate(values, times.real_s) if times.are_counts else values


def _stack(maps: list[FloatMap | None]) -> FloatMap | None:
    """(detector, y, x), or None where one detector has none."""
    known = [m for m in maps if m is not None]
    return np.stack(known) if len(known) == len(maps) else None


def _read_times(
    path: Path, size: tuple[int, int], scalers: dict[str, FloatMap], number: int, *, allow_external: bool
) -> _Times:
    with open_hdf5(path) as file:
        found = {
            short: read_floats(find_dataset(file, (f"/MAPS/Spectra/{name}",), allow_external=allow_external), size)
            for short, name in TIMES.items()
        }
        integrated = find_dataset(file, INTEGRATED, allow_external=allow_external)
        total = None
        if integrated is not None and integrated.ndim == 1 and integrated.dtype.kind in "iuf":
            total = float(np.sum(integrated[()], dtype=float))
    if all(values is None for values in found.values()):
        found = {short: scalers.get(f"{short}{number}") for short in TIMES}
    return _Times(
        real_s=found["ERT"],
        live_s=found["ELT"],
        counts_in=found["ICR"],
        counts_out=found["OCR"],
        are_counts=_are_counts(found["OCR"], found["ERT"], total),
    )


def _are_counts(out: FloatMap | None, real_s: FloatMap | None, total: float | None) -> bool:
    """True where the output is counts (fly scans) and not rates (step scans): the files do not say.

    The spectra's total tells: it is nearer to the sum of counts, or of rates times real time.
    """
    if out is None or real_s is None or not total:
        return False
    as_counts, as_rates = float(out.sum()), float((out * real_s).sum())
    if not (as_counts > 0 and as_rates > 0 and total > 0):
        return False
    return bool(abs(np.log(as_counts / total)) < abs(np.log(as_rates / total)))


def _read_scalers(
    file: h5py.File, size: tuple[int, int], *, allow_external: bool
) -> tuple[tuple[str, ...], tuple[str, ...], FloatMap]:
    names = read_texts(find_dataset(file, SCALER_NAMES, allow_external=allow_external))
    units = read_texts(find_dataset(file, SCALER_UNITS, allow_external=allow_external))
    stored = find_dataset(file, SCALER_VALUES, allow_external=allow_external)
    values = read_floats(stored, (len(names), *size)) if names else None
    if values is None:
        return (), (), np.zeros((0, *size))
    padded = (*units, *("",) * len(names))[: len(names)]
    return names, padded, values


def _read_axis_um(file: h5py.File, name: str, size: tuple[int, int], *, allow_external: bool) -> FloatMap | None:
    """Positions (y, x), micrometres; version 9 has one row or column of them."""
    places = (f"/MAPS/Scan/{name}", f"/MAPS/{name}")
    stored = find_dataset(file, places, allow_external=allow_external)
    if stored is None or stored.dtype.kind not in "iuf":
        return None
    scale = _axis_scale_um(stored)
    along = 1 if name == "x_axis" else 0
    if stored.shape == (size[along],):
        line = np.asarray(stored[()], dtype=np.float64) * scale
        whole = line[np.newaxis, :] if along == 1 else line[:, np.newaxis]
        return np.array(np.broadcast_to(whole, size))
    if stored.shape != size:
        return None
    return np.asarray(stored[()], dtype=np.float64) * scale


def _axis_scale_um(axis: h5py.Dataset) -> float:
    """Micrometres per unit: the attribute `units` decides; XRF-Maps writes none and means millimetres."""
    units = axis.attrs.get("units")
    text = units.decode("utf-8", "replace") if isinstance(units, bytes) else str(units or "")
    if text.strip().lower() in UNITS_UM:
        return UNITS_UM[text.strip().lower()]
    return MILLIMETRE_UM
