"""What is known of one dataset on both sides: small values that go to a line of text and come back."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from hpcxrf.archive.diff.sides import MatchedBy
from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict

Outcome = Literal["better", "worse", "mixed", "same"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("worse", "mixed", "better", "same")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From where on two numbers are said to differ."""

    deviance: float = 0.01
    """Relative change of the deviance of an integrated spectrum, 0 or more."""
    sigma: float = 1.0
    """Change of theta, amplitudes and maps, in standard uncertainties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value of both sides: a parameter, or an amplitude of the integrated spectrum."""

    name: str
    unit: str
    first: float
    first_sigma: float
    second: float
    second_sigma: float

    @property
    def in_sigma(self) -> float:
        """Difference in units of the larger of both uncertainties; NaN without any: the value was held.

        Both fits saw the same counts, so that the uncertainties do not add up.
        """
        sigmas = [s for s in (self.first_sigma, self.second_sigma) if math.isfinite(s) and s > 0.0]
        return abs(self.second - self.first) / max(sigmas) if sigmas else math.nan

    @property
    def is_moved(self) -> bool:
        """Whether a value that has no uncertainty is another one."""
        return not math.isclose(self.first, self.second, rel_tol=1e-12, abs_tol=0.0) and math.isnan(self.in_sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapChange:
    """The maps of one component of both sides; counts."""

    component: str
    pixels: int
    """Pixels that both have fitted."""
    first_counts: float
    second_counts: float
    ratio: float
    """Second over first, of the sums; NaN where the first is not above 0."""
    correlation: float
    mean_difference: float
    """Counts a pixel."""
    in_sigma: float
    """Root mean square of difference / sigma."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorChange:
    """One detector, or the sum, of both sides."""

    detector: str
    r2: tuple[float, float]
    r2_expected: tuple[float, float]
    deviance: tuple[float, float]
    """Poisson deviance per degree of freedom of the integrated spectrum."""
    verdict: tuple[int, int]
    status: tuple[int, int]
    theta: tuple[Change, ...] = ()
    amplitudes: tuple[Change, ...] = ()
    maps: tuple[MapChange, ...] = ()
    pixels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Pixels by outcome of their fit, outcomes that occur."""
    pixels_changed: int = 0
    """Pixels whose fit has another outcome."""

    def verdict_words(self) -> tuple[str, str]:
        """Both verdicts in words."""
        first, second = (Verdict(code).word for code in self.verdict)
        return first, second

    def status_words(self) -> tuple[str, str]:
        """Both outcomes of the fit in words."""
        first, second = (FitStatus(code).name.lower().replace("_", " ") for code in self.status)
        return first, second


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetChange:
    """One dataset of both sides, or of one."""

    name: str
    """Name for people."""
    first: str | None
    second: str | None
    matched_by: MatchedBy
    first_reason: str = ""
    """Why the first side has no results of it."""
    second_reason: str = ""
    fault: str = ""
    """Why its results could not be compared."""
    outcome: Outcome = "same"
    why: tuple[str, ...] = ()
    """What the outcome rests on."""
    detectors: tuple[DetectorChange, ...] = ()
    only_first: tuple[str, ...] = ()
    """Components, detectors and groups that the second side lacks."""
    only_second: tuple[str, ...] = ()
    versions: tuple[tuple[str, str, str], ...] = ()
    """Version, processor or constant, and both values."""
    configuration: tuple[tuple[str, str, str], ...] = ()
    """Option, and both values."""
    largest: float = 0.0
    """Largest change of a theta, an amplitude or a map, in sigma."""
    largest_of: str = ""

    @property
    def is_compared(self) -> bool:
        """Whether both sides have results, and they could be read."""
        return bool(self.first and self.second) and not (self.first_reason or self.second_reason or self.fault)

    @property
    def is_failed_twice(self) -> bool:
        """Whether neither side has results of it: nothing of it can have changed."""
        return bool(self.first_reason and self.second_reason)

    @property
    def worst(self) -> DetectorChange | None:
        """The detector that fits worst on the second side by verdict, then by R2; None without any."""
        return max(self.detectors, key=lambda one: (one.verdict[1], -_low_if_unknown(one.r2[1])), default=None)

    def is_changed(self, limits: Limits) -> bool:
        """Whether anything differs by more than the limits, or only one side has it."""
        if self.is_failed_twice:
            return False
        moved = any(one.is_moved for detector in self.detectors for one in detector.theta)
        lacking = self.only_first or self.only_second
        return bool(not self.is_compared or self.outcome != "same" or self.largest > limits.sigma or moved or lacking)


def _low_if_unknown(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def pack_change(change: DatasetChange) -> dict[str, Any]:
    """JSON values of a dataset; `worst` names the detector that fits worst on the second side."""
    values = asdict(change)
    values["worst"] = None if change.worst is None else change.worst.detector
    for detector, plain in zip(change.detectors, values["detectors"], strict=True):
        plain["verdict"], plain["status"] = detector.verdict_words(), detector.status_words()
        for one, flat in zip((*detector.theta, *detector.amplitudes), _rows_of(plain), strict=True):
            flat["in_sigma"] = one.in_sigma
    return values


def _rows_of(detector: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*detector["theta"], *detector["amplitudes"]]
