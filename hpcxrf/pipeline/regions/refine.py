"""The summed spectra of one region, fitted again from the scan's theta: theta and amplitudes together."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.count_scale import carry_count_factor
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.solve import refit
from hpcxrf.fitting.spectrum.suggestion import Suggestion, combine_detectors
from hpcxrf.physics.model import SCATTER
from hpcxrf.pipeline.pixels.findings import Findings
from hpcxrf.pipeline.prepare.agreement import without_detectors
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.prepare.suggestions import suggest_components
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
    elements = tuple(name for name in components if name not in SCATTER)
    return dataclasses.replace(
        config,
        sample=dataclasses.replace(config.sample, elements=elements),
        fit=dataclasses.replace(config.fit, method="separable", auto_elements=False),
    )


def prepare_refinement(
    config: RunConfig, facts: ScanFacts, theta: ThetaByDetector, model_error: Mapping[str, float | None] | None = None
) -> list[FitProblem]:
    """What the fits of all detectors are given, the same for every region.

    Args:
        config: of `refinement_config`.
        facts: of the scan.
        theta: by detector, where the scan's own fit ended; None where that has no solution.
        model_error: by detector, the size of the model's flaws that the scan's own fit showed: a region has fewer
            counts to show them with. None, or a detector without: each region's own residual has to tell.
    """
    size = model_error or {}
    return [
        dataclasses.replace(_problem(config, facts, d, theta[str(d)]), model_error=size.get(str(d)))
        for d in range(facts.n_detectors)
    ]


def refine_region(
    counts: Tensor,
    problems: Sequence[FitProblem],
    config: RunConfig,
    detectors: Sequence[str],
    findings: Findings | None = None,
) -> RefinedRegion:
    """Fit the region's spectra, every detector's by itself; their raw sum with each one's own new theta.

    Args:
        counts: (detector, channel) raw counts summed over the region's pixels.
        problems: of `prepare_refinement`, one a detector.
        config: of `refinement_config`.
        detectors: entries of the results' detector axis.
        findings: detectors that the sum is made without, and how their counts scatter.
    """
    findings = findings or Findings()
    fits = [refit(one, problem) for one, problem in zip(counts, problems, strict=True)]
    suggested = suggest_components(config.fit, fits, problems)
    by_name = {str(d): fit for d, fit in enumerate(fits)}
    by_name_suggested = {str(d): found for d, found in enumerate(suggested)}
    if SUM in detectors:
        parts = without_detectors(fits, findings.left_out)
        solved = any(fit.status in SOLVED for fit in parts)
        by_name[SUM] = fit_detector_sum(counts, parts, problems) if solved else parts[0]
        by_name_suggested[SUM] = combine_detectors([s for d, s in enumerate(suggested) if d not in findings.left_out])
    by_name = {name: carry_count_factor(fit, findings.factor_of(name)) for name, fit in by_name.items()}
    return RefinedRegion(fits=by_name, suggested=by_name_suggested)


def _problem(config: RunConfig, facts: ScanFacts, detector: int, theta: Mapping[str, float] | None) -> FitProblem:
    if theta is None:
        # Nothing to start from; that an earlier scan had nothing either is no reason to stop.
        fit = dataclasses.replace(config.fit, previous=None, calibration="none")
        return prepare(dataclasses.replace(config, fit=fit), facts, detector).problem
    problem = prepare(config, facts, detector).problem
    start = torch.tensor([theta[p.name] for p in problem.parameters], dtype=torch.float64)
    return start_from(problem, start)
