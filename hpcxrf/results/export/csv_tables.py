"""Tables as CSV: amplitudes, parameters and regions, every cell safe for a spreadsheet."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from hpcxrf.fitting.limits import decision_limit
from hpcxrf.fitting.status import FitStatus
from hpcxrf.results.export.cells import Cell, escape_cell
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.store.storage import replace_file

if TYPE_CHECKING:
    from hpcxrf.results.export.source import ExportSource


def write(source: "ExportSource", folder: Path, stem: str) -> None:
    """Write `<stem>_amplitudes.csv`, `<stem>_parameters.csv` and, where there are regions, `<stem>_regions.csv`.

    Raises:
        OutputError: a table cannot be written.
    """
    amplitudes_to_csv(source, folder / f"{stem}_amplitudes.csv")
    parameters_to_csv(source, folder / f"{stem}_parameters.csv")
    if "regions" in source.groups:
        regions_to_csv(source.groups["regions"], folder / f"{stem}_regions.csv")


def amplitudes_to_csv(source: "ExportSource", path: Path) -> None:
    """Write the integrated amplitudes, a row for each detector and component, in counts.

    Args:
        source: an open result with the group `spectrum`.
        path: the table.

    Raises:
        OutputError: `path` cannot be written.
    """
    spectrum = source.groups["spectrum"]
    columns = ("amplitude", "sigma", "detection_limit")
    factors = source.attributes.get("count_factor", {})
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


def parameters_to_csv(source: "ExportSource", path: Path) -> None:
    """Write the parameters of the integrated fits, a row for each detector and parameter.

    Args:
        source: an open result; one without the group `parameters` gives an empty table.
        path: the table.

    Raises:
        OutputError: `path` cannot be written.
    """
    columns = ("value", "sigma", "initial", "lower", "upper", "free", "at_bound")
    rows: list[tuple[Cell, ...]] = []
    if "parameters" in source.groups:
        table = source.groups["parameters"]
        names, texts = (table[key].values.tolist() for key in ("name", "unit"))
        units = dict(zip(names, texts, strict=True))
        for detector, name, *values in _list_rows(table, "name", columns):
            rows.append((detector, name, units[name], *values))
    write_csv(path, ("detector", "parameter", "unit", *columns), rows)


def regions_to_csv(regions: xr.Dataset | None, path: Path) -> None:
    """Write the refined regions: a row for each region, detector and component, and each parameter of theta.

    Suggested components, which are not in the fit, have the quantity `suggested`.

    Args:
        regions: group `regions` of a results store; None: it has none, and the table is empty.
        path: the table.

    Raises:
        OutputError: `path` cannot be written.
    """
    rows: Iterable[tuple[Cell, ...]] = ()
    if regions is not None:
        rows = _list_region_rows(regions.drop_dims(("channel", "layer")).load())
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
    arrays = (one.transpose("detector", dim) for one in xr.broadcast(*(table[name] for name in columns)))
    for detector, *rows in zip(table["detector"].values, *(one.values.tolist() for one in arrays), strict=True):
        for label, *values in zip(table[dim].values, *rows, strict=True):
            yield str(detector), str(label), *values
