"""The results store of one dataset: `results/<dataset_id>.zarr`, Zarr format 3.

Metadata first, then whole map blocks by any number of processes (one writer per chunk), then `finalise`,
which sets `complete` last. Unwritten floats read NaN and an unwritten status reads 0, not run.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.fitting.result import PixelFit
from hpcxrf.results.photon_variance import PHOTON_VARIANCE
from hpcxrf.results.store.opening import is_complete, open_results
from hpcxrf.results.store.spectra import create_spectrum_group, write_spectrum_fits
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    as_json,
    create_array,
    create_group,
    create_labels,
    create_shifts,
    labels_of,
    open_group,
    output_errors,
    publish_folder,
    read_json,
    require_readable_schema,
    update_attributes,
)
from hpcxrf.results.store.tiled import open_map
from hpcxrf.store.array_writer import METADATA, consolidate
from hpcxrf.store.files import ABSENT
from hpcxrf.store.gather import gather_chunks, scatter_chunks
from hpcxrf.store.packed import has_root, remove_store, unpack_store
from hpcxrf.store.schema import (
    BLOCK_ATTRIBUTE,
    BLOCK_X,
    BLOCK_Y,
    COMPLETE_ATTRIBUTE,
    LATER_VARIABLES,
    MAP_LEVEL,
    MAP_VARIABLES,
    POSITION_VARIABLES,
    SCHEMA_ATTRIBUTE,
    SCHEMA_VERSION,
    SHIFT_VARIABLES,
)

__all__ = [
    "block_checksums",
    "create_results",
    "finalise",
    "is_complete",
    "open_results",
    "read_detectors",
    "reopen",
    "write_block",
    "write_spectrum_fits",
]

FloatMap = NDArray[np.float64]

_ORIGIN: Final = ("title", "source", "source_files", "hpcxrf_version")
"""Root attributes that the group `maps` has, too."""


def create_results(
    path: Path,
    *,
    detectors: tuple[str, ...],
    components: tuple[str, ...],
    shape_yx: tuple[int, int],
    n_channels: int,
    attributes: Mapping[str, object],
    block_yx: tuple[int, int] = (BLOCK_Y, BLOCK_X),
    positions_um: tuple[FloatMap, FloatMap] | None = None,
    free: Mapping[str, str] | None = None,
    photon_variance: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Create the store with all its metadata; nothing happens when the same store is there already.

    Args:
        path: Folder of the store, `<dataset_id>.zarr`; appears at once or not at all.
        detectors: Names "sum" and/or "0".."n-1".
        components: Names of the components, in the order of the fits.
        shape_yx: Pixels (y, x).
        n_channels: Channels of the full spectrum.
        attributes: Provenance for the root, JSON values without NaN.
        block_yx: Rows and columns of a block of the maps, what one task writes at least.
        positions_um: Stage positions (x_um, y_um), each (y, x).
        free: Units by name of the parameters that every pixel has of its own; none by default.
        photon_variance: Variance that one recorded count adds to a pixel's amplitude, by component by detector.

    Raises:
        OutputError: another schema version, another store of this name, or a folder that cannot be written.
        ValueError: attributes that are not JSON, or positions of another shape.
    """
    root = {
        **as_json(attributes),
        SCHEMA_ATTRIBUTE: SCHEMA_VERSION,
        COMPLETE_ATTRIBUTE: False,
        BLOCK_ATTRIBUTE: list(block_yx),
    }
    sizes = {
        "detector": len(detectors),
        "component": len(components),
        "y": shape_yx[0],
        "x": shape_yx[1],
        "channel": n_channels,
        "parameter": len(free or {}),
    }
    if path.exists():
        _require_same(path, root, sizes, detectors, components)
        return
    with publish_folder(path) as partial:
        store = create_group(partial, root)
        labels = {"detector": detectors, "component": components}
        noise = {PHOTON_VARIANCE: as_json(photon_variance)} if photon_variance else {}
        # A copy of the group alone still says where it comes from.
        origin: dict[str, Any] = {name: root[name] for name in _ORIGIN if name in root}
        maps = create_group(store / "maps", {**origin, "units": MAP_VARIABLES["amplitude"].units, **noise})
        _create_maps(maps, sizes, labels, positions_um, block_yx)
        if free:
            create_shifts(maps, free, sizes, SHIFT_VARIABLES, block_yx)
        create_spectrum_group(store, sizes, labels)


