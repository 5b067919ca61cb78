"""The group `regions` of a results store: label images, and what the fits of the regions' summed spectra gave.

Created whole by the task that finds the regions; afterwards every region's rows have one writer.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.fitting.result import PixelFit, SpectrumFit
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    create_array,
    create_group,
    create_labels,
    create_shifts,
    create_texts,
    fill_rows,
    labels_of,
    open_group,
    output_errors,
    publish_folder,
    require_readable_schema,
    zarr_store,
)
from hpcxrf.store.array_writer import METADATA
from hpcxrf.store.packed import SUFFIX, locate_store
from hpcxrf.store.schema import (
    LATER_VARIABLES,
    REGION_FIT_VARIABLES,
    REGION_MAP_VARIABLES,
    REGION_SHIFT_VARIABLES,
    REGION_VARIABLES,
    VariableSpec,
)

GROUP: Final = "regions"
MAPS: Final = "maps"
SUGGESTED: Final = "suggested"
REMARK: Final = "remark"
_TEXTS: Final = {
    SUGGESTED: "components that are present in the residual, JSON",
    REMARK: "why the region was not mapped again; empty: it was, or regions.remap is off",
}

# Names in the store and in SpectrumFit.
_FIT_FIELDS: Final = {
    "amplitude": "amplitude",
    "sigma": "amplitude_sigma",
    "detection_limit": "detection_limit",
    "theta": "theta",
    "theta_sigma": "theta_sigma",
    **{name: name for name in ("r2", "r2_expected", "reduced_chi2", "deviance", "status", "verdict")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRows:
    """One region in the tables."""

    name: str
    kind: str
    reason: str
    n_pixels: int
    layer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionAxes:
    """Coordinates of the group."""

    detectors: tuple[str, ...]
    components: tuple[str, ...]
    parameters: tuple[str, ...]
    units: tuple[str, ...]
    """Units of the parameters."""


def remove_regions(path: Path) -> None:
    """Remove the group: its content belongs to maps that no longer count."""
    with output_errors(path / GROUP):
        if (path / GROUP).exists():
            shutil.rmtree(path / GROUP)


def create_regions(
    path: Path,
    rows: Sequence[RegionRows],
    axes: RegionAxes,
    label: NDArray[np.uint16],
    counts: NDArray[np.float64],
    live_time_s: NDArray[np.float64],
    *,
    with_maps: bool = False,
    free: Mapping[str, str] | None = None,
) -> None:
    """Write the regions and create the arrays of their fits; takes the place of an earlier group.

    Args:
        path: the results store.
        rows: at least one region.
        axes: coordinates of the tables.
        label: (layer, y, x), numbers of the rows from 1.
        counts: (region, detector, channel) summed raw counts.
        live_time_s: (region, detector).
        with_maps: also create `regions/maps`.
        free: units by name of the parameters that every pixel of those has of its own.

    Raises:
        OutputError: no store of this schema there, or it cannot be written.
    """
    require_readable_schema(path)
    remove_regions(path)
    sizes = {
        "region": len(rows),
        "detector": len(axes.detectors),
        "component": len(axes.components),
        "name": len(axes.parameters),
        "layer": label.shape[0],
        "y": label.shape[1],
        "x": label.shape[2],
        "channel": counts.shape[-1],
    }
    known: dict[str, NDArray[Any]] = {
        "label": label,
        "counts": counts,
        "live_time_s": live_time_s,
        "layer_of": np.array([row.layer for row in rows]),
        "n_pixels": np.array([row.n_pixels for row in rows]),
    }
    with publish_folder(path / GROUP) as partial:
        group = create_group(partial)
        _create_coordinates(group, rows, axes)
        for name, spec in REGION_VARIABLES.items():
            plan = ArrayPlan(spec=spec, sizes=sizes, coordinates=_auxiliary(spec.dims))
            create_array(group, name, plan, known[name])
        for name, spec in REGION_FIT_VARIABLES.items():
            plan = ArrayPlan(spec=spec, sizes=sizes, coordinates=_auxiliary(spec.dims), many_writers=True)
            create_array(group, name, plan)
        _create_texts(group, sizes)
        if with_maps:
            _create_maps(group, sizes, rows, axes)
            if free:
                create_shifts(group / MAPS, free, sizes, REGION_SHIFT_VARIABLES)


def read_region_names(path: Path) -> tuple[str, ...]:
    """Names of the regions, in order; none where the store has no regions."""
    place = locate_store(path)
    if place.suffix != SUFFIX:
        return labels_of(_group(path), "region") if (place / GROUP / METADATA).is_file() else ()
    root = zarr.open_group(zarr_store(path), mode="r", use_consolidated=False)
    return labels_of(_group(path), "region") if GROUP in root else ()


def read_region_counts(path: Path, index: int) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Summed spectra (channel,) of one region by name of the detector, and its number of pixels."""
    group = _group(path)
    counts = np.asarray(array_of(group, "counts")[index])
    by_name = dict(zip(labels_of(group, "detector"), counts, strict=True))
    return by_name, int(np.asarray(array_of(group, "n_pixels")[index]))


