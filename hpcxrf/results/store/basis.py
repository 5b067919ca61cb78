"""The linear model that the pixels were fitted with, kept in the results store as the group `basis`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    create_array,
    create_group,
    create_labels,
    fill_rows,
    labels_of,
    open_group,
    require_readable_schema,
    update_attributes,
)
from hpcxrf.results.store.tangents import read_tangents, write_tangents
from hpcxrf.results.store.weight_classes import read_weight_classes, write_weight_classes
from hpcxrf.store.schema import BASIS_VARIABLES

GROUP: Final = "basis"
_COMPONENTS: Final = "n_components"


def write_basis(path: Path, bases: Mapping[str, PixelBasis], n_channels: int) -> None:
    """Write the basis of every detector; twice equals once.

    Args:
        path: the results store.
        bases: bases by detector name, whose first channels are known; the same components in each.
        n_channels: channels of the full spectrum; outside the fit range the columns read NaN.

    Raises:
        OutputError: no store of this schema there.
        ValueError: a basis whose first channel is not known.
    """
    require_readable_schema(path)
    width = max(basis.columns.shape[1] for basis in bases.values())
    sizes = {"detector": len(bases), "column": width, "channel": n_channels}
    group = path / GROUP
    if not (group / "columns").exists():
        create_group(group)
        create_labels(group, "detector", list(bases))
        for name, spec in BASIS_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes))
    rows = {}
    for row, basis in enumerate(bases.values()):
        columns = np.full((width, n_channels), np.nan)
        columns[: basis.columns.shape[1], basis.channels] = basis.columns.T.cpu().numpy()
        coefficients = np.full(width, np.nan)
        coefficients[: basis.columns.shape[1]] = basis.coefficients.cpu().numpy()
        rows[row] = {"columns": columns, "coefficients": coefficients}
    fill_rows(group, rows)
    update_attributes(group, {_COMPONENTS: [basis.n_components for basis in bases.values()]})
    write_tangents(group, list(bases.values()), n_channels)
    write_weight_classes(group, list(bases.values()), width)


def read_basis(path: Path, detector: str) -> PixelBasis:
    """The basis of one detector, as it was written, bit for bit; its components are named as in the maps.

    Raises:
        OutputError: no store of this schema there.
        KeyError: no such detector.
    """
    require_readable_schema(path)
    group = open_group(path, GROUP)
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
    # An array in schema version 1.
    every = array_of(group, _COMPONENTS)[:] if _COMPONENTS in group else group.attrs[_COMPONENTS]
    n_components = int(np.asarray(every)[row])
    return PixelBasis(
        columns=phi,
        n_components=n_components,
        expected=phi @ mean,
        coefficients=mean,
        names=component_names(path),
        first_channel=first,
        tangents=read_tangents(group, row, slice(first, stop)),
        weight_classes=read_weight_classes(group, row, int(used.sum())),
    )


def component_names(path: Path) -> tuple[str, ...]:
    """Components of a results store, in the order of its maps."""
    require_readable_schema(path)
    return labels_of(open_group(path, "maps"), "component")
