"""Writers: the MAPS v10 layout, one file per detector, and one plain array; row block by row block."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcxrf.errors import OutputError
from hpcxrf.formats.scan import EnergyCalibration

Values = NDArray[np.float64]
Counts = NDArray[Any]
CountsSource = Counts | Callable[[slice], Counts]
"""Counts (detector, y, x, channel), or a function that gives them for a slice of rows."""

MAX_EXACT_COUNT: Final = 2**24
"""Largest count that the layout's 32-bit floats hold exactly."""
MAX_DETECTORS: Final = 8
GZIP_LEVEL: Final = 4
TIME_NAMES: Final = ("live_time_s", "real_time_s", "icr_hz", "ocr_hz")
MAPS_TIME_NAMES: Final = ("Elapsed_Livetime", "Elapsed_Realtime", "Input_Counts", "Output_Counts")
NAME_BYTES: Final = 256
PARAMETER_NAME_BYTES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """Arguments of the writers, checked."""

    path: Path
    read: Callable[[slice], Counts]
    shape: tuple[int, int, int, int]
    times: dict[str, Values]
    """Times (detector, y, x) by TIME_NAMES."""
    calibration: tuple[EnergyCalibration, ...]
    scaler_names: tuple[str, ...]
    scaler_units: tuple[str, ...]
    scaler_values: Values
    x_um: Values
    y_um: Values
    incident_energy_kev: float | None
    rows_per_block: int


def write_maps_v10(
    path: Path,
    counts: CountsSource,
    *,
    live_time_s: Values,
    real_time_s: Values,
    icr_hz: Values,
    ocr_hz: Values,
    energy_calibration: Sequence[EnergyCalibration],
    scaler_names: Sequence[str] = (),
    scaler_units: Sequence[str] = (),
    scaler_values: Values | None = None,
    x_um: Values | None = None,
    y_um: Values | None = None,
    incident_energy_kev: float | None = None,
    rows_per_block: int = 16,
) -> tuple[Path, ...]:
    """Write one scan as `X.h50`, `X.h51` ..., one file per detector, in the layout of XRF-Maps (version 10).

    Each file appears under its name only when it is complete; all appear together at the end.

    Args:
        path: `X` or `X.h5`.
        counts: (detector, y, x, channel), integral, from 0 to 2^24; or a function of a slice of rows.
        live_time_s: (detector, y, x). Readers recompute it as real time * OCR / ICR.
        real_time_s: (detector, y, x).
        icr_hz: (detector, y, x) input count rate, written as `Input_Counts`: only the ratio to the
            output matters to readers.
        ocr_hz: (detector, y, x) output count rate, written as `Output_Counts`.
        energy_calibration: one per detector.
        scaler_names: (scaler,).
        scaler_units: (scaler,); empty strings if none are given.
        scaler_values: (scaler, y, x).
        x_um: (y, x); column numbers if not given.
        y_um: (y, x); row numbers if not given.
        incident_energy_kev: written as `COHERENT_SCT_ENERGY` of the override parameters.
        rows_per_block: rows held in memory at a time.

    Raises:
        OutputError: arrays that do not fit together, counts that the layout cannot hold, more than 8
            detectors, or a folder that cannot be written.
    """
    content = _check(
        path=path,
        counts=counts,
        times=(live_time_s, real_time_s, icr_hz, ocr_hz),
        calibration=energy_calibration,
        scalers=(scaler_names, scaler_units, scaler_values),
        positions=(x_um, y_um),
        incident_energy_kev=incident_energy_kev,
        rows_per_block=rows_per_block,
    )
    stem = path.with_suffix("") if path.suffix == ".h5" else path
    targets = [stem.with_name(f"{stem.name}.h5{d}") for d in range(content.shape[0])]
    _refuse_strays(stem, len(targets))
    if len(targets) > MAX_DETECTORS:
        raise OutputError(f"{path}: {len(targets)} detectors; the layout has at most {MAX_DETECTORS}")
    with _open_new_files(targets) as files:
        for detector, file in enumerate(files):
            _write_maps_head(file, content, detector)
        _write_maps_counts(files, content)
    return tuple(targets)


