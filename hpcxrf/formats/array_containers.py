"""npy, npz, HDF5 and Zarr seen alike: arrays by path with their attributes, read by region, never as a whole."""

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import InputFileError
from hpcxrf.formats.axes import file_size
from hpcxrf.formats.hdf5_access import find_group
from hpcxrf.formats.hdf5_files import HDF5_FAULTS, find_dataset, open_hdf5
from hpcxrf.formats.room import require_room
from hpcxrf.formats.zarr_chunks import read_region
from hpcxrf.formats.zarr_codecs import refuse_unsafe_codecs

ZIP_SIGNATURE: Final = b"PK\x03\x04"
MAX_HEADER_BYTES: Final = 10_000
ZARR_SIGNS: Final = ("zarr.json", ".zarray", ".zgroup")
_MOST_LINKS: Final = 1000

Region = tuple[slice, ...]
_LOCAL_HEADER: Final = struct.Struct("<26xHH")
"""Header of a member of a zip: the lengths of its name and of what is beside it are the last of it."""
_ENCRYPTED: Final = 1
_BLOCK_BYTES: Final = 1 << 20

READ_FAULTS: Final = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)
"""Exceptions of numpy, zipfile and zarr on damaged files; numpy tokenizes the header of a npy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One array of a file; nothing of it is in memory."""

    path: str
    """Inside the file, without a leading slash; empty for the only array of a file."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
    """Its own, over those of its group, over those of the root."""
    dims: tuple[str, ...] | None
    """Names of its axes, where the file has them."""
    chunks: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    def find_neighbour(self, name: str) -> str:
        """Path of a neighbour in the same group."""
        return f"{self.path.rpartition('/')[0]}/{name}".lstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """All arrays of one file."""

    path: Path
    format: str
    entries: Mapping[str, Entry]
    read: Callable[[Entry, Region], NDArray[Any]]
    """Copy of a region into memory; opens the file anew, so that threads share nothing."""
    read_attributes: Callable[[str], Mapping[str, Any]] = field(default=lambda _: {})
    """Attributes of a group; none where there is no such group."""
    links: Mapping[str, str] = field(default_factory=dict)
    """External links that were not followed: path and the file that they name."""
    growing: bool = False
    """Another program appends to the file (SWMR): arrays may be longer when they are read than they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Place of a npy array's numbers in its stream."""

    offset: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def open_npy(path: Path) -> Container:
    """Header of a npy file.

    Raises:
        InputFileError: damaged, truncated, or of Python objects.
    """
    size = file_size(path)
    with _translate_faults(path), path.open("rb") as stream:
        layout = _read_layout(path, stream, size)
    return _build_container(path, "npy", {"": layout}, lambda _: path.open("rb"))


