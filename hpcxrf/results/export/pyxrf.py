"""PyXRF: `/xrfmap` with counts, fitted maps, scalers and positions, as PyXRF writes and opens it.

Layout: `write_db_to_hdf_base` and `save_fitdata_to_hdf` of https://github.com/NSLS2/PyXRF (BSD-3); maps are
(component, row, column), scalers (row, column, scaler). Counts are raw; PyXRF starts from 10 eV a channel.
"""

from pathlib import Path
from typing import Final

import h5py
import numpy as np

from hpcxrf.formats.layout_pyxrf import ROOT
from hpcxrf.results.export.new_hdf5 import create_file
from hpcxrf.results.export.pymca import name_line
from hpcxrf.results.export.run_spectra import SUM, list_members, read_counts, summed_type
from hpcxrf.results.export.source import (
    ExportSource,
    chunk_of_maps,
    list_detectors,
    list_quantities,
    read_bands,
    read_positions,
)
from hpcxrf.store.spectra import SpectraStore

_FITS: Final = {"amplitude": "xrf_fit", "sigma": "xrf_fit_error"}
_NAMES: Final = {"elastic": "elastic", "Compton": "compton"}


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write `<stem>.h5`.

    Raises:
        OSError: the file cannot be written.
        OutputError: counts of the run cannot be read.
    """
    with create_file(folder / f"{stem}.h5") as file:
        root = file.create_group(ROOT)
        if source.spectra is None:
            source.notes.append("without counts, which PyXRF wants and the run directory has: name that")
        else:
            _write_counts(root, source, source.spectra)
            _write_scalers(root, source.spectra)
        fitted = list_detectors(source, ("maps",))
        # PyXRF counts the groups and opens det1 to the last of them, and detsum, whatever is in them.
        root.require_group("detsum")
        for number in range(1 + max((int(one) for one in fitted if one.isdigit()), default=-1)):
            root.require_group(_name(str(number)))
        for detector in fitted:
            _write_fits(root.require_group(_name(detector)), source, detector)
        if len(fitted) == 1 and SUM not in fitted:
            # PyXRF looks at the sum first: of one detector it is that detector.
            for name in (end for one in _FITS.values() for end in (one, f"{one}_name")):
                root[f"detsum/{name}"] = root[f"{_name(fitted[0])}/{name}"]
        _write_positions(root, source)
        _write_metadata(root.create_group("scan_metadata"), source)


def _name(detector: str) -> str:
    return "detsum" if detector == SUM else f"det{int(detector) + 1}" if detector.isdigit() else detector


def _write_counts(root: h5py.Group, source: ExportSource, store: SpectraStore) -> None:
    """Write the counts of every detector and their sum, which of one detector is a link."""
    detectors, height, width, channels = store.shape
    names = [*map(str, range(detectors)), *([SUM] if detectors > 1 else [])]
    for name in names:
        stored = root.require_group(_name(name)).create_dataset(
            "counts",
            (height, width, channels),
            dtype=summed_type(store) if name == SUM else store.dtype,
            chunks=(min(height, 4), min(width, 16), channels),
            compression="gzip",
            shuffle=True,
        )
        for rows, block in read_counts(store, list_members(source, store, name)):
            stored[rows] = block
    if detectors == 1:
        root.require_group("detsum")["counts"] = root[f"{_name('0')}/counts"]


def _write_fits(group: h5py.Group, source: ExportSource, detector: str) -> None:
    for quantity in list_quantities(source, detector):
        if quantity.key not in _FITS:
            continue
        shape = quantity.values.shape
        stored = group.create_dataset(
            _FITS[quantity.key], shape, dtype=np.float32, chunks=chunk_of_maps(shape), compression="gzip", shuffle=True
        )
        stored.attrs["units"] = quantity.units
        for band, values in read_bands(quantity.values):
            stored[:, band] = values
        names = [name_line(component) for component in quantity.components]
        group[f"{_FITS[quantity.key]}_name"] = _encode([_NAMES.get(name, name) for name in names])


def _write_scalers(root: h5py.Group, store: SpectraStore) -> None:
    if not store.scaler_names:
        return
    group = root.create_group("scalers")
    group["name"] = _encode(store.scaler_names)
    group["val"] = np.stack([store.scaler(name) for name in store.scaler_names], axis=-1)


def _write_positions(root: h5py.Group, source: ExportSource) -> None:
    positions = read_positions(source.groups["maps"])
    if positions is None:
        return
    group = root.create_group("positions")
    group["name"] = _encode(["x_pos", "y_pos"])
    group["pos"] = np.stack([positions.x_um, positions.y_um])
    group["pos"].attrs["units"] = "um"


def _write_metadata(group: h5py.Group, source: ExportSource) -> None:
    group.attrs["file_type"] = "XRF-MAP"
    group.attrs["file_format"] = "NSLS2-XRF-MAP"
    group.attrs["file_format_version"] = "1.0"
    group.attrs["file_software"] = "hpcxrf"
    group.attrs["file_software_version"] = str(source.attributes.get("hpcxrf_version", ""))
    group.attrs["scan_name"] = str(source.attributes.get("title", source.name))
    energy = source.attributes.get("incident_energy_kev")
    if energy is not None:
        group.attrs["instrument_mono_incident_energy"] = float(energy)


def _encode(texts: "list[str] | tuple[str, ...]") -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    return np.array([text.encode("utf-8") for text in texts], dtype="S")
