"""Tables of a benchmark: distributions, methods in pairs, errors against the truth. Pure functions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.studies.arms import ARMS

FloatArray = NDArray[np.float64]

EQUAL_R2: Final = 1e-4
"""Two fits whose R2 differ by no more are equal."""
OURS: Final = ("separable", "product")
_STRONG_SHARE: Final = 0.02
_MIDDLE_SHARE: Final = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """R2 and seconds of one method in one task. Figures of R2 are over the fits that have one."""

    task: str
    method: str
    n: int
    """Number of fits."""
    failures: int
    """Number of fits without R2."""
    mean: float
    median: float
    sd: float
    """Standard deviation of the sample, with n - 1."""
    q05: float
    q25: float
    q75: float
    q95: float
    above_080: float
    """Share of all fits, a failure being below; so the two next."""
    above_090: float
    above_099: float
    excess_median: float
    """Median of R2 - r2_expected: 0 where only counting noise is left."""
    excess_q05: float
    cpu_median_s: float
    cpu_q95_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One of our methods against another, over the datasets of both."""

    task: str
    method: str
    other: str
    n: int
    better_or_equal: float
    """Share in which R2 is better or within 1e-4; an own failure is neither, the other's is better."""
    cpu_ratio: float
    """Median over the datasets of the other's CPU seconds divided by ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplitudeError:
    """Relative errors (fitted / true - 1) of the amplitudes of one strength class."""

    task: str
    method: str
    strength: str
    """`strong` above 2 % of the counts of the spectrum, `middle` 0.2 to 2 %, `weak` below."""
    n: int
    """Components in all datasets."""
    median: float
    mean: float
    q05: float
    q95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationError:
    """Errors of the energy axis at one end of the fit range."""

    task: str
    method: str
    end: str
    n: int
    median_abs_kev: float
    q95_abs_kev: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStep:
    """`separable` with part of its search, over the datasets that all parts fitted."""

    task: str
    method: str
    n: int
    as_good: float
    """Share in which R2 is that of the whole search within 1e-4, or better; a failure is neither."""
    median: float
    q05: float
    lowest: float
    above_099: float
    cpu_median_s: float
    cpu_mean_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """All tables of a benchmark."""

    distributions: tuple[Distribution, ...]
    shared: tuple[Distribution, ...]
    """Of the datasets that all of them fitted: every method on one range and one background, `product` beside it."""
    ablation: tuple[SearchStep, ...]
    """Empty without a shorter search."""
    pairs: tuple[Pair, ...]
    amplitudes: tuple[AmplitudeError, ...]
    """Empty without a truth; so the next."""
    calibrations: tuple[CalibrationError, ...]


def build_tables(data: xr.Dataset) -> Tables:
    """All tables of what `hpcxrf.studies.benchmark.statistics.gather` gave."""
    cells = list(_list_cells(data))
    return Tables(
        distributions=tuple(summarise_distribution(data, t, m) for t, m in cells),
        shared=tuple(row for task in dict.fromkeys(t for t, _ in cells) for row in compare_shared(data, task)),
        ablation=tuple(row for task in dict.fromkeys(t for t, _ in cells) for row in list_search_steps(data, task)),
        pairs=tuple(
            compare_pair(data, task, ours, other)
            for number, ours in enumerate(OURS)
            for task, other in cells
            if (task, ours) in cells and other not in OURS[: number + 1] and not ARMS[other].is_ablation
        ),
        amplitudes=tuple(a for t, m in cells for a in amplitude_errors(data, t, m)),
        calibrations=tuple(c for t, m in cells for c in calibration_errors(data, t, m)),
    )


def summarise_distribution(data: xr.Dataset, task: str, method: str) -> Distribution:
    """R2 and seconds of one method in one task."""
    requested = _mask_requested(data, task, method)
    every = _select_values(data, "r2", task, method)[requested]
    r2 = every[np.isfinite(every)]
    excess = every - _select_values(data, "r2_expected", task, method)[requested]
    q05, q25, median, q75, q95 = _quantiles(r2, (0.05, 0.25, 0.5, 0.75, 0.95))
    excess_q05, excess_median = _quantiles(excess, (0.05, 0.5))
    cpu_median, cpu_q95 = _quantiles(_select_values(data, "cpu_s", task, method)[requested], (0.5, 0.95))
    above = [float((r2 > limit).sum() / max(every.size, 1)) for limit in (0.8, 0.9, 0.99)]
    return Distribution(
        task=task,
        method=method,
        n=every.size,
        failures=every.size - r2.size,
        mean=float(r2.mean()) if r2.size else np.nan,
        median=median,
        sd=float(r2.std(ddof=1)) if r2.size > 1 else np.nan,
        q05=q05,
        q25=q25,
        q75=q75,
        q95=q95,
        above_080=above[0],
        above_090=above[1],
        above_099=above[2],
        excess_median=excess_median,
        excess_q05=excess_q05,
        cpu_median_s=cpu_median,
        cpu_q95_s=cpu_q95,
    )


def compare_shared(data: xr.Dataset, task: str) -> list[Distribution]:
    """Every method that has the shared range and background, and `product` beside them, on the same datasets."""
    arms = [m for t, m in _list_cells(data) if t == task and (ARMS[m].shared or m == "product")]
    arms = [m for m in arms if not ARMS[m].is_ablation]
    if not any(ARMS[m].shared for m in arms):
        return []
    common = _select_common(data, task, arms)
    return [summarise_distribution(common, task, m) for m in sorted(arms, key=lambda m: not ARMS[m].shared)]


def list_search_steps(data: xr.Dataset, task: str) -> list[SearchStep]:
    """What each part of the search of `separable` is for; none where there are no parts beside the whole."""
    arms = [m for t, m in _list_cells(data) if t == task and ARMS[m].method == "separable"]
    if "separable" not in arms or len(arms) == 1:
        return []
    common = _select_common(data, task, arms)
    whole = _select_values(common, "r2", task, "separable")
    whole = np.where(np.isfinite(whole), whole, -np.inf)
    rows = []
    for arm in (name for name in ARMS if name in arms):
        r2, found = _select_values(common, "r2", task, arm), summarise_distribution(common, task, arm)
        as_good = np.isfinite(r2) & (r2 >= whole - EQUAL_R2)
        cpu_s = _select_values(common, "cpu_s", task, arm)
        row = SearchStep(
            task=task,
            method=arm,
            n=found.n,
            as_good=float(as_good.mean()) if as_good.size else np.nan,
            median=found.median,
            q05=found.q05,
            lowest=_quantiles(r2, (0.0,))[0],
            above_099=found.above_099,
            cpu_median_s=found.cpu_median_s,
            cpu_mean_s=float(np.nanmean(cpu_s)) if np.isfinite(cpu_s).any() else np.nan,
        )
        rows.append(row)
    return rows


def _select_common(data: xr.Dataset, task: str, arms: list[str]) -> xr.Dataset:
    """The datasets that all of these arms were to fit."""
    requested = np.logical_and.reduce([_mask_requested(data, task, arm) for arm in arms])
    return data.isel(dataset=requested)


def compare_pair(data: xr.Dataset, task: str, method: str, other: str) -> Pair:
    """One method against another."""
    both = _mask_requested(data, task, method) & _mask_requested(data, task, other)
    ours, theirs = (_select_values(data, "r2", task, name)[both] for name in (method, other))
    # A failure is worse than any fit; one of ours is never better or equal.
    theirs = np.where(np.isfinite(theirs), theirs, -np.inf)
    wins = np.isfinite(ours) & (ours >= theirs - EQUAL_R2)
    seconds = [_select_values(data, "cpu_s", task, name)[both] for name in (method, other)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = seconds[1] / seconds[0]
    return Pair(
        task=task,
        method=method,
        other=other,
        n=int(both.sum()),
        better_or_equal=float(wins.mean()) if wins.size else np.nan,
        cpu_ratio=_quantiles(ratio, (0.5,))[0],
    )


def amplitude_errors(data: xr.Dataset, task: str, method: str) -> list[AmplitudeError]:
    """Relative errors by strength class; none without a truth."""
    true = _select_truth(data, task)
    share = true / data["counts"].sel(task=task).values[:, None]
    error = data["amplitude"].sel({"task": task, "method": method}).values / true - 1.0
    classes = {
        "strong": share > _STRONG_SHARE,
        "middle": (share <= _STRONG_SHARE) & (share >= _MIDDLE_SHARE),
        "weak": share < _MIDDLE_SHARE,
    }
    rows = []
    for strength, inside in classes.items():
        values = error[inside & np.isfinite(error)]
        q05, median, q95 = _quantiles(values, (0.05, 0.5, 0.95))
        mean = float(values.mean()) if values.size else np.nan
        row = AmplitudeError(
            task=task, method=method, strength=strength, n=values.size, median=median, mean=mean, q05=q05, q95=q95
        )
        rows.append(row)
    return rows if any(row.n for row in rows) else []


def calibration_errors(data: xr.Dataset, task: str, method: str) -> list[CalibrationError]:
    """Errors of the energy axis at the ends of the fit range; none where no truth is known."""
    rows = []
    for end in data["end"].values.tolist():
        error = data["calibration_error_kev"].sel({"task": task, "method": method, "end": end}).values
        error = np.abs(error[np.isfinite(error)])
        median, q95 = _quantiles(error, (0.5, 0.95))
        row = CalibrationError(task=task, method=method, end=end, n=error.size, median_abs_kev=median, q95_abs_kev=q95)
        rows.append(row)
    return rows if any(row.n for row in rows) else []


def _list_cells(data: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Tasks and methods with at least one fit."""
    for task in data["task"].values.tolist():
        for method in data["method"].values.tolist():
            if _mask_requested(data, task, method).any():
                yield task, method


def _mask_requested(data: xr.Dataset, task: str, method: str) -> NDArray[np.bool_]:
    return np.asarray(data["status"].sel({"task": task, "method": method}).values != 0)


def _select_values(data: xr.Dataset, name: str, task: str, method: str) -> FloatArray:
    return np.asarray(data[name].sel({"task": task, "method": method}).values)


def _select_truth(data: xr.Dataset, task: str) -> FloatArray:
    """True amplitudes (dataset, component); NaN where nothing is there or nothing is known."""
    true = data["true_amplitude"].sel(task=task).values
    return np.where(true > 0.0, true, np.nan)


def _quantiles(values: FloatArray, at: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles of the finite values, linear between neighbours; NaN of none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (np.nan,) * len(at)
    return tuple(float(q) for q in np.quantile(finite, at))
