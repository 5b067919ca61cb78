"""The edge of every reader: regular files only, claims checked before anything is allocated, own errors, plain names.

Readers trust their files; this module does not. It wraps whatever `registry.scan_formats` lists, so that a reader
that is added later is held by the same rules:

* What is not a regular file (a pipe, a device, a file of /proc) is never opened.
* What a C library parses (HDF5) is first looked at in a child process with limits of time and memory (`first_look`);
  everything else is read in Python, by declared size, and its claims are compared with the size of the file.
* Every exception becomes an InputFileError that names the file.
* Names from within a file are kept with their control characters escaped.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.untrusted import refuse_irregular, report_faults, show_lines, show_name
from hpcxrf.errors import InputFileError
from hpcxrf.formats import first_look
from hpcxrf.formats.room import count_bytes, require_room
from hpcxrf.formats.scan import RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.signatures import is_hdf5

HEAD_BYTES: Final = 4096
TOTAL_BYTES: Final = 2**30
"""Bytes of counts that any file may claim, however small it is."""
TOTAL_RATIO: Final = 100_000
"""The same for larger files. A scan that stopped after its first row claims far more than it holds."""
MAX_CHANNELS: Final = 2**16
"""Most channels of a spectrum: germanium detectors have up to 65 536."""


def sniff(of: Callable[[Path, bytes], bool], path: Path, head: bytes) -> bool:
    """Whether a reader takes a file; one that stumbles over it does not."""
    try:
        return of(path, head)
    except Exception:  # noqa: BLE001 - the edge: another reader may take it, and the last one says why not
        return False


def open_within_bounds(of: Callable[[Path, ReadOptions], RawScan], path: Path, options: ReadOptions) -> RawScan:
    """Open a scan with one reader, and hold everything that it gives to the rules of this module.

    Raises:
        InputFileError: whatever is wrong with the file.
    """
    with own_errors(path):
        scan = of(path, options)
        for file in scan.files:
            if not file.is_dir():
                refuse_irregular(file)
        refuse_false_claims(scan)
        by_library = any(is_hdf5(read_head(file)) for file in scan.files if not file.is_dir())

    @cache
    def look_first() -> None:
        refuse_hollow(scan)
        if by_library:
            first_look.require_readable(path, options, read=True)

    def read_counts(rows: slice) -> NDArray[np.generic]:
        with own_errors(path):
            look_first()
            return scan.read_counts(rows)

    def read_scalars() -> ScanScalars:
        with own_errors(path):
            look_first()
            return _show_names(scan.read_scalars())

    return replace(
        scan,
        name=show_name(scan.name),
        notes=tuple(replace(note, text=show_name(note.text)) for note in scan.notes),
        tube=None if scan.tube is None else show_name(scan.tube),
        read_counts=read_counts,
        read_scalars=read_scalars,
    )


@contextmanager
def own_errors(path: Path) -> Iterator[None]:
    """Let only InputFileError out, its text without control characters.

    Raises:
        InputFileError: for whatever the block raised.
    """
    try:
        # Numbers of a damaged file may overflow; what is not finite is judged where it is used, and needs no warning.
        with report_faults(path), np.errstate(all="ignore"):
            yield
    except InputFileError as error:
        plain = show_lines(str(error))
        if plain == str(error):
            raise
        raise type(error)(plain) from error


def read_head(path: Path) -> bytes:
    """Read the first bytes of a regular file.

    Raises:
        InputFileError: not a regular file, or unreadable.
    """
    refuse_irregular(path)
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        name = show_name(str(path))
        raise InputFileError(f"{name}: cannot be read: {error.strerror}; check its permissions") from error


def refuse_false_claims(scan: RawScan) -> None:
    """Refuse a shape that files of this size cannot hold, or that this machine cannot read row by row.

    Raises:
        InputFileError: what is claimed, what the files have, and what is possible.
    """
    detectors, height, width, channels = scan.shape
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputFileError(
            f"{_describe_shape(scan)}: {channels} channels, a spectrum has 1 to {MAX_CHANNELS}; name the axis of the "
            "channels (--energy-axis), or leave the file out"
        )
    rows = min(max(scan.rows_per_read, 1), height)
    at_once = detectors * rows * width * channels * scan.dtype.itemsize
    require_room(_describe_shape(scan), "one read", at_once, scan.files)
    require_room(_describe_shape(scan), "a map", 8 * detectors * height * width, scan.files)


def refuse_hollow(scan: RawScan) -> None:
    """Refuse to read counts of which the files can hold next to none: it would take for ever, and all are 0.

    Raises:
        InputFileError: what is claimed, and what the files have.
    """
    claimed = math.prod(scan.shape) * scan.dtype.itemsize
    size = count_bytes(scan.files, enough=claimed // TOTAL_RATIO + 1)
    if claimed > max(TOTAL_BYTES, TOTAL_RATIO * size):
        raise InputFileError(
            f"{_describe_shape(scan)}: {claimed} bytes of counts in a file of {size} bytes: nearly nothing of it was "
            "ever written; copy it again, or leave it out"
        )


def _describe_shape(scan: RawScan) -> str:
    return f"{scan.files[0]}: shape {scan.shape} (detector, y, x, channel)"


def _show_names(scalars: ScanScalars) -> ScanScalars:
    return replace(
        scalars,
        scaler_names=tuple(map(show_name, scalars.scaler_names)),
        scaler_units=tuple(map(show_name, scalars.scaler_units)),
    )
