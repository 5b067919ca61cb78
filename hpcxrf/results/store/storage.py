"""Zarr groups and arrays as every results store has them: creation, labels, root metadata, faults."""

import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore, StoreLike, ZipStore

from hpcxrf.config.untrusted import read_json_object
from hpcxrf.errors import OutputError
from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.quantify.normalise import PixelFlag
from hpcxrf.store.array_writer import METADATA, TEXT, write_group
from hpcxrf.store.packed import SUFFIX, is_store, locate_store, read_root
from hpcxrf.store.plain_arrays import (
    create_plain_array,
    is_plain,
    read_plain_chunk,
    read_plain_texts,
    write_plain_chunk,
)
from hpcxrf.store.schema import (
    BLOCK_X,
    BLOCK_Y,
    MAP_CHUNK_PIXELS,
    READABLE_SCHEMAS,
    SCHEMA_ATTRIBUTE,
    SCHEMA_VERSION,
    VariableSpec,
)

ONE_CHUNK_BYTES: Final = 64 << 20
"""Largest array that is one chunk because one task writes all of it."""
_FLAGS: Final[Mapping[str, type[IntEnum]]] = {"status": FitStatus, "verdict": Verdict, "flag": PixelFlag}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlan:
    """One array to create: its shape, chunks and meaning."""

    spec: VariableSpec
    sizes: Mapping[str, int]
    """Length of every dimension of the store."""
    coordinates: str = ""
    """Names of the auxiliary coordinates (CF `coordinates`), blank-separated."""
    many_writers: bool = False
    """Several tasks write it, each its own chunks."""
    block_yx: tuple[int, int] = (BLOCK_Y, BLOCK_X)
    """Rows and columns of a block of maps that several tasks write."""
    level: int = 0
    """Level of the compression, `create_plain_array`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        return tuple(self.sizes[dim] for dim in self.spec.dims)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of what one task writes: of maps one detector, all components, one block; of a table one region."""
        if not self.many_writers and math.prod(self.shape) * np.dtype(self.spec.dtype).itemsize <= ONE_CHUNK_BYTES:
            return tuple(max(1, size) for size in self.shape)
        limits = {"detector": 1, "y": self.block_yx[0], "x": self.block_yx[1], "region": 1}
        if "layer" in self.spec.dims:
            limits = {"layer": 1, "y": MAP_CHUNK_PIXELS, "x": MAP_CHUNK_PIXELS}
        elif "region" in self.spec.dims and "y" not in self.spec.dims:
            limits = {"region": 1}
        return tuple(
            max(1, min(size, limits.get(dim, size))) for dim, size in zip(self.spec.dims, self.shape, strict=True)
        )


def create_group(folder: Path, attributes: Mapping[str, Any] | None = None) -> Path:
    """Create a group, and the folders above it; gives its folder."""
    write_group(folder, attributes or {})
    return folder


def create_array(group: Path, name: str, plan: ArrayPlan, values: NDArray[Any] | None = None) -> None:
    """Create one numeric array with its units and meaning; floats fill with NaN, integers with 0.

    Args:
        group: folder of the group.
        name: of the array.
        plan: its shape, chunks and meaning.
        values: its content; None: nothing but the fill value.

    Raises:
        OSError: the folder cannot be written.
        ValueError: values of another shape.
    """
    dtype = np.dtype(plan.spec.dtype)
    texts = {"units": plan.spec.units, "long_name": plan.spec.long_name}
    extra = {"coordinates": plan.coordinates} if plan.coordinates else {}
    attributes = {**texts, **describe_flags(name), **extra}
    folder, dots = group / name, not plan.many_writers
    create_plain_array(folder, plan.shape, plan.chunks, dtype, plan.spec.dims, attributes, dots=dots, level=plan.level)
    if values is not None:
        _write_whole(folder, values, dtype)


def create_values(
    group: Path, name: str, dims: Sequence[str], values: NDArray[Any], attributes: Mapping[str, Any]
) -> None:
    """Create an array of numbers, of one chunk, with its content."""
    chunk = tuple(max(1, size) for size in values.shape)
    create_plain_array(group / name, values.shape, chunk, values.dtype, dims, attributes, dots=True)
    _write_whole(group / name, values, values.dtype)


def create_labels(group: Path, dim: str, labels: Sequence[str], name: str | None = None) -> None:
    """Create a coordinate of strings of variable length, one per index of a dimension."""
    create_texts(group, name or dim, (dim,), np.array(labels, dtype=object), {"long_name": name or dim})


