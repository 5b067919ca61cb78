"""Oxford Instruments .h5oina: `/1/EDS/Data/Spectrum` (pixel, channel), pixels row by row; version 7.0 and later.

Layout: https://github.com/oinanoanalysis/h5oina/blob/master/H5OINAFile.md
"""

import re
from typing import Final

import h5py

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container
from hpcxrf.formats.array_scan import ArrayScan, make_calibration
from hpcxrf.formats.grid import Grid, make_grid
from hpcxrf.formats.layout_parts import (
    POINT_AXES,
    build_refusal,
    has_group,
    read_detector_maps,
    read_number,
    require_spectra,
    sort_entries,
)
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions, ScanScalars
from hpcxrf.notes import Note

_SPECTRA: Final = re.compile(r"1/EDS\d*/Data/Spectrum")
_EV: Final = 1e-3


def recognise(file: h5py.File) -> bool:
    """True for a file with a slice `/1` of EDS or EBSD."""
    return any(has_group(file, f"1/{technique}/Header") for technique in ("EDS", "EDS1", "EBSD"))


def find_scan(container: Container, options: ReadOptions) -> ArrayScan:
    """The spectra of one detector, or of the several of `EDS1`, `EDS2` ..

    Raises:
        InputFileError: patterns or element maps without spectra, or a header that does not fit.
    """
    counts = sort_entries(e for path, e in container.entries.items() if _SPECTRA.fullmatch(path))
    if not counts:
        maps = any("Window Integral" in path or "Peak Area" in path for path in container.entries)
        holds = "element maps (window integrals, peak areas)" if maps else "diffraction patterns (EBSD)"
        raise build_refusal(container, "1/EDS/Data/Spectrum, of version 7.0 and later", holds)
    n_rows = require_spectra(container, counts, 2, "export the file again from AZtec")
    headers = [entry.path.replace("/Data/Spectrum", "/Header") for entry in counts]
    width, height = (read_number(container, f"{headers[0]}/{axis} Cells") for axis in ("X", "Y"))
    n_points = n_rows or counts[0].shape[0]
    shape = options.map_shape or (int(height or 1) or 1, int(width or n_points) or 1)
    grid = make_grid(str(container.path), n_points, shape)
    return ArrayScan(
        container=container,
        format="h5oina",
        counts=counts,
        axes=POINT_AXES,
        n_rows=n_points,
        grid=grid,
        calibration=tuple(_read_calibration(container, header) for header in headers),
        read_scalars=lambda: _read_scalars(container, headers, n_points, grid),
        notes=(Note("warning", "excited by electrons, unless the microscope has an X-ray source"),),
    )


def _read_calibration(container: Container, header: str) -> EnergyCalibration:
    width_ev = read_number(container, f"{header}/Channel Width")
    if width_ev is None or width_ev <= 0.0:
        raise InputFileError(f"{container.path}: {header}/Channel Width must be above 0 eV; export the file again")
    return make_calibration((read_number(container, f"{header}/Start Channel") or 0.0) * _EV, width_ev * _EV)


def _read_scalars(container: Container, headers: list[str], n_points: int, grid: Grid) -> ScanScalars:
    places = [header.replace("/Header", "/Data") for header in headers]
    live_s, real_s = (
        read_detector_maps(container, [container.entries.get(f"{place}/{name}") for place in places], n_points, grid)
        for name in ("Live Time", "Real Time")
    )
    x_um, y_um = (
        read_detector_maps(container, [container.entries.get(f"{places[0]}/{axis}")], n_points, grid) for axis in "XY"
    )
    return ScanScalars(
        live_time_s=live_s,
        real_time_s=real_s,
        x_um=None if x_um is None else x_um[0],
        y_um=None if y_um is None else y_um[0],
    )