def write_array_hdf5(
    path: Path,
    counts: CountsSource,
    *,
    live_time_s: Values,
    real_time_s: Values,
    icr_hz: Values,
    ocr_hz: Values,
    energy_calibration: Sequence[EnergyCalibration],
    scaler_names: Sequence[str] = (),
    scaler_units: Sequence[str] = (),
    scaler_values: Values | None = None,
    x_um: Values | None = None,
    y_um: Values | None = None,
    incident_energy_kev: float | None = None,
    rows_per_block: int = 16,
) -> tuple[Path]:
    """Write one scan as one HDF5 file: `counts` (detector, y, x, channel) uint32 and what belongs to it.

    Root attributes: `dims`, `energy_offset_kev` and `energy_slope_kev` of detector 0, and
    `incident_energy_kev`; `energy_calibration` (detector, 3) holds offset, slope and quadratic of each.
    Arguments and errors as `write_maps_v10`; counts up to 2^32 - 1.
    """
    content = _check(
        path=path,
        counts=counts,
        times=(live_time_s, real_time_s, icr_hz, ocr_hz),
        calibration=energy_calibration,
        scalers=(scaler_names, scaler_units, scaler_values),
        positions=(x_um, y_um),
        incident_energy_kev=incident_energy_kev,
        rows_per_block=rows_per_block,
    )
    with _open_new_files([path]) as (file,):
        _write_array_head(file, content)
        _write_array_counts(file, content)
    return (path,)


def _check(
    *,
    path: Path,
    counts: CountsSource,
    times: tuple[Values, Values, Values, Values],
    calibration: Sequence[EnergyCalibration],
    scalers: tuple[Sequence[str], Sequence[str], Values | None],
    positions: tuple[Values | None, Values | None],
    incident_energy_kev: float | None,
    rows_per_block: int,
) -> _Content:
    read = counts if callable(counts) else lambda rows: counts[:, rows]
    first = np.asarray(read(slice(0, 1)))
    if first.ndim != 4 or 0 in first.shape:
        raise OutputError(f"{path}: counts must be (detector, y, x, channel), got {first.shape}")
    image = np.shape(times[1])[1:]
    shape = (first.shape[0], *image, first.shape[3])
    names, units, values = scalers
    no_scalers = np.zeros((0, *image))
    columns, rows = np.meshgrid(*(np.arange(n, dtype=float) for n in image[::-1]))
    x_um, y_um = positions
    content = _Content(
        path=path,
        read=read,
        shape=shape,
        times=dict(zip(TIME_NAMES, map(np.asarray, times), strict=True)),
        calibration=tuple(calibration),
        scaler_names=tuple(names),
        scaler_units=tuple(units) or ("",) * len(names),
        scaler_values=no_scalers if values is None else np.asarray(values),
        x_um=columns if x_um is None else np.asarray(x_um),
        y_um=rows if y_um is None else np.asarray(y_um),
        incident_energy_kev=incident_energy_kev,
        rows_per_block=max(1, rows_per_block),
    )
    _refuse_misfits(content, first.shape)
    return content


def _refuse_strays(stem: Path, detectors: int) -> None:
    """Files of further detectors would be read as a part of this scan."""
    names = [f"{stem.name}.h5{d}" for d in range(detectors, 10)]
    strays = [name for name in names if stem.with_name(name).exists()]
    if strays:
        raise OutputError(
            f"{stem.parent}: holds {', '.join(strays)} of another scan with more detectors; "
            "remove them or choose another name"
        )


def _refuse_misfits(content: _Content, first: tuple[int, ...]) -> None:
    detectors, height, width, _ = content.shape
    scalers = len(content.scaler_names)
    faults = [
        f"{name} {array.shape} must be {wanted}"
        for name, array, wanted in (
            *((n, a, (detectors, height, width)) for n, a in content.times.items()),
            ("scaler_values", content.scaler_values, (scalers, height, width)),
            ("x_um", content.x_um, (height, width)),
            ("y_um", content.y_um, (height, width)),
        )
        if array.shape != wanted
    ]
    if first[2] != width:
        faults.append(f"counts have {first[2]} columns, the times {width}")
    if len(content.calibration) != detectors:
        faults.append(f"{len(content.calibration)} calibrations for {detectors} detectors")
    if len(content.scaler_units) != scalers:
        faults.append(f"{len(content.scaler_units)} scaler units for {scalers} scalers")
    if faults:
        raise OutputError(f"{content.path}: " + "; ".join(faults))


