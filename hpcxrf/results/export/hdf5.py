"""HDF5 as NeXus has it: groups with a class, maps and tables with units, positions as axes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import h5py
import numpy as np
import xarray as xr

from hpcxrf.results.export.source import PixelPositions, Quantity, chunk_of_maps, make_names, read_bands

AXIS_NAMES: Final = ("y_um", "x_um")
_POINTS_PER_CHUNK: Final = 1 << 16


def create_group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    """Create a group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def write_note(parent: h5py.Group, name: str, kind: str, text: str) -> None:
    """Write an NXnote: a text of a media type."""
    note = create_group(parent, name, "NXnote")
    note["type"], note["data"] = kind, text


def write_json(parent: h5py.Group, name: str, value: Mapping[str, Any]) -> None:
    """Write an NXnote of JSON."""
    write_note(parent, name, "application/json", json.dumps(dict(value), indent=1, sort_keys=True, default=str))


def write_quantity(
    data: h5py.Group, quantity: Quantity, positions: PixelPositions | None, names: Sequence[str]
) -> None:
    """Write the maps of one quantity into an NXdata: the first component is its signal, the others auxiliary signals.

    Args:
        data: the NXdata, empty.
        quantity: the maps.
        positions: those of the pixels; maps of pixels that are no raster become lists of points.
        names: names of the datasets by component.
    """
    rows, columns = quantity.values.sizes["y"], quantity.values.sizes["x"]
    is_list = positions is not None and positions.columns_um is None
    shape = (rows * columns,) if is_list else (rows, columns)
    for name, component in zip(names, quantity.components, strict=True):
        dataset = _create_map(data, name, shape, quantity.values.dtype)
        dataset.attrs["units"] = quantity.units
        dataset.attrs["long_name"] = f"{component} ({quantity.units})"
    for band, values in read_bands(quantity.values):
        for index, name in enumerate(names):
            if is_list:
                data[name][band.start * columns : band.stop * columns] = values[index].ravel()
            else:
                data[name][band] = values[index]
    write_signals(data, names)
    data["title"] = quantity.long_name
    write_axes(data, positions)


def write_signals(data: h5py.Group, names: Sequence[str]) -> None:
    """Say which dataset is drawn, and which beside it."""
    data.attrs["signal"] = names[0]
    if len(names) > 1:
        data.attrs["auxiliary_signals"] = list(names[1:])


def write_pixel_map(data: h5py.Group, name: str, values: xr.DataArray, positions: PixelPositions | None) -> None:
    """Write one map (y, x) into an NXdata as its signal."""
    whole = values.values
    is_list = positions is not None and positions.columns_um is None
    dataset = _create_map(data, name, (whole.size,) if is_list else whole.shape, whole.dtype)
    dataset[...] = whole.ravel() if is_list else whole
    write_attributes(dataset, values.attrs)
    data.attrs["signal"] = name
    data["title"] = str(values.attrs.get("long_name", name))
    write_axes(data, positions)


def _create_map(data: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:  # noqa: ANN401
    chunks = (min(shape[0], _POINTS_PER_CHUNK),) if len(shape) == 1 else chunk_of_maps(shape)
    return data.create_dataset(name, shape, dtype=dtype, compression="gzip", shuffle=True, chunks=chunks)


def write_axes(data: h5py.Group, positions: PixelPositions | None) -> None:
    """Write the positions as axes: of every row and column, or x and y of every point where there is no raster."""
    if positions is None:
        data.attrs["axes"] = [".", "."]
        return
    if positions.columns_um is None or positions.rows_um is None:
        # The order in which silx and h5web take the axes of points.
        lines = {"x_um": positions.x_um.ravel(), "y_um": positions.y_um.ravel()}
        places = {"x_um": 0, "y_um": 0}
    else:
        lines = {"y_um": positions.rows_um, "x_um": positions.columns_um}
        places = {"y_um": 0, "x_um": 1}
    for name, values in lines.items():
        data[name] = values
        data[name].attrs["units"] = "um"
        data[name].attrs["long_name"] = f"stage {name[0]} (um)"
        data.attrs[f"{name}_indices"] = places[name]
    data.attrs["axes"] = list(lines)


def write_table(group: h5py.Group, table: xr.Dataset) -> None:
    """Write every variable and coordinate of a table; texts as UTF-8, the names of its axes in the attribute `dims`."""
    names = [str(name) for name in table.variables]
    for label, name in zip(names, make_names(names), strict=True):
        variable = table[label]
        values = variable.values
        if values.dtype.kind in "OUT":
            group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
        else:
            group.create_dataset(name, data=values)
        write_attributes(group[name], variable.attrs)
        if variable.dims:
            group[name].attrs["dims"] = [str(dim) for dim in variable.dims]


def write_attributes(dataset: h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write texts and numbers, and lists of them, as they are; anything else as JSON."""
    for key, value in attributes.items():
        plain = isinstance(value, str | int | float | np.generic) or (
            isinstance(value, list) and all(isinstance(one, int | float) for one in value)
        )
        dataset.attrs[str(key)] = value if plain else json.dumps(value, default=str)
