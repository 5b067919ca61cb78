"""What is in one file, and the ingest of some: neither loads torch."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.counts import CountFaults, mend_counts
from hpcxrf.formats.override import Override, find_override, read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.notes import Note, pack_notes

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of scans that were to be ingested."""

    stores: dict[str, str]
    """Store by source."""
    failed: dict[str, str]
    """Reason by source."""
    notes: tuple[Note, ...]
    """Files that were left out, and why."""


def integrate(scan: RawScan, advance: Advance | None = None) -> NDArray[np.float64]:
    """Sum the spectra of all pixels, (detector, channel), read by bands of rows.

    Raises:
        InputFileError: the file ends early, or holds values that are not counts.
    """
    return sum_mended(scan, advance)[0]


def sum_mended(scan: RawScan, advance: Advance | None) -> tuple[NDArray[np.float64], list[Note]]:
    """Sum the spectra of all pixels, (detector, channel), and warn of counts that were mended for it."""
    total = np.zeros((scan.shape[0], scan.shape[3]))
    faults = CountFaults(size=math.prod(scan.shape))
    for start in range(0, scan.shape[1], max(scan.rows_per_read, 1)):
        rows = slice(start, min(start + max(scan.rows_per_read, 1), scan.shape[1]))
        where = f"{scan.files[0]}, rows {rows.start}..{rows.stop - 1}"
        mended = mend_counts(scan.read_counts(rows), where)
        faults.add(int(mended.negative.sum()), mended.lowest, int(mended.missing.sum()), where)
        total += mended.counts.sum(axis=(1, 2), dtype=np.float64)
        if advance is not None:
            advance(rows.stop, scan.shape[1])
    return total, faults.notes()


def inspect_file(path: Path, options: ReadOptions, advance: Advance | None = None) -> dict[str, Any]:
    """Describe a file in JSON values; the spectra are read once for the totals.

    Where the file does not give its incident energy or calibration, those of an override file beside it are
    taken, and the notes name it.

    Raises:
        InputFileError: the file cannot be read.
    """
    scan = open_scan(path, options)
    place = find_override(path, 0)
    override = None if place is None else read_override(place)
    energy, calibration, notes = complete_from_override(scan, override)
    scalars = scan.read_scalars()
    total, mended = sum_mended(scan, advance)
    return {
        "file": str(path),
        "format": scan.format,
        "files": [str(f) for f in scan.files],
        "shape": list(scan.shape),
        "dtype": str(scan.dtype),
        "total_counts": total.sum(axis=1).tolist(),
        "incident_energy_kev": energy,
        "energy_offset_kev": None if calibration is None else calibration[0].offset_kev,
        "energy_slope_kev": None if calibration is None else calibration[0].slope_kev,
        "calibration": None if calibration is None else [dataclasses.asdict(c) for c in calibration],
        "tube": scan.tube,
        "live_time_s": _sum_by_detector(scalars.live_time_s),
        "real_time_s": _sum_by_detector(scalars.real_time_s),
        "scalers": list(scalars.scaler_names),
        **pack_notes([*scan.notes, *mended, *notes]),
    }


def _sum_by_detector(times_s: NDArray[np.float64] | None) -> list[float] | None:
    """Sum times (detector, y, x) over the pixels that were measured."""
    return None if times_s is None else np.nansum(times_s, axis=(1, 2)).tolist()


def complete_from_override(
    scan: RawScan, override: Override | None
) -> tuple[float | None, tuple[EnergyCalibration, ...] | None, list[Note]]:
    """Incident energy and calibration of the file, else of the override file, and sentences on the latter."""
    energy, calibration = scan.incident_energy_kev, scan.calibration
    if override is None:
        return energy, calibration, []
    values, notes = override.values, [Note("fact", f"override file: {override.path}")]
    if energy is None and "COHERENT_SCT_ENERGY" in values:
        energy = values["COHERENT_SCT_ENERGY"]
        notes.append(Note("fact", f"incident energy from {override.path.name}"))
    if calibration is None and {"CAL_OFFSET", "CAL_SLOPE"} <= values.keys():
        one = EnergyCalibration(offset_kev=values["CAL_OFFSET"], slope_kev=values["CAL_SLOPE"])
        calibration = (one,) * scan.shape[0]
        notes.append(Note("fact", f"energy calibration from {override.path.name}"))
    return energy, calibration, notes


def ingest_files(files: Sequence[Path], folder: Path, options: ReadOptions, advance: Advance) -> Ingested:
    """Ingest every scan that is found; a bad file stops no other.

    Raises:
        InputFileError: no scan was found.
        OutputError: the folder cannot be written.
    """
    # With zarr and pydantic, which looking at a file does not need.
    from hpcxrf.pipeline.prepare.inputs import archive_root
    from hpcxrf.store.catalog import dataset_id
    from hpcxrf.store.ingest import ingest_scan

    found, notes = find_scans(list(files))
    if not found:
        raise InputFileError("\n".join(["no scan found", *(note.text for note in notes), "give files or folders"]))
    root = archive_root([str(name) for name in files])
    stores, failed = {}, {}
    for number, path in enumerate(found):
        store = folder / f"{dataset_id(path.absolute(), root)}.zarr"
        try:
            ingest_scan(open_scan(path, options), store)
        except InputFileError as error:
            failed[str(path)] = str(error)
        else:
            stores[str(path)] = str(store)
        advance(number + 1, len(found))
    return Ingested(stores=stores, failed=failed, notes=tuple(notes))
