"""What a file says of its scan beside the spectra: when, of which sample, at which instrument, and its total counts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import InputFileError
from hpcxrf.formats.hdf5_files import HDF5_FAULTS
from hpcxrf.formats.origin import Origin, parse_date
from hpcxrf.formats.scan import RawScan

LONGEST: Final = 300
"""Characters of a name that are kept."""


def read_origin(scan: RawScan) -> Origin:
    """Read what a file says of its scan; whatever cannot be read is left out: the spectra decide whether it is good."""
    read = _READERS.get(scan.format)
    path = scan.files[0]
    found = Origin()
    try:
        if read is not None:
            found = read(scan)
        elif path.is_file() and _begins_as_hdf5(path):
            from hpcxrf.formats.origins_hdf5 import read_nexus

            found = read_nexus(path)
        if found.counts is None and scan.shape[1:3] == (1, 1):
            # The spectrum of a single point is the integrated one.
            found = replace(found, counts=int(np.nansum(scan.read_counts(slice(0, 1)), dtype=np.float64)))
    except (InputFileError, *HDF5_FAULTS, ValueError, OverflowError, TypeError, IndexError):
        pass
    return replace(found, sample=_clean(found.sample), instrument=_clean(found.instrument))


def _clean(text: str | None) -> str | None:
    """One line of printable text, None where nothing is left."""
    return show_name(" ".join((text or "").split()))[:LONGEST] or None


def _begins_as_hdf5(path: Path) -> bool:
    from hpcxrf.formats.registry import read_head
    from hpcxrf.formats.signatures import is_hdf5

    return is_hdf5(read_head(path))


def _read_mda(scan: RawScan) -> Origin:
    from hpcxrf.formats.mda_layout import map_file, read_header, read_scan

    path = scan.files[0]
    data = map_file(path)
    outer = read_scan(path, data, read_header(path, data).scan_at)
    return Origin(date=parse_date(outer.time), instrument=outer.name.partition(":")[0] if ":" in outer.name else None)


def _read_maps(scan: RawScan) -> Origin:
    from hpcxrf.formats.origins_hdf5 import read_maps

    return read_maps(scan.files)


def _read_pyxrf(scan: RawScan) -> Origin:
    from hpcxrf.formats.origins_hdf5 import read_pyxrf

    return read_pyxrf(scan.files[0])


def _read_larch(scan: RawScan) -> Origin:
    from hpcxrf.formats.origins_hdf5 import read_larch

    return read_larch(scan.files[0])


def _read_oxford(scan: RawScan) -> Origin:
    from hpcxrf.formats.origins_hdf5 import read_oxford

    return read_oxford(scan.files[0])


def _read_text(scan: RawScan) -> Origin:
    from hpcxrf.formats.origins_text import read_text_origin

    return read_text_origin(scan.files[0], scan.format)


_READERS: Final[Mapping[str, Callable[[RawScan], Origin]]] = {
    "mda": _read_mda,
    "mda-fly": _read_mda,
    "maps-v9": _read_maps,
    "maps-v10": _read_maps,
    "pyxrf": _read_pyxrf,
    "larch-map": _read_larch,
    "h5oina": _read_oxford,
    **dict.fromkeys(("epics-mca", "emsa", "amptek-pmca", "iaea-spe", "bruker-spx", "spec"), _read_text),
}