def create_texts(
    group: Path,
    name: str,
    dims: Sequence[str],
    texts: NDArray[np.object_],
    attributes: Mapping[str, str],
    *,
    by_row: bool = False,
) -> None:
    """Create an array of strings.

    Args:
        group: folder of the group.
        name: of the array.
        dims: names of its axes.
        texts: its content.
        attributes: of the array.
        by_row: every row has a writer, and a chunk, of its own.
    """
    rows = 1 if by_row else texts.shape[0]
    chunk = tuple(max(1, size) for size in (rows, *texts.shape[1:]))
    create_plain_array(group / name, texts.shape, chunk, TEXT, dims, attributes, dots=not by_row)
    if any(texts.ravel().tolist()):
        _write_whole(group / name, texts, np.dtype(object))


def fill_rows(group: Path, rows: Mapping[int, Mapping[str, NDArray[Any]]]) -> None:
    """Write rows of arrays: everything of some places on their first axis.

    Args:
        group: folder of the group.
        rows: values by name, by place on the first axis, the same names of each; numbers, or strings as objects.

    Raises:
        OutputError: an array is missing, or damaged.
        OSError: the folder cannot be written.
    """
    for name in next(iter(rows.values()), {}):
        folder = group / name
        metadata = read_json(folder / METADATA)
        shape, chunk = metadata["shape"], metadata["chunk_grid"]["configuration"].get("chunk_shape", [])
        if is_plain(metadata) and chunk[1:] == [max(1, size) for size in shape[1:]]:
            _fill_chunks(folder, metadata, {row: values[name] for row, values in rows.items()})
        else:
            # Those of version 0.1.0 have other chunks.
            array = zarr.open_array(folder, mode="r+")
            for row, values in rows.items():
                array[row] = values[name].astype(array.dtype)


