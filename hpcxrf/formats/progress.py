"""How far a file is that an instrument writes or somebody copies: by what its format says, with a few small reads.

Nothing is mapped or locked here: a mapped file that is cut meanwhile ends the process that reads it, and a lock,
however short, can make the instrument's own opening fail.
"""

import fcntl
import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.untrusted import refuse_irregular
from hpcxrf.errors import InputFileError
from hpcxrf.formats.mda_layout import MAX_POINTS, looks_like_mda
from hpcxrf.formats.scan import FloatMap, RawScan, ScanScalars
from hpcxrf.formats.signatures import NPY_SIGNATURE, SIGNATURE, SIGNATURE_PLACES, is_hdf5

_HEAD_BYTES: Final = 4096
_ZIP: Final = b"PK\x03\x04"
_LOCKS: Final = Path("/proc/locks")
_WRITE_FLAG: Final = 1
_SWMR_FLAG: Final = 4
_OTHER_PROGRAM: Final = "another program has it open for writing"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress:
    """How far a file is."""

    state: Literal["complete", "growing", "not said"]
    """What its format says; `not said`: nothing, so that only one that no longer changes can be taken for complete."""
    reason: str = ""
    """What is missing, for people; empty where nothing is."""
    rows_done: int | None = None
    """Rows of the scan that are complete; None: the format does not say."""
    rows: int | None = None
    """Rows that were planned; None: the format does not say."""
    by_rows: bool = False
    """Whether complete rows can be read while it grows."""
    elsewhere: bool = False
    """Whether the spectra are in another file: an MDA file of a fly scan."""


def read_progress(path: Path) -> FileProgress:
    """Read how far a file is.

    * MDA: the rows and points that its records say are finished, against those planned, and the extra variables, which
      are written last.
    * HDF5: the marks of a writer in the superblock, a writer's lock, and the end of the file that the superblock names.
    * npy: its size against that which its header gives; npz: its index, which is written last.

    Args:
        path: a file; one that is gone or cannot be read says nothing: opening it will report that.
    """
    try:
        refuse_irregular(path)
        with path.open("rb", buffering=_HEAD_BYTES) as file:
            return _read(file)
    except (OSError, struct.error, ValueError, InputFileError):
        return FileProgress(state="not said")


def _read(file: BinaryIO) -> FileProgress:
    head = file.read(_HEAD_BYTES)
    size = os.fstat(file.fileno()).st_size
    if not head:
        return FileProgress(state="growing", reason="it has 0 bytes")
    if looks_like_mda(head):
        return _read_mda(file, head, size)
    if is_hdf5(head):
        return _read_hdf5(file, head, size)
    if head.startswith(NPY_SIGNATURE):
        return _read_npy(file, size)
    if head.startswith(_ZIP) and not zipfile.is_zipfile(file):
        return FileProgress(state="growing", reason="its index, which is written last, is not there yet")
    return FileProgress(state="not said")


def _read_mda(file: BinaryIO, head: bytes, size: int) -> FileProgress:
    """The outermost record and, by three numbers each, those of its rows."""
    rank = struct.unpack_from(">i", head, 8)[0]
    extra_at = struct.unpack_from(">i", head, 12 + 4 * rank + 4)[0]
    at = 12 + 4 * rank + 8
    _, planned, finished = _read_integers(file, at, 3)
    if rank == 1 or not 0 < planned <= MAX_POINTS:
        return FileProgress(state="not said")
    offsets = _read_integers(file, at + 12, planned)
    done = _count_whole_rows(file, offsets, size)
    growing = FileProgress(state="growing", rows_done=done, rows=planned, by_rows=rank == 3, elsewhere=rank == 2)
    if finished < planned or done < planned:
        return replace(growing, reason=f"{done} of {planned} rows are finished")
    return replace(growing, state="complete" if 0 < extra_at < size else "not said", by_rows=False)


