"""The integrated spectra of a scan: summed over the pixels that can be trusted, fitted, and judged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.errors import FitError
from hpcxrf.fitting.count_scale import carry_count_factor
from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.warm import WarmStart
from hpcxrf.notes import Note
from hpcxrf.pipeline.pixels.count_factors import average_factor, find_count_factors
from hpcxrf.pipeline.pixels.findings import Findings, fits_for
from hpcxrf.pipeline.pixels.flags import full_count, saturated_spectra
from hpcxrf.pipeline.pixels.from_config import basis_of
from hpcxrf.pipeline.pixels.outliers import Outliers, describe_outliers, find_outliers
from hpcxrf.pipeline.prepare.agreement import describe_left_out, find_left_out
from hpcxrf.pipeline.prepare.detectors import DetectorFits, fit_detectors
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.store.spectra import Spectra, SpectraStore

Ranges = Mapping[int, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanSpectra:
    """Summed spectra without pixels that would spoil them."""

    spectra: NDArray[np.float64]
    """(detector, channel)."""
    notes: tuple[Note, ...]
    """Warnings of what was left out and on how the counts scatter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFit:
    """Fits of the integrated spectra of a scan, and what the pixels are fitted with."""

    found: DetectorFits
    fits: dict[str, SpectrumFit]
    """Fits by detector, `sum` among them where it is wanted."""
    bases: dict[str, PixelBasis]
    """Linear models of the pixels of each result that has a solution."""
    findings: Findings


def fit_clean(
    store: SpectraStore, job: DatasetJob, starts: Mapping[int, WarmStart] = MappingProxyType({})
) -> tuple[CleanSpectra, ScanFit]:
    """Sum the spectra without outlier and saturated pixels, and fit them.

    Args:
        store: the scan.
        job: the dataset.
        starts: fits of the same detectors in another scan, by number, at which the searches begin.

    Raises:
        FitError: no detector has counts in the fit range, or none but in saturated pixels.
    """
    whole = np.stack([store.integrated(d) for d in range(store.shape[0])])
    outliers = {d: one for d in range(store.shape[0]) if (one := find_outliers(store, d)).spectra}
    first = whole.copy() if outliers else whole
    for d, one in outliers.items():
        first[d] -= one.sum_of(one.spectra)
    # Which channels matter is known with the calibration, and one outlier may spoil that.
    fitted = fit_scan(first, store, job, Findings(), starts)
    ranges = _ranges(fitted)
    left, flagged = _leave_out(whole, store, outliers, ranges)
    if not any(left[d, within].any() for d, within in ranges.items()):
        raise FitError(
            f"{job.source}: every pixel with counts in the fit range is saturated (the largest count that a channel "
            "holds); narrow the fit range to channels that are not full, or leave the scan out"
        )
    if not np.array_equal(left, first):
        fitted = fit_scan(left, store, job, Findings(), starts)
    findings = Findings(outliers=flagged)
    factors, texts = _find_factors(fitted, store, findings)
    findings = replace(fitted.findings, outliers=flagged, factors=factors)
    disagreeing = describe_left_out(findings.left_out, job.config.detectors, job.shape[0], summed=SUM in job.detectors)
    said = [*(describe_outliers(d, pixels) for d, pixels in flagged.items()), *texts, *disagreeing]
    notes = tuple(Note("warning", text) for text in said)
    fits = {name: carry_count_factor(fit, findings.factor_of(name)) for name, fit in fitted.fits.items()}
    return CleanSpectra(spectra=left, notes=notes), replace(fitted, fits=fits, findings=findings)


def fit_scan(
    spectra: NDArray[np.float64],
    store: SpectraStore,
    job: DatasetJob,
    findings: Findings,
    starts: Mapping[int, WarmStart] = MappingProxyType({}),
) -> ScanFit:
    """Fit every detector, and their sum where asked for; give the basis of each result's pixels.

    Args:
        spectra: (detector, channel).
        store: the scan.
        job: the dataset.
        findings: what is known already; detectors that disagree are added.
        starts: fits of the same detectors in another scan, by number.

    Raises:
        FitError: no detector has counts in the fit range.
    """
    counts = torch.from_numpy(spectra)
    found = fit_detectors(job.config, scan_facts(store, job.source), range(store.shape[0]), counts, starts)
    every = found.fits
    if not any(fit.status in SOLVED for fit in every):
        raise FitError(
            f"{job.source}: {every[0].messages[0]} (all {len(every)} detectors); check the fit range, or "
            "leave the scan out"
        )
    findings = replace(findings, left_out=find_left_out(found.fits, job.config.detectors))
    n_pixels = int(store.measured().sum())
    fits = {str(d): fit for d, fit in enumerate(every)}
    if SUM in job.detectors:
        parts = list(fits_for(SUM, fits, findings).values())
        fits[SUM] = fit_detector_sum(counts, parts, found.problems)
    bases = {
        name: basis_of(name, fits_for(name, fits, findings), found.problems, n_pixels, job.config.pixels)
        for name in job.detectors
        if fits[name].status in SOLVED
    }
    return ScanFit(found=found, fits=fits, bases=bases, findings=findings)


def _ranges(fitted: ScanFit) -> dict[int, slice]:
    """Channels of the fit range by detector."""
    return {
        d: slice(fit.first_channel, fit.first_channel + fit.counts.shape[0])
        for d, fit in enumerate(fitted.found.fits)
        if fit.status in SOLVED
    }


def _leave_out(
    whole: NDArray[np.float64], store: SpectraStore, outliers: Mapping[int, Outliers], ranges: Ranges
) -> tuple[NDArray[np.float64], dict[int, list[tuple[int, int]]]]:
    """Summed spectra without saturated and outlier pixels, and the outlier pixels (y, x) by detector."""
    left = whole - saturated_spectra(store, ranges)
    flagged: dict[int, list[tuple[int, int]]] = {}
    for d, one in outliers.items():
        pixels = one.pixels_in(ranges[d]) if d in ranges else ()
        kept = [pixel for pixel in pixels if not _is_saturated(one.spectra[pixel], store, ranges[d])]
        if kept:
            left[d] -= one.sum_of(kept)
            flagged[d] = kept
    return left, flagged


def _is_saturated(spectrum: NDArray[np.float64], store: Spectra, within: slice) -> bool:
    return bool((spectrum[within] >= full_count(store.dtype)).any())


def _find_factors(fitted: ScanFit, store: SpectraStore, findings: Findings) -> tuple[dict[str, float], list[str]]:
    """Variance over mean of the counts by result where it is not that of raw counts, and sentences on it."""
    ranges = _ranges(fitted)
    factors, texts = find_count_factors(store, ranges, findings)
    used = [d for d in ranges if d not in fitted.findings.left_out]
    if SUM in fitted.fits and any(str(d) in factors for d in used):
        factors[SUM] = average_factor(factors, store, used)
    return factors, texts
