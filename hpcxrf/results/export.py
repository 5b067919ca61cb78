"""Results for other programs: tables as CSV, maps as HDF5 with NeXus NXdata."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import xarray as xr

from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.uncertainty import decision_limit
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.store.maps import open_results
from hpcxrf.results.store.storage import replace_file
from hpcxrf.store.schema import BLOCK_Y

Cell = str | float | int

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def amplitudes_to_csv(results: Path, path: Path) -> None:
    """Write the integrated amplitudes, a row for each detector and component, in counts.

    Raises:
        OutputError: no results store there, or `path` cannot be written.
    """
    tree = open_results(results)
    spectrum = tree["spectrum"].to_dataset().load()
    columns = ("amplitude", "sigma", "detection_limit")
    factors = tree.attrs.get("count_factor", {})
    names = [str(name) for name in spectrum["component"].values]
    photon = {
        (detector, name): float(one)
        for detector in map(str, spectrum["detector"].values)
        for name, one in zip(names, read_photon_variance(spectrum, detector, factors.get(detector, 1.0)), strict=True)
    }
    write_csv(
        path,
        ("detector", "component", *(f"{name}_counts" for name in (*columns, "decision_limit"))),
        (
            (*row, decision_limit(float(row[-1]), photon[str(row[0]), str(row[1])]))
            for row in _list_rows(spectrum, "component", columns)
        ),
    )


def parameters_to_csv(results: Path, path: Path) -> None:
    """Write the parameters of the integrated fits, a row for each detector and parameter.

    Raises:
        OutputError: no results store there, or `path` cannot be written.
    """
    columns = ("value", "sigma", "initial", "lower", "upper", "free", "at_bound")
    tree = open_results(results)
    rows: list[tuple[Cell, ...]] = []
    if "parameters" in tree.children:
        table = tree["parameters"].to_dataset().load()
        names, texts = (table[key].values.tolist() for key in ("name", "unit"))
        units = dict(zip(names, texts, strict=True))
        for detector, name, *values in _list_rows(table, "name", columns):
            rows.append((detector, name, units[name], *values))
    write_csv(path, ("detector", "parameter", "unit", *columns), rows)


def regions_to_csv(tree: xr.DataTree, path: Path) -> None:
    """Write the refined regions: a row for each region, detector and component, and each parameter of theta.

    Suggested components, which are not in the fit, have the quantity `suggested`.

    Args:
        tree: an open results store.
        path: the table.

    Raises:
        OutputError: `path` cannot be written.
    """
    rows: Iterable[tuple[Cell, ...]] = ()
    if "regions" in tree.children:
        rows = _list_region_rows(tree["regions"].to_dataset().drop_dims(("channel", "layer")).load())
    header = (
        "region",
        "kind",
        "pixels",
        "detector",
        "live_time_s",
        "status",
        "r2",
        "quantity",
        "name",
        "unit",
        "value",
        "sigma",
        "detection_limit",
        "reason",
    )
    write_csv(path, header, rows)


def _list_region_rows(regions: xr.Dataset) -> Iterable[tuple[Cell, ...]]:
    for i, name in enumerate(regions["region"].values):
        about = regions.isel(region=i)
        reason = str(about["reason"].item())
        for j, detector in enumerate(regions["detector"].values):
            one = about.isel(detector=j)
            before = (
                str(name),
                str(one["kind"].item()),
                one["n_pixels"].item(),
                str(detector),
                one["live_time_s"].item(),
                FitStatus(one["status"].item()).name.lower(),
                one["r2"].item(),
            )
            remark = str(one["remark"].item()) if "remark" in one else ""
            why = f"{reason}; {remark}" if remark else reason
            refined = one["status"].item() != FitStatus.NOT_RUN
            nothing = [("", "", "", math.nan, math.nan, math.nan)]
            for quantity in _list_region_quantities(one) if refined else nothing:
                yield *before, *quantity, why


def _list_region_quantities(one: xr.Dataset) -> Iterable[tuple[Cell, ...]]:
    """Quantity, name, unit, value, sigma and detection limit of one region and detector."""
    columns = [one[key].values.tolist() for key in ("amplitude", "sigma", "detection_limit")]
    for name, *values in zip(one["component"].values, *columns, strict=True):
        yield "amplitude", str(name), "count", *values
    for found in json.loads(one["suggested"].item() or "[]"):
        values = [found[key] for key in ("counts", "sigma", "detection_limit")]
        yield "suggested", str(found["name"]), "count", *values
    columns = [one[key].values.tolist() for key in ("unit", "theta", "theta_sigma")]
    for name, unit, value, sigma in zip(one["name"].values, *columns, strict=True):
        yield "theta", str(name), str(unit), value, sigma, math.nan


def maps_to_hdf5(results: Path, path: Path) -> None:
    """Write the maps as NeXus: an NXdata of every quantity of every detector, a dataset per component.

    `/entry/detector_<name>/amplitude` has the first component as its signal and the others as auxiliary
    signals, so that viewers plot them by themselves; `/entry/process` keeps program and provenance.

    Raises:
        OutputError: no results store there, or `path` cannot be written.
    """
    tree = open_results(results)
    maps = tree["maps"].to_dataset()
    with replace_file(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["default"] = "entry"
        entry = _create_group(file, "entry", "NXentry")
        process = _create_group(entry, "process", "NXprocess")
        process["program"] = "hpcxrf"
        for key, value in sorted(tree.attrs.items()):
            process.attrs[key] = value if isinstance(value, int | float) else str(value)
        names = [str(detector) for detector in maps["detector"].values]
        entry.attrs["default"] = f"detector_{names[0]}"
        for name in names:
            _write_detector(_create_group(entry, f"detector_{name}", "NXcollection"), maps.sel(detector=name))


def escape_cell(cell: Cell) -> Cell:
    """A cell that no spreadsheet takes for a formula: text that starts like one gets an apostrophe.

    Numbers stay numbers; NaN becomes an empty cell.
    """
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
    return "" if isinstance(cell, float) and math.isnan(cell) else cell


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table, every cell safe for a spreadsheet; replaces an earlier file at once.

    Raises:
        OutputError: `path` cannot be written.
    """
    with (
        replace_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([escape_cell(cell) for cell in row] for row in rows)


def _list_rows(table: xr.Dataset, dim: str, columns: Sequence[str]) -> Iterable[tuple[Cell, ...]]:
    for detector in table["detector"].values:
        for label in table[dim].values:
            one = table.sel({"detector": detector, dim: label})
            yield str(detector), str(label), *(one[name].item() for name in columns)


def _create_group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _write_detector(collection: h5py.Group, maps: xr.Dataset) -> None:
    collection.attrs["default"] = "amplitude"
    components = [str(name) for name in maps["component"].values]
    names = [_h5_name(name) for name in components]
    for quantity in ("amplitude", "sigma", "detection_limit"):
        data = _create_group(collection, quantity, "NXdata")
        data.attrs["signal"] = names[0]
        data.attrs["auxiliary_signals"] = names[1:]
        data.attrs["title"] = f"{maps[quantity].attrs['long_name']}"
        _write_components(data, maps[quantity], components)
        _write_axes(data, maps)
    for quantity in ("status", "deviance", *(["deviance_z"] if "deviance_z" in maps else [])):
        data = _create_group(collection, quantity, "NXdata")
        data.attrs["signal"] = quantity
        data.create_dataset(quantity, data=maps[quantity].values, compression="gzip", shuffle=True)
        data[quantity].attrs.update(maps[quantity].attrs)
        _write_axes(data, maps)


def _write_components(data: h5py.Group, values: xr.DataArray, components: Sequence[str]) -> None:
    """Write by bands of map blocks, so that a large scan is never whole in memory."""
    shape = (values.sizes["y"], values.sizes["x"])
    for name in components:
        dataset = data.create_dataset(_h5_name(name), shape, dtype="f4", compression="gzip", shuffle=True, chunks=True)
        dataset.attrs["units"] = values.attrs["units"]
        dataset.attrs["long_name"] = f"{name} ({values.attrs['units']})"
    for row in range(0, shape[0], BLOCK_Y):
        band = values.isel(y=slice(row, row + BLOCK_Y)).values
        for index, name in enumerate(components):
            data[_h5_name(name)][row : row + BLOCK_Y] = band[index]


def _write_axes(data: h5py.Group, maps: xr.Dataset) -> None:
    """Give the axes of a regular raster: the mean position of every row and column, where known."""
    axes = []
    for name, other in (("y_um", "x"), ("x_um", "y")):
        positions = maps[name].values if name in maps.coords else np.full(1, np.nan)
        if not np.isfinite(positions).all():
            axes.append(".")
            continue
        data[name] = maps[name].mean(other).values
        data[name].attrs["units"] = "um"
        axes.append(name)
    data.attrs["axes"] = axes


def _h5_name(component: str) -> str:
    """A component's name as that of a dataset: a slash would make groups."""
    return component.replace("/", "_")
