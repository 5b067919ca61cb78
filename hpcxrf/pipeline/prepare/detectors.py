"""The integrated spectra of the detectors of one scan: prepared, fitted, and fitted again with what is missing."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.suggestion import Suggestion, with_elements
from hpcxrf.pipeline.prepare.from_config import Prepared, fit_prepared, prepare, started_at
from hpcxrf.pipeline.prepare.suggestions import suggestions_of
from hpcxrf.pipeline.records import ScanFacts

# What is added changes what is left: look again, but not for ever.
_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFits:
    """Fits of some detectors of one scan, all with the same components."""

    prepared: tuple[Prepared, ...]
    fits: tuple[SpectrumFit, ...]
    suggested: tuple[tuple[Suggestion, ...], ...]
    """By detector, in the same order: not listed, but the residual speaks for it."""
    notes: tuple[str, ...]
    """Choices made, each once."""


def fit_detectors(config: RunConfig, facts: ScanFacts, detectors: Sequence[int], counts: Tensor) -> DetectorFits:
    """Fit the integrated spectrum of each detector.

    Args:
        config: of the run; `fit.auto_elements` adds suggested elements and fits again, for all detectors alike.
        facts: of the scan.
        detectors: which, counted from 0.
        counts: (detector, channel), of all detectors of the scan.

    Raises:
        ConfigError: no elements, calibration or incident energy.
        FitError: elements that do not exist, cannot be excited, or lie outside the fit range.
        InputFileError: an override file cannot be read.
    """
    prepared = [_prepared(config, facts, d, counts) for d in detectors]
    fits = [fit_prepared(counts[d], p) for d, p in zip(detectors, prepared, strict=True)]
    suggested = suggestions_of(config, fits, prepared)
    added: dict[str, float] = {}
    for _ in range(_ROUNDS if config.fit.auto_elements else 0):
        listed = prepared[0].setup.table.component_names
        found = [s for one in suggested for s in one]
        wanted = with_elements(listed, sorted(found, key=lambda s: -s.z))
        wanted = tuple(dict.fromkeys(wanted))
        if wanted == listed:
            break
        added |= {s.name: s.z for s in sorted(found, key=lambda s: s.z) if s.name in wanted}
        sample = dataclasses.replace(config.sample, elements=wanted)
        more = dataclasses.replace(config, sample=sample)
        prepared = [
            started_at(_prepared(more, facts, d, counts), fit.theta)
            if bool(torch.isfinite(fit.amplitude).all())
            else _prepared(more, facts, d, counts)
            for d, fit in zip(detectors, fits, strict=True)
        ]
        fits = [fit_prepared(counts[d], p) for d, p in zip(detectors, prepared, strict=True)]
        suggested = suggestions_of(more, fits, prepared)
    names = ", ".join(f"{name} (z {z:.0f})" for name, z in added.items())
    notes = [f"elements added by suggestion: {names}"] if added else []
    return DetectorFits(
        prepared=tuple(prepared),
        fits=tuple(fits),
        suggested=tuple(suggested),
        notes=tuple(dict.fromkeys([*notes, *(n for p in prepared for n in p.notes)])),
    )


def _prepared(config: RunConfig, facts: ScanFacts, detector: int, counts: Tensor) -> Prepared:
    """A detector without counts needs no start; that it had none in an earlier scan either is no reason to stop."""
    if config.fit.previous is not None and float(counts[detector].sum()) <= 0.0:
        fit = dataclasses.replace(config.fit, previous=None, calibration="none")
        config = dataclasses.replace(config, fit=fit)
    return prepare(config, facts, detector)