@contextmanager
def _open_new_files(targets: Sequence[Path]) -> Iterator[list[h5py.File]]:
    """HDF5 files under temporary names, renamed to `targets` together if nothing went wrong."""
    partials = [t.with_name(f".{t.name}.{os.getpid()}.partial") for t in targets]
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(h5py.File(p, "w")) for p in partials]
        for partial, target in zip(partials, targets, strict=True):
            partial.replace(target)
    except OSError as error:
        raise OutputError(f"{targets[0]}: cannot be written: {error}; make room or choose another folder") from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def _read_blocks(content: _Content, largest: int) -> Iterator[tuple[slice, Counts]]:
    """Row blocks of counts, each checked: integral, not negative, at most `largest`."""
    detectors, height, width, channels = content.shape
    for start in range(0, height, content.rows_per_block):
        rows = slice(start, min(start + content.rows_per_block, height))
        block = np.asarray(content.read(rows))
        wanted = (detectors, rows.stop - rows.start, width, channels)
        if block.shape != wanted:
            raise OutputError(f"{content.path}: rows {start} on: {block.shape} must be {wanted}")
        if not _is_countable(block, largest):
            raise OutputError(
                f"{content.path}: rows {start} to {rows.stop - 1}: counts must be whole numbers from 0 to {largest}"
            )
        yield rows, block


def _is_countable(block: Counts, largest: int) -> bool:
    """True where all are whole numbers in range; a NaN fails the first comparison."""
    if not (block.min() >= 0 and block.max() <= largest):
        return False
    return bool(np.issubdtype(block.dtype, np.integer) or np.all(block == np.rint(block)))


def create_maps_dataset(
    file: h5py.File, name: str, data: ArrayLike, dtype: str | np.dtype[Any], chunks: tuple[int, ...] | None = None
) -> None:
    """A dataset as the layout has them: gzip, chunked, growable."""
    array = np.asarray(data, dtype=dtype)
    file.create_dataset(
        name,
        data=array,
        chunks=chunks or tuple(max(1, n) for n in array.shape),
        maxshape=(None,) * array.ndim,
        compression="gzip",
        compression_opts=GZIP_LEVEL,
    )


def _write_maps_head(file: h5py.File, content: _Content, detector: int) -> None:
    _, height, _, channels = content.shape
    calibration = content.calibration[detector]
    create_maps_dataset(file, "MAPS/version", [10.0], "f4")
    for name, key in zip(MAPS_TIME_NAMES, TIME_NAMES, strict=True):
        values = content.times[key][detector]
        create_maps_dataset(file, f"MAPS/Spectra/{name}", values, "f4", (height, 1))
        total = [np.asarray(values, dtype=float).sum()]
        create_maps_dataset(file, f"MAPS/Spectra/Integrated_Spectra/{name}", total, "f4")
    coefficients = [calibration.offset_kev, calibration.slope_kev, calibration.quadratic_kev]
    create_maps_dataset(file, "MAPS/Spectra/Energy", _energy_kev(calibration, channels), "f4")
    create_maps_dataset(file, "MAPS/Spectra/Energy_Calibration", coefficients, "f4")
    create_maps_dataset(file, "MAPS/Scan/x_axis", content.x_um, "f4")
    create_maps_dataset(file, "MAPS/Scan/y_axis", content.y_um, "f4")
    for axis in ("x_axis", "y_axis"):
        # XRF-Maps writes millimetres and no attribute; who writes otherwise must say so.
        file[f"MAPS/Scan/{axis}"].attrs["units"] = "um"
    create_maps_dataset(file, "MAPS/Scan/requested_rows", [height], "i4")
    create_maps_dataset(file, "MAPS/Scan/requested_cols", [content.shape[2]], "i4")
    create_maps_dataset(file, "MAPS/Scan/name", [content.path.stem.encode()], f"S{NAME_BYTES}")
    _write_maps_scalers(file, content)
    _write_maps_override(file, content)


