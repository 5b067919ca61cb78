"""The fit of one file's integrated spectrum, without a run directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.detectors import DetectorsConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.config.sample import AUTO
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.count_scale import carry_count_factor
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.suggestion import Suggestion, combine_detectors
from hpcxrf.formats.progress import crop_rows
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.notes import Note
from hpcxrf.pipeline.arrays import ReadSpectra, spectra_of_scan
from hpcxrf.pipeline.inspect import ingest_files, inspect_file, integrate
from hpcxrf.pipeline.pixels.count_factors import average_factor, find_count_factors
from hpcxrf.pipeline.pixels.findings import Findings
from hpcxrf.pipeline.pixels.flags import full_count, largest_count
from hpcxrf.pipeline.pixels.outliers import describe_outliers, find_outliers
from hpcxrf.pipeline.prepare.agreement import describe_left_out, find_left_out, without_detectors
from hpcxrf.pipeline.prepare.detectors import fit_detectors
from hpcxrf.pipeline.prepare.elements import ask_for_elements
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import line_markers, prepare
from hpcxrf.pipeline.prepare.inputs import SUM, detector_names, read_options
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


def fit_file(
    path: Path, config: RunConfig, detector: str, advance: Advance | None = None, *, rows: int | None = None
) -> FileFit:
    """Fit the integrated spectrum of one detector, or of the raw sum of all.

    Args:
        path: the scan.
        config: a checked configuration; its input files are not used.
        detector: a number counted from 0, or `sum`.
        advance: called with (rows read, rows).
        rows: the first rows alone, of a scan that is still being written; None: all.

    Raises:
        ConfigError: no such detector; no elements, calibration or incident energy.
        InputFileError: the file cannot be read.
        FitError: the fit is impossible with these options, or the spectrum has no counts.
    """
    scan = open_scan(path, read_options(config))
    if rows is not None:
        scan = crop_rows(scan, min(rows, scan.shape[1]))
    wanted = _detectors(path, detector, scan.shape[0])
    detector_names(config, scan.shape[0])  # refuses exclusions that the scan cannot have
    if detector != SUM and wanted[0] in config.detectors.exclude:
        raise ConfigError(f"{path}: detector {detector} is in detectors.exclude; take it out, or fit another")
    facts = scan_facts(scan, path)
    config = ask_for_elements(config, facts, wanted[0])
    for d in () if config.sample.elements == AUTO else wanted:
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
    by_number = dict(zip(wanted, every, strict=True))
    findings, warnings = _judge(by_number, spectra, outliers, config.detectors)
    fit, by_detector = every[0], tuple[SpectrumFit, ...]()
    if detector == SUM:
        fit = fit_detector_sum(counts, without_detectors(every, findings.left_out), found.problems)
        by_detector = tuple(carry_count_factor(f, findings.factor_of(str(d))) for d, f in by_number.items())
    said = [*warnings, *_saturation_notes(by_number, spectra), *found.notes]
    return FileFit(
        scan=scan,
        detector=detector,
        fit=carry_count_factor(fit, findings.factor_of(detector)),
        by_detector=by_detector,
        notes=tuple(dict.fromkeys([*scan.notes, *spectra.notes, *said])),
        line_markers=tuple(line_markers(found.problems[0].table)),
        suggested=combine_detectors(
            [one for d, one in zip(wanted, found.suggested, strict=True) if d not in findings.left_out]
        ),
    )


def _leave_out_outliers(
    spectra: ReadSpectra, detectors: Sequence[int]
) -> tuple[NDArray[np.float64], dict[int, list[tuple[int, int]]]]:
    """Summed spectra (detector, channel) without outlier pixels, and those pixels (y, x) by detector."""
    total, pixels = spectra.total.copy(), dict[int, list[tuple[int, int]]]()
    for d in detectors:
        found = find_outliers(spectra, d)
        if found.spectra:
            total[d] -= found.sum_of(found.spectra)
            pixels[d] = list(found.spectra)
    return total, pixels


def _judge(
    fits: Mapping[int, SpectrumFit],
    spectra: ReadSpectra,
    outliers: Mapping[int, Sequence[tuple[int, int]]],
    config: DetectorsConfig,
) -> tuple[Findings, list[Note]]:
    """Which detectors disagree, how the counts of all scatter, and warnings of both and of outlier pixels."""
    left_out = find_left_out(tuple(fits.values()), config) if len(fits) > 1 else {}
    findings = Findings(outliers=outliers, left_out=left_out)
    ranges = {d: slice(f.first_channel, f.first_channel + len(f.counts)) for d, f in fits.items() if f.status in SOLVED}
    factors, scatter = find_count_factors(spectra, ranges, findings)
    used = [d for d in ranges if d not in left_out]
    if len(fits) > 1 and any(str(d) in factors for d in used):
        factors[SUM] = average_factor(factors, spectra, used)
    texts = [describe_outliers(d, pixels) for d, pixels in outliers.items()]
    texts += [*scatter, *describe_left_out(left_out, config, len(fits), summed=True)]
    return replace(findings, factors=factors), [Note("warning", text) for text in texts]


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
