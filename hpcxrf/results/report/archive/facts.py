"""What a report keeps of the fits of one dataset for its trends: a few numbers, JSON in the record of a dataset."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcxrf.fitting.verdict import Verdict

_DIGITS = 9
"""Significant digits that are kept: an energy axis is known to some 1e-6 of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitFacts:
    """The integrated fit of one detector of one dataset."""

    detector: str
    theta: Mapping[str, tuple[float, float]]
    """Value and standard error of every free parameter; NaN for the error of one at a bound."""
    units: Mapping[str, str]
    """Units of the same."""
    r2: float
    r2_expected: float
    deviance: float
    """Poisson deviance per degree of freedom."""
    verdict: Verdict
    dead_time: float
    """1 - live time / real time over the whole scan, 0 to 1; NaN where the file does not say."""


def pack_fit_facts(facts: Sequence[FitFacts]) -> list[dict[str, Any]]:
    """JSON values of the fits of a dataset, without NaN."""
    return [
        {
            "detector": one.detector,
            "theta": {name: [_pack(value), _pack(sigma)] for name, (value, sigma) in one.theta.items()},
            "units": dict(one.units),
            "verdict": int(one.verdict),
        }
        | {name: _pack(getattr(one, name)) for name in ("r2", "r2_expected", "deviance", "dead_time")}
        for one in facts
    ]


def unpack_fit_facts(values: Sequence[Mapping[str, Any]]) -> tuple[FitFacts, ...]:
    """Read what `pack_fit_facts` wrote."""
    return tuple(
        FitFacts(
            detector=str(one["detector"]),
            theta={name: (_unpack(value), _unpack(sigma)) for name, (value, sigma) in one["theta"].items()},
            units=dict(one["units"]),
            verdict=Verdict(one["verdict"]),
            **{name: _unpack(one[name]) for name in ("r2", "r2_expected", "deviance", "dead_time")},
        )
        for one in values
    )


def _pack(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _unpack(value: float | None) -> float:
    return math.nan if value is None else value
