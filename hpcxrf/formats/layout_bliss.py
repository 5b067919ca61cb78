"""ESRF BLISS: `/N.1/instrument/DETECTOR/data` (point, channel), one detector a group, points in the order of the scan.

Layout: the writer of https://gitlab.esrf.fr/bliss/bliss; https://gitlab.esrf.fr/workflow/ewoksapps/ewoksfluo reads it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import h5py

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_choice import match_entries, split_paths
from hpcxrf.formats.array_containers import Container, Entry, decode_texts
from hpcxrf.formats.array_grid import find_placement
from hpcxrf.formats.array_scan import ArrayScan, find_unit_um, make_calibration
from hpcxrf.formats.axis_rules import USUAL_CHANNELS
from hpcxrf.formats.grid import Grid
from hpcxrf.formats.layout_parts import (
    POINT_AXES,
    check_energy_kev,
    has_group,
    is_numeric,
    list_scalers,
    read_detector_maps,
    read_number,
    read_numbers,
    read_texts,
    require_spectra,
    sort_entries,
)
from hpcxrf.formats.maps_raw import live_time
from hpcxrf.formats.scan import EnergyCalibration, FloatMap, ReadOptions, ScanScalars
from hpcxrf.formats.text_spectra import shift_channels
from hpcxrf.notes import Note

_SCAN: Final = re.compile(r"\d+\.\d+")
_SPECTRA: Final = re.compile(r"(?P<scan>\d+\.\d+)/(instrument/(?P<name>[^/]+)/data|measurement/(?P<short>[^/]+))")
_TIMES: Final = ("elapsed_time", "live_time", "trigger_count_rate", "event_count_rate")
_ENERGIES: Final = ("energy", "energy_kev", "mono_energy", "enermono", "ene")
_PARAMETERS: Final = (
    ("slow_npoints", "fast_npoints"),
    ("slow_npts", "fast_npts"),
    ("npoints2", "npoints1"),
    ("scan_dim_2", "scan_dim_1"),
    ("y_npoints", "x_npoints"),
)
"""Names of (rows, columns) in the group of the scan's parameters."""
_TITLES: Final = {"mesh": (8, 1, 4, 1), "fscan2d": (4, 0, 8, 0), "zapimage": (9, 1, 4, 0)}
"""By macro: place of the rows in the title and what is added to them, then of the columns."""


_LINE: Final = re.compile(r"(?i)([ad]\d?scan|ct)\b")
"""Titles of scans whose points are no map."""


def recognise(file: h5py.File) -> bool:
    """True where the root has scans `N.M` with instruments."""
    return any(_SCAN.fullmatch(name) and has_group(file, f"{name}/instrument") for name in file)


def find_scan(container: Container, options: ReadOptions) -> ArrayScan:
    """The detectors of the only scan with spectra.

    Raises:
        InputFileError: no scan has spectra, with what they hold; several have, with their titles.
    """
    scans = _find_detectors(container)
    if not scans:
        raise InputFileError(
            f"{container.path}: holds {_name_contents(container)} and no spectra (N.1/instrument/DETECTOR/data of "
            "points x channels is missing); name the file with the raw spectra"
        )
    if len(scans) > 1:
        titles = "; ".join(f"{scan} ({_read_title(container, scan)})" for scan in scans)
        first = next(iter(scans))
        raise InputFileError(
            f"{container.path}: {len(scans)} scans have spectra: {titles}; name one, as in --dataset-path {first}"
        )
    ((scan, counts),) = scans.items()
    return _describe(container, scan, counts, options)


def find_requested(container: Container, options: ReadOptions) -> ArrayScan | None:
    """The scan `N.M`, or the detectors `N.M/instrument/DETECTOR/data`, that were requested; None if it is not of BLISS.

    Raises:
        InputFileError: as `find_scan`.
    """
    scans = _find_detectors(container)
    texts = [t.strip("/") for t in split_paths(container, options.dataset_path or ())]
    if len(texts) == 1 and texts[0] in scans:
        return _describe(container, texts[0], scans[texts[0]], options)
    matched = {e.path: e for text in texts for e in match_entries(container, text)}
    inside = {scan for scan, counts in scans.items() if matched and set(matched) <= {e.path for e in counts}}
    return _describe(container, inside.pop(), tuple(matched.values()), options) if len(inside) == 1 else None


