"""One file without a run directory: what is in it, and the fit of its integrated spectrum."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, FitError, InputFileError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.suggestion import Suggestion, combined
from hpcxrf.formats.override import find_override, read_override
from hpcxrf.formats.registry import find_scans, open_scan
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ReadOptions
from hpcxrf.pipeline.pixels.flags import LARGEST_COUNT
from hpcxrf.pipeline.prepare.detectors import fit_detectors
from hpcxrf.pipeline.prepare.from_config import line_markers, prepare
from hpcxrf.pipeline.prepare.inputs import SUM, archive_root, read_options
from hpcxrf.pipeline.tasks import scan_facts
from hpcxrf.runner.worker import one_thread
from hpcxrf.store.catalog import dataset_id
from hpcxrf.store.ingest import ingest_scan

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFit:
    """A fitted integrated spectrum of a file."""

    scan: RawScan
    detector: str
    fit: SpectrumFit
    by_detector: tuple[SpectrumFit, ...]
    """For a sum: the fit of each detector, whose theta it used; else empty."""
    notes: tuple[str, ...]
    line_markers: tuple[tuple[float, str], ...]
    """Energy (keV) and name of each component's strongest line."""
    suggested: tuple[Suggestion, ...] = ()
    """Components that are not listed, but that the residual speaks for."""


def integrate(scan: RawScan, advance: Advance | None = None) -> NDArray[np.float64]:
    """Sum of the spectra of all pixels, (detector, channel), read by bands of rows.

    Raises:
        InputFileError: the file ends early, or holds a negative or non-finite count.
    """
    return _sum_and_highest(scan, advance)[0]