def _fill_chunks(folder: Path, metadata: Mapping[str, Any], rows: Mapping[int, NDArray[Any]]) -> None:
    height, *rest = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    whole, dtype = tuple(metadata["shape"][1:]), dtype_of(metadata)
    for band in sorted({row // height for row in rows}):
        number = (band, *(0 for _ in rest))
        chunk = np.empty((1, *rest), dtype=dtype) if height == 1 else read_chunk(folder, metadata, number)
        for row in (row for row in rows if row // height == band):
            chunk[row % height] = np.broadcast_to(rows[row], whole).astype(dtype)
        write_plain_chunk(folder, metadata, number, chunk)


def read_chunk(folder: Path, metadata: Mapping[str, Any], number: Sequence[int]) -> NDArray[Any]:
    """Read one chunk of an array of `create_array`; raises OutputError where it is damaged."""
    with _report_damage(folder):
        return read_plain_chunk(folder, metadata, number)


@contextmanager
def _report_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise OutputError(f"{folder}: damaged ({error}); remove the store, and run again") from error


def dtype_of(metadata: Mapping[str, Any]) -> np.dtype[Any]:
    """Type of an array's values, by its metadata."""
    name = metadata["data_type"]
    return np.dtype(object) if name == TEXT else np.dtype(name)


def _write_whole(folder: Path, values: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Write all chunks of a new array; those at the end of an axis are filled up."""
    metadata = read_json(folder / METADATA)
    if values.shape != tuple(metadata["shape"]):
        raise ValueError(f"{folder.name}: shape {values.shape}, must be {tuple(metadata['shape'])}")
    steps = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    fill = np.nan if dtype.kind == "f" else metadata["fill_value"]
    for number in itertools.product(*(range(-(-size // step)) for size, step in zip(values.shape, steps, strict=True))):
        place = tuple(slice(n * step, (n + 1) * step) for n, step in zip(number, steps, strict=True))
        part = values[place].astype(dtype, copy=False)
        if part.shape != tuple(steps):
            whole = np.full(steps, fill, dtype=dtype)
            whole[tuple(slice(0, size) for size in part.shape)] = part
            part = whole
        write_plain_chunk(folder, metadata, number, part)


def create_shifts(
    group: Path,
    free: Mapping[str, str],
    sizes: Mapping[str, int],
    variables: Mapping[str, VariableSpec],
    block_yx: tuple[int, int] = (BLOCK_Y, BLOCK_X),
) -> None:
    """Create the maps of theta's shifts, where every pixel has a theta of its own.

    Args:
        group: folder of the group of the maps.
        free: units by name of the parameters that are free.
        sizes: lengths of the other dimensions.
        variables: arrays to create.
        block_yx: rows and columns of a block, what one task writes at least.
    """
    create_labels(group, "parameter", list(free))
    create_labels(group, "parameter", list(free.values()), name="parameter_unit")
    every = {**sizes, "parameter": len(free)}
    for name, spec in variables.items():
        plan = ArrayPlan(spec=spec, sizes=every, coordinates="parameter_unit", many_writers=True, block_yx=block_yx)
        create_array(group, name, plan)


def read_attributes(group: Path) -> dict[str, Any]:
    """Attributes of a group.

    Raises:
        OutputError: its metadata are damaged.
    """
    return dict(read_json(group / METADATA).get("attributes", {}))


def zarr_store(path: Path) -> StoreLike:
    """What zarr and xarray open for reading: the folder of a store, or its zip."""
    place = locate_store(path)
    return ZipStore(place, mode="r") if place.suffix == SUFFIX else place


def open_group(path: Path, name: str) -> zarr.Group:
    """One group of a store, for reading.

    Raises:
        OutputError: there is no such group.
    """
    try:
        return zarr.open_group(zarr_store(path), path=name, mode="r", use_consolidated=False)
    except FileNotFoundError as error:
        raise OutputError(
            f"{path}: has no group {name}; remove the store, and rerun the command that made it"
        ) from error


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """One array of a group; raises OutputError where there is none, or a group of that name."""
    array = group.get(name)
    if array is None:
        raise OutputError(f"{group.store_path}/{name}: missing from the store; remove the store, and run again")
    if not isinstance(array, zarr.Array):
        raise OutputError(f"{group.store_path}/{name}: a group, must be an array; remove the store")
    return array


def labels_of(group: zarr.Group, name: str) -> tuple[str, ...]:
    """The strings of a coordinate.

    Raises:
        OutputError: there is no such array.
    """
    if isinstance(group.store, LocalStore):
        folder = Path(group.store.root) / group.path / name
        metadata = read_json(folder / METADATA) if (folder / METADATA).is_file() else {}
        if is_plain(metadata) and metadata["data_type"] == TEXT:
            with _report_damage(folder):
                return tuple(read_plain_texts(folder, metadata))
    return tuple(str(label) for label in np.asarray(array_of(group, name)[:]))


def require_readable_schema(path: Path) -> dict[str, object]:
    """Root attributes of a store of this schema version.

    Raises:
        OutputError: no results store there, or one of another schema version.
    """
    if not is_store(path):
        raise OutputError(f"{path}: no results store here; run the fit of this dataset first")
    attributes = read_root(path).get("attributes", {})
    if not isinstance(attributes, dict):
        raise OutputError(f"{path}: its attributes are damaged; remove the store")
    version = attributes.get(SCHEMA_ATTRIBUTE)
    if version not in READABLE_SCHEMAS:
        raise OutputError(
            f"{path}: schema version {version}, but this program reads {READABLE_SCHEMAS[0]} to {SCHEMA_VERSION}; "
            "write to another folder, or read it with the program that made it"
        )
    return attributes


def update_attributes(
    group: Path, attributes: Mapping[str, object], *, without: Sequence[str] = (), **entries: object
) -> None:
    """Rewrite the metadata file of a group in one step, with these attributes set, and these entries gone or set.

    Raises:
        OutputError: the metadata are damaged.
        OSError: the folder cannot be written.
    """
    file = group / METADATA
    document = {key: value for key, value in read_json(file).items() if key not in without}
    document["attributes"] = {**document.get("attributes", {}), **attributes}
    document.update(entries)
    partial = file.with_name(f".zarr.json.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, renamed to it when the block ends without an error.

    Raises:
        OutputError: the folder cannot be written, or `path` appeared meanwhile.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            yield partial
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, which takes its place when the block ends without an error.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusals into OutputError with the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: {error.strerror or error}; free space, correct the permissions, or choose another folder"
        ) from error


def as_json(attributes: Mapping[str, object]) -> dict[str, Any]:
    """The attributes as they read back from a file; raises ValueError where they cannot be written."""
    try:
        result: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"attributes must be JSON without NaN: {error}") from error
    return result


def read_json(file: Path) -> dict[str, Any]:
    """A metadata file; raises OutputError where it is damaged."""
    return read_json_object(file, OutputError, remedy="remove the store")


def describe_flags(name: str) -> dict[str, Any]:
    """Give the CF attributes of a status or a verdict; none for anything else."""
    meanings = _FLAGS.get(name)
    if meanings is None:
        return {}
    return {
        "flag_values": [int(value) for value in meanings],
        "flag_meanings": " ".join(value.name.lower() for value in meanings),
    }
