"""MDA scans: step scans with the spectra inside, and fly scans with their companion HDF5."""

import glob
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats import first_look, maps_raw
from hpcxrf.formats.hdf5_files import check_rows, refuse_bad_counts, refuse_large_rows, rows_per_block
from hpcxrf.formats.mda_layout import (
    ExtraVariable,
    MdaScan,
    looks_like_mda,
    map_file,
    match_records,
    read_extra,
    read_header,
    read_numbers_at,
    read_scan,
    read_values,
    view_numbers,
)
from hpcxrf.formats.mda_scalars import (
    CALIBRATION_NAME,
    Rows,
    describe_times,
    mask_written,
    read_fly_scalars,
    read_rows,
    read_step_scalars,
)
from hpcxrf.formats.scan import RawScan, ReadOptions
from hpcxrf.formats.signatures import COMPANION_FOLDERS
from hpcxrf.formats.table import FileFormat
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(
        name="mda",
        files="step scans .mda (EPICS saveData)",
        reads="maps of each detector; times, rates, scalers, positions, incident energy",
    ),
    FileFormat(
        name="mda-fly",
        files="fly scans .mda with flyXRF.h5 beside them",
        reads="maps of each detector; times, rates, scalers, positions, incident energy",
    ),
)
SPECTRUM_NAME: Final = re.compile(r"^(?P<prefix>.*:)?mca(?P<number>\d+)(?:\.VAL)?$")
MONOCHROMATOR_ENERGY: Final = re.compile(r"(?i:mono|bragg).*(?i:energy)|(?i:mono|bragg)\S*?E(?:_|AO|RdbkAO)")
ENERGY_UNITS_KEV: Final = {"kev": 1.0, "ev": 1e-3}
Shape = tuple[int, int, int, int]


def sniff(path: Path, head: bytes) -> bool:
    """True where the first bytes are an MDA header."""
    return looks_like_mda(head)


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """A step scan (rank 3) with its spectra, or a fly scan (rank 2) with its companion HDF5.

    Raises:
        InputFileError: truncated, of another rank, without spectra, or without its companion.
    """
    data = map_file(path)
    header = read_header(path, data)
    if len(header.dims) not in {2, 3}:
        raise InputFileError(
            f"{path}: MDA of rank {len(header.dims)} {header.dims}; must be 3 (rows, columns, channels) "
            "or 2 (rows, columns, with spectra in flyXRF.h5): this file is not a map"
        )
    rows = read_rows(path, data, header)
    extra = read_extra(path, data, header)
    build = _open_step_scan if len(header.dims) == 3 else _open_fly_scan
    scan = build(path, data, rows, options)
    energy_kev = find_incident_energy_kev(extra)
    notes = (*scan.notes, *_describe_stop(rows), *_describe_calibration(rows, extra))
    return replace(scan, incident_energy_kev=energy_kev, notes=notes)


def _describe_stop(rows: Rows) -> tuple[Note, ...]:
    done = sum(row.last_point for row in rows.rows if row is not None)
    planned = rows.outer.npts * rows.first.npts
    if rows.outer.last_point == rows.outer.npts and done == planned:
        return ()
    text = (
        f"stopped after {rows.outer.last_point} of {rows.outer.npts} rows "
        f"({done} of {planned} points); the rest is marked as not measured"
    )
    return (Note("warning", text),)


def _describe_calibration(rows: Rows, extra: tuple[ExtraVariable, ...]) -> tuple[Note, ...]:
    """CALO and CALS are what an operator once typed: 60 eV off in files where both are known."""
    names = (*(v.name for v in extra), *(d.name for d in rows.outer.detectors))
    if not any(CALIBRATION_NAME.search(name) for name in names):
        return ()
    text = "energy calibration in the file (CALO, CALS, CALQ) ignored: it is not reliable in this format"
    return (Note("warning", text),)


def find_incident_energy_kev(extra: tuple[ExtraVariable, ...]) -> float | None:
    """Monochromator energy of the extra variables, 1 to 150 keV; undulator energies are not it."""
    for variable in extra:
        label = f"{variable.name} {variable.description}"
        scale = ENERGY_UNITS_KEV.get(variable.unit.strip().lower())
        if scale is None or not variable.numbers or not MONOCHROMATOR_ENERGY.search(label):
            continue
        energy_kev = variable.numbers[0] * scale
        if 1.0 <= energy_kev <= 150.0:
            return energy_kev
    return None


def _open_step_scan(path: Path, data: NDArray[np.uint8], rows: Rows, options: ReadOptions) -> RawScan:
    del options
    spectrum = _read_first_spectrum(path, data, rows)
    detectors = find_spectrum_detectors(path, spectrum)
    shape = (len(detectors), rows.outer.npts, rows.first.npts, spectrum.npts)
    row_bytes = 4 * shape[0] * shape[2] * shape[3]
    refuse_large_rows(path, shape, row_bytes)
    return RawScan(
        name=path.stem,
        format="mda",
        files=(path,),
        shape=shape,
        dtype=np.dtype(np.float32),
        rows_per_read=rows_per_block(row_bytes=row_bytes, chunk_rows=1, height=shape[1]),
        read_counts=partial(_read_counts, path, rows, shape, tuple(detectors)),
        read_scalars=partial(read_step_scalars, path, rows, detectors),
        notes=describe_times(rows, detectors),
    )