def _find_detectors(container: Container) -> dict[str, tuple[Entry, ...]]:
    """Spectra of each scan; those of `measurement` only where `instrument` has none, as it usually links to them."""
    found: dict[str, list[Entry]] = {}
    for part in ("name", "short"):
        here: dict[str, list[Entry]] = {}
        for path, entry in container.entries.items():
            match = _SPECTRA.fullmatch(path)
            if match is not None and match[part] is not None and _holds_spectra(container, entry):
                here.setdefault(match["scan"], []).append(entry)
        found = here | found
    ordered = sorted(found, key=lambda scan: [int(n) for n in scan.split(".")])
    return {scan: sort_entries(found[scan]) for scan in ordered}


def _holds_spectra(container: Container, entry: Entry) -> bool:
    """One spectrum a point: a detector with times and rates of its own, or a usual number of channels."""
    if len(entry.shape) != 2 or not is_numeric(entry) or 0 in entry.shape:
        return False
    timed = any(container.entries.get(entry.find_neighbour(name)) is not None for name in _TIMES)
    return timed or entry.shape[1] in USUAL_CHANNELS


def _describe(container: Container, scan: str, counts: Sequence[Entry], options: ReadOptions) -> ArrayScan:
    remedy = f"name detectors of one shape, as in --dataset-path '{counts[0].path}'"
    common = require_spectra(container, counts, 2, remedy)
    n_points = common or counts[0].shape[0]
    bare = ArrayScan(
        container=container, format="bliss", counts=tuple(counts), axes=POINT_AXES, n_rows=n_points, notes=()
    )
    title = _read_title(container, scan)
    motors = _find_motors(container, scan, n_points)
    placement = find_placement(bare, options, vectors=motors, shape=_find_shape(container, scan, title, n_points))
    names = ", ".join(_name_detector(e) for e in counts)
    short = f"detectors have different numbers of points: the first {n_points} are read"
    return replace(
        bare,
        grid=placement.grid,
        calibration=_read_calibration(container, counts),
        incident_energy_kev=_read_energy_kev(container, scan),
        read_scalars=lambda: _read_scalars(bare, scan, placement.grid, dict(placement.read_positions())),
        notes=(
            Note("fact", f"scan {scan} ({title}), detectors {names}"),
            *([] if common is None else [Note("warning", short)]),
            *placement.notes,
        ),
    )


def _name_detector(entry: Entry) -> str:
    """Name behind `N.M/instrument/` or `N.M/measurement/`."""
    return entry.path.split("/")[2]


def _read_title(container: Container, scan: str) -> str:
    return " ".join(read_texts(container, f"{scan}/title")) or "without a title"


def _find_shape(container: Container, scan: str, title: str, n_points: int) -> tuple[int, int] | None:
    """Rows and columns by the title of the scan, else by its parameters; None where neither fits the points."""
    line = [(n_points, 1)] if _LINE.match(title) else []
    shapes = [_parse_title(title), *_read_parameters(container, scan), *line]
    return next((s for s in shapes if s is not None and (s[0] - 1) * s[1] < n_points <= s[0] * s[1]), None)


def _parse_title(title: str) -> tuple[int, int] | None:
    """Rows and columns of `amesh fast start stop intervals slow start stop intervals time`, `fscan2d`, `zapimage`."""
    words = [w for w in re.split(r"[\s(),=]+", title) if w]
    macro = next((key for key in _TITLES if words and words[0].lower().lstrip("ad") == key), None)
    macro = macro or next((key for key in _TITLES if words and key in words[0].lower()), None)
    if macro is None:
        return None
    row_place, row_extra, column_place, column_extra = _TITLES[macro]
    if len(words) <= max(row_place, column_place):
        return None
    numbers = words[row_place], words[column_place]
    if not all(n.isdecimal() and len(n) < 8 for n in numbers):
        return None
    return int(numbers[0]) + row_extra, int(numbers[1]) + column_extra


def _read_parameters(container: Container, scan: str) -> list[tuple[int, int]]:
    """Rows and columns among the parameters of the scan, arrays or attributes of `scan_parameters`."""
    groups = {p.rpartition("/")[0] for p in container.entries if p.startswith(f"{scan}/") and "parameters/" in p}
    found = []
    for group in sorted(groups | {f"{scan}/scan_parameters", f"{scan}/instrument/scan_parameters"}):
        attributes = container.read_attributes(group)
        for names in _PARAMETERS:
            values = [read_number(container, f"{group}/{name}") or attributes.get(name) for name in names]
            numbers = [_read_count(v) for v in values]
            if numbers[0] is not None and numbers[1] is not None:
                found.append((numbers[0], numbers[1]))
    return found


