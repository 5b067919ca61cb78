"""The linear model that the pixels were fitted with, kept in the results store as the group `basis`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
import zarr

from hpcxrf.fitting.pixels.methods import PixelBasis
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    create_array,
    create_labels,
    labels_of,
    require_current_schema,
)
from hpcxrf.results.store.tangents import read_tangents, write_tangents
from hpcxrf.results.store.weight_classes import read_phases, write_phases
from hpcxrf.store.schema import BASIS_VARIABLES

GROUP: Final = "basis"


def write_basis(path: Path, bases: Mapping[str, tuple[int, PixelBasis]], n_channels: int) -> None:
    """Write the basis of every detector; twice equals once.

    Args:
        path: the results store.
        bases: first channel and basis by detector name; the same components in each.
        n_channels: channels of the full spectrum; outside the fit range the columns read NaN.

    Raises:
        OutputError: no store of this schema there.
    """
    require_current_schema(path)
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    width = max(basis.columns.shape[1] for _, basis in bases.values())
    sizes = {"detector": len(bases), "column": width, "channel": n_channels}
    group = root.require_group(GROUP)
    if "columns" not in group:
        create_labels(group, "detector", list(bases))
        for name, spec in BASIS_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes))
    for row, (first, basis) in enumerate(bases.values()):
        channels = slice(first, first + basis.columns.shape[0])
        columns = np.full((width, n_channels), np.nan)
        columns[: basis.columns.shape[1], channels] = basis.columns.T.cpu().numpy()
        coefficients = np.full(width, np.nan)
        coefficients[: basis.columns.shape[1]] = basis.coefficients.cpu().numpy()
        array_of(group, "columns")[row] = columns
        array_of(group, "coefficients")[row] = coefficients
        array_of(group, "n_components")[row] = basis.n_components
    tangents = {
        row: (first, basis.tangents) for row, (first, basis) in enumerate(bases.values()) if basis.tangents is not None
    }
    if tangents:
        write_tangents(group, tangents, len(bases), n_channels)
    phases = {row: basis.phases for row, (_, basis) in enumerate(bases.values()) if basis.phases is not None}
    if phases:
        write_phases(group, phases, len(bases), width)


def read_basis(path: Path, detector: str) -> tuple[int, PixelBasis]:
    """First channel and basis of one detector, as it was written, bit for bit.

    Raises:
        OutputError: no store of this schema there.
        KeyError: no such detector.
    """
    require_current_schema(path)
    group = zarr.open_group(path / GROUP, mode="r", use_consolidated=False)
    names = labels_of(group, "detector")
    if detector not in names:
        raise KeyError(f"{path}: no basis of detector {detector!r}, only of {', '.join(names)}")
    row = names.index(detector)
    columns = np.asarray(array_of(group, "columns")[row])
    coefficients = np.asarray(array_of(group, "coefficients")[row])
    used = np.isfinite(coefficients)
    channels = np.flatnonzero(np.isfinite(columns[0]))
    first, stop = int(channels[0]), int(channels[-1]) + 1
    phi = torch.from_numpy(np.ascontiguousarray(columns[used, first:stop].T))
    mean = torch.from_numpy(coefficients[used])
    return first, PixelBasis(
        columns=phi,
        n_components=int(np.asarray(array_of(group, "n_components")[row])),
        expected=phi @ mean,
        coefficients=mean,
        tangents=read_tangents(group, row, slice(first, stop)),
        phases=read_phases(group, row, int(used.sum())),
    )


def component_names(path: Path) -> tuple[str, ...]:
    """Components of a results store, in the order of its maps."""
    require_current_schema(path)
    return labels_of(zarr.open_group(path / "maps", mode="r", use_consolidated=False), "component")
