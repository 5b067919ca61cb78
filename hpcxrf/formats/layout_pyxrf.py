"""PyXRF and NSLS-II: `/xrfmap`, one array a detector, scalers and positions beside them, 10 eV a channel.

Layout: `write_db_to_hdf_base` of https://github.com/NSLS2/PyXRF (BSD-3); files of larch's first version have the same
root, but an array of energies in each detector.
"""

import re
from typing import Final

import h5py
import numpy as np

from hpcxrf.formats.array_containers import Container, Entry
from hpcxrf.formats.array_scan import ArrayScan, make_calibration
from hpcxrf.formats.layout_parts import (
    MAP_AXES,
    build_refusal,
    check_energy_kev,
    has_group,
    is_numeric,
    read_all,
    read_texts,
    require_spectra,
    sort_entries,
)
from hpcxrf.formats.scan import FloatMap, ReadOptions, ScanScalars
from hpcxrf.notes import Note

ROOT: Final = "xrfmap"
CHANNEL_KEV: Final = 0.010
_DETECTOR: Final = re.compile(rf"{ROOT}/(detectors/)?det\d+/counts")
_SUM: Final = re.compile(rf"{ROOT}/(detectors/)?detsum/counts")


def recognise(file: h5py.File) -> bool:
    """True for a file with `/xrfmap` whose detectors have no energies of their own."""
    return has_group(file, ROOT) and not any(has_group(file, f"{ROOT}/{p}") for p in ("config", "roimap"))


def find_scan(container: Container, options: ReadOptions) -> ArrayScan:
    """All detectors; the sum that PyXRF stores beside them only where there is nothing else.

    Raises:
        InputFileError: fitted maps without spectra, or detectors that do not fit together.
    """
    del options  # every fact is in the file
    counts = sort_entries(e for path, e in container.entries.items() if _DETECTOR.fullmatch(path))
    sums = [e for path, e in container.entries.items() if _SUM.fullmatch(path)]
    notes = [Note("fact", f"{e.path} is not used: it is the sum of the detectors") for e in sums]
    if not counts:
        text = "only the sum of the detectors is in the file: it is read as one detector"
        counts, notes = tuple(sums[:1]), [Note("warning", text)]
    if not counts:
        fitted = any("xrf_fit" in path or "xrf_roi" in path for path in container.entries)
        holds = "fitted maps (ROIs)" if fitted else "maps"
        raise build_refusal(container, "xrfmap/detN/counts", holds)
    n_rows = require_spectra(container, counts, 3, "save the scan again from PyXRF")
    metadata = container.read_attributes(f"{ROOT}/scan_metadata")
    placed, position_notes = _find_positions(container, counts[0].shape[:2])
    calibration = make_calibration(0.0, CHANNEL_KEV)
    return ArrayScan(
        container=container,
        format="pyxrf",
        counts=counts,
        axes=MAP_AXES,
        n_rows=n_rows,
        calibration=(calibration,) * len(counts),
        incident_energy_kev=check_energy_kev(metadata.get("instrument_mono_incident_energy")),
        read_scalars=lambda: _read_scalars(container, placed, counts[0].shape[:2]),
        notes=(*notes, Note("fact", "energy axis of PyXRF: 10 eV a channel from 0 keV"), *position_notes),
    )


def _find_positions(container: Container, size: tuple[int, ...]) -> tuple[dict[str, int], list[Note]]:
    """Rows of `positions/pos` (axis, y, x) by `x_um` and `y_um`."""
    stored = container.entries.get(f"{ROOT}/positions/pos")
    names = read_texts(container, f"{ROOT}/positions/name")
    if stored is None or not is_numeric(stored) or stored.shape != (len(names), *size):
        return {}, []
    found = {f"{axis}_um": i for axis in "xy" for i, name in enumerate(names) if name.lower().startswith(axis)}
    note = Note("warning", "positions are taken as micrometres: the file does not give their unit")
    return found, [note] if found else []


def _read_scalars(container: Container, placed: dict[str, int], size: tuple[int, ...]) -> ScanScalars:
    names = read_texts(container, f"{ROOT}/scalers/name")
    stored = container.entries.get(f"{ROOT}/scalers/val")
    values: FloatMap | None = None
    if stored is not None and is_numeric(stored) and stored.shape == (*size, len(names)):
        values = np.moveaxis(read_all(container, stored).astype(np.float64), 2, 0)
    positions = {name: _read_position(container, row) for name, row in placed.items()}
    return ScanScalars(
        scaler_names=names if values is not None else (),
        scaler_units=("",) * len(names) if values is not None else (),
        scaler_values=values,
        x_um=positions.get("x_um"),
        y_um=positions.get("y_um"),
    )


def _read_position(container: Container, row: int) -> FloatMap:
    stored: Entry = container.entries[f"{ROOT}/positions/pos"]
    region = (slice(row, row + 1), slice(0, stored.shape[1]), slice(0, stored.shape[2]))
    return np.asarray(container.read(stored, region)[0], dtype=np.float64)
