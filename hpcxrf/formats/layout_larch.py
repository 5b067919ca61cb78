"""GSECARS maps of larch: `/xrmmap/mcaN` (version 2), `/xrmmap/detN` or `/xrfmap/detN` (version 1), calibrated each.

Layout: `build_schema` of larch/xrmmap/xrm_mapfile.py, https://github.com/xraypy/xraylarch (MIT).
"""

import re
from collections.abc import Sequence
from typing import Final

import h5py
import numpy as np

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container, Entry
from hpcxrf.formats.array_scan import ArrayScan, make_calibration
from hpcxrf.formats.layout_parts import (
    MAP_AXES,
    build_refusal,
    has_group,
    is_numeric,
    list_scalers,
    read_all,
    read_detector_maps,
    read_texts,
    require_spectra,
    sort_entries,
)
from hpcxrf.formats.scan import EnergyCalibration, FloatMap, ReadOptions, ScanScalars
from hpcxrf.notes import Note

_DETECTOR: Final = re.compile(r"(xrmmap|xrfmap)/(mca|det)\d+/counts")
_SUM: Final = re.compile(r"(xrmmap|xrfmap)/(mcasum|detsum)/counts")
_MICROSECOND_S: Final = 1e-6
_MILLIMETRE_UM: Final = 1e3


def recognise(file: h5py.File) -> bool:
    """True for a file with `/xrmmap`, or `/xrfmap` as larch wrote it."""
    return has_group(file, "xrmmap") or any(has_group(file, f"xrfmap/{part}") for part in ("config", "roimap"))


def find_scan(container: Container, options: ReadOptions) -> ArrayScan:
    """All detectors; the sum that larch stores, corrected for dead time, only where there is nothing else.

    Raises:
        InputFileError: ROIs without spectra, or detectors that do not fit together.
    """
    del options  # every fact is in the file
    counts = sort_entries(e for path, e in container.entries.items() if _DETECTOR.fullmatch(path))
    sums = [e for path, e in container.entries.items() if _SUM.fullmatch(path)]
    notes = [Note("fact", f"{e.path} is not used: it is the sum of the detectors") for e in sums]
    if not counts:
        counts = tuple(sums[:1])
        text = "only the sum of the detectors is in the file, corrected for dead time: it is read as one detector"
        notes = [Note("warning", text)]
    if not counts:
        rois = any("/roimap/" in path for path in container.entries)
        raise build_refusal(container, "xrmmap/mcaN/counts", "ROIs only" if rois else "an empty map")
    common = require_spectra(container, counts, 3, "write the map again from larch")
    root = counts[0].path.partition("/")[0]
    written = _count_written_rows(container, root, common or counts[0].shape[0])
    if written < counts[0].shape[0]:
        text = f"{written} of {counts[0].shape[0]} rows are written, by Last_Row; the others are left out"
        notes.append(Note("fact", text))
    return ArrayScan(
        container=container,
        format="larch-map",
        counts=counts,
        axes=MAP_AXES,
        n_rows=written,
        calibration=_read_calibration(container, counts),
        read_scalars=lambda: _read_scalars(container, counts, root, (written, counts[0].shape[1])),
        notes=tuple(notes),
    )


def _count_written_rows(container: Container, root: str, n_rows: int) -> int:
    """Rows up to the attribute `Last_Row`: larch allocates more than it has measured."""
    last = container.read_attributes(root).get("Last_Row")
    number = int(last) if isinstance(last, int | np.integer) else n_rows - 1
    return number + 1 if 0 < number + 1 <= n_rows else n_rows


def _read_calibration(container: Container, counts: Sequence[Entry]) -> tuple[EnergyCalibration, ...] | None:
    """Of each detector, from the attributes of its array of energies."""
    found = []
    for entry in counts:
        energy = container.entries.get(entry.find_neighbour("energy"))
        numbers = {} if energy is None else energy.attributes
        try:
            offset, slope, quad = (float(numbers.get(f"cal_{n}", 0.0)) for n in ("offset", "slope", "quad"))
        except (TypeError, ValueError) as error:
            raise InputFileError(
                f"{container.path}: {entry.find_neighbour('energy')}: cal_offset, cal_slope, cal_quad must be numbers; "
                "write the map again from larch"
            ) from error
        if slope <= 0.0:
            return None
        found.append(make_calibration(offset, slope, quad))
    return tuple(found)


def _read_scalars(container: Container, counts: Sequence[Entry], root: str, size: tuple[int, int]) -> ScanScalars:
    n_rows = size[0]

    def read(name: str, factor: float = 1.0) -> FloatMap | None:
        arrays = [container.entries.get(entry.find_neighbour(name)) for entry in counts]
        return read_detector_maps(container, arrays, n_rows, None, factor)

    real_s, dead = read("realtime", _MICROSECOND_S), read("dtfactor")
    live_s = read("livetime", _MICROSECOND_S)
    if real_s is not None and dead is not None:
        # `dtfactor` multiplies counts: real time over the time in which a photon would have been recorded.
        live_s = np.divide(real_s, dead, out=real_s.copy(), where=dead > 0)
    names, values = _read_scalers(container, root, size)
    positions = _read_positions(container, root, size)
    return ScanScalars(
        live_time_s=live_s,
        real_time_s=real_s,
        scaler_names=names,
        scaler_units=("",) * len(names),
        scaler_values=values,
        x_um=positions.get("x_um"),
        y_um=positions.get("y_um"),
    )


def _read_scalers(container: Container, root: str, size: tuple[int, int]) -> tuple[tuple[str, ...], FloatMap | None]:
    """Version 2 has one array a scaler, version 1 a table with the ROIs behind the scalers."""
    prefix = f"{root}/scalars/"
    single = {
        path.removeprefix(prefix): e
        for path, e in container.entries.items()
        if path.startswith(prefix) and is_numeric(e) and e.shape[1:] == size[1:] and e.shape[0] >= size[0]
    }
    if single:
        return list_scalers(container, single, size[0], None)
    names = read_texts(container, f"{root}/roimap/det_name")
    table = container.entries.get(f"{root}/roimap/det_raw")
    if table is None or not is_numeric(table) or table.shape[1:] != (size[1], len(names)) or table.shape[0] < size[0]:
        return (), None
    values = np.moveaxis(read_all(container, table)[: size[0]].astype(np.float64), 2, 0)
    kept = [i for i, name in enumerate(names) if "(mca" not in name]
    return tuple(names[i] for i in kept), values[kept]


def _read_positions(container: Container, root: str, size: tuple[int, int]) -> dict[str, FloatMap]:
    """`x_um`, `y_um` of `positions/pos` (y, x, axis), millimetres at GSECARS."""
    names = read_texts(container, f"{root}/positions/name")
    stored = container.entries.get(f"{root}/positions/pos")
    if (
        stored is None
        or not is_numeric(stored)
        or stored.shape[1:] != (size[1], len(names))
        or stored.shape[0] < size[0]
    ):
        return {}
    values = read_all(container, stored)[: size[0]].astype(np.float64)
    ends = {f"{axis}_um": [i for i, n in enumerate(names) if n.lower().strip().endswith(axis)] for axis in "xy"}
    return {name: values[:, :, found[0]] * _MILLIMETRE_UM for name, found in ends.items() if found}
