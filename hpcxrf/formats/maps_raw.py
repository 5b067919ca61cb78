"""Fly-scan HDF5 of the APS (`/MAPS_RAW`): spectra, times and COUNTS in and out, one file a scan."""

from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.hdf5_chunks import read_slices
from hpcxrf.formats.hdf5_files import (
    HDF5_FAULTS,
    check_rows,
    find_dataset,
    open_hdf5,
    read_floats,
    refuse_bad_counts,
    refuse_large_rows,
    rows_per_block,
)
from hpcxrf.formats.hdf5_links import has_path
from hpcxrf.formats.scan import FloatMap, RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.signatures import is_hdf5
from hpcxrf.formats.table import FileFormat
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(name="maps-raw", files="fly-scan .h5 (/MAPS_RAW)", reads="maps of each detector; times, rates"),
)
GROUP: Final = "/MAPS_RAW"
SPECTRA: Final = tuple(f"{GROUP}/data_{letter}" for letter in ascii_lowercase)
OUTPUT_COUNTS: Final = (f"{GROUP}/ouputcounts", f"{GROUP}/outputcounts")
"""The first spelling is the instrument's."""
Shape = tuple[int, int, int, int]


def sniff(path: Path, head: bytes) -> bool:
    """True where the file holds `/MAPS_RAW/data_a`."""
    if not is_hdf5(head):
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return has_path(file, SPECTRA[0])
    except HDF5_FAULTS:
        return False


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """A fly-scan HDF5 by itself: no positions and no scalers.

    Raises:
        InputFileError: truncated or damaged, or datasets that do not fit together.
    """
    with open_hdf5(path) as file:
        spectra = find_spectra(file, allow_external=options.allow_external)
        shape, dtype = _check_shape(path, spectra), spectra[0].dtype
        per_read = _rows_per_read(path, spectra[0], shape)
    return RawScan(
        name=path.stem,
        format="maps-raw",
        files=(path,),
        shape=shape,
        dtype=dtype,
        rows_per_read=per_read,
        read_counts=partial(_read_counts, path, shape, options.allow_external),
        read_scalars=partial(read_times, path, shape, allow_external=options.allow_external),
        notes=(
            Note("warning", "no positions or scalers: they are in the scan's MDA file; open that one to have them"),
        ),
    )


def find_spectra(file: h5py.File, *, allow_external: bool) -> tuple[h5py.Dataset, ...]:
    """The datasets `data_a`, `data_b` ... (channel, y, x), one a detector."""
    found: list[h5py.Dataset] = []
    for name in SPECTRA:
        dataset = find_dataset(file, (name,), allow_external=allow_external)
        if dataset is None:
            break
        found.append(dataset)
    if not found:
        raise InputFileError(f"{file.filename}: {SPECTRA[0]} is not a dataset; the file is damaged: copy it again")
    return tuple(found)


def _check_shape(path: Path, spectra: tuple[h5py.Dataset, ...]) -> Shape:
    faults = [
        f"{d.name} is {d.dtype} {d.shape}"
        for d in spectra
        if d.ndim != 3 or d.dtype.kind not in "iuf" or d.shape != spectra[0].shape or 0 in d.shape
    ]
    if faults:
        raise InputFileError(
            f"{path}: {'; '.join(faults)}; all must be numbers (channel, row, column) of one shape: "
            "write the file again"
        )
    channels, height, width = (int(n) for n in spectra[0].shape)
    return len(spectra), height, width, channels


def _rows_per_read(path: Path, dataset: h5py.Dataset, shape: Shape) -> int:
    detectors, height, width, channels = shape
    row_bytes = detectors * width * channels * int(dataset.dtype.itemsize)
    refuse_large_rows(path, shape, row_bytes)
    chunk_rows = dataset.chunks[1] if dataset.chunks else 1
    return rows_per_block(row_bytes=row_bytes, chunk_rows=chunk_rows, height=height)


def _read_counts(
    path: Path,
    shape: Shape,
    allow_external: bool,  # noqa: FBT001 - bound by partial
    rows: slice,
) -> NDArray[np.generic]:
    wanted = check_rows(path, rows, shape[1])
    with open_hdf5(path) as file:
        spectra = find_spectra(file, allow_external=allow_external)
        block = np.empty((shape[0], wanted.stop - wanted.start, *shape[2:]), dtype=spectra[0].dtype)
        for detector, dataset in enumerate(spectra[: shape[0]]):
            read_slices(dataset, wanted, block[detector])
            refuse_bad_counts(block[detector], path=path, detector=detector, first_row=wanted.start)
    return block


def read_times(path: Path, shape: Shape, *, allow_external: bool = False) -> ScanScalars:
    """Times and rates: the file has COUNTS in and out per pixel, live time = real * out / in."""
    size = shape[:3]
    with open_hdf5(path) as file:

        def values(*names: str) -> FloatMap | None:
            paths = [n if n.startswith("/") else f"{GROUP}/{n}" for n in names]
            return read_floats(find_dataset(file, paths, allow_external=allow_external), size)

        real, counts_in = values("realtime"), values("inputcounts")
        counts_out, stored = values(*OUTPUT_COUNTS), values("livetime")
    return ScanScalars(
        live_time_s=live_time(real, counts_in, counts_out, stored),
        real_time_s=real,
        icr_hz=rate(counts_in, real),
        ocr_hz=rate(counts_out, real),
    )


def live_time(
    real_time_s: FloatMap | None,
    counts_in: FloatMap | None,
    counts_out: FloatMap | None,
    stored_s: FloatMap | None = None,
) -> FloatMap | None:
    """Live time: real * out / in, rates or counts alike; where nothing came in the stored live time, else real time.

    Without both of them the stored live time, and None without that.
    """
    if real_time_s is None or counts_in is None or counts_out is None:
        return stored_s
    live = np.array(real_time_s if stored_s is None or not (stored_s > 0).any() else stored_s)
    np.divide(real_time_s * counts_out, counts_in, out=live, where=counts_in > 0)
    return live


def rate(counts: FloatMap | None, real_time_s: FloatMap | None) -> FloatMap | None:
    """Counts per second; 0 where no time passed."""
    if counts is None or real_time_s is None:
        return None
    return np.divide(counts, real_time_s, out=np.zeros_like(counts), where=real_time_s > 0)
