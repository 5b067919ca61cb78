"""Facts of all datasets of a run, gathered one by one, and what they say together."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.verdict import Verdict
from hpcxrf.results.report.archive.drift import Drift, find_drift
from hpcxrf.results.report.archive.facts import FitFacts

LEAST_DATASETS: Final = 5
"""Datasets of a run below which nothing is said of them together."""
DEAD_TIME: Final = "dead_time"
"""Name of the series of the dead time, in percent."""
_BESIDE: Final = 1
"""Datasets by which steps of several parameters may be apart and still be one change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePoint:
    """One dataset of the archive, as its trends need it."""

    name: str
    link: str
    """Address of its page relative to the report; empty where it has none."""
    date: str | None
    """When it was measured, ISO 8601; None: its file does not say."""
    kind: str
    """Format and number of channels: detectors of the same name in different kinds are different ones."""
    fits: tuple[FitFacts, ...]
    suggested: tuple[str, ...]
    """Components that are not listed but present in the residual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One parameter of one detector over the datasets."""

    detector: str
    parameter: str
    unit: str
    at: NDArray[np.int64]
    """(point,) places of its datasets in their order."""
    value: NDArray[np.float64]
    """(point,)."""
    sigma: NDArray[np.float64]
    """(point,), NaN where not known."""
    drift: Drift


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedParameter:
    """How far a parameter moved."""

    name: str
    unit: str
    size: float
    in_sigma: float
    """`size` over its standard error; of an outlier its distance over the noise of the series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A place where parameters of a detector change together from one dataset to the next, and stay."""

    detector: str
    before: ArchivePoint
    after: ArchivePoint
    parameters: tuple[ShiftedParameter, ...]
    """Those that moved most, in sigma, first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A dataset of which parameters of a detector are far from those of its neighbours."""

    detector: str
    dataset: ArchivePoint
    parameters: tuple[ShiftedParameter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingElement:
    """A component that fits suggest and the lists of elements lack."""

    name: str
    datasets: int
    """In how many datasets."""
    examples: tuple[ArchivePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A distribution over the fits of all detectors, by verdict."""

    title: str
    word: str
    """What is counted along the axis, with its unit."""
    is_log: bool
    edges: tuple[float, ...]
    """(bin + 1,)."""
    counts: Mapping[str, tuple[int, ...]]
    """(bin,) by verdict in words."""
    median: float
    n_missing: int
    """Fits of which the figure is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """What all datasets say together."""

    points: tuple[ArchivePoint, ...]
    """In the order of their dates where all have one, else in that of the run."""
    is_by_date: bool
    series: tuple[Series, ...]
    changes: tuple[Change, ...]
    outliers: tuple[Outlier, ...]
    missing: tuple[MissingElement, ...]
    histograms: tuple[Histogram, ...]


def gather_trends(points: Sequence[ArchivePoint]) -> Trends | None:
    """Find what the datasets of a run say together.

    Args:
        points: datasets with results, in the order of the run.

    Returns:
        None for fewer than `LEAST_DATASETS`.
    """
    if len(points) < LEAST_DATASETS:
        return None
    is_by_date = all(point.date for point in points)
    ordered = tuple(sorted(points, key=lambda point: point.date or "")) if is_by_date else tuple(points)
    series = _build_series(ordered)
    return Trends(
        points=ordered,
        is_by_date=is_by_date,
        series=series,
        changes=_join_steps(series, ordered),
        outliers=_join_outliers(series, ordered),
        missing=_count_suggestions(ordered),
        histograms=_build_histograms([fit for point in ordered for fit in point.fits]),
    )


@dataclass(slots=True)
class _Column:
    unit: str
    at: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    sigma: list[float] = field(default_factory=list)


def _build_series(points: Sequence[ArchivePoint]) -> tuple[Series, ...]:
    """Series of the free parameters and of the dead time, of fits that can be trusted."""
    several = len({point.kind for point in points}) > 1
    columns: dict[tuple[str, str], _Column] = {}
    for place, point in enumerate(points):
        for fit in point.fits:
            detector = f"{fit.detector} ({point.kind})" if several else fit.detector
            measured = {} if fit.verdict is Verdict.WRONG else dict(fit.theta)
            if math.isfinite(fit.dead_time):
                measured[DEAD_TIME] = (100.0 * fit.dead_time, math.nan)
            units = {**fit.units, DEAD_TIME: "%"}
            for name, (value, sigma) in measured.items():
                column = columns.setdefault((name, detector), _Column(unit=units[name]))
                column.at.append(place)
                column.value.append(value)
                column.sigma.append(sigma)
    return tuple(
        _judge_series(detector, name, column) for (name, detector), column in columns.items() if len(column.at) > 1
    )


def _judge_series(detector: str, parameter: str, column: _Column) -> Series:
    value, sigma = np.array(column.value), np.array(column.sigma)
    return Series(
        detector=detector,
        parameter=parameter,
        unit=column.unit,
        at=np.array(column.at),
        value=value,
        sigma=sigma,
        drift=find_drift(value, sigma),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """A step of one parameter, between two places in the order of the datasets."""

    before: int
    after: int
    parameter: ShiftedParameter


def _join_steps(series: Sequence[Series], points: Sequence[ArchivePoint]) -> tuple[Change, ...]:
    """Steps of all parameters of a detector at the same place as one change each."""
    by_detector: dict[str, list[_Moved]] = defaultdict(list)
    for one in series:
        # A dead time says how bright the samples were, not which detector it was.
        for step in one.drift.steps if one.parameter != DEAD_TIME else ():
            size, sigma = step.size, step.sigma
            moved = ShiftedParameter(name=one.parameter, unit=one.unit, size=size, in_sigma=size / sigma)
            before, after = int(one.at[step.position - 1]), int(one.at[step.position])
            by_detector[one.detector].append(_Moved(before=before, after=after, parameter=moved))
    changes = []
    for detector, steps in by_detector.items():
        for group in _group_neighbours(sorted(steps, key=lambda one: one.after)):
            parameters = _sort_shifts([one.parameter for one in group])
            clearest = next(one for one in group if one.parameter is parameters[0])
            ends = points[clearest.before], points[clearest.after]
            change = Change(detector=detector, before=ends[0], after=ends[1], parameters=parameters)
            changes.append((clearest.after, change))
    return tuple(change for _, change in sorted(changes, key=lambda one: one[0]))


def _group_neighbours(steps: Sequence[_Moved]) -> list[list[_Moved]]:
    """Runs of steps, sorted by place, in which each is beside the one before it."""
    groups: list[list[_Moved]] = []
    for step in steps:
        if groups and step.after - groups[-1][-1].after <= _BESIDE:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _join_outliers(series: Sequence[Series], points: Sequence[ArchivePoint]) -> tuple[Outlier, ...]:
    found: dict[tuple[int, str], list[ShiftedParameter]] = defaultdict(list)
    for one in series:
        for i in np.flatnonzero(one.drift.is_outlier) if one.parameter != DEAD_TIME else ():
            size = float(one.drift.away[i])
            moved = ShiftedParameter(name=one.parameter, unit=one.unit, size=size, in_sigma=size / one.drift.noise)
            found[int(one.at[i]), one.detector].append(moved)
    outliers = [
        Outlier(detector=detector, dataset=points[place], parameters=_sort_shifts(moved))
        for (place, detector), moved in found.items()
    ]
    return tuple(sorted(outliers, key=lambda one: -abs(one.parameters[0].in_sigma)))


def _sort_shifts(moved: Sequence[ShiftedParameter]) -> tuple[ShiftedParameter, ...]:
    return tuple(sorted(moved, key=lambda one: -abs(one.in_sigma)))


def _count_suggestions(points: Sequence[ArchivePoint]) -> tuple[MissingElement, ...]:
    counted = Counter(name for point in points for name in set(point.suggested))
    return tuple(
        MissingElement(
            name=name, datasets=number, examples=tuple(point for point in points if name in point.suggested)[:3]
        )
        for name, number in counted.most_common()
    )


def _build_histograms(fits: Sequence[FitFacts]) -> tuple[Histogram, ...]:
    """Distributions of the figures of merit and of the dead time; one without values is left out."""
    verdicts = [fit.verdict for fit in fits]
    left = np.array([1.0 - fit.r2 for fit in fits])
    deviance = np.array([fit.deviance for fit in fits])
    dead_percent = 100.0 * np.array([fit.dead_time for fit in fits])
    built = (
        _build_histogram("Share of the variance that the fit leaves", "1 − R²", left, verdicts, is_log=True),
        _build_histogram("Deviance", "Poisson deviance per degree of freedom", deviance, verdicts, is_log=True),
        _build_histogram("Dead time", "dead time (%)", dead_percent, verdicts, is_log=False),
    )
    return tuple(one for one in built if one is not None)


def _build_histogram(
    title: str, word: str, values: NDArray[np.float64], verdicts: Sequence[Verdict], *, is_log: bool
) -> Histogram | None:
    known = np.isfinite(values) & ((values > 0) | (not is_log))
    if not known.any():
        return None
    scaled = np.log10(values[known]) if is_log else values[known]
    low, high = float(scaled.min()), float(scaled.max())
    n_bins = min(40, max(8, round(2.0 * math.sqrt(known.sum()))))
    edges = np.linspace(low, high if high > low else low + 1.0, n_bins + 1)
    which = np.array([int(verdict) for verdict in verdicts])[known]
    counts = {
        verdict.word: tuple(np.histogram(scaled[which == verdict], edges)[0].tolist())
        for verdict in Verdict
        if (which == verdict).any()
    }
    return Histogram(
        title=title,
        word=word,
        is_log=is_log,
        edges=tuple((10.0**edges if is_log else edges).tolist()),
        counts=counts,
        median=float(np.median(values[known])),
        n_missing=int((~known).sum()),
    )
