"""Label images of regions, npy and TIFF; the latter are looked at in a child process first, as HDF5 files are.

A TIFF of a few bytes can claim any size, and its directories can point at one another.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.untrusted import refuse_irregular, report_faults
from hpcxrf.errors import InputFileError
from hpcxrf.formats import first_look
from hpcxrf.formats.room import require_room
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.formats.signatures import NPY_SIGNATURE

SUFFIXES: Final = (".npy", ".tif", ".tiff")
_TIFF_SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_REMEDY: Final = "write the label image again as .npy or .tif"


def read_label_image(path: Path) -> NDArray[Any]:
    """Read the array of a label image, whatever its shape and type.

    Raises:
        InputFileError: the file cannot be read, or is of neither format.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputFileError(f"{path}: label image must be .npy or .tif")
    refuse_irregular(path)
    with report_faults(f"{path}: label image", remedy=_REMEDY):
        with path.open("rb") as stream:
            head = stream.read(len(NPY_SIGNATURE))
        if head.startswith(NPY_SIGNATURE):
            return _read_npy(path)
        if not head.startswith(_TIFF_SIGNATURES):
            raise InputFileError(f"{path}: label image cannot be read: neither a npy file nor a TIFF; {_REMEDY}")
        first_look.require_readable(path, ReadOptions())
        return read_tiff(path)


def _read_npy(path: Path) -> NDArray[Any]:
    # It loads h5py, which a plan on a login node has no need of.
    from hpcxrf.formats.array_containers import open_npy

    container = open_npy(path)
    entry = container.entries[""]
    return container.read(entry, tuple(slice(0, n) for n in entry.shape))


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes are those of a TIFF."""
    return head.startswith(_TIFF_SIGNATURES)


def read_tiff(path: Path) -> NDArray[Any]:
    """Read the first series of a TIFF.

    Raises:
        InputFileError: it claims more than a file of its size can hold.
    """
    import tifffile

    with _silence("tifffile"), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        bytes_needed = int(np.prod(series.shape, dtype=object)) * np.dtype(series.dtype).itemsize
        require_room(path, f"an image of shape {series.shape}", bytes_needed, [path])
        return np.asarray(series.asarray(maxworkers=1))


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """Keep a library from writing to the terminal what a damaged file makes it say, escape sequences included."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
