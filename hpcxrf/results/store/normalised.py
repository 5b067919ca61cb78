"""The group `normalised` of a results store: maps of counts per second at a fixed I0, beside those of counts.

One task makes the group and writes all of it, block by block: live times, flags and I0 of every detector, and the maps
of those that stand for all. The maps of any other detector are its counts times a number a pixel: `open_results`
computes them when they are read (`computed.py`), and for whoever opens the group alone they are NaN.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.quantify.normalise import Combination
from hpcxrf.results.store.derived import describe_stored, group_checksums
from hpcxrf.results.store.storage import (
    ArrayPlan,
    create_array,
    create_group,
    create_labels,
    output_errors,
    publish_folder,
)
from hpcxrf.results.store.tiled import TiledMap, open_map
from hpcxrf.store.schema import COMBINATION_VARIABLES, I0_VARIABLES, MAP_LEVEL, NORMALISED_VARIABLES, POSITION_VARIABLES

GROUP: Final = "normalised"
COMBINED: Final = "combined"
"""Name, on the detector axis, of the detectors that are normalised each and then combined."""


def create_normalised(
    path: Path,
    *,
    detectors: Sequence[str],
    components: Sequence[str],
    shape_yx: tuple[int, int],
    block_yx: tuple[int, int],
    stored: Sequence[str],
    attributes: Mapping[str, Any],
    with_i0: bool,
    combination: tuple[Sequence[str], Combination] | None,
    positions_um: Mapping[str, NDArray[np.float64]],
) -> None:
    """Create the group with all its arrays; takes the place of an earlier one.

    Args:
        path: the results store, a folder.
        detectors: names on the detector axis, with `combined` where there are several detectors.
        components: names of the components.
        shape_yx: pixels (y, x).
        block_yx: rows and columns of a block.
        stored: those of them whose maps are written.
        attributes: of the group, JSON values.
        with_i0: rates are divided by I0, which is kept.
        combination: names of the detectors that are combined, and their shares and weights.
        positions_um: stage positions `x_um`, `y_um` (y, x), where they are known.

    Raises:
        OutputError: the folder cannot be written.
    """
    sizes = {"detector": len(detectors), "component": len(components), "y": shape_yx[0], "x": shape_yx[1]}
    variables = NORMALISED_VARIABLES | (I0_VARIABLES if with_i0 else {})
    with output_errors(path / GROUP):
        if (path / GROUP).exists():
            shutil.rmtree(path / GROUP)
    with publish_folder(path / GROUP) as partial:
        group = create_group(partial, {**attributes, **describe_stored(stored)})
        create_labels(group, "detector", detectors)
        create_labels(group, "component", components)
        known = " ".join(positions_um)
        for name, spec in variables.items():
            plan = ArrayPlan(
                spec=spec, sizes=sizes, coordinates=known, many_writers=True, block_yx=block_yx, level=MAP_LEVEL
            )
            create_array(group, name, plan)
        for name, values in positions_um.items():
            create_array(group, name, ArrayPlan(spec=POSITION_VARIABLES[name], sizes=sizes), values)
        if combination is not None:
            which, found = combination
            rows = [list(detectors).index(name) for name in which]
            for name, spec in COMBINATION_VARIABLES.items():
                values = np.full((len(detectors), len(components)), np.nan)
                values[rows] = getattr(found, name)
                create_array(group, name, ArrayPlan(spec=spec, sizes=sizes), values)


def open_rates(path: Path) -> dict[str, TiledMap]:
    """Open the maps of the group that are there, by name, to read and write their blocks.

    Raises:
        OutputError: the group is missing, or damaged.
    """
    names = (*NORMALISED_VARIABLES, *(name for name in I0_VARIABLES if (path / GROUP / name).is_dir()))
    return {name: open_map(path / GROUP / name) for name in names}


def normalised_files(path: Path) -> dict[str, str]:
    """Checksums of all that the group holds, by path within the store, as they hold also when it is closed.

    Raises:
        OSError: something there cannot be read.
    """
    return group_checksums(path, GROUP, (NORMALISED_VARIABLES | I0_VARIABLES))
