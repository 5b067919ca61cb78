"""The group `areal_density` of a results store: maps of areal densities in ug/cm2, beside the normalised ones.

One task makes the group and writes all of it, block by block: responses and errors of every detector, and the maps of
the one that stands for all. As in the group `normalised`, `open_results` computes those of the others.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.quantify.densities import DensityScale
from hpcxrf.results.store.derived import describe_stored, group_checksums
from hpcxrf.results.store.storage import (
    ArrayPlan,
    create_array,
    create_group,
    create_labels,
    create_texts,
    output_errors,
    publish_folder,
)
from hpcxrf.results.store.tiled import TiledMap, open_map
from hpcxrf.store.schema import AREAL_DENSITY_VARIABLES, MAP_LEVEL, POSITION_VARIABLES, RESPONSE_VARIABLES

if TYPE_CHECKING:
    import xarray as xr

GROUP: Final = "areal_density"
TERMS: Final = ("counting", "theta", "i0", "standard", "curve", "geometry", "model")
"""Origins of the uncertainty that all pixels have in common; `counting` is that of the standards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTable:
    """Responses by detector and component, as the group keeps them."""

    response: NDArray[np.float64]
    """(detector, component) counts per second at the reference I0, per ug/cm2."""
    relative_error: NDArray[np.float64]
    """(detector, component, term)."""
    theta_floor: NDArray[np.float64]
    """(detector, component) ug/cm2, the same in every pixel, of components that are not certain."""
    layer_factor: NDArray[np.float64]
    """(detector, component)."""
    origin: NDArray[np.object_]
    """(detector, component) `own point`, `curve` ..; empty where there is none."""

    def scale_of(self, row: int) -> DensityScale:
        """How the rates of a place on the detector axis become areal densities."""
        return DensityScale(
            density_of_rate=1.0 / (self.response[row] * self.layer_factor[row]),
            relative_error=np.sqrt((self.relative_error[row] ** 2).sum(axis=1)),
            floor_ug_cm2=self.theta_floor[row],
        )


def read_scales(group: "xr.Dataset") -> tuple[DensityScale, ...]:
    """Read how the rates of every place on the detector axis become areal densities.

    Args:
        group: the group, open.
    """
    table = ResponseTable(**{name: group[name].values for name in (*RESPONSE_VARIABLES, "origin")})
    return tuple(table.scale_of(row) for row in range(len(table.response)))


def create_areal_density(
    path: Path,
    *,
    detectors: Sequence[str],
    components: Sequence[str],
    shape_yx: tuple[int, int],
    block_yx: tuple[int, int],
    stored: Sequence[str],
    attributes: Mapping[str, Any],
    responses: ResponseTable,
    positions_um: Mapping[str, NDArray[np.float64]],
) -> None:
    """Create the group with all its arrays; takes the place of an earlier one.

    Args:
        path: the results store, a folder.
        detectors: names on the detector axis.
        components: families of single elements.
        shape_yx: pixels (y, x).
        block_yx: rows and columns of a block.
        stored: names of the detectors whose maps are written.
        attributes: of the group, JSON values.
        responses: what rates are divided by, with its errors.
        positions_um: stage positions `x_um`, `y_um` (y, x), where they are known.

    Raises:
        OutputError: the folder cannot be written.
    """
    sizes = {
        "detector": len(detectors),
        "component": len(components),
        "y": shape_yx[0],
        "x": shape_yx[1],
        "term": len(TERMS),
    }
    with output_errors(path / GROUP):
        if (path / GROUP).exists():
            shutil.rmtree(path / GROUP)
    with publish_folder(path / GROUP) as partial:
        group = create_group(partial, {**attributes, **describe_stored(stored)})
        for dim, labels in (("detector", detectors), ("component", components), ("term", TERMS)):
            create_labels(group, dim, labels)
        known = " ".join(positions_um)
        for name, spec in AREAL_DENSITY_VARIABLES.items():
            plan = ArrayPlan(
                spec=spec, sizes=sizes, coordinates=known, many_writers=True, block_yx=block_yx, level=MAP_LEVEL
            )
            create_array(group, name, plan)
        for name, values in positions_um.items():
            create_array(group, name, ArrayPlan(spec=POSITION_VARIABLES[name], sizes=sizes), values)
        for name, spec in RESPONSE_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes), getattr(responses, name))
        about = {"long_name": "where the response comes from"}
        create_texts(group, "origin", ("detector", "component"), responses.origin, about)


def open_densities(path: Path) -> dict[str, TiledMap]:
    """Open the maps of the group, by name, to write their blocks.

    Raises:
        OutputError: the group is missing, or damaged.
    """
    return {name: open_map(path / GROUP / name) for name in AREAL_DENSITY_VARIABLES}


def areal_density_files(path: Path) -> dict[str, str]:
    """Checksums of all that the group holds, by path within the store, as they hold also when it is closed.

    Raises:
        OSError: something there cannot be read.
    """
    return group_checksums(path, GROUP, AREAL_DENSITY_VARIABLES)
