"""NeXus: NXdata of every quantity of every detector, spectra with their fits, tables, and provenance as JSON."""

from pathlib import Path
from typing import Any, Final

import h5py
import xarray as xr

from hpcxrf import __version__
from hpcxrf.results.export.hdf5 import (
    create_group,
    write_attributes,
    write_json,
    write_note,
    write_pixel_map,
    write_quantity,
    write_signals,
    write_table,
)
from hpcxrf.results.export.new_hdf5 import create_file
from hpcxrf.results.export.source import (
    LAYER_GROUPS,
    ExportSource,
    PixelPositions,
    list_detectors,
    list_quantities,
    make_names,
    read_positions,
)

_SPECTRUM_LINES: Final = ("counts", "model", "background")


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write `<stem>.nxs`.

    `/entry/detector_<name>/amplitude` has the first component as its signal and the others as auxiliary signals, so
    that viewers plot them by themselves; `/entry/process` keeps program and provenance.

    Raises:
        OSError: the file cannot be written.
    """
    maps_to_hdf5(source, folder / f"{stem}.nxs")


def maps_to_hdf5(source: ExportSource, path: Path) -> None:
    """Write everything that a result has into one NeXus file.

    Args:
        source: an open result.
        path: the file, which must not be there.

    Raises:
        OSError: the file cannot be written.
    """
    positions = read_positions(source.groups["maps"])
    with create_file(path) as file:
        file.attrs["default"] = "entry"
        entry = create_group(file, "entry", "NXentry")
        entry["title"] = str(source.attributes.get("title", source.name))
        _write_process(entry, source)
        detectors = list_detectors(source)
        groups = [f"detector_{name}" for name in make_names(detectors)]
        entry.attrs["default"] = groups[0]
        for name, group in zip(detectors, groups, strict=True):
            _write_detector(create_group(entry, group, "NXcollection"), source, name, positions)
        if "regions" in source.groups:
            _write_regions(create_group(entry, "regions", "NXcollection"), source.groups["regions"])
        if positions is not None:
            collection = create_group(entry, "positions", "NXcollection")
            for axis, values in (("x_um", positions.x_um), ("y_um", positions.y_um)):
                collection.create_dataset(axis, data=values, compression="gzip", shuffle=True)
                collection[axis].attrs["units"] = "um"


def _write_process(entry: h5py.Group, source: ExportSource) -> None:
    process = create_group(entry, "process", "NXprocess")
    process["program"] = "hpcxrf"
    process["version"] = str(source.attributes.get("hpcxrf_version", __version__))
    write_json(process, "configuration", source.attributes)
    if "run_file" in source.attributes:
        write_note(process, "run_file", "application/yaml", str(source.attributes["run_file"]))
    for name in LAYER_GROUPS:
        # What a layer was computed with: reference values, curves, standards.
        if name in source.groups and source.groups[name].attrs:
            write_json(process, name, source.groups[name].attrs)


def _write_detector(
    collection: h5py.Group, source: ExportSource, detector: str, positions: PixelPositions | None
) -> None:
    quantities = list_quantities(source, detector)
    collection.attrs["default"] = quantities[0].key
    for quantity in quantities:
        data = create_group(collection, quantity.key, "NXdata")
        names = make_names(quantity.components)
        write_quantity(data, quantity, positions, names)
        if quantity.key == "sigma":
            # Viewers look for errors beside their signal.
            for name in names:
                collection[f"amplitude/{name}_errors"] = data[name]
    for group in LAYER_GROUPS:
        table = _select(source, group, detector)
        if table is not None:
            _write_rest(collection, group, table, positions)
    if (spectrum := _select(source, "spectrum", detector)) is not None:
        _write_spectrum(create_group(collection, "spectrum", "NXdata"), spectrum)
        write_table(create_group(collection, "fit", "NXcollection"), spectrum.drop_dims("channel"))
    if (parameters := _select(source, "parameters", detector)) is not None:
        write_table(create_group(collection, "parameters", "NXcollection"), parameters.load())


def _select(source: ExportSource, group: str, detector: str) -> xr.Dataset | None:
    """One detector of a group; None where the group or the detector is missing."""
    table = source.groups.get(group)
    if table is None or "detector" not in table.coords:
        return None
    names = [str(name) for name in table["detector"].values]
    return table.isel(detector=names.index(detector)) if detector in names else None


def _write_rest(collection: h5py.Group, group: str, table: xr.Dataset, positions: PixelPositions | None) -> None:
    """Write what is not a map of each component: maps of the pixels, and tables such as the points of a curve."""
    rest: list[str] = []
    for name, values in table.data_vars.items():
        key = str(name) if group == "maps" else f"{group}_{name}"
        if values.dims == ("y", "x"):
            write_pixel_map(create_group(collection, key, "NXdata"), str(name), values, positions)
        elif not {"y", "x"} & set(values.dims):
            rest.append(str(name))
        elif values.dims != ("component", "y", "x"):
            _write_layers(create_group(collection, key, "NXcollection"), str(name), values)
    if rest:
        write_table(create_group(collection, f"{group}_table", "NXcollection"), table[rest])


def _write_layers(collection: h5py.Group, name: str, values: xr.DataArray) -> None:
    """Write maps of something else than components, as the shifts of parameters: (parameter, y, x)."""
    dataset = collection.create_dataset(name, data=values.values, compression="gzip", shuffle=True, chunks=True)
    write_attributes(dataset, values.attrs)
    labels = values.dims[0]
    if labels in values.coords:
        write_table(collection, values.coords[labels].to_dataset(name=str(labels)))


def _write_spectrum(data: h5py.Group, spectrum: xr.Dataset) -> None:
    data["title"] = "integrated spectrum"
    for name in _SPECTRUM_LINES:
        _write_line(data, name, spectrum[name])
    components = [str(name) for name in spectrum["component"].values]
    shares = spectrum["component_counts"].values
    for name, component, counts in zip(make_names(components), components, shares, strict=True):
        dataset = data.create_dataset(f"component_{name}", data=counts, compression="gzip", shuffle=True)
        dataset.attrs["units"], dataset.attrs["long_name"] = "count", component
    axis = spectrum["energy_kev"].values
    known = bool(axis.size and (axis == axis).all())  # noqa: PLR0124 (a detector without a fit has no energies)
    _write_line(data, "energy_kev" if known else "energy_unknown", spectrum["energy_kev"])
    write_signals(data, _SPECTRUM_LINES)
    data.attrs["axes"] = ["energy_kev" if known else "."]


def _write_line(data: h5py.Group, name: str, values: xr.DataArray) -> None:
    dataset = data.create_dataset(name, data=values.values)
    attributes: dict[str, Any] = values.attrs
    write_attributes(dataset, attributes)


def _write_regions(collection: h5py.Group, regions: xr.Dataset) -> None:
    """Write the label image and every table of the regions; their spectra too."""
    write_table(collection, regions.load())
    if "label" in collection:
        collection.attrs["long_name"] = "regions: pixels of region n have the label n, see `region`, `kind`, `reason`"
