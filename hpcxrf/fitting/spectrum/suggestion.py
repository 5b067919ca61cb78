"""A suggested component with its evidence, and the combination of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

THRESHOLD: Final = 6.0
"""Least z of a suggestion in spectra of fewer counts than a model's flaws show in."""
_MANY_COUNTS: Final = 3e6
_PER_DECADE: Final = 3.0
"""By how much more it is for ten times the counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceLine:
    """A line, or lines that the detector does not separate, of a suggested component."""

    energy_kev: float
    share: float
    """Share of the component's counts."""
    z: float
    """Its own excess in the residual, in standard deviations."""
    overlaps: str
    """Component of the fit that lies most on it; empty where none does."""
    overlap: float
    """Correlation of the two shapes, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A component that is not listed but present in the residual, with its evidence."""

    name: str
    """Name as in a list of elements: "Fe", "La_L", "Pb_M", or a pile-up such as "Ca_Ca"."""
    z: float
    counts: float
    """Recorded counts over the full spectrum, as an amplitude of the fit."""
    sigma: float
    detection_limit: float
    """Currie, 95 %."""
    surviving: float
    """Share of its shape, in standard deviations, that nothing else in the fit can imitate: 0 to 1."""
    lines: tuple[EvidenceLine, ...]
    """Strongest evidence first."""


def threshold_at(counts: float) -> float:
    """Least z of a suggestion in a spectrum of so many counts.

    Counting noise is normal, flaws of a model are not: a line that the tables have a fifth too low outgrows its usual
    error as the counts grow, and 3 of 100 spectra of 1e7 counts looked as if they held another element at z = 6 to 10.

    Args:
        counts: in the fit range.
    """
    return THRESHOLD + _PER_DECADE * max(math.log10(max(counts, 1.0) / _MANY_COUNTS), 0.0)


def add_elements(
    listed: Sequence[str], suggestions: Sequence[Suggestion], *, threshold: float = THRESHOLD
) -> tuple[str, ...]:
    """The list of elements with the suggested ones that reach the threshold; the same list if none does."""
    return (*listed, *(s.name for s in suggestions if s.z >= threshold and s.name not in listed))


def combine_detectors(by_detector: Sequence[Sequence[Suggestion]]) -> tuple[Suggestion, ...]:
    """Combine the suggestions of one scan's detectors: counts add up, uncertainties and limits in quadrature.

    A component counts only where it was suggested; its lines are those of the detector that is surest.
    """
    groups: dict[str, list[Suggestion]] = {}
    for suggestion in (s for suggestions in by_detector for s in suggestions):
        groups.setdefault(suggestion.name, []).append(suggestion)
    return tuple(sorted(map(_sum_detectors, groups.values()), key=lambda s: -s.z))


def _sum_detectors(same: Sequence[Suggestion]) -> Suggestion:
    surest = max(same, key=lambda s: s.z)
    if len(same) == 1:
        return surest
    counts, sigma = sum(s.counts for s in same), math.hypot(*(s.sigma for s in same))
    limit = math.hypot(*(s.detection_limit for s in same))
    return replace(surest, counts=counts, sigma=sigma, z=counts / sigma, detection_limit=limit)
