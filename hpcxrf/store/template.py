"""The empty store of a scan, the arrays beside its counts, and the marker of a complete store."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.chunk_key_encodings import ChunkKeyEncodingParams

from hpcxrf.config.untrusted import read_json_object
from hpcxrf.errors import OutputError
from hpcxrf.formats.scan import ScanScalars
from hpcxrf.notes import Note, pack_notes, unpack_notes
from hpcxrf.store.array_writer import (
    ZSTD_OPTIONS,
    consolidate,
    remove_array,
    write_counts_metadata,
    write_group,
    write_numbers,
    write_texts,
)
from hpcxrf.store.attributes import Attributes
from hpcxrf.store.chunk_codec import ShardFormat, read_format
from hpcxrf.store.files import atomic_write_text, sync_tree
from hpcxrf.store.schema import (
    COMPLETE_ATTRIBUTE,
    FAULT_VARIABLES,
    SPECTRA_COORDINATES,
    SPECTRA_VARIABLES,
    SpectraLayout,
)

BLOSC_LEVEL: Final = 5
BRIGHT_COUNTS: Final = 1000.0
"""Counts a pixel above which Blosc of two-byte counts is smaller and read faster than Zstandard."""

DOTS: Final[ChunkKeyEncodingParams] = {"name": "default", "separator": "."}
"""Keys of chunks that make no folders."""

Variables = dict[str, NDArray[Any]]


def create_template(
    path: Path, attributes: Attributes, layout: SpectraLayout, dtype: np.dtype[Any], counts_per_pixel: float = 0.0
) -> None:
    """Make the root group and the empty counts; whatever was there is removed.

    Args:
        path: the store.
        attributes: of the root; its `shape` is that of the counts.
        layout: how the counts are cut.
        dtype: of the stored counts.
        counts_per_pixel: about, which chooses the codec.

    Raises:
        OSError: the folder cannot be written.
    """
    remove_array(path)
    write_group(path, attributes)
    codec, options = _choose_codec(dtype, counts_per_pixel)
    form = ShardFormat(
        shape=tuple(attributes["shape"]), chunk=layout.chunks, shard=layout.shards, codec=codec, options=options
    )
    write_counts_metadata(path / "counts", dtype, form, SPECTRA_VARIABLES["counts"])


def _choose_codec(dtype: np.dtype[Any], counts_per_pixel: float) -> tuple[str, Mapping[str, Any]]:
    """Zstandard, or for many counts in two bytes Blosc, whose shuffled bits read twice as fast and take less room."""
    if dtype == np.uint16 and counts_per_pixel > BRIGHT_COUNTS:
        blosc = {"typesize": dtype.itemsize, "cname": "lz4", "clevel": BLOSC_LEVEL, "shuffle": "bitshuffle"}
        return "blosc", {**blosc, "blocksize": 0}
    return "zstd", ZSTD_OPTIONS


def open_counts(path: Path) -> zarr.Array[Any]:
    """The counts of an unfinished store for reading."""
    return zarr.open_array(path / "counts", mode="r")


def read_counts_format(path: Path) -> ShardFormat:
    """Read how the counts of a store are cut and encoded.

    Raises:
        OutputError: the metadata of the counts are damaged.
    """
    remedy = "remove the store and ingest again"
    return read_format(path, read_json_object(path / "counts" / "zarr.json", OutputError, remedy=remedy))


def write_beside(path: Path, shape: tuple[int, int, int, int], scalars: ScanScalars, spectra: Variables) -> None:
    """Write everything that is not counts, anew: scalars, coordinates, integrated spectra.

    Args:
        path: the store.
        shape: (detector, y, x, channel).
        scalars: everything measured beside the spectra.
        spectra: `integrated` and `max_channel_spectrum`, (detector, channel).

    Raises:
        OSError: the folder cannot be written.
    """
    for name, values in (*_list_maps(shape, scalars), *spectra.items()):
        write_numbers(path / name, values, SPECTRA_VARIABLES[name])
    for name, texts in _list_coordinates(shape[0], scalars).items():
        write_texts(path / name, texts, SPECTRA_COORDINATES[name])


def _list_maps(shape: tuple[int, int, int, int], scalars: ScanScalars) -> Iterator[tuple[str, NDArray[Any]]]:
    detectors, rows, columns, _ = shape
    for name in ("live_time_s", "real_time_s", "icr_hz", "ocr_hz"):
        yield name, _fill_missing(getattr(scalars, name), (detectors, rows, columns))
    for name in ("x_um", "y_um"):
        yield name, _fill_missing(getattr(scalars, name), (rows, columns))
    everywhere = np.ones((rows, columns), dtype=np.bool_)
    yield "measured", everywhere if scalars.measured is None else scalars.measured
    if scalars.scaler_values is not None and scalars.scaler_names:
        yield "scaler", scalars.scaler_values


def _fill_missing(values: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.broadcast_to(np.float64(np.nan), shape) if values is None else values


def _list_coordinates(detectors: int, scalars: ScanScalars) -> dict[str, list[str]]:
    texts = {"detector": [str(number) for number in range(detectors)]}
    if scalars.scaler_values is not None and scalars.scaler_names:
        units = scalars.scaler_units or ("",) * len(scalars.scaler_names)
        texts |= {"name": list(scalars.scaler_names), "unit": list(units)}
    return texts


def write_faults(path: Path, missing: NDArray[np.bool_], spikes: NDArray[np.int64]) -> None:
    """Write which spectra were not measured and which channels are suspicious, where there are any.

    Args:
        path: the store.
        missing: (detector, y, x).
        spikes: (place, 4): detector, y, x, channel.

    Raises:
        OSError: the folder cannot be written.
    """
    for name, values, found in (("missing", missing, missing.any()), ("spike", spikes, len(spikes))):
        remove_array(path / name)
        if found:
            write_numbers(path / name, values, FAULT_VARIABLES[name])


def is_template_sound(path: Path, layout: SpectraLayout, dtype: np.dtype[Any]) -> bool:
    """Whether the empty counts of an unfinished store are as `create_template` made them."""
    try:
        metadata = read_json_object(path / "counts" / "zarr.json", OutputError, remedy="")
        form = read_format(path, metadata)
        return (form.shard, form.chunk, metadata["data_type"]) == (layout.shards, layout.chunks, dtype.name)
    except (OutputError, KeyError, TypeError, IndexError):
        return False


def is_torn_store(path: Path) -> bool:
    """Whether a folder without readable metadata was a store of spectra: its counts have the axes of one."""
    with suppress(OutputError):
        if isinstance(read_json_object(path / "zarr.json", OutputError, remedy="").get("attributes"), dict):
            return False
    try:
        metadata = read_json_object(path / "counts" / "zarr.json", OutputError, remedy="")
    except OutputError:
        return False
    return metadata.get("dimension_names") == list(SPECTRA_VARIABLES["counts"].dims)


def finish(path: Path, attributes: Attributes, notes: Sequence[Note] = ()) -> None:
    """Consolidate the root's metadata and mark the store complete, both in one rename, the last write.

    Everything else is on the disk before: after a power cut a complete store is complete.

    Args:
        path: the store.
        attributes: more attributes of the root, known at the end.
        notes: warnings of what was found while the counts were read, beside those of the attributes.

    Raises:
        OSError: the folder cannot be written.
        OutputError: the root's metadata cannot be written.
    """
    root = path / "zarr.json"
    metadata = json.loads(root.read_bytes())
    metadata["attributes"] |= {**attributes, COMPLETE_ATTRIBUTE: True}
    if notes:
        every = dict.fromkeys([*unpack_notes(metadata["attributes"]), *notes])
        metadata["attributes"] |= pack_notes(every)
    members = {one.parent.name: json.loads(one.read_bytes()) for one in sorted(path.glob("*/zarr.json"))}
    metadata["consolidated_metadata"] = consolidate(members)
    sync_tree(path)
    atomic_write_text(root, json.dumps(metadata))
