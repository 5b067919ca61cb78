"""The tables of a case study: R2 and CPU seconds of summed spectra, errors of single pixels and maps against truth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.result import FitStatus
from hpcxrf.studies.case_study.fits import StudyFits

FloatArray = NDArray[np.float64]
GOOD_R2: Final = 0.99
LEAST_TRUE: Final = 0.05
"""Mean counts a pixel below which a relative bias has no meaning."""
_SOLVED: Final = (int(FitStatus.CONVERGED), int(FitStatus.MAX_ITERATIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """Truth of the scan of one trial, and the claims of its file."""

    energy_kev: float
    nominal_kev: float
    offset_kev: float
    slope_kev: float
    counts: float


UNKNOWN_TRIAL: Final = TrialFacts(
    energy_kev=np.nan, nominal_kev=np.nan, offset_kev=np.nan, slope_kev=np.nan, counts=np.nan
)
"""Facts of a trial whose spectrum could not be drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyData:
    """All results of a case study, and the truth."""

    traces: tuple[str, ...]
    """Components whose maps are compared."""
    energy_kev: FloatArray
    """(channel,) the true energy axis of the scan."""
    boxes: tuple[tuple[slice, slice], ...]
    """Rows and columns of each region."""
    chosen: tuple[NDArray[np.intp], ...]
    """Pixels of each region, counted along its rows, that every method fitted."""
    spectra: Mapping[str, NDArray[np.float64]]
    """(spectrum, channel) by name: `whole`, `region-0`, `pixels-0`."""
    fits: Mapping[tuple[str, str], StudyFits]
    """Fits by group (`first-pass`, `trials`, `region-0`, `draws-0`, `single-pixels-0`, `map-0`) and method."""
    truth: Mapping[str, FloatArray]
    """(y, x) expected recorded counts of every trace."""
    region_truth: tuple[Mapping[str, float], ...]
    """Expected recorded counts of every component by region."""
    mapped: int
    """The region whose every pixel was fitted with the published methods."""
    maps: Mapping[tuple[str, str], FloatArray]
    """(y, x) by method of the product and trace."""
    map_cpu_s: Mapping[str, float]
    """CPU seconds of all pixels by method of the product."""
    markers: tuple[tuple[float, str], ...]
    """Energy (keV) and name of every component's strongest line."""
    trials: tuple[TrialFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRow:
    """Fits of summed spectra by one method."""

    group: str
    method: str
    n: int
    failed: int
    """Number of fits without a solution, or that did not run."""
    median: float
    """Median of R2, failures left out."""
    lowest: float
    highest: float
    good: int
    """Fits of an R2 of at least 0.99."""
    expected: float
    """Median of the R2 that counting noise alone allows."""
    deviance: float
    """Median, per degree of freedom."""
    cpu_s: float
    """Median of a fit."""
    evaluations: float
    """Median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """Amplitudes of one component in some pixels by one method, against the truth."""

    group: str
    method: str
    component: str
    n: int
    failed: int
    true: float
    """Mean counts a pixel."""
    error: float
    """Mean, counts a pixel."""
    bias: float
    """Mean error over the mean truth; NaN where there is next to nothing."""
    bias_error: float
    """Standard error of it."""
    rms: float
    """Root mean square error, counts."""
    correlation: float
    """Correlation of fitted and true amplitudes."""
    cpu_s: float
    """Mean CPU seconds of one pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRow:
    """Amplitude of one component in the summed spectrum of one region, against the truth."""

    group: str
    method: str
    component: str
    true: float
    """Counts of all pixels."""
    fitted: float

    @property
    def error(self) -> float:
        """Relative; NaN where there is less than a count."""
        return self.fitted / self.true - 1.0 if self.true >= 1.0 else np.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRow:
    """Amplitude of one component in the summed spectrum of one region over draws of its noise."""

    group: str
    method: str
    component: str
    n: int
    """Draws."""
    failed: int
    """Draws without a solution."""
    true: float
    """Counts of all pixels."""
    bias: float
    """Mean of fitted over true amplitude, less 1; NaN where there is less than a count."""
    bias_error: float
    """Standard error of it: the spread over the root of the number of draws with a solution."""
    spread: float
    """Relative standard deviation of one draw."""


def mask_solved(fits: StudyFits) -> NDArray[np.bool_]:
    """True for spectra with a solution (spectrum,)."""
    return np.isin(fits.status, _SOLVED) & np.isfinite(fits.amplitude).any(axis=1)


def list_fit_rows(data: StudyData, groups: Sequence[str]) -> list[FitRow]:
    """A row for each group and method, in their order."""
    return [
        _summarise_fits(group, method, fits)
        for wanted in groups
        for (group, method), fits in data.fits.items()
        if group == wanted
    ]


def _summarise_fits(group: str, method: str, fits: StudyFits) -> FitRow:
    good = mask_solved(fits)
    r2 = fits.r2[good]
    return FitRow(
        group=group,
        method=method,
        n=len(good),
        failed=int(np.count_nonzero(~good)),
        median=_median(r2),
        lowest=float(r2.min(initial=np.inf)) if r2.size else np.nan,
        highest=float(r2.max()) if r2.size else np.nan,
        good=int(np.count_nonzero(r2 >= GOOD_R2)),
        expected=_median(fits.r2_expected[good]),
        deviance=_median(fits.deviance[good]),
        cpu_s=_median(fits.cpu_s[good]),
        evaluations=_median(fits.evaluations[good].astype(float)),
    )


def _median(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan


def list_pixel_rows(data: StudyData) -> list[TraceRow]:
    """The single pixels that every method fitted, by region."""
    rows: list[TraceRow] = []
    for region, (box, chosen) in enumerate(zip(data.boxes, data.chosen, strict=True)):
        group = f"single-pixels-{region}"
        for (name, method), fits in data.fits.items():
            if name == group:
                truth = {t: data.truth[t][box].ravel()[chosen] for t in data.traces}
                rows += _list_trace_rows(group, method, fits, truth)
    return rows


def list_map_rows(data: StudyData) -> list[TraceRow]:
    """All pixels of every region and of the scan, by the methods that fitted all of them."""
    rows: list[TraceRow] = []
    for region, box in enumerate(data.boxes):
        rows += _list_product_rows(data, f"region-{region}", box)
        for (name, method), fits in data.fits.items():
            if name == f"map-{region}":
                truth = {t: data.truth[t][box].ravel() for t in data.traces}
                rows += _list_trace_rows(f"region-{region}", method, fits, truth)
    return rows + list(_list_product_rows(data, "scan", (slice(None), slice(None))))


def _list_product_rows(data: StudyData, group: str, box: tuple[slice, slice]) -> Iterator[TraceRow]:
    for (method, component), image in data.maps.items():
        fitted, true = image[box].ravel(), data.truth[component][box].ravel()
        cpu_s = data.map_cpu_s[method] / image.size
        yield _summarise_trace((group, method, component), fitted, true, cpu_s)


def _list_trace_rows(group: str, method: str, fits: StudyFits, truth: Mapping[str, FloatArray]) -> Iterator[TraceRow]:
    good = mask_solved(fits)
    for component, true in truth.items():
        fitted = np.where(good, select_amplitude(fits, component), np.nan)
        yield _summarise_trace((group, method, component), fitted, true, _mean(fits.cpu_s))


def _mean(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else np.nan


def select_amplitude(fits: StudyFits, component: str) -> FloatArray:
    """Amplitudes (spectrum,) of one component."""
    column: FloatArray = fits.amplitude[:, fits.components.index(component)]
    return column


def _summarise_trace(labels: tuple[str, str, str], fitted: FloatArray, true: FloatArray, cpu_s: float) -> TraceRow:
    good = np.isfinite(fitted)
    error, mean = fitted[good] - true[good], float(true[good].mean()) if good.any() else np.nan
    n = int(np.count_nonzero(good))
    some = n > 1 and mean >= LEAST_TRUE
    spread = float(error.std(ddof=1)) / n**0.5 if some else np.nan
    varied = n > 1 and fitted[good].std() > 0 and true[good].std() > 0
    return TraceRow(
        group=labels[0],
        method=labels[1],
        component=labels[2],
        n=good.size,
        failed=good.size - n,
        true=mean,
        error=float(error.mean()) if n else np.nan,
        bias=float(error.mean()) / mean if some else np.nan,
        bias_error=spread / mean if some else np.nan,
        rms=float(np.sqrt((error**2).mean())) if n else np.nan,
        correlation=float(np.corrcoef(fitted[good], true[good])[0, 1]) if varied else np.nan,
        cpu_s=cpu_s,
    )


def list_area_rows(data: StudyData) -> list[AreaRow]:
    """Every component of the summed spectra of the regions."""
    return [
        AreaRow(group=group, method=method, component=name, true=truth[name], fitted=float(fits.amplitude[0, i]))
        for region, truth in enumerate(data.region_truth)
        for (group, method), fits in data.fits.items()
        if group == f"region-{region}"
        for i, name in enumerate(fits.components)
        if name in truth
    ]


def list_draw_rows(data: StudyData) -> list[DrawRow]:
    """Every component of the summed spectra of the regions, over draws of their noise."""
    return [
        _summarise_draws((group, method, name), fits, truth[name])
        for region, truth in enumerate(data.region_truth)
        for (group, method), fits in data.fits.items()
        if group == f"draws-{region}"
        for name in fits.components
        if name in truth
    ]


def _summarise_draws(labels: tuple[str, str, str], fits: StudyFits, true: float) -> DrawRow:
    good = mask_solved(fits)
    error = select_amplitude(fits, labels[2])[good] / true - 1.0 if true >= 1.0 else np.empty(0)
    spread = float(error.std(ddof=1)) if error.size > 1 else np.nan
    return DrawRow(
        group=labels[0],
        method=labels[1],
        component=labels[2],
        n=good.size,
        failed=int(np.count_nonzero(~good)),
        true=true,
        bias=float(error.mean()) if error.size else np.nan,
        bias_error=spread / error.size**0.5 if error.size else np.nan,
        spread=spread,
    )