def _energy_kev(calibration: EnergyCalibration, channels: int) -> Values:
    channel = np.arange(channels, dtype=float)
    rising = calibration.slope_kev + calibration.quadratic_kev * channel
    return calibration.offset_kev + rising * channel


def _write_maps_scalers(file: h5py.File, content: _Content) -> None:
    if not content.scaler_names:
        return
    _, height, width, _ = content.shape
    text = f"S{NAME_BYTES}"
    create_maps_dataset(file, "MAPS/Scalers/Names", [n.encode() for n in content.scaler_names], text)
    create_maps_dataset(file, "MAPS/Scalers/Units", [u.encode() for u in content.scaler_units], text)
    create_maps_dataset(file, "MAPS/Scalers/Values", content.scaler_values, "f4", (1, height, width))


def _write_maps_override(file: h5py.File, content: _Content) -> None:
    """The incident energy, where XRF-Maps keeps it: value, then no minimum, maximum and step."""
    if content.incident_energy_kev is None:
        return
    values = [[content.incident_energy_kev, np.nan, np.nan, np.nan]]
    folder = "MAPS/Fit_Parameters_Override"
    names = [b"COHERENT_SCT_ENERGY"]
    create_maps_dataset(file, f"{folder}/Fit_Parameters_Names", names, f"S{PARAMETER_NAME_BYTES}")
    create_maps_dataset(file, f"{folder}/Fit_Parameters_Values", values, "f4")


def _write_maps_counts(files: Sequence[h5py.File], content: _Content) -> None:
    detectors, height, width, channels = content.shape
    stored = [
        file.create_dataset(
            "MAPS/Spectra/mca_arr",
            (channels, height, width),
            dtype="f4",
            chunks=(channels, 1, 1),
            maxshape=(None, None, None),
            compression="gzip",
            compression_opts=GZIP_LEVEL,
        )
        for file in files
    ]
    total = np.zeros((detectors, channels))
    for rows, block in _read_blocks(content, MAX_EXACT_COUNT):
        total += block.sum(axis=(1, 2), dtype=float)
        for dataset, spectra in zip(stored, block, strict=True):
            dataset[:, rows, :] = np.moveaxis(spectra, 2, 0).astype("f4", order="C")
    for file, spectrum in zip(files, total, strict=True):
        create_maps_dataset(file, "MAPS/Spectra/Integrated_Spectra/Spectra", spectrum, "f4")


def _write_array_head(file: h5py.File, content: _Content) -> None:
    file.attrs["dims"] = "detector,y,x,channel"
    file.attrs["energy_offset_kev"] = content.calibration[0].offset_kev
    file.attrs["energy_slope_kev"] = content.calibration[0].slope_kev
    if content.incident_energy_kev is not None:
        file.attrs["incident_energy_kev"] = content.incident_energy_kev
    file["energy_calibration"] = np.array([[c.offset_kev, c.slope_kev, c.quadratic_kev] for c in content.calibration])
    for name, values in content.times.items():
        file[name] = np.asarray(values, dtype="f8")
    file["x_um"], file["y_um"] = content.x_um, content.y_um
    file["scaler_names"] = np.array(content.scaler_names, dtype=h5py.string_dtype())
    file["scaler_units"] = np.array(content.scaler_units, dtype=h5py.string_dtype())
    file["scaler_values"] = content.scaler_values


def _write_array_counts(file: h5py.File, content: _Content) -> None:
    detectors, _, width, channels = content.shape
    rows_per_chunk = max(1, min(content.rows_per_block, content.shape[1]))
    dataset = file.create_dataset(
        "counts",
        content.shape,
        dtype="u4",
        chunks=(1, rows_per_chunk, min(width, 16), channels),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        shuffle=True,
    )
    for rows, block in _read_blocks(content, 2**32 - 1):
        for detector in range(detectors):
            dataset[detector, rows] = block[detector]
