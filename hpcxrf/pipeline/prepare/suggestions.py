"""Suggested components of a scan's detectors, and how they are kept."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hpcxrf.config.fit import FitConfig
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.identify import suggest
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.suggestion import Suggestion


def suggest_components(
    config: FitConfig, fits: Sequence[SpectrumFit], problems: Sequence[FitProblem]
) -> list[tuple[Suggestion, ...]]:
    """Find what the residual of each detector speaks for, in the order of the detectors.

    Args:
        config: section `fit` of the run file; `suggest` False asks for nothing.
        fits: one a detector; one without solution suggests nothing.
        problems: one a detector.
    """
    return [
        suggest(fit, dataclasses.replace(problem, table=fit.table), efficiency=problem.detector)
        if config.suggest and fit.status in SOLVED
        else ()
        for fit, problem in zip(fits, problems, strict=True)
    ]


def as_records(suggestions: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Restate suggestions as JSON values."""
    return [dataclasses.asdict(s) for s in suggestions]