def open_npz(path: Path) -> Container:
    """Headers of the members of a npz file.

    Raises:
        InputFileError: damaged, truncated, or without arrays.
    """
    file_size(path)
    layouts = {}
    with _translate_faults(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as stream:
                    name = info.filename.removesuffix(".npy")
                    layouts[name] = _read_layout(path, stream, info.file_size)
    return _build_container(path, "npz", layouts, lambda name: _open_member(path, name))


def open_hdf5_arrays(path: Path, dataset_path: str | Sequence[str] | None, *, allow_external: bool) -> Container:
    """All datasets that hard links of an HDF5 file reach, and those that `dataset_path` names.

    External links are followed where that is allowed.

    Raises:
        InputFileError: damaged or truncated; the requested dataset lies outside of the file.
    """
    file_size(path)
    entries: dict[str, Entry] = {}
    with open_hdf5(path) as file:
        growing = bool(file.swmr_mode)
        _visit_datasets(file, "", entries)
        links = _find_external_links(file)
        for name in links if allow_external else ():
            _follow_link(file, name, entries)
        for requested in _split_request(dataset_path):
            found = find_dataset(file, [requested], allow_external=allow_external) if requested not in entries else None
            if found is not None:
                entries[requested] = _describe_hdf5(requested, found)

    def read(entry: Entry, region: Region) -> NDArray[Any]:
        with open_hdf5(path) as file:
            dataset = find_dataset(file, [entry.path], allow_external=allow_external)
            if dataset is None or not _has_kept_shape(dataset.shape, entry.shape, growing=growing):
                raise InputFileError(f"{path}: {entry.path} was changed since it was opened; start again")
            return np.asarray(dataset[region])

    def read_attributes(group: str) -> Mapping[str, Any]:
        with open_hdf5(path) as file:
            found = find_group(file, group)
            return {} if found is None else dict(found.attrs)

    return Container(
        path=path,
        format="hdf5-array",
        entries=entries,
        read=read,
        read_attributes=read_attributes,
        links={} if allow_external else links,
        growing=growing,
    )


def _split_request(dataset_path: str | Sequence[str] | None) -> list[str]:
    """Paths that a request may name, which only links may reach: a path can itself hold a comma."""
    texts = [dataset_path, *dataset_path.split(",")] if isinstance(dataset_path, str) else list(dataset_path or ())
    return [text.strip().strip("/") for text in texts if text.strip().strip("/")]


def _visit_datasets(group: h5py.Group, place: str, entries: dict[str, Entry]) -> None:
    root = dict(group.file.attrs)
    above: dict[str, Mapping[str, Any]] = {}

    def visit(name: str, found: object) -> None:
        if isinstance(found, h5py.Dataset) and found.shape is not None:
            parent = name.rpartition("/")[0]
            if parent not in above:
                # Once a group: a file has thousands of datasets in hundreds of groups.
                above[parent] = {**root, **found.parent.attrs}
            entries[f"{place}{name}"] = _describe_hdf5(f"{place}{name}", found, above[parent])

    group.visititems(visit)


def _find_external_links(file: h5py.File) -> dict[str, str]:
    """File that each external link names, by the link's path."""
    found: list[bytes] = []

    def visit(name: bytes, info: Any) -> bool | None:  # noqa: ANN401 -- h5py's LinkInfo has no public name
        if info.type == h5py.h5l.TYPE_EXTERNAL:
            found.append(name)
        return True if len(found) >= _MOST_LINKS else None

    file.id.links.visit(visit, info=True)
    return {name.decode("utf-8", "replace"): _read_target(file, name) for name in found}


def _read_target(file: h5py.File, link: bytes) -> str:
    """File that an external link names."""
    name, _ = file.id.links.get_val(link)
    return str(name.decode("utf-8", "replace"))


def _follow_link(file: h5py.File, name: str, entries: dict[str, Entry]) -> None:
    """Add the dataset, or the datasets of the group, that an external link names; a dangling one is left out."""
    try:
        found = file.get(name)
    except HDF5_FAULTS:
        return
    if isinstance(found, h5py.Dataset):
        entries[name] = _describe_hdf5(name, found)
    elif isinstance(found, h5py.Group):
        _visit_datasets(found, f"{name}/", entries)


def _has_kept_shape(now: tuple[int, ...], then: tuple[int, ...], *, growing: bool) -> bool:
    """Whether what was described can still be read: the same shape, or rows appended by its writer."""
    return now == then or (growing and now[1:] == then[1:] and now[:1] >= then[:1])


def open_zarr_arrays(path: Path) -> Container:
    """All arrays of a Zarr folder, which is opened read-only.

    Raises:
        InputFileError: the folder's metadata cannot be read.
    """
    import zarr

    refuse_unsafe_codecs(path)
    with _translate_faults(path):
        root = zarr.open(str(path), mode="r")
        if isinstance(root, zarr.Array):
            found = {"": root}
        else:
            members = root.members(max_depth=None)
            found = {name: item for name, item in members if isinstance(item, zarr.Array)}
        entries = {name: _describe_zarr(name, item, root) for name, item in found.items()}
    for name, item in found.items():
        bytes_each = math.prod(item.chunks) * np.dtype(item.dtype).itemsize
        require_room(f"{path}: {show_name(name)}", f"one chunk {item.chunks}", bytes_each, [path])

    def read(entry: Entry, region: Region) -> NDArray[Any]:
        with _translate_faults(path):
            return read_region(found[entry.path], region)

    def read_attributes(group: str) -> Mapping[str, Any]:
        with _translate_faults(path):
            found = None if isinstance(root, zarr.Array) else root.get(group)
            return dict(found.attrs) if isinstance(found, zarr.Group) else {}

    return Container(path=path, format="zarr-array", entries=entries, read=read, read_attributes=read_attributes)


@contextmanager
def _translate_faults(path: Path) -> Iterator[None]:
    """Turn the exceptions of a damaged file into one sentence."""
    try:
        yield
    except (*READ_FAULTS, KeyError, TypeError) as error:
        raise InputFileError(f"{path}: cannot be read: {error}; if it is cut off or damaged, copy it again") from error


def _read_layout(path: Path, stream: IO[bytes], size: int) -> _Layout:
    """Read a npy header; nothing is unpickled."""
    version = np.lib.format.read_magic(stream)
    if version not in {(1, 0), (2, 0)}:
        raise InputFileError(f"{path}: npy version {version} holds Python objects; save the array as plain numbers")
    old = version == (1, 0)
    prefix = stream.read(2 if old else 4)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise InputFileError(
            f"{path}: a npy header of {length} bytes, at most {MAX_HEADER_BYTES} are read; copy it again"
        )
    header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(io.BytesIO(prefix + stream.read(length)))
    if min(shape, default=0) < 0:
        raise InputFileError(f"{path}: its header says shape {shape}; the file is damaged: copy it again")
    layout = _Layout(offset=stream.tell(), shape=shape, fortran=fortran, dtype=dtype)
    needed = layout.offset + dtype.itemsize * math.prod(shape)
    if size < needed and not dtype.hasobject:
        raise InputFileError(
            f"{path}: {size} bytes where its header promises {needed} (shape {shape}, {dtype}); it is cut off, "
            "copy it again"
        )
    return layout


@contextmanager
def _open_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _ENCRYPTED:
            with path.open("rb") as file:
                yield io.BufferedReader(_StoredMember(file, info))
            return
        with archive.open(info) as stream:
            yield stream


class _StoredMember(io.RawIOBase):
    """A member of a zip that is not compressed, read where it lies: `zipfile` reads all that it skips.

    Its checksum is compared when its last byte is read.
    """

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo) -> None:
        """Find where the member begins.

        Raises:
            BadZipFile: its header is damaged.
        """
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no member begins at {info.header_offset}")
        self._file = file
        self._info = info
        self._begin = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.file_size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  any writable buffer
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._info.file_size - self._at)]
        self._file.seek(self._begin + self._at)
        count = self._file.readinto(view)  # type: ignore[attr-defined]  # typeshed's IO lacks it
        self._at += count
        if count and self._at == self._info.file_size:
            self._check()
        return int(count)

    def _check(self) -> None:
        self._file.seek(self._begin)
        left, found = self._info.file_size, 0
        while left and (block := self._file.read(min(left, _BLOCK_BYTES))):
            found, left = zlib.crc32(block, found), left - len(block)
        if found != self._info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._info.filename!r}")