def read_detectors(path: Path) -> tuple[str, ...]:
    """Names on the detector axis of the maps, in their order.

    Raises:
        OutputError: no maps there.
    """
    return labels_of(open_group(path, "maps"), "detector")


def write_block(path: Path, detector_index: int, y: slice, x: slice, fit: PixelFit) -> None:
    """Write the fitted pixels of whole map blocks; twice equals once.

    Safe from several processes as long as each writes other blocks. The status goes last, so that a pixel
    with a status has its amplitudes.

    Args:
        path: The store.
        detector_index: Position on the detector axis.
        y: Rows, aligned to blocks or ending with the scan.
        x: Columns, aligned to blocks or ending with the scan.
        fit: Pixels in row-major order of the tile, components as in the store.

    Raises:
        OutputError: no store there, or it cannot be written.
        ValueError: a tile that is not made of whole blocks, a fit of another shape, or a store that is closed.
    """
    block_yx = _read_block(path)
    with output_errors(path):
        maps = zarr.open_group(path / "maps", mode="r+")
        amplitude = array_of(maps, "amplitude")
        if amplitude.shards is not None:
            raise ValueError(f"{path}: is closed, and one shard has one writer; reopen it first")
        _, n_components, n_y, n_x = amplitude.shape
        _require_aligned(y, n_y, block_yx[0], "y")
        _require_aligned(x, n_x, block_yx[1], "x")
        tile = (y.stop - y.start, x.stop - x.start)
        arrays = _tile_arrays(fit, tile, n_components, _shift_sizes(maps))
        for name, values in arrays.items():
            if name in maps or name not in LATER_VARIABLES:
                open_map(path / "maps" / name).write(detector_index, y, x, values)