def _read_first_spectrum(path: Path, data: NDArray[np.uint8], rows: Rows) -> MdaScan:
    at = next((a for row in rows.rows if row is not None for a in row.sub_at if a > 0), None)
    if at is None:
        raise InputFileError(f"{path}: the scan stopped before its first spectrum; nothing to fit: leave the file out")
    spectrum = read_scan(path, data, at)
    if spectrum.npts == 0:
        raise InputFileError(f"{path}: spectra of 0 channels; this file has nothing to fit")
    return spectrum


def find_spectrum_detectors(path: Path, spectrum: MdaScan) -> dict[int, str]:
    """Scan detectors that are spectra, in the order of their numbers: index -> name without ending."""
    found = [(i, SPECTRUM_NAME.match(d.name)) for i, d in enumerate(spectrum.detectors)]
    numbered = sorted((int(m["number"]), i, m) for i, m in found if m is not None)
    if not numbered:
        names = ", ".join(d.name for d in spectrum.detectors) or "none"
        raise InputFileError(
            f"{path}: no spectra among the innermost scan's detectors ({names}); "
            "looked for names that end in mca1.VAL, mca2.VAL ..."
        )
    return {i: f"{m['prefix'] or ''}mca{m['number']}" for _, i, m in numbered}


def _read_counts(path: Path, rows: Rows, shape: Shape, columns: tuple[int, ...], wanted: slice) -> NDArray[np.generic]:
    wanted = check_rows(path, wanted, shape[1])
    data = map_file(path)
    block = np.zeros((shape[0], wanted.stop - wanted.start, *shape[2:]), dtype=np.float32)
    first, last = min(columns), max(columns)
    # A slice is read without a copy.
    chosen = slice(first, last + 1) if list(columns) == list(range(first, last + 1)) else list(columns)
    like: MdaScan | None = None
    for place, row in enumerate(rows.rows[wanted]):
        written = np.flatnonzero(mask_written(row, shape[2]))
        if row is None or written.size == 0:
            continue
        offsets = np.array(row.sub_at, dtype=np.int64)[written]
        like = like or _read_spectrum(path, data, int(offsets[0]), shape[3], None)
        same = match_records(data, offsets, like)
        if same.all() and not np.diff(offsets, 2).any():
            together = slice(written[0], written[-1] + 1) if np.ptp(written) < written.size else written
            block[:, place, together] = view_numbers(data, offsets, like)[:, chosen].swapaxes(0, 1)
            continue
        for x, at, alike in zip(written, offsets.tolist(), same, strict=True):
            if alike:
                values = read_numbers_at(data, at, like)
            else:
                values = read_values(data, _read_spectrum(path, data, at, shape[3], like))
            block[:, place, x] = values[chosen]
    for detector, spectra in enumerate(block):
        refuse_bad_counts(spectra, path=path, detector=detector, first_row=wanted.start)
    return block


def _read_spectrum(path: Path, data: NDArray[np.uint8], at: int, channels: int, like: MdaScan | None) -> MdaScan:
    """Record of the spectra of one point."""
    scan = read_scan(path, data, at, like)
    if scan.npts != channels:
        raise InputFileError(
            f"{path}: the spectrum at byte {at} has {scan.npts} channels, the first one {channels}; "
            "all points of a scan must have the same"
        )
    return scan


def _open_fly_scan(path: Path, data: NDArray[np.uint8], rows: Rows, options: ReadOptions) -> RawScan:
    """Spectra of the companion, whose own width wins; positions and scalers of the MDA."""
    del data
    companions = find_companions(path)
    if not companions:
        raise InputFileError(
            f"{path}: fly scan (MDA of rank 2, scalers only) without its spectra; looked for "
            f"{path.stem}_*_0.h5 with /MAPS_RAW in {', '.join(_companion_folders(path))}; "
            "put the detector's file there"
        )
    spectra = maps_raw.open_file(companions[0], options)
    _, height, width, _ = spectra.shape
    notes = [Note("fact", f"spectra from {companions[0].name}")]
    if len(companions) > 1:
        notes.append(Note("warning", f"more such files ignored: {', '.join(p.name for p in companions[1:])}"))
    if (height, width) != (rows.outer.npts, rows.first.npts):
        text = (
            f"the MDA has {rows.outer.npts} x {rows.first.npts} points, the spectra {height} x {width}: "
            "the size of the spectra is used, matched from the first row and column"
        )
        notes.append(Note("warning", text))
    return replace(
        spectra,
        name=path.stem,
        format="mda-fly",
        files=(path, companions[0]),
        read_scalars=partial(read_fly_scalars, path, rows, spectra),
        notes=tuple(notes),
    )


def _companion_folders(path: Path) -> tuple[str, ...]:
    return tuple(str((path.absolute().parent / name).resolve()) for name in COMPANION_FOLDERS)


def find_companions(path: Path) -> tuple[Path, ...]:
    """HDF5 files with the spectra of a fly scan, nearest folder first; empty if there are none."""
    found: list[Path] = []
    for folder in _companion_folders(path):
        for candidate in sorted(Path(folder).glob(f"{glob.escape(path.stem)}_*_0.h5")):
            # A pipe of that name would never end, and a damaged file could keep the library for ever.
            if candidate.is_file():
                first_look.require_readable(candidate)
                with candidate.open("rb") as file:
                    head = file.read(4096)
                if maps_raw.sniff(candidate, head):
                    found.append(candidate)
    return tuple(dict.fromkeys(found))
