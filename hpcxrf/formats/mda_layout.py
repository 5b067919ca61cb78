"""Layout of MDA files (EPICS saveData, version 1.x): big-endian XDR records that point at one another."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError

MAX_RANK: Final = 4
MAX_POINTS: Final = 100_000_000
MAX_TEXT_BYTES: Final = 4096
MAX_LISTED: Final = 100_000
VERSIONS: Final = (1.2, 1.3, 1.4)
# Offset of the number of finished points in a record.
_LAST_POINT_AT: Final = 8
NUMBER_TYPES: Final = {29: ">i4", 30: ">f4", 32: ">i4", 33: ">i4", 34: ">f8"}
"""Types of extra process variables with numbers; type 0 is text."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MdaHeader:
    """Header of the file."""

    version: float
    scan_number: int
    dims: tuple[int, ...]
    """Points planned, outermost first."""
    extra_at: int
    """Offset of the extra process variables; 0 if there are none."""
    scan_at: int
    """Offset of the outermost scan record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A positioner or a scan detector: its process variable, description and unit."""

    name: str
    description: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MdaScan:
    """One scan record; its numbers stay in the file until `read_positions` or `read_values`."""

    rank: int
    npts: int
    last_point: int
    """Points finished."""
    sub_at: tuple[int, ...]
    """Offsets of the inner scans, 0 = not written; empty at rank 1."""
    name: str
    time: str
    positioners: tuple[Channel, ...]
    detectors: tuple[Channel, ...]
    detectors_stored: bytes
    """Bytes that describe the detectors: the same in nearly all records of a level."""
    at: int
    """Offset of the record."""
    time_at: int
    """Offset of the text of the time, beyond its lengths."""
    positions_at: int
    values_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraVariable:
    """A process variable that was saved once for the whole file."""

    name: str
    description: str
    unit: str
    text: str
    numbers: tuple[float, ...]


