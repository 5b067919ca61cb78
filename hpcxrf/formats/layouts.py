"""HDF5 files of beamlines and instruments with one array a detector: which layout a file has, and its scan."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py

from hpcxrf.errors import InputFileError
from hpcxrf.formats import layout_bliss, layout_larch, layout_oxford, layout_pyxrf, layout_soleil
from hpcxrf.formats.array_containers import Container, open_hdf5_arrays
from hpcxrf.formats.array_scan import ArrayScan, build_raw_scan
from hpcxrf.formats.hdf5_access import open_for_reading
from hpcxrf.formats.hdf5_files import HDF5_FAULTS
from hpcxrf.formats.scan import RawScan, ReadOptions
from hpcxrf.formats.signatures import is_hdf5
from hpcxrf.formats.table import FileFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One layout: how its files are recognised, and how its scan is found."""

    looks_for: str
    recognise: Callable[[h5py.File], bool]
    """By names of groups alone; no link out of the file is followed."""
    find_scan: Callable[[Container, ReadOptions], ArrayScan]


FILE_FORMATS: Final = (
    FileFormat(
        name="pyxrf",
        files="PyXRF, NSLS-II .h5 (/xrfmap)",
        reads="maps of each detector; 10 eV a channel, incident energy, scalers, positions",
    ),
    FileFormat(
        name="larch-map",
        files="GSECARS, larch .h5 (/xrmmap)",
        reads="maps of each detector; axis, times, scalers, positions",
    ),
    FileFormat(
        name="bliss",
        files="ESRF BLISS .h5 (/N.1/instrument)",
        reads="points of each detector as a map; times, rates, counters, positions, incident energy",
    ),
    FileFormat(
        name="soleil",
        files="SOLEIL .nxs (/ENTRY/scan_data/channelNN)",
        reads="points or maps of each detector; times, rates, counters, positions",
    ),
    FileFormat(
        name="h5oina", files="Oxford .h5oina 7.0 and later", reads="a map of each detector; axis, times, positions"
    ),
)
LAYOUTS: Final = (
    Layout(
        looks_for="PyXRF HDF5 (/xrfmap/detectors/detN/counts or /xrfmap/detN/counts)",
        recognise=layout_pyxrf.recognise,
        find_scan=layout_pyxrf.find_scan,
    ),
    Layout(
        looks_for="GSECARS and larch HDF5 (/xrmmap/mcaN/counts)",
        recognise=layout_larch.recognise,
        find_scan=layout_larch.find_scan,
    ),
    Layout(
        looks_for="ESRF BLISS HDF5 (/N.1/instrument/DETECTOR/data)",
        recognise=layout_bliss.recognise,
        find_scan=layout_bliss.find_scan,
    ),
    Layout(
        looks_for="SOLEIL NeXus (/ENTRY/scan_data/channelNN)",
        recognise=layout_soleil.recognise,
        find_scan=layout_soleil.find_scan,
    ),
    Layout(
        looks_for="Oxford h5oina (/1/EDS/Data/Spectrum)",
        recognise=layout_oxford.recognise,
        find_scan=layout_oxford.find_scan,
    ),
)


def sniff(path: Path, head: bytes) -> bool:
    """True where the file has one of the layouts."""
    return is_hdf5(head) and _recognise(path) is not None


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Open all detectors of a scan; headers are read, and positions where points have to be laid out.

    Raises:
        InputFileError: damaged; no spectra in it, with what it holds; several scans; detectors that do not fit.
    """
    layout = _recognise(path)
    if layout is None:
        raise InputFileError(f"{path}: has none of the layouts {', '.join(one.looks_for for one in LAYOUTS)}")
    container = open_hdf5_arrays(path, None, allow_external=options.allow_external)
    return build_raw_scan(layout.find_scan(container, options), options)


def _recognise(path: Path) -> Layout | None:
    try:
        with open_for_reading(path) as file:
            return next((layout for layout in LAYOUTS if layout.recognise(file)), None)
    except HDF5_FAULTS:
        return None
