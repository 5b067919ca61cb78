"""What HDF5 files say of their scans: MAPS, PyXRF, larch, Oxford, and NeXus with all that is near to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from hpcxrf.formats.hdf5_files import find_dataset, open_hdf5
from hpcxrf.formats.maps_hdf5 import INTEGRATED
from hpcxrf.formats.origin import Origin, parse_date

_STAMPS: Final = ("/MAPS/Scan/scan_time_stamp", "/MAPS/scan_time_stamp")
_MOST_ENTRIES: Final = 20
"""Groups of the root that are looked into."""
_LONGEST: Final = 4096


def read_maps(files: Sequence[Path]) -> Origin:
    """The time stamp of the first file, the integrated spectra of all: one a detector."""
    total: float | None = 0.0
    date = None
    for path in files:
        with open_hdf5(path) as file:
            if path == files[0]:
                date = parse_date(next((text for name in _STAMPS if (text := _read_text(file, name))), ""))
            spectrum = find_dataset(file, INTEGRATED, allow_external=False)
            if spectrum is None or spectrum.ndim != 1 or spectrum.dtype.kind not in "iuf":
                total = None
            elif total is not None:
                total += float(np.asarray(spectrum[()], dtype=np.float64).sum())
    counts = None if total is None or not 0.0 <= total < 2**63 else round(total)
    return Origin(date=date, counts=counts)


def read_pyxrf(path: Path) -> Origin:
    """The attributes of `scan_metadata`."""
    with open_hdf5(path) as file:
        group = _find_group(file, "xrfmap/scan_metadata")
        if group is None:
            return Origin()
        utc, local = _read_attribute(group, "scan_time_start_utc"), _read_attribute(group, "scan_time_start")
        return Origin(
            date=parse_date(utc if not utc or utc.endswith("Z") else f"{utc}Z") or parse_date(local),
            sample=_read_attribute(group, "sample_name") or _read_attribute(group, "scan_sample_name"),
            instrument=_read_attribute(group, "instrument_name") or _read_attribute(group, "scan_instrument_name"),
        )


def read_larch(path: Path) -> Origin:
    """The attributes of the map."""
    with open_hdf5(path) as file:
        group = _find_group(file, "xrmmap") or _find_group(file, "xrfmap")
        if group is None:
            return Origin()
        return Origin(
            date=parse_date(_read_attribute(group, "Start_Time")), instrument=_read_attribute(group, "Beamline")
        )


def read_oxford(path: Path) -> Origin:
    """The header of the spectra."""
    head = "1/EDS/Header"
    with open_hdf5(path) as file:
        return Origin(
            date=parse_date(_read_text(file, f"{head}/Acquisition Date")),
            sample=_read_text(file, f"{head}/Specimen Label") or None,
            instrument=_read_text(file, f"{head}/Detector Type Id") or None,
        )


def read_nexus(path: Path) -> Origin:
    """`start_time`, `sample/name`, `instrument/name` of the first entry that has them, else attributes of the root."""
    with open_hdf5(path) as file:
        entries = [group for name in list(file)[:_MOST_ENTRIES] if (group := _find_group(file, name)) is not None]
        texts = {
            key: next((text for entry in entries for name in names if (text := _read_text(entry, name))), "")
            or next((text for name in names if (text := _read_attribute(file, name))), "")
            for key, names in {
                "date": ("start_time", "metadata/General/start_time"),
                "sample": ("sample/name", "sample/sample_name"),
                "instrument": ("instrument/name", "instrument/beamline"),
            }.items()
        }
    return Origin(
        date=parse_date(texts["date"]), sample=texts["sample"] or None, instrument=texts["instrument"] or None
    )


def _find_group(file: h5py.Group, name: str) -> h5py.Group | None:
    """A group within the file; links out of it are not followed."""
    for part in name.split("/"):
        link = file.get(part, getlink=True)
        if not isinstance(link, h5py.HardLink):
            return None
        file = file[part]
        if not isinstance(file, h5py.Group):
            return None
    return file


def _read_text(file: h5py.Group, name: str) -> str:
    """The text of a small dataset; empty where there is none."""
    folder, _, last = name.strip("/").rpartition("/")
    group = _find_group(file, folder) if folder else file
    if group is None or not isinstance(group.get(last, getlink=True), h5py.HardLink):
        return ""
    stored = group[last]
    if not isinstance(stored, h5py.Dataset) or stored.size != 1 or stored.dtype.itemsize > _LONGEST:
        return ""
    return _decode(np.asarray(stored[()]).reshape(-1)[0])


def _read_attribute(group: h5py.Group, name: str) -> str:
    if name not in group.attrs or group.attrs.get_id(name).get_storage_size() > _LONGEST:
        return ""
    return _decode(group.attrs[name])


def _decode(value: Any) -> str:  # noqa: ANN401 (whatever HDF5 holds)
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else ""
    if isinstance(value, bytes):
        value = value.split(b"\0")[0].decode("utf-8", "replace")
    return str(value).strip()[:_LONGEST] if isinstance(value, str) else ""