def read_region_mask(path: Path, index: int) -> NDArray[np.bool_]:
    """Pixels (y, x) that belong to a region."""
    group = _group(path)
    layer = int(np.asarray(array_of(group, "layer_of")[index]))
    inside: NDArray[np.bool_] = np.asarray(array_of(group, "label")[layer]) == index + 1
    return inside


def write_region_fit(
    path: Path, index: int, fits: Mapping[str, SpectrumFit], suggested: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Write what the fit of a region's summed spectra gave; twice equals once.

    Args:
        path: the results store.
        index: number of the region.
        fits: fits by detector; a detector without one reads NaN.
        suggested: components that are not listed, as JSON values, by detector.

    Raises:
        OutputError: no regions there.
        ValueError: other components or parameters than the store's.
    """
    with output_errors(path):
        group = _writable_group(path)
        detectors = labels_of(group, "detector")
        _require_same_axes(group, fits)
        sizes = {"component": len(labels_of(group, "component")), "name": len(labels_of(group, "name"))}
        # Regions that version 0.1.0 found have no verdict.
        rows = {name: _stack_fits(name, fits, detectors, sizes) for name in REGION_FIT_VARIABLES if name in group}
        texts = [json.dumps(list(suggested.get(name, ()))) for name in detectors]
        fill_rows(path / GROUP, {index: {**rows, SUGGESTED: np.array(texts, dtype=object)}})


def _stack_fits(
    name: str, fits: Mapping[str, SpectrumFit], detectors: Sequence[str], sizes: Mapping[str, int]
) -> NDArray[Any]:
    """One quantity of the fits of all detectors; NaN or 0 of those without."""
    spec = REGION_FIT_VARIABLES[name]
    dtype = np.dtype(spec.dtype)
    shape = [len(detectors), *(sizes[dim] for dim in spec.dims[2:])]
    rows = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype=dtype)
    for detector, fit in fits.items():
        rows[detectors.index(detector)] = np.asarray(getattr(fit, _FIT_FIELDS[name]))
    return rows


def write_region_block(
    path: Path, index: int, detector: str, y: slice, x: slice, inside: NDArray[np.bool_], fit: PixelFit
) -> None:
    """Write the pixels of one region in one map block, fitted with the region's theta.

    Args:
        path: the results store, with `regions/maps`.
        index: number of the region.
        detector: name on the detector axis.
        y: rows of the block.
        x: columns of the block.
        inside: (y, x) of the block: the pixels that were fitted.
        fit: fit of these pixels, row by row.
    """
    with output_errors(path):
        maps = zarr.open_group(path / GROUP / MAPS, mode="r+", use_consolidated=False)
        row = labels_of(maps, "detector").index(detector)
        for name, spec in _map_variables(path).items():
            if getattr(fit, name) is None or (name in LATER_VARIABLES and name not in maps):
                continue
            array = array_of(maps, name)
            values = getattr(fit, name).detach().cpu().numpy()
            blank = np.nan if array.dtype.kind == "f" else 0
            wide = (array.shape[2],) if len(spec.dims) == 5 else ()
            block = np.full((*wide, *inside.shape), blank, dtype=array.dtype)
            block[..., inside] = values.T
            array[index, row, ..., y, x] = block


def write_region_remarks(path: Path, index: int, remarks: Mapping[str, str]) -> None:
    """Write why the pixels of a region were not fitted again; twice equals once.

    Args:
        path: the results store.
        index: number of the region.
        remarks: remarks by detector, of those that were not.
    """
    with output_errors(path):
        group = _writable_group(path)
        texts = [remarks.get(name, "") for name in labels_of(group, "detector")]
        fill_rows(path / GROUP, {index: {REMARK: np.array(texts, dtype=object)}})


def region_files(path: Path, index: int) -> list[Path]:
    """Everything in the store that only the refinement of one region writes."""
    root = path / GROUP
    arrays = [root / name for name in (*REGION_FIT_VARIABLES, *_TEXTS)]
    if (root / MAPS).is_dir():
        arrays += [root / MAPS / name for name in _map_variables(path)]
    return [array / "c" / str(index) for array in arrays]


def found_files(path: Path) -> list[Path]:
    """Everything in the store that the finding of the regions writes and no refinement touches."""
    root = path / GROUP
    names = ("region", "kind", "reason", "detector", "component", "name", "unit")
    return [root / name for name in (*REGION_VARIABLES, *names)]


def _map_variables(path: Path) -> dict[str, VariableSpec]:
    """Arrays of `regions/maps` that the fits of pixels fill."""
    shifts = (path / GROUP / MAPS / "theta_shift").is_dir()
    return REGION_MAP_VARIABLES | (REGION_SHIFT_VARIABLES if shifts else {})


def _group(path: Path) -> zarr.Group:
    require_readable_schema(path)
    return open_group(path, GROUP)


def _writable_group(path: Path) -> zarr.Group:
    require_readable_schema(path)
    return zarr.open_group(path / GROUP, mode="r+", use_consolidated=False)


def _require_same_axes(group: zarr.Group, fits: Mapping[str, SpectrumFit]) -> None:
    wanted = (labels_of(group, "component"), labels_of(group, "name"))
    for fit in fits.values():
        found = (fit.component_names, fit.parameter_names)
        if found != wanted:
            raise ValueError(f"components and parameters {found}, must be {wanted} as in the store")


def _auxiliary(dims: Sequence[str]) -> str:
    """Auxiliary coordinates (CF) of an array with these dimensions."""
    return " ".join(name for name, dim in (("kind", "region"), ("reason", "region"), ("unit", "name")) if dim in dims)


def _create_coordinates(group: Path, rows: Sequence[RegionRows], axes: RegionAxes) -> None:
    create_labels(group, "region", [row.name for row in rows])
    create_labels(group, "region", [row.kind for row in rows], name="kind")
    create_labels(group, "region", [row.reason for row in rows], name="reason")
    create_labels(group, "detector", axes.detectors)
    create_labels(group, "component", axes.components)
    create_labels(group, "name", axes.parameters)
    create_labels(group, "name", axes.units, name="unit")


def _create_texts(group: Path, sizes: Mapping[str, int]) -> None:
    nothing = np.full((sizes["region"], sizes["detector"]), "", dtype=object)
    for name, meaning in _TEXTS.items():
        create_texts(group, name, ("region", "detector"), nothing, {"long_name": meaning}, by_row=True)


def _create_maps(group: Path, sizes: Mapping[str, int], rows: Sequence[RegionRows], axes: RegionAxes) -> None:
    maps = create_group(group / MAPS)
    create_labels(maps, "region", [row.name for row in rows])
    create_labels(maps, "detector", axes.detectors)
    create_labels(maps, "component", axes.components)
    for name, spec in REGION_MAP_VARIABLES.items():
        create_array(maps, name, ArrayPlan(spec=spec, sizes=sizes, many_writers=True))