def _sum_and_highest(scan: RawScan, advance: Advance | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and maximum of the spectra of all pixels, (detector, channel) each."""
    n_detectors, n_rows, _, n_channels = scan.shape
    total = np.zeros((n_detectors, n_channels))
    highest = np.zeros_like(total)
    for start in range(0, n_rows, scan.rows_per_read):
        rows = slice(start, min(start + scan.rows_per_read, n_rows))
        counts = scan.read_counts(rows)
        total += counts.sum(axis=(1, 2), dtype=np.float64)
        np.maximum(highest, counts.max(axis=(1, 2)), out=highest)
        if advance is not None:
            advance(rows.stop, n_rows)
    return total, highest


def fit_file(path: Path, config: RunConfig, detector: str, advance: Advance | None = None) -> FileFit:
    """Fit the integrated spectrum of one detector, or of the raw sum of all.

    Args:
        path: the scan.
        config: a checked configuration; its input files are not used.
        detector: a number counted from 0, or `sum`.
        advance: called with (rows read, rows).

    Raises:
        ConfigError: no such detector; no elements, calibration or incident energy.
        InputFileError: the file cannot be read.
        FitError: the fit as asked is impossible, or the spectrum has no counts.
    """
    scan = open_scan(path, read_options(config))
    wanted = _detectors(path, detector, scan.shape[0])
    facts = scan_facts(scan, path)
    for d in wanted:
        prepare(config, facts, d)
    spectra, highest = _sum_and_highest(scan, advance)
    counts = torch.from_numpy(spectra)
    with one_thread():
        found = fit_detectors(config, facts, wanted, counts)
    every = found.fits
    if not any(fit.status in SOLVED for fit in every):
        message = every[0].messages[0]
        raise FitError(f"{path}, detector {detector}: {message}; check the range and the detector")
    full = _saturated(dict(zip(wanted, every, strict=True)), highest)
    notes = tuple(dict.fromkeys([*scan.notes, *full, *found.notes]))
    setups = [p.setup for p in found.prepared]
    single = detector != SUM
    return FileFit(
        scan=scan,
        detector=detector,
        fit=every[0] if single else fit_detector_sum(counts, every, setups),
        by_detector=() if single else every,
        notes=notes,
        line_markers=tuple(line_markers(setups[0].table)),
        suggested=combined(found.suggested),
    )


def _saturated(fits: Mapping[int, SpectrumFit], highest: NDArray[np.float64]) -> list[str]:
    """Sentences on detectors that have a channel at its end in their fit range; wider counts than 16 bits have none."""
    if highest.max() != LARGEST_COUNT:
        return []
    ranges = {d: slice(f.first_channel, f.first_channel + len(f.counts)) for d, f in fits.items()}
    return [
        f"detector {d}: a channel of the fit range holds {LARGEST_COUNT} counts in some pixel, the most that it can; "
        "such pixels are in this spectrum and may bend its fit, a run leaves them out"
        for d, channels in ranges.items()
        if (highest[d, channels] >= LARGEST_COUNT).any()
    ]


def _detectors(path: Path, detector: str, n_detectors: int) -> list[int]:
    if detector == SUM:
        return list(range(n_detectors))
    if detector.isdecimal() and int(detector) < n_detectors:
        return [int(detector)]
    raise ConfigError(f"{path}: no detector {detector!r}; give 0 to {n_detectors - 1} (counted from 0) or 'sum'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """Stores by source, and reasons of what failed."""

    stores: dict[str, str]
    failed: dict[str, str]


def inspect_file(path: Path, given: ReadOptions, advance: Advance | None = None) -> dict[str, Any]:
    """What is in a file, as JSON values; the spectra are read once for the totals.

    Where the file does not say its incident energy or calibration, those of an override file beside it are
    given, and the notes say so.

    Raises:
        InputFileError: the file cannot be read.
    """
    scan = open_scan(path, given)
    notes = list(scan.notes)
    found = find_override(path, 0)
    override = None if found is None else read_override(found)
    energy, calibration = scan.incident_energy_kev, scan.calibration
    if override is not None:
        values = override.values
        notes.append(f"override file: {override.path}")
        if energy is None and "COHERENT_SCT_ENERGY" in values:
            energy = values["COHERENT_SCT_ENERGY"]
            notes.append(f"incident energy from {override.path.name}")
        if calibration is None and {"CAL_OFFSET", "CAL_SLOPE"} <= values.keys():
            one = EnergyCalibration(offset_kev=values["CAL_OFFSET"], slope_kev=values["CAL_SLOPE"])
            calibration = (one,) * scan.shape[0]
            notes.append(f"energy calibration from {override.path.name}")
    return {
        "file": str(path),
        "format": scan.format,
        "files": [str(f) for f in scan.files],
        "shape": list(scan.shape),
        "dtype": str(scan.dtype),
        "total_counts": integrate(scan, advance).sum(axis=1).tolist(),
        "incident_energy_kev": energy,
        "energy_offset_kev": None if calibration is None else calibration[0].offset_kev,
        "energy_slope_kev": None if calibration is None else calibration[0].slope_kev,
        "calibration": None if calibration is None else [dataclasses.asdict(c) for c in calibration],
        "scalers": list(scan.read_scalars().scaler_names),
        "notes": notes,
    }


def ingest_files(files: Sequence[Path], folder: Path, given: ReadOptions, advance: Advance) -> Ingested:
    """Ingest every scan that is found; a bad file stops no other.

    Raises:
        InputFileError: no scan was found.
        OutputError: the folder cannot be written.
    """
    found, notes = find_scans(list(files))
    if not found:
        raise InputFileError("\n".join(["no scan found", *notes, "give files or folders"]))
    root = archive_root([str(name) for name in files])
    stores, failed = {}, {}
    for number, path in enumerate(found):
        store = folder / f"{dataset_id(path.absolute(), root)}.zarr"
        try:
            ingest_scan(open_scan(path, given), store)
        except InputFileError as error:
            failed[str(path)] = str(error)
        else:
            stores[str(path)] = str(store)
        advance(number + 1, len(found))
    return Ingested(stores=stores, failed=failed)
