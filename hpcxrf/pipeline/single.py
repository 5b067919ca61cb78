"""The fit of one file's integrated spectrum, without a run directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.suggestion import Suggestion, combine_detectors
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.notes import Note
from hpcxrf.pipeline.arrays import ReadSpectra, spectra_of_scan
from hpcxrf.pipeline.inspect import ingest_files, inspect_file, integrate
from hpcxrf.pipeline.pixels.flags import full_count, largest_count
from hpcxrf.pipeline.pixels.outliers import describe_outliers, find_outliers
from hpcxrf.pipeline.prepare.detectors import fit_detectors
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import line_markers, prepare
from hpcxrf.pipeline.prepare.inputs import SUM, read_options
from hpcxrf.pipeline.sums import Advance
from hpcxrf.runner.worker import one_thread

_MOST_DIGITS: Final = 6

__all__ = ["FileFit", "fit_file", "ingest_files", "inspect_file", "integrate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFit:
    """A fitted integrated spectrum of a file."""

    scan: RawScan
    detector: str
    fit: SpectrumFit
    by_detector: tuple[SpectrumFit, ...]
    """Fits of the detectors, whose theta a sum used; empty for a single detector."""
    notes: tuple[Note, ...]
    line_markers: tuple[tuple[float, str], ...]
    """Energy (keV) and name of each component's strongest line."""
    suggested: tuple[Suggestion, ...] = ()
    """Components that are not in the list, but present in the residual."""


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
        FitError: the fit is impossible with these options, or the spectrum has no counts.
    """
    scan = open_scan(path, read_options(config))
    wanted = _detectors(path, detector, scan.shape[0])
    facts = scan_facts(scan, path)
    for d in wanted:
        # Before minutes are spent on reading.
        prepare(config, facts, d)
    spectra = spectra_of_scan(scan, advance)
    clean, outliers = _leave_out_outliers(spectra, wanted)
    counts = torch.from_numpy(clean)
    with one_thread():
        found = fit_detectors(config, facts, wanted, counts)
    every = found.fits
    if not any(fit.status in SOLVED for fit in every):
        message = every[0].messages[0]
        raise FitError(f"{path}, detector {detector}: {message}; check the range and the detector")
    full = _saturation_notes(dict(zip(wanted, every, strict=True)), spectra)
    single = detector != SUM
    return FileFit(
        scan=scan,
        detector=detector,
        fit=every[0] if single else fit_detector_sum(counts, every, found.problems),
        by_detector=() if single else every,
        notes=tuple(dict.fromkeys([*scan.notes, *spectra.notes, *outliers, *full, *found.notes])),
        line_markers=tuple(line_markers(found.problems[0].table)),
        suggested=combine_detectors(found.suggested),
    )


def _leave_out_outliers(spectra: ReadSpectra, detectors: Sequence[int]) -> tuple[NDArray[np.float64], list[Note]]:
    """Summed spectra (detector, channel) without outlier pixels, and warnings of those."""
    total, notes = spectra.total.copy(), []
    for d in detectors:
        found = find_outliers(spectra, d)
        if found.spectra:
            total[d] -= found.sum_of(found.spectra)
            notes.append(Note("warning", describe_outliers(d, found.spectra.keys())))
    return total, notes


def _saturation_notes(fits: Mapping[int, SpectrumFit], spectra: ReadSpectra) -> list[Note]:
    """Warnings of detectors that have a channel at its end in their fit range."""
    most = full_count(spectra.dtype)
    ranges = {d: slice(f.first_channel, f.first_channel + len(f.counts)) for d, f in fits.items()}
    text = (
        f"a channel of the fit range holds {largest_count(spectra.dtype)} counts in some pixel, the most that it can; "
        "such pixels are in this spectrum and may bend its fit, a run leaves them out"
    )
    return [
        Note("warning", f"detector {d}: {text}")
        for d, channels in ranges.items()
        if (spectra.highest[d, channels] >= most).any()
    ]


def _detectors(path: Path, detector: str, n_detectors: int) -> list[int]:
    if detector == SUM:
        return list(range(n_detectors))
    if detector.isdecimal() and len(detector) <= _MOST_DIGITS and int(detector) < n_detectors:
        return [int(detector)]
    raise ConfigError(
        f"{path}: {detector[:40]!r} is not a detector of the scan; give 0 to {n_detectors - 1} (from 0) or 'sum'"
    )
