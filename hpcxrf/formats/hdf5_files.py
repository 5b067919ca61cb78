"""HDF5 files opened read-only, without locks, and with nothing followed out of the file unasked."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.untrusted import refuse_irregular, show_name
from hpcxrf.errors import InputFileError
from hpcxrf.formats.counts import MOST_NEGATIVE_SHARE, find_missing
from hpcxrf.formats.hdf5_access import explain_fault, open_for_reading, require_filters
from hpcxrf.formats.hdf5_links import check_sources, follow_path
from hpcxrf.formats.room import require_room

MAX_BLOCK_BYTES: Final = 16 * 2**20
"""Bytes of counts that one read holds, unless a single row is larger."""
MAX_ROW_BYTES: Final = 4 * 2**30
MAX_TEXT_BYTES: Final = 16 * 2**20
_SMALL_BYTES: Final = 2**20
"""A chunk of any file may have as much."""
HDF5_FAULTS: Final = (OSError, RuntimeError, ValueError, TypeError, KeyError)
"""Exceptions of h5py on damaged files: a KeyError where a group names an object that cannot be opened."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading, without a lock: shared file systems often have none.

    Raises:
        InputFileError: the file is missing, truncated or damaged, at opening or while it is read; it is being written.
    """
    try:
        refuse_irregular(path)
        with open_for_reading(path) as file:
            yield file
    except InputFileError:
        raise
    except HDF5_FAULTS as error:
        raise InputFileError(explain_fault(path, error)) from error


def find_dataset(file: h5py.File, names: Sequence[str], *, allow_external: bool = False) -> h5py.Dataset | None:
    """The first dataset of that name, or None.

    Args:
        file: the open file.
        names: paths inside the file, in the order of preference.
        allow_external: follow external links, virtual datasets and external storage.

    Raises:
        InputFileError: the way to the dataset leaves the file and `allow_external` is False; a filter is not installed.
    """
    for name in names:
        try:
            found = follow_path(file, name, allow_external=allow_external)
        except InputFileError:
            raise
        except HDF5_FAULTS as error:
            raise InputFileError(
                f"{file.filename}: {name} cannot be read: {error}; the file is damaged: copy it again"
            ) from error
        if isinstance(found, h5py.Dataset):
            if allow_external:
                check_sources(file, found)
            else:
                _refuse_external_storage(file, found)
            _refuse_large_chunks(file, found)
            require_filters(found)
            return found
    return None


def _refuse_large_chunks(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Refuse chunks that a file of this size cannot hold: the library unpacks them whole."""
    chunks = dataset.chunks
    if chunks is None or math.prod(chunks) * dataset.dtype.itemsize <= _SMALL_BYTES:
        return
    name = f"{file.filename}: {show_name(str(dataset.name))}"
    bytes_each = math.prod(chunks) * dataset.dtype.itemsize
    require_room(name, f"one chunk {chunks}", bytes_each, [Path(os.fsdecode(dataset.file.filename))])