def block_checksums(path: Path, detector_index: int, y: slice, x: slice) -> dict[str, str]:
    """SHA-256 of every chunk file of the map blocks of a tile, by path inside the store.

    A chunk that holds only fill values has no file; its checksum is "absent".

    Raises:
        OutputError: a chunk file that cannot be read.
    """
    height, width = _read_block(path)
    rows = range(y.start // height, -(-y.stop // height))
    columns = range(x.start // width, -(-x.stop // width))
    sums: dict[str, str] = {}
    shifts = SHIFT_VARIABLES if (path / "maps" / "theta_shift").is_dir() else {}
    for name, spec in sorted({**MAP_VARIABLES, **shifts}.items()):
        middle = "0/" if len(spec.dims) == 4 else ""
        for row in rows:
            for column in columns:
                key = f"maps/{name}/c/{detector_index}/{middle}{row}/{column}"
                sums[key] = _checksum(path / key)
    return sums


def finalise(path: Path, extra_attributes: Mapping[str, object]) -> None:
    """Put the chunks that many tasks wrote into one file an array, consolidate the metadata once, and mark it complete.

    The mark is the last thing written.

    Raises:
        OutputError: no store of this schema there, or it cannot be written.
        ValueError: attributes that are not JSON.
    """
    version = require_readable_schema(path)[SCHEMA_ATTRIBUTE]
    extra = as_json(extra_attributes)
    with output_errors(path):
        _remove_partial_files(path)
        if version == SCHEMA_VERSION:
            # In a store of version 1 arrays of one writer have several chunks, too, and checksums with their folders.
            gather_chunks(path)
        files = sorted(path.rglob(METADATA))
        members = {f.parent.relative_to(path).as_posix(): read_json(f) for f in files if f.parent != path}
        update_attributes(path, {**extra, COMPLETE_ATTRIBUTE: True}, consolidated_metadata=consolidate(members))


def reopen(path: Path) -> None:
    """Make a closed store one that tasks write into: a folder without the mark, each chunk a file of its own.

    One whose zip, root or shards cannot be read is removed, to be made anew. Twice equals once, also after a kill in
    between.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        unpack_store(path)
        if not has_root(path):
            remove_store(path)
        else:
            update_attributes(path, {COMPLETE_ATTRIBUTE: False}, without=("consolidated_metadata",))
            scatter_chunks(path)
    except DamagedStoreError:
        remove_store(path)


def _shift_sizes(maps: zarr.Group) -> dict[str, int]:
    """Number of parameters by name of the arrays of shifts, as far as the group has them."""
    return {name: array_of(maps, name).shape[1] for name in SHIFT_VARIABLES if name in maps}


def _read_block(path: Path) -> tuple[int, int]:
    """Rows and columns of a block of a store's maps."""
    rows, columns = cast("Sequence[int]", require_readable_schema(path).get(BLOCK_ATTRIBUTE, (BLOCK_Y, BLOCK_X)))
    return rows, columns


def _create_maps(
    group: Path,
    sizes: Mapping[str, int],
    labels: Mapping[str, Sequence[str]],
    positions_um: tuple[FloatMap, FloatMap] | None,
    block_yx: tuple[int, int],
) -> None:
    for dim, names in labels.items():
        create_labels(group, dim, names)
    known = "x_um y_um" if positions_um else ""
    for name, spec in MAP_VARIABLES.items():
        plan = ArrayPlan(
            spec=spec, sizes=sizes, coordinates=known, many_writers=True, block_yx=block_yx, level=MAP_LEVEL
        )
        create_array(group, name, plan)
    for name, values in zip(("x_um", "y_um"), positions_um or (), strict=False):
        create_array(group, name, ArrayPlan(spec=POSITION_VARIABLES[name], sizes=sizes), values)


def _require_same(
    path: Path,
    root: Mapping[str, object],
    sizes: Mapping[str, int],
    detectors: tuple[str, ...],
    components: tuple[str, ...],
) -> None:
    existing = require_readable_schema(path)
    maps, spectrum = open_group(path, "maps"), open_group(path, "spectrum")
    axes = zip(("detector", "component", "y", "x"), array_of(maps, "amplitude").shape, strict=True)
    found = {**dict(axes), "channel": array_of(spectrum, "counts").shape[-1]}
    found["parameter"] = max(_shift_sizes(maps).values(), default=0)
    pairs: dict[str, tuple[object, object]] = {
        **{f"size of {dim}": (found[dim], sizes[dim]) for dim in found},
        "detectors": (labels_of(maps, "detector"), detectors),
        "components": (labels_of(maps, "component"), components),
        **{key: (existing.get(key), root[key]) for key in root if key != COMPLETE_ATTRIBUTE},
    }
    faults = [f"{key} is {old!r}, not {new!r}" for key, (old, new) in pairs.items() if old != new]
    if faults:
        raise OutputError(f"{path}: holds other results: {'; '.join(faults)}; write to another folder or remove it")


def _require_aligned(tile: slice, size: int, block: int, axis: Literal["y", "x"]) -> None:
    whole = tile.step in {None, 1} and isinstance(tile.start, int) and isinstance(tile.stop, int)
    if not (
        whole
        and 0 <= tile.start < tile.stop <= size
        and tile.start % block == 0
        and (tile.stop % block == 0 or tile.stop == size)
    ):
        raise ValueError(
            f"{axis}: {tile} is not made of whole map blocks of {block} in a scan of {size}; start and "
            f"stop must be multiples of {block}, or stop the end of the scan"
        )


def _tile_arrays(
    fit: PixelFit, tile: tuple[int, int], n_components: int, shifts: Mapping[str, int]
) -> dict[str, NDArray[np.generic]]:
    """The arrays of a tile as (component, y, x) or (y, x), in the order in which they are written.

    Args:
        fit: fit of the tile's pixels.
        tile: rows and columns.
        n_components: number of components of the store.
        shifts: number of parameters by name of the store's arrays of shifts.
    """
    n_pixels = tile[0] * tile[1]
    arrays: dict[str, NDArray[np.generic]] = {}
    widths: dict[str, int | None] = dict(shifts)
    widths |= {n: n_components if "component" in s.dims else None for n, s in MAP_VARIABLES.items()}
    for name, width in widths.items():
        if getattr(fit, name) is None:
            continue
        values = getattr(fit, name).detach().cpu().numpy()
        wanted = (n_pixels,) if width is None else (n_pixels, width)
        if values.shape != wanted:
            raise ValueError(f"{name}: shape {values.shape}, must be {wanted}")
        arrays[name] = np.moveaxis(values.reshape(*tile, *wanted[1:]), (0, 1), (-2, -1))
    return {name: arrays[name] for name in sorted(arrays, key=lambda name: name == "status")}


def _checksum(file: Path) -> str:
    if not file.exists():
        return ABSENT
    with output_errors(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove_partial_files(path: Path) -> None:
    """Remove what killed writers left: chunks, groups and stores get their names last."""
    for left in [*path.rglob("*.partial"), *path.parent.glob(f".{path.name}.*.partial")]:
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
