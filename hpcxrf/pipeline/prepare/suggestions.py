"""Suggested components of a scan's detectors, and how they are kept."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.identify import suggest
from hpcxrf.fitting.spectrum.suggestion import Suggestion
from hpcxrf.pipeline.prepare.from_config import Prepared


def suggestions_of(
    config: RunConfig, fits: Sequence[SpectrumFit], prepared: Sequence[Prepared]
) -> list[tuple[Suggestion, ...]]:
    """What the residual of each detector speaks for, in the order of the detectors.

    Args:
        config: `fit.suggest` False asks for nothing.
        fits: by detector; one without solution suggests nothing.
        prepared: by detector.
    """
    return [
        suggest(fit, dataclasses.replace(asked.setup, table=fit.table), efficiency=asked.windows)
        if config.fit.suggest and fit.status in SOLVED
        else ()
        for fit, asked in zip(fits, prepared, strict=True)
    ]


def as_records(suggestions: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Suggestions as JSON values."""
    return [dataclasses.asdict(s) for s in suggestions]
