"""The summed spectra of one region, fitted again from the scan's theta: theta and amplitudes together."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.suggestion import Suggestion, combined
from hpcxrf.physics.model import COMPTON, ELASTIC
from hpcxrf.physics.parameters import pack
from hpcxrf.pipeline.prepare.from_config import Prepared, fit_prepared, prepare, started_at
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.prepare.suggestions import suggestions_of
from hpcxrf.pipeline.records import ScanFacts

ThetaByDetector = Mapping[str, Mapping[str, float] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinedRegion:
    """Fits of one region."""

    fits: dict[str, SpectrumFit]
    """By detector, `sum` among them where it was asked for."""
    suggested: dict[str, tuple[Suggestion, ...]]
    """By detector: not listed, but the residual of the region speaks for it."""


def refinement_config(config: RunConfig, components: Sequence[str]) -> RunConfig:
    """The run's configuration for a region: the separable engine, the components that the scan was fitted with.

    What the residual suggests is shown and not added, so that all regions of a scan have the same components.

    Args:
        config: of the run.
        components: of the scan's fit, scatter included.
    """
    elements = tuple(name for name in components if name not in {ELASTIC, COMPTON})
    return dataclasses.replace(
        config,
        sample=dataclasses.replace(config.sample, elements=elements),
        fit=dataclasses.replace(config.fit, method="separable", auto_elements=False),
    )


def prepare_refinement(config: RunConfig, facts: ScanFacts, theta: ThetaByDetector) -> list[Prepared]:
    """What the fits of all detectors are given, the same for every region.

    Args:
        config: of `refinement_config`.
        facts: of the scan.
        theta: by detector, where the scan's own fit ended; None where that has no solution.
    """
    return [_prepared(config, facts, d, theta[str(d)]) for d in range(facts.n_detectors)]


def refine_region(
    counts: Tensor, prepared: Sequence[Prepared], config: RunConfig, detectors: Sequence[str]
) -> RefinedRegion:
    """Fit the region's spectra, every detector's by itself; their raw sum with each one's own new theta.

    Args:
        counts: (detector, channel) raw counts summed over the region's pixels.
        prepared: of `prepare_refinement`, one a detector.
        config: of `refinement_config`.
        detectors: entries of the results' detector axis.
    """
    fits = [_fit(one, asked) for one, asked in zip(counts, prepared, strict=True)]
    suggested = suggestions_of(config, fits, prepared)
    by_name = {str(d): fit for d, fit in enumerate(fits)}
    by_name_suggested = {str(d): found for d, found in enumerate(suggested)}
    if SUM in detectors:
        solved = any(fit.status in SOLVED for fit in fits)
        setups = [p.setup for p in prepared]
        by_name[SUM] = fit_detector_sum(counts, fits, setups) if solved else fits[0]
        by_name_suggested[SUM] = combined(suggested)
    return RefinedRegion(fits=by_name, suggested=by_name_suggested)


def _prepared(config: RunConfig, facts: ScanFacts, detector: int, theta: Mapping[str, float] | None) -> Prepared:
    if theta is None:
        # Nothing to start from; that an earlier scan had nothing either is no reason to stop.
        fit = dataclasses.replace(config.fit, previous=None, calibration="none")
        return prepare(dataclasses.replace(config, fit=fit), facts, detector)
    prepared = prepare(config, facts, detector)
    names = [p.name for p in prepared.setup.parameters]
    start = torch.tensor([theta[name] for name in names], dtype=torch.float64)
    return started_at(prepared, start)


def _fit(counts: Tensor, prepared: Prepared) -> SpectrumFit:
    if prepared.from_nothing:
        return fit_prepared(counts, prepared)
    start = pack(prepared.setup.parameters)[None]
    fit = fit_spectrum(counts, prepared.setup, starts=start)
    if fit.status in SOLVED:
        return fit
    return dataclasses.replace(fit, theta=torch.full_like(fit.theta, torch.nan))