def _refuse_external_storage(file: h5py.File, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        kind = "a virtual dataset" if dataset.is_virtual else "stored in another file"
        raise InputFileError(
            f"{file.filename}: {dataset.name} is {kind}, made of other files; "
            "name those files, or allow it (input.allow_external: true in a run file)"
        )


def read_floats(dataset: h5py.Dataset | None, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """A dataset of a known shape as float64; None if there is no dataset.

    Raises:
        InputFileError: another shape, or not numbers; nothing is read then.
    """
    if dataset is None:
        return None
    if dataset.shape != shape or dataset.dtype.kind not in "iuf":
        raise InputFileError(
            f"{dataset.file.filename}: {dataset.name} is {dataset.dtype} {dataset.shape}, must be "
            f"numbers {shape}; the file breaks its own layout: write it again"
        )
    return np.asarray(dataset[()], dtype=np.float64)


def read_texts(dataset: h5py.Dataset | None, largest: int = 100_000) -> tuple[str, ...]:
    """The strings of a one-dimensional dataset; empty if there is none.

    Raises:
        InputFileError: more than `largest` entries, or not strings.
    """
    if dataset is None:
        return ()
    too_long = dataset.size is not None and dataset.size * dataset.dtype.itemsize > MAX_TEXT_BYTES
    if dataset.size is None or dataset.size > largest or dataset.dtype.kind not in "SO" or too_long:
        raise InputFileError(
            f"{dataset.file.filename}: {dataset.name} is {dataset.dtype} {dataset.shape}, must be at "
            f"most {largest} strings; write the file again"
        )
    return tuple(_decode_text(value) for value in np.ravel(dataset[()]))


def _decode_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.split(b"\0")[0].decode("utf-8", errors="replace").strip()
    return str(value).strip()


def rows_per_block(*, row_bytes: int, chunk_rows: int, height: int) -> int:
    """Rows of one read: as many as fit into `MAX_BLOCK_BYTES`, whole chunks where possible, at least 1."""
    fitting = max(1, MAX_BLOCK_BYTES // max(1, row_bytes))
    if fitting > chunk_rows:
        fitting -= fitting % max(1, chunk_rows)
    return max(1, min(fitting, height))


def refuse_large_rows(path: Path, shape: tuple[int, ...], row_bytes: int) -> None:
    """Refuse a shape that only a damaged file has.

    Raises:
        InputFileError: one row of the scan takes more than `MAX_ROW_BYTES`.
    """
    if row_bytes > MAX_ROW_BYTES:
        raise InputFileError(
            f"{path}: one row of {shape} (detector, row, column, channel) takes {row_bytes} bytes, must "
            f"be at most {MAX_ROW_BYTES}; the file is damaged: copy it again"
        )


def check_rows(path: Path, rows: slice, height: int) -> slice:
    """The rows of a slice with its ends filled in.

    Raises:
        InputFileError: not contiguous, or outside the scan.
    """
    start, stop, step = rows.indices(height)
    outside = rows.stop is not None and not 0 <= rows.stop <= height
    if step != 1 or stop < start or outside:
        raise InputFileError(f"{path}: rows {rows} of a scan of {height} rows; ask for rows 0 to {height}, step 1")
    return slice(start, stop)


def refuse_bad_counts(spectra: NDArray[Any], *, path: Path, detector: int, first_row: int) -> None:
    """Check counts (rows, x, channel) of one detector; spectra of NaN were not measured, a few negatives are mended.

    Raises:
        InputFileError: an infinite value, a NaN in a spectrum that has numbers, or more than 0.1 % of negative values,
            with the first place.
    """
    if spectra.size == 0 or spectra.dtype.kind in "ub":
        return
    if _are_finite_without_sign(spectra):
        return
    lowest, highest = float(np.min(spectra)), float(np.max(spectra))
    if lowest >= 0 and np.isfinite(highest):
        return
    bad, below = ~np.isfinite(spectra), spectra < 0
    if bad.any():
        bad &= ~find_missing(spectra)[..., None]
    if int(below.sum()) > MOST_NEGATIVE_SHARE * spectra.size:
        bad |= below
    if not bad.any():
        return
    row, column, channel = (int(n) for n in np.unravel_index(int(np.argmax(bad)), bad.shape))
    raise InputFileError(
        f"{path}: detector {detector}, row {first_row + row}, column {column}, channel {channel}: "
        f"{spectra[row, column, channel]} is not a count, must be finite and not negative "
        f"({int(np.count_nonzero(bad))} such values in the rows read); correct or leave out the file"
    )


def _are_finite_without_sign(values: NDArray[Any]) -> bool:
    """Whether signed numbers are finite and have no sign, in one pass; where False, they may still be so."""
    if values.dtype.itemsize > 8:
        return False
    # Taken as whole numbers without a sign, the bits of what is negative or not finite are above those of all others.
    bits = values.view(values.dtype.str.replace("f", "u").replace("i", "u"))
    most = (
        np.array(np.inf, values.dtype).view(bits.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype).max + 1
    )
    return bool(bits.max() < most)
