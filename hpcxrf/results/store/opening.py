"""A results store, opened for reading; no torch here: pages, exports and the explorer need it without the fit."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from hpcxrf.results.store.computed import add_computed_maps
from hpcxrf.results.store.storage import require_readable_schema, zarr_store
from hpcxrf.store.packed import is_store, read_root
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE, READABLE_SCHEMAS, SCHEMA_ATTRIBUTE


def is_complete(path: Path) -> bool:
    """Whether `finalise` has finished on a store of this schema version."""
    if not is_store(path):
        return False
    attributes = read_root(path)["attributes"]
    return bool(attributes.get(COMPLETE_ATTRIBUTE)) and attributes.get(SCHEMA_ATTRIBUTE) in READABLE_SCHEMAS


def open_results(path: Path, groups: Sequence[str] = ()) -> xr.DataTree:
    """Open a store, finished or not, folder or zip, lazily and without Dask: `maps`, `spectrum`, `parameters`.

    Maps of single detectors in `normalised` and `areal_density`, which a store does not hold, are computed when read.

    Args:
        path: `X.zarr`, also where the store is the zip beside it, or `X.zarr.zip`.
        groups: open these alone, which is faster; all without.

    Raises:
        OutputError: no results store there, or one of another schema version.
    """
    root = require_readable_schema(path)
    closed = bool(root.get(COMPLETE_ATTRIBUTE))
    if groups:
        opened = {name: xr.open_zarr(zarr_store(path), group=name, chunks=None, consolidated=closed) for name in groups}
        tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=root), **opened})
    else:
        tree = xr.open_datatree(zarr_store(path), engine="zarr", chunks=None, consolidated=closed)  # type: ignore[arg-type]
    add_computed_maps(tree)
    return tree
