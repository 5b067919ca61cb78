"""SOLEIL NeXus: `/ENTRY/scan_data/channelNN` (point, or y and x; channel), one array a detector, rates beside it.

Names: those that the scan server writes (`channel00`, `icr00`, `ocr00`, `realtime00`, `actuator_1_1`); fly scans have
`fluospectrum00` and `trajectory_1_1`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import h5py

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container, Entry
from hpcxrf.formats.array_grid import find_placement
from hpcxrf.formats.array_scan import ArrayScan, find_unit_um, read_map
from hpcxrf.formats.grid import Grid
from hpcxrf.formats.layout_parts import (
    MAP_AXES,
    POINT_AXES,
    build_refusal,
    has_group,
    is_numeric,
    list_scalers,
    read_detector_maps,
    require_spectra,
    sort_entries,
)
from hpcxrf.formats.maps_raw import live_time
from hpcxrf.formats.scan import FloatMap, ReadOptions, ScanScalars

_SPECTRA: Final = re.compile(r"(?P<entry>[^/]+)/scan_data/(?P<name>channel|fluospectrum|spectrum)(?P<number>\d+)")
_ACTUATOR: Final = re.compile(r"(actuator|trajectory)_(?P<dimension>\d+)_\d+")
_TIMES: Final = {"real_time_s": "realtime", "live_time_s": "livetime", "icr_hz": "icr", "ocr_hz": "ocr"}
_OF_DETECTOR: Final = re.compile(r"(?i)(icr|ocr|realtime|livetime|deadtime|events|channel|fluospectrum|spectrum)\d+")


def recognise(file: h5py.File) -> bool:
    """True where an entry has `scan_data`."""
    return any(has_group(file, f"{name}/scan_data") for name in file)


def find_scan(container: Container, options: ReadOptions) -> ArrayScan:
    """All detectors of the only entry with spectra.

    Raises:
        InputFileError: no spectra, with what the file holds; several entries; detectors that do not fit together.
    """
    found: dict[str, list[Entry]] = {}
    for path, stored in container.entries.items():
        match = _SPECTRA.fullmatch(path)
        if match is not None and is_numeric(stored) and len(stored.shape) in {2, 3}:
            found.setdefault(match["entry"], []).append(stored)
    if not found:
        images = any(len(e.shape) == 3 for e in container.entries.values())
        raise build_refusal(container, "scan_data/channelNN", "images" if images else "counters and positions")
    if len(found) > 1:
        names = ", ".join(f"{name}/scan_data/channel*" for name in found)
        raise InputFileError(
            f"{container.path}: {len(found)} entries have spectra; name one with --dataset-path: {names}"
        )
    ((entry, stored_counts),) = found.items()
    return _describe(container, entry, sort_entries(stored_counts), options)


def _describe(container: Container, entry: str, counts: tuple[Entry, ...], options: ReadOptions) -> ArrayScan:
    rank = len(counts[0].shape)
    common = require_spectra(container, counts, rank, "name detectors of one shape with --dataset-path")
    bare = ArrayScan(
        container=container,
        format="soleil",
        counts=counts,
        axes=MAP_AXES if rank == 3 else POINT_AXES,
        n_rows=common or counts[0].shape[0],
    )
    actuators = _find_actuators(container, entry)
    vectors = {e.path: e for e in actuators if e.shape == (bare.shape[1],)}
    shape = _find_shape(actuators, bare.shape[1]) if rank == 2 else None
    placement = find_placement(bare, options, vectors=vectors, shape=shape)
    return replace(
        bare,
        grid=placement.grid,
        read_scalars=lambda: _read_scalars(bare, entry, placement.grid, dict(placement.read_positions())),
        notes=placement.notes,
    )


def _find_actuators(container: Container, entry: str) -> tuple[Entry, ...]:
    prefix = f"{entry}/scan_data/"
    return sort_entries(
        e
        for path, e in container.entries.items()
        if path.startswith(prefix) and _ACTUATOR.fullmatch(e.name) is not None and is_numeric(e)
    )


def _find_shape(actuators: Sequence[Entry], n_points: int) -> tuple[int, int] | None:
    """Rows and columns by the lengths of the actuators of dimension 2 and 1, where they are lines."""
    lengths: dict[int, int] = {}
    for entry in actuators:
        match = _ACTUATOR.fullmatch(entry.name)
        if match is not None and len(entry.shape) == 1:
            lengths.setdefault(int(match["dimension"]), entry.shape[0])
    height, width = lengths.get(2, 0), lengths.get(1, 0)
    return (height, width) if (height - 1) * width < n_points <= height * width else None


def _read_scalars(scan: ArrayScan, entry: str, grid: Grid | None, positions: dict[str, FloatMap]) -> ScanScalars:
    container, n_rows = scan.container, scan.n_rows or 0
    per_pixel = scan.counts[0].shape[1:-1]
    numbers = [re.sub(r"\D", "", e.name) for e in scan.counts]

    def fits(stored: Entry) -> bool:
        return is_numeric(stored) and stored.shape[1:] == per_pixel and stored.shape[0] >= n_rows

    def read(name: str) -> FloatMap | None:
        arrays = [container.entries.get(f"{entry}/scan_data/{name}{number}") for number in numbers]
        return read_detector_maps(container, [e if e is not None and fits(e) else None for e in arrays], n_rows, grid)

    times = {key: read(name) for key, name in _TIMES.items()}
    counters = {
        e.name: e
        for path, e in container.entries.items()
        if path.startswith(f"{entry}/scan_data/") and fits(e) and _is_counter(e)
    }
    names, values = list_scalers(container, counters, n_rows, grid)
    if grid is None and per_pixel:
        positions = _read_map_positions(container, entry, scan.shape[1:3])
    return ScanScalars(
        live_time_s=live_time(times["real_time_s"], times["icr_hz"], times["ocr_hz"], times["live_time_s"]),
        real_time_s=times["real_time_s"],
        icr_hz=times["icr_hz"],
        ocr_hz=times["ocr_hz"],
        scaler_names=names,
        scaler_units=("",) * len(names),
        scaler_values=values,
        x_um=positions.get("x_um"),
        y_um=positions.get("y_um"),
    )


def _is_counter(entry: Entry) -> bool:
    return _OF_DETECTOR.fullmatch(entry.name) is None and _ACTUATOR.fullmatch(entry.name) is None


def _read_map_positions(container: Container, entry: str, size: tuple[int, int]) -> dict[str, FloatMap]:
    """`x_um` of the actuator of dimension 1, `y_um` of dimension 2, where they are maps with a unit of length."""
    found: dict[str, FloatMap] = {}
    for stored in _find_actuators(container, entry):
        match, factor = _ACTUATOR.fullmatch(stored.name), find_unit_um(stored)
        name = {1: "x_um", 2: "y_um"}.get(int(match["dimension"])) if match is not None else None
        if name is not None and factor is not None and stored.shape == size:
            found.setdefault(name, factor * read_map(container, stored, size[0], None))
    return found