def _read_count(value: object) -> int | None:
    """A number of points as an integer; None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever the attribute holds
    except (TypeError, ValueError):
        return None
    return int(number) if 1 <= number <= 10_000_000 and number == int(number) else None


def _find_motors(container: Container, scan: str, n_points: int) -> dict[str, Entry]:
    """Positions of each point by their path: of `positioners`, else of the motors' own groups."""
    found: dict[str, Entry] = {}
    for pattern in (f"{scan}/instrument/positioners/*", f"{scan}/instrument/*/value", f"{scan}/measurement/*"):
        matched = match_entries(container, pattern)
        fitting = {e.path: e for e in matched if is_numeric(e) and e.shape[0] >= n_points and len(e.shape) == 1}
        if pattern.endswith("measurement/*"):
            fitting = {path: e for path, e in fitting.items() if e.attributes.get("units") is not None}
        found = found or {path: e for path, e in fitting.items() if not _is_time(e)}
    return found


def _is_time(entry: Entry) -> bool:
    unit = decode_texts(entry.attributes.get("units"))
    return unit in {("s",), ("sec",), ("seconds",)} or re.search(r"(?i)epoch|time", _name_detector(entry)) is not None


def _read_calibration(container: Container, counts: Sequence[Entry]) -> tuple[EnergyCalibration, ...] | None:
    """Terms beside the data, as silx converts them from `#@CALIB`; (0, 1, 0) is what SPEC writes without one."""
    found = []
    for entry in counts:
        terms = read_numbers(container, entry.find_neighbour("calibration"))
        channels = read_numbers(container, entry.find_neighbour("channels"))
        if len(terms) not in {2, 3} or terms[1] == 0.0 or terms[:2] == (0.0, 1.0):
            return None
        found.append(shift_channels(make_calibration(*terms), channels[0] if channels else 0.0))
    return tuple(found)


def _read_energy_kev(container: Container, scan: str) -> float | None:
    """A single incident energy among the positioners, keV unless its unit is eV."""
    for place in ("positioners", "positioners_start"):
        for name in _ENERGIES:
            path = f"{scan}/instrument/{place}/{name}"
            value = read_number(container, path)
            if value is not None:
                unit = " ".join(decode_texts(container.entries[path].attributes.get("units"))) or "keV"
                return check_energy_kev(value, unit)
    return None


def _read_scalars(scan: ArrayScan, name: str, grid: Grid | None, positions: dict[str, FloatMap]) -> ScanScalars:
    container, n_points = scan.container, scan.n_rows or 0

    def read(kind: str) -> FloatMap | None:
        arrays = [_find_time(container, entry, kind) for entry in scan.counts]
        return read_detector_maps(container, arrays, n_points, grid)

    real_s, icr_hz, ocr_hz = read("elapsed_time"), read("trigger_count_rate"), read("event_count_rate")
    names, values = list_scalers(container, _find_counters(scan, name), n_points, grid)
    return ScanScalars(
        live_time_s=live_time(real_s, icr_hz, ocr_hz, read("live_time")),
        real_time_s=real_s,
        icr_hz=icr_hz,
        ocr_hz=ocr_hz,
        scaler_names=names,
        scaler_units=("",) * len(names),
        scaler_values=values,
        x_um=positions.get("x_um"),
        y_um=positions.get("y_um"),
    )


def _find_time(container: Container, entry: Entry, kind: str) -> Entry | None:
    """Beside the data in `instrument`; as `DETECTOR_kind` in `measurement`."""
    beside = container.entries.get(entry.find_neighbour(kind))
    return beside or container.entries.get(f"{entry.path}_{kind}")


def _find_counters(scan: ArrayScan, name: str) -> dict[str, Entry]:
    """Counters with one value a point: not of the detectors themselves, no motors, no clocks."""
    detectors = tuple(_name_detector(e) for e in scan.counts)
    found: dict[str, Entry] = {}
    for pattern in (f"{name}/instrument/*/data", f"{name}/measurement/*"):
        for entry in match_entries(scan.container, pattern):
            short = _name_detector(entry)
            fits = is_numeric(entry) and len(entry.shape) == 1 and entry.shape[0] >= (scan.n_rows or 0)
            if fits and not short.startswith(detectors) and find_unit_um(entry) is None and not _is_time(entry):
                found.setdefault(short, entry)
    return found


def _name_contents(container: Container) -> str:
    """What the scans of a file hold instead of spectra."""
    titles = " ".join(" ".join(read_texts(container, path)) for path in container.entries if path.endswith("/title"))
    if container.links:
        return (
            f"{len(container.links)} external links that were not followed (input.allow_external: true in a run file)"
        )
    if any(len(e.shape) == 3 for e in container.entries.values()):
        return "images"
    if re.search(r"(?i)energy|xanes|exafs|escan", titles):
        return "scans of the incident energy (XANES)"
    rois = any("roi" in path.lower() for path in container.entries)
    return "ROIs and counters" if rois else "counters"