@dataclass(slots=True, kw_only=True)
class _Cursor:
    """A place in the file; every step is checked against its end."""

    path: Path
    data: NDArray[np.uint8]
    at: int

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        have = int(self.data.size)
        if size < 0 or self.at < 0 or self.at + size > have:
            raise make_truncation_error(self.path, self.at + max(size, 0), have)
        start, self.at = self.at, self.at + size
        return self.data[start : self.at].tobytes()

    def read_integer(self) -> int:
        """A 32-bit integer."""
        return int(struct.unpack(">i", self.take(4))[0])

    def read_real(self) -> float:
        """A 32-bit float."""
        return float(struct.unpack(">f", self.take(4))[0])

    def read_count(self, what: str, largest: int) -> int:
        """An integer from 0 to `largest`."""
        number = self.read_integer()
        if not 0 <= number <= largest:
            raise InputFileError(
                f"{self.path}: byte {self.at - 4}: {what} is {number}, must be 0 to {largest}; "
                "the file is damaged: copy it again from the instrument"
            )
        return number

    def read_text(self) -> str:
        """A counted string."""
        if self.read_count("length of a text", MAX_TEXT_BYTES) == 0:
            return ""
        size = self.read_count("length of a text", MAX_TEXT_BYTES)
        return self.take((size + 3) // 4 * 4)[:size].decode("latin-1")

    def read_numbers(self, dtype: str, count: int) -> NDArray[np.generic]:
        """`count` numbers of one type."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(count * kind.itemsize), kind)


def make_truncation_error(path: Path, expected: int, have: int) -> InputFileError:
    """The error for a file that ends early."""
    return InputFileError(
        f"{path}: truncated: at least {expected} bytes expected, the file has {have}; copy it again from the instrument"
    )


def looks_like_mda(head: bytes) -> bool:
    """True where the first bytes are those of an MDA file: a known version, a rank and that many sizes."""
    if len(head) < 20:
        return False
    version, _, rank = struct.unpack_from(">fii", head)
    known = any(abs(version - v) < 1e-3 for v in VERSIONS)
    if not known or not 1 <= rank <= MAX_RANK or len(head) < 12 + 4 * rank:
        return False
    return all(0 < n <= MAX_POINTS for n in struct.unpack_from(f">{rank}i", head, 12))


def map_file(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, mapped, not read.

    Raises:
        InputFileError: the file cannot be read or is empty.
    """
    try:
        # Its views would each cost as much as a small read.
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read: {error}; check the file") from error


def read_header(path: Path, data: NDArray[np.uint8]) -> MdaHeader:
    """The header of a file.

    Raises:
        InputFileError: the file is truncated or its rank is not 1 to 4.
    """
    cursor = _Cursor(path=path, data=data, at=0)
    version, number = cursor.read_real(), cursor.read_integer()
    rank = cursor.read_count("rank", MAX_RANK)
    dims = tuple(cursor.read_count("number of points", MAX_POINTS) for _ in range(rank))
    cursor.read_integer()
    extra_at = cursor.read_integer()
    if extra_at > data.size:
        raise make_truncation_error(path, extra_at, int(data.size))
    return MdaHeader(version=version, scan_number=number, dims=dims, extra_at=extra_at, scan_at=cursor.at)


def read_scan(path: Path, data: NDArray[np.uint8], at: int, like: MdaScan | None = None) -> MdaScan:
    """The scan record at an offset, its numbers left in the file.

    Args:
        path: of the file, for messages.
        data: its bytes.
        at: offset of the record.
        like: a record of the same level, whose scan detectors are shared where they are the same: to read a
            hundred names a row takes most of the time, and to keep them most of the memory.

    Raises:
        InputFileError: the record is truncated or damaged.
    """
    cursor = _Cursor(path=path, data=data, at=at)
    rank = cursor.read_count("rank", MAX_RANK)
    npts = cursor.read_count("number of points", MAX_POINTS)
    last_point = cursor.read_count("last point", npts)
    offsets = cursor.read_numbers(">i4", npts).tolist() if rank > 1 else []
    name, time = cursor.read_text(), cursor.read_text()
    time_at = cursor.at - (len(time) + 3) // 4 * 4
    sizes = [cursor.read_count("number of channels", MAX_LISTED) for _ in range(3)]
    positioners = tuple(_read_positioner(cursor) for _ in range(sizes[0]))
    detectors, stored = _read_detectors(cursor, sizes[1], like)
    for _ in range(sizes[2]):
        cursor.read_integer(), cursor.read_text(), cursor.read_real()
    values_at = cursor.at + 8 * sizes[0] * npts
    end = values_at + 4 * sizes[1] * npts
    if end > data.size:
        raise make_truncation_error(path, end, int(data.size))
    return MdaScan(
        rank=rank,
        npts=npts,
        last_point=last_point,
        sub_at=tuple(offsets),
        name=name,
        time=time,
        positioners=positioners,
        detectors=detectors,
        detectors_stored=stored,
        at=at,
        time_at=time_at,
        positions_at=cursor.at,
        values_at=values_at,
    )


def match_records(data: NDArray[np.uint8], offsets: NDArray[np.int64], like: MdaScan) -> NDArray[np.bool_]:
    """Find the records that differ from another one in nothing but time, last point and numbers.

    To take a record apart costs ten times as much as to read its numbers.

    Args:
        data: the bytes of the file.
        offsets: (record,) of records of the innermost level.
        like: such a record that was read.

    Returns:
        (record,) True where the numbers lie as far behind the offset as those of `like`, and the file has them.
    """
    head = like.positions_at - like.at
    size = like.values_at - like.at + 4 * len(like.detectors) * like.npts
    inside = (offsets >= 0) & (offsets + size <= data.size)
    place = np.arange(head)
    time = (place >= like.time_at - like.at) & (place < like.time_at - like.at + len(like.time))
    place = place[~time & ((place < _LAST_POINT_AT) | (place >= _LAST_POINT_AT + 4))]
    same = np.zeros(offsets.shape, dtype=bool)
    kept = offsets[inside, None]
    done = np.ascontiguousarray(data[kept + np.arange(_LAST_POINT_AT, _LAST_POINT_AT + 4)]).view(">i4")[:, 0]
    alike = (data[kept + place] == data[like.at + place]).all(axis=1)
    same[inside] = alike & (done >= 0) & (done <= like.npts)
    return same


def read_numbers_at(data: NDArray[np.uint8], offset: int, like: MdaScan) -> NDArray[np.float32]:
    """Values (scan detector, point) of a record at an offset that `match_records` found to be like another one."""
    values: NDArray[np.float32] = view_numbers(data, np.array([offset]), like)[0]
    return values


def view_numbers(data: NDArray[np.uint8], offsets: NDArray[np.int64], like: MdaScan) -> NDArray[np.float32]:
    """Values (record, scan detector, point) of evenly spaced records that `match_records` found to be like another one.

    Nothing is copied.
    """
    step = int(offsets[1] - offsets[0]) if len(offsets) > 1 else 0
    return np.ndarray(
        (len(offsets), len(like.detectors), like.npts),
        ">f4",
        buffer=data,
        offset=int(offsets[0]) + like.values_at - like.at,
        strides=(step, 4 * like.npts, 4),
    )


def _read_detectors(cursor: _Cursor, count: int, like: MdaScan | None) -> tuple[tuple[Channel, ...], bytes]:
    """The scan detectors at the cursor and their bytes; those of `like` where the bytes are the same."""
    start = cursor.at
    if like is not None and count == len(like.detectors):
        end = start + len(like.detectors_stored)
        if cursor.data[start:end].tobytes() == like.detectors_stored:
            cursor.at = end
            return like.detectors, like.detectors_stored
    detectors = tuple(_read_detector(cursor) for _ in range(count))
    return detectors, cursor.data[start : cursor.at].tobytes()


def _read_positioner(cursor: _Cursor) -> Channel:
    cursor.read_integer()
    name, description, _mode, unit, *_readback = [cursor.read_text() for _ in range(7)]
    return Channel(name=name, description=description, unit=unit)


def _read_detector(cursor: _Cursor) -> Channel:
    cursor.read_integer()
    name, description, unit = [cursor.read_text() for _ in range(3)]
    return Channel(name=name, description=description, unit=unit)


def read_positions(data: NDArray[np.uint8], scan: MdaScan) -> NDArray[np.float64]:
    """Positions (positioner, point), as the scan record has them."""
    size = 8 * len(scan.positioners) * scan.npts
    raw = data[scan.positions_at : scan.positions_at + size].tobytes()
    return np.frombuffer(raw, ">f8").astype(np.float64).reshape(len(scan.positioners), scan.npts)


def read_values(data: NDArray[np.uint8], scan: MdaScan) -> NDArray[np.float32]:
    """Values of the scan detectors (scan detector, point)."""
    size = 4 * len(scan.detectors) * scan.npts
    raw = data[scan.values_at : scan.values_at + size].tobytes()
    return np.frombuffer(raw, ">f4").astype(np.float32).reshape(len(scan.detectors), scan.npts)


def read_extra(path: Path, data: NDArray[np.uint8], header: MdaHeader) -> tuple[ExtraVariable, ...]:
    """The extra process variables; empty if the file has none.

    Raises:
        InputFileError: they are truncated or of a type that MDA does not have.
    """
    if header.extra_at <= 0:
        return ()
    cursor = _Cursor(path=path, data=data, at=header.extra_at)
    count = cursor.read_count("number of extra variables", MAX_LISTED)
    return tuple(_read_extra_variable(cursor) for _ in range(count))


def _read_extra_variable(cursor: _Cursor) -> ExtraVariable:
    name, description, kind = cursor.read_text(), cursor.read_text(), cursor.read_integer()
    if kind == 0:
        return ExtraVariable(name=name, description=description, unit="", text=cursor.read_text(), numbers=())
    if kind not in NUMBER_TYPES:
        raise InputFileError(
            f"{cursor.path}: byte {cursor.at - 4}: extra variable {name!r} is of type {kind}, must be "
            f"one of 0, {', '.join(map(str, NUMBER_TYPES))}; copy the file again from the instrument"
        )
    count = cursor.read_count("length of an extra variable", MAX_POINTS)
    unit = cursor.read_text()
    numbers = tuple(float(v) for v in cursor.read_numbers(NUMBER_TYPES[kind], count).tolist())
    return ExtraVariable(name=name, description=description, unit=unit, text="", numbers=numbers)
