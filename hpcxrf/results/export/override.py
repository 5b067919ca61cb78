"""Override files of MAPS: the fitted theta of each detector, to start other programs and later fits from."""

from pathlib import Path

import numpy as np

from hpcxrf.errors import OutputError
from hpcxrf.formats.override import OVERRIDE_NAME, make_override, write_override
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.scatter_names import COMPTON, ELASTIC
from hpcxrf.results.export.run_spectra import SUM
from hpcxrf.results.export.source import ExportSource


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write the folder `<stem>` with `maps_fit_parameters_override.txt0` ...; that of the sum has no number.

    A detector whose fit has no solution has no file, which a note says.

    Raises:
        OutputError: no detector has a solution, or a file cannot be written.
    """
    place = folder / stem
    place.mkdir()
    table = source.groups["parameters"].load()
    names = [str(name) for name in table["name"].values]
    law = constant_set(str(source.attributes.get("constants", "physics"))).width_factor
    maps = source.groups.get("maps", table)
    components = [str(name) for name in maps["component"].values] if "component" in maps.coords else []
    written = 0
    for row, detector in enumerate(str(name) for name in table["detector"].values):
        values = table["value"].values[row]
        if not np.isfinite(values).all():
            source.notes.append(f"detector {detector} has no file: its fit has no solution")
            continue
        path = place / (OVERRIDE_NAME if detector == SUM else f"{OVERRIDE_NAME}{detector}")
        override = make_override(
            path,
            theta=dict(zip(names, values.tolist(), strict=True)),
            elements=[name for name in components if _is_family(name)],
            pileup=[name for name in components if not _is_family(name) and name not in {ELASTIC, COMPTON}],
            width_law=law,
            title=f"{source.attributes.get('title', source.name)}, detector {detector}",
        )
        write_override(override, path)
        written += 1
    if not written:
        raise OutputError(f"{source.name}: no detector has a fitted theta; fit the scan again")


def _is_family(component: str) -> bool:
    """False for pile-up (`Si_Cl`)."""
    _, _, shell = component.partition("_")
    return shell in {"", "L", "M"}