def _count_whole_rows(file: BinaryIO, offsets: Sequence[int], size: int) -> int:
    """Leading rows of which every point is finished; one that was written lies before the end of the file."""
    done = 0
    for offset in offsets:
        if not 0 < offset < size - 12:
            break
        _, planned, finished = _read_integers(file, offset, 3)
        if finished < planned or planned <= 0:
            break
        done += 1
    return done


def _read_integers(file: BinaryIO, at: int, count: int) -> tuple[int, ...]:
    file.seek(at)
    return struct.unpack(f">{count}i", file.read(4 * count))


def _read_hdf5(file: BinaryIO, head: bytes, size: int) -> FileProgress:
    """Superblock of version 0 to 3: HDF5 File Format Specification 3.0, section II.A."""
    place = next(one for one in SIGNATURE_PLACES if head.startswith(SIGNATURE, one))
    version = head[place + 8]
    flags = head[place + 11] if version >= 2 else 0
    if flags & _WRITE_FLAG:
        swmr = bool(flags & _SWMR_FLAG)
        return FileProgress(state="growing", reason=_OTHER_PROGRAM + " (SWMR)" * swmr, by_rows=swmr)
    if _is_locked(file):
        return FileProgress(state="growing", reason=f"{_OTHER_PROGRAM} and has locked it")
    end = _read_end(head, place, version)
    if size < end:
        return FileProgress(state="growing", reason=f"it has {size} of {end} bytes")
    return FileProgress(state="not said")


def _read_end(head: bytes, place: int, version: int) -> int:
    """End of the file by its superblock, bytes; 0 where it is not known."""
    before = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}.get(version)
    if before is None:
        return 0
    width, first = head[place + before[0]], place + before[1]
    # Base address, then that of the free space or of the extension, then the end.
    end = int.from_bytes(head[first + 2 * width : first + 3 * width], "little")
    return 0 if end == (1 << 8 * width) - 1 else end


def _is_locked(file: BinaryIO) -> bool:
    """Whether a writer holds a lock: of POSIX, which NFS passes on, or by `flock` on this host, as HDF5 does."""
    asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(file.fileno(), fcntl.F_GETLK, asked)
    if struct.unpack_from("h", answer)[0] == fcntl.F_WRLCK:
        return True
    status = os.fstat(file.fileno())
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    return any(fields[1:4:2] == ["FLOCK", "WRITE"] and fields[5] == wanted for fields in map(str.split, lines))


def _read_npy(file: BinaryIO, size: int) -> FileProgress:
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    end = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size < end:
        return FileProgress(state="growing", reason=f"it has {size} of {end} bytes")
    return FileProgress(state="not said")


def crop_rows(scan: RawScan, rows: int) -> RawScan:
    """The first rows of a scan, as a scan of its own.

    Args:
        scan: an opened scan.
        rows: 1 to the rows of the scan.

    Raises:
        ValueError: another number of rows.
    """
    detectors, height, width, channels = scan.shape
    if not 1 <= rows <= height:
        raise ValueError(f"{rows} rows of a scan of {height}; must be 1 to {height}")
    return replace(
        scan,
        shape=(detectors, rows, width, channels),
        rows_per_read=min(scan.rows_per_read, rows),
        read_counts=partial(_read_cropped, scan, rows),
        read_scalars=lambda: _crop_scalars(scan.read_scalars(), rows),
    )


def _read_cropped(scan: RawScan, height: int, rows: slice) -> NDArray[np.generic]:
    start, stop, _ = rows.indices(height)
    return scan.read_counts(slice(start, stop))


def _crop_scalars(scalars: ScanScalars, rows: int) -> ScanScalars:
    def cut(values: FloatMap | None) -> FloatMap | None:
        return None if values is None else values[..., :rows, :]

    return replace(
        scalars,
        live_time_s=cut(scalars.live_time_s),
        real_time_s=cut(scalars.real_time_s),
        icr_hz=cut(scalars.icr_hz),
        ocr_hz=cut(scalars.ocr_hz),
        scaler_values=cut(scalars.scaler_values),
        x_um=cut(scalars.x_um),
        y_um=cut(scalars.y_um),
        measured=None if scalars.measured is None else scalars.measured[:rows],
    )