def _build_container(path: Path, form: str, layouts: Mapping[str, _Layout], opened: Callable[[str], Any]) -> Container:
    entries = {
        name: Entry(path=name, shape=a.shape, dtype=a.dtype, attributes={}, dims=None, chunks=None)
        for name, a in layouts.items()
    }

    def read(entry: Entry, region: Region) -> NDArray[Any]:
        if entry.dtype.hasobject:
            raise InputFileError(f"{path}: {entry.path} holds Python objects, which are never read")
        with _translate_faults(path), opened(entry.path) as stream:
            return _read_region(path, stream, layouts[entry.path], region)

    return Container(path=path, format=form, entries=entries, read=read)


def _read_region(path: Path, stream: IO[bytes], layout: _Layout, region: Region) -> NDArray[Any]:
    """Copy a region in which at most one axis is not whole, run by run; a map of the file would stay in memory."""
    shape, wanted = layout.shape, region
    if layout.fortran:
        shape, wanted = shape[::-1], wanted[::-1]
    bounds = [part.indices(n)[:2] for part, n in zip(wanted, shape, strict=True)]
    parts = [i for i, (n, b) in enumerate(zip(shape, bounds, strict=True)) if b != (0, n)]
    axis = parts[0] if parts else 0
    item = layout.dtype.itemsize
    below = math.prod(shape[axis + 1 :]) * item
    out = np.empty([stop - start for start, stop in bounds], layout.dtype)
    runs = out.reshape(math.prod(shape[:axis]), -1).view(np.uint8)
    first = bounds[axis][0] * below if bounds else 0
    stride = below * shape[axis] if shape else 0
    for number, run in enumerate(runs):
        stream.seek(layout.offset + number * stride + first)
        _fill(path, stream, run)
    return out.T if layout.fortran else out


def _fill(path: Path, stream: IO[bytes], run: NDArray[np.uint8]) -> None:
    view = run.data
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]  # typeshed's IO lacks it
        if not count:
            raise InputFileError(f"{path}: ends early; it is cut off, copy it again")
        done += count


def _describe_hdf5(path: str, dataset: h5py.Dataset, above: Mapping[str, Any] | None = None) -> Entry:
    if above is None:
        above = {**dataset.file.attrs, **dataset.parent.attrs}
    attributes = {**above, **dataset.attrs}
    labels = tuple(d.label for d in dataset.dims) if len(dataset.shape) > 1 else ()
    return Entry(
        path=path,
        shape=dataset.shape,
        dtype=dataset.dtype,
        attributes=attributes,
        dims=labels if any(labels) else _find_dims(attributes, len(dataset.shape)),
        chunks=dataset.chunks,
    )


def _describe_zarr(path: str, array: Any, root: Any) -> Entry:  # noqa: ANN401 -- zarr's arrays have no useful type
    parent = path.rpartition("/")[0]
    above = {} if not path else {**root.attrs, **(root[parent].attrs if parent else {})}
    attributes = {**above, **array.attrs}
    named = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    dims = tuple(str(n or "") for n in named) if named else _find_dims(attributes, array.ndim)
    return Entry(
        path=path,
        shape=tuple(array.shape),
        dtype=np.dtype(array.dtype),
        attributes=attributes,
        dims=dims,
        chunks=tuple(array.shards or array.chunks),
    )


def _find_dims(attributes: Mapping[str, Any], rank: int) -> tuple[str, ...] | None:
    """Names of the axes from the attribute `dims`, or `axes` as NeXus has it; None unless one for each axis."""
    for key in ("dims", "axes"):
        names = decode_texts(attributes.get(key))
        if len(names) == 1:
            names = tuple(names[0].replace(":", ",").replace(" ", ",").split(","))
        names = tuple(n for n in names if n)
        if len(names) == rank:
            return names
    return None


def decode_texts(value: object) -> tuple[str, ...]:
    """Strings of an attribute or array; empty for None."""
    if value is None:
        return ()
    items: Sequence[object] = [value] if isinstance(value, str | bytes) else list(np.ravel(value))  # type: ignore[call-overload]  # any sequence of strings
    return tuple(i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in items)
