"""Small views of maps of any size: pictures of bounded size and a few figures, read in bands."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.fitting.limits import CURRIE_DECISION, POISSON_DECISION, decision_limit, null_sigma
from hpcxrf.fitting.status import FitStatus
from hpcxrf.results.detectors import take_detector
from hpcxrf.results.report.colours import colour_limits
from hpcxrf.store.schema import BLOCK_Y

FloatArray = NDArray[np.float64]
SmallArray = NDArray[np.float32]

SOLVED: Final = (FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS, FitStatus.EMPTY, FitStatus.THETA_KEPT)
"""Outcomes whose amplitudes mean something: an empty pixel has none, and that is a result."""

_CHANCE: Final = 0.06
"""Share of pixels without a component that exceed their decision limit, at most: 5 % and one for few counts."""
# A grain in one pixel is found however few they are: Poisson counts without a component exceed 6 sigma + 8 counts in
# one of 1e9 pixels, at any background.
_CERTAIN_SIGMA: Final = 6.0
_CERTAIN_COUNTS: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSummary:
    """The maps of one detector, made small enough to look at."""

    detector: str
    components: tuple[str, ...]
    pictures: FloatArray
    """(component, y, x): mean counts a pixel in squares of `factor` pixels, NaN where nothing was fitted."""
    factor: int
    """Pixels of the scan along each side of a pixel of the picture."""
    shape_yx: tuple[int, int]
    """Pixels of the scan."""
    step_um: tuple[float, float] | None
    """Median stage step (y, x) between pixels, both positive; None where positions are unknown."""
    median_sigma: FloatArray
    """(component,) median over fitted pixels; of every `factor`-th row and column of a large scan."""
    median_limit: FloatArray
    """(component,) median detection limit, in the same pixels."""
    above_limit: FloatArray
    """(component,) share of those pixels whose amplitude exceeds its decision limit, 0 to 1."""
    found: NDArray[np.bool_]
    """(component,) False where no more pixels exceed their decision limit than chance allows, and none by far."""
    status_counts: dict[FitStatus, int]
    """Pixels by outcome, all of them."""
    sigma: FloatArray
    """(component, y, x) standard uncertainty of the pictures' points, of one of their pixels over the root of n."""
    above: NDArray[np.bool_]
    """(component, y, x) whether a point is above its decision limit, which falls with the number of its pixels."""
    status: NDArray[np.uint8]
    """(y, x) outcome of the fit; of the outcomes within a point the one of the highest code."""


def summarise_maps(
    maps: xr.Dataset, detector: str, *, side: int = 400, photon_variance: FloatArray | None = None
) -> MapSummary:
    """Read the maps of one detector in bands of rows and keep at most `side` pixels along each axis.

    Args:
        maps: Group `maps` of a results store.
        detector: Name on the detector axis.
        side: Largest number of rows or columns of the pictures.
        photon_variance: (component,) variance that one recorded count adds to an amplitude; None: 1.
    """
    one = take_detector(maps, detector)
    n_y, n_x = one.sizes["y"], one.sizes["x"]
    factor = max(1, -(-max(n_y, n_x) // side))
    rows = factor * max(1, BLOCK_Y // factor)
    bands = [_read_band(one.isel(y=slice(y, y + rows)), factor) for y in range(0, n_y, rows)]
    pictures, sigma, limit, amplitude, of_points, outcome = (
        np.concatenate(parts, axis=-2) for parts in zip(*(band[:6] for band in bands), strict=True)
    )
    histogram = np.sum([band[6] for band in bands], axis=0)
    photon = np.ones(maps.sizes["component"]) if photon_variance is None else photon_variance
    share = _share_above(amplitude, limit, photon)
    return MapSummary(
        detector=detector,
        components=tuple(str(name) for name in maps["component"].values),
        pictures=pictures,
        factor=factor,
        shape_yx=(n_y, n_x),
        step_um=_step_um(one, factor),
        median_sigma=_median(sigma),
        median_limit=_median(limit),
        above_limit=share,
        found=_find_in_pixels(amplitude, limit, share, photon),
        status_counts={status: int(histogram[status]) for status in FitStatus},
        sigma=of_points,
        above=pictures > _point_decision_limit(limit.astype(np.float64), photon[:, None, None], factor),
        status=outcome,
    )


def select_most_visible(summary: MapSummary, number: int) -> list[str]:
    """Components whose maps vary most, measured in their median sigma."""
    spread = np.array([np.subtract(*colour_limits(picture)[::-1]) for picture in summary.pictures])
    score = np.nan_to_num(spread / np.maximum(summary.median_sigma, 1e-12))
    best = np.argsort(-score, kind="stable")[:number]
    return [summary.components[index] for index in sorted(best)]


def panel_aspect(summary: MapSummary) -> float:
    """Width over height of a panel, kept between 1:3 and 4:1 so that a line scan can be seen."""
    n_y, n_x = summary.shape_yx
    step_y, step_x = summary.step_um or (1.0, 1.0)
    return float(np.clip(n_x * step_x / (n_y * step_y), 1 / 3, 4.0))


def block_mean(values: NDArray[np.floating], factor: int) -> FloatArray:
    """Mean over squares of `factor` pixels of the last two axes, NaN left out; all-NaN squares give NaN.

    The last row and column of squares may be smaller.
    """
    if factor == 1:
        return values.astype(np.float64)
    good = np.isfinite(values)
    if good.all():
        return _block_sum(values, factor) / _block_sum(np.ones(values.shape[-2:], dtype=np.bool_), factor)
    total, number = _block_sum(np.where(good, values, 0), factor), _block_sum(good, factor)
    mean: FloatArray = np.full(total.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean


def _block_max(values: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Maximum over squares of `factor` pixels (y, x)."""
    if factor == 1:
        return values
    rows = np.maximum.reduceat(values, np.arange(0, values.shape[0], factor), axis=0)
    highest: NDArray[np.uint8] = np.maximum.reduceat(rows, np.arange(0, values.shape[1], factor), axis=1)
    return highest


def _block_sum(values: NDArray[np.floating] | NDArray[np.bool_], factor: int) -> FloatArray:
    """Sum over squares of `factor` pixels of the last two axes; sums of whole slices are the fastest in numpy."""
    n_y, n_x = values.shape[-2:]
    rows = np.zeros((*values.shape[:-2], -(-n_y // factor), n_x))
    for first in range(min(factor, n_y)):
        part = values[..., first::factor, :]
        rows[..., : part.shape[-2], :] += part
    total = np.zeros((*rows.shape[:-1], -(-n_x // factor)))
    for first in range(min(factor, n_x)):
        part = rows[..., first::factor]
        total[..., : part.shape[-1]] += part
    return total


def _point_decision_limit(limit: FloatArray, photon_variance: FloatArray, factor: int) -> FloatArray:
    """Decision limit of the mean of `factor` x `factor` pixels, each with the detection limit `limit`.

    The counts of the square are those of one pixel of its whole exposure, and the mean is one of n = `factor`^2 parts
    of them: noise falls with the root of n, what a single count weighs with n.
    """
    return (
        CURRIE_DECISION * null_sigma(limit, photon_variance) / factor + POISSON_DECISION * photon_variance / factor**2
    )


def _read_band(
    band: xr.Dataset, factor: int
) -> tuple[FloatArray, SmallArray, SmallArray, SmallArray, FloatArray, NDArray[np.uint8], NDArray[np.int64]]:
    """Read picture, sigma, limit and amplitude of some pixels, sigma and outcome of the points, histogram.

    Sigma, limit and amplitude are those of every `factor`-th pixel along each axis.
    """
    status = band["status"].values
    solved = np.isin(status, SOLVED)
    amplitude: SmallArray = band["amplitude"].values
    if not solved.all():
        amplitude = np.where(solved, amplitude, np.float32(np.nan))
    thin = (..., slice(None, None, factor), slice(None, None, factor))
    sigma: SmallArray = band["sigma"].values
    few = sigma[thin].copy()  # a view would keep the whole band
    return (
        block_mean(amplitude, factor),
        few,
        band["detection_limit"].values[thin].copy(),
        amplitude[thin].copy(),
        few / factor,
        _block_max(status, factor),
        np.bincount(status.ravel(), minlength=max(FitStatus) + 1),
    )


def _median(values: SmallArray) -> FloatArray:
    """Median of the finite values of each component, NaN where there is none."""
    flat = values.reshape(values.shape[0], -1)
    return np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in flat])


def _share_above(amplitude: SmallArray, limit: SmallArray, photon_variance: FloatArray) -> FloatArray:
    """Share of the pixels of each component above their decision limit, NaN without any."""
    number = _count_known(amplitude, limit)
    above = (amplitude > decision_limit(limit.astype(np.float64), photon_variance[:, None, None])).sum((1, 2))
    share: FloatArray = np.full(number.shape, np.nan)
    np.divide(above, number, out=share, where=number > 0)
    return share


def _count_known(amplitude: SmallArray, limit: SmallArray) -> NDArray[np.int64]:
    counted: NDArray[np.int64] = np.isfinite(amplitude + limit).sum((1, 2))
    return counted


def _find_in_pixels(
    amplitude: SmallArray, limit: SmallArray, share: FloatArray, photon_variance: FloatArray
) -> NDArray[np.bool_]:
    """Whether a component (component,) is in more pixels than chance allows, or in any without doubt."""
    number = np.maximum(_count_known(amplitude, limit), 1)
    chance = _CHANCE + 2.0 * np.sqrt(_CHANCE * (1.0 - _CHANCE) / number)
    photon = photon_variance[:, None, None]
    certain = amplitude > _CERTAIN_SIGMA * null_sigma(limit.astype(np.float64), photon) + _CERTAIN_COUNTS * photon
    found: NDArray[np.bool_] = (share > chance) | certain.any((1, 2))
    return found


def _step_um(one: xr.Dataset, factor: int) -> tuple[float, float] | None:
    """Median steps, of every `factor`-th row and column; None where the stage did not move or no position is known."""
    if "x_um" not in one.coords or "y_um" not in one.coords:
        return None
    steps = []
    for name, axis in (("y_um", 0), ("x_um", 1)):
        across = (slice(None), slice(None, None, factor))
        step = np.abs(np.diff(one[name].values[across if axis == 0 else across[::-1]], axis=axis))
        step = step[np.isfinite(step) & (step > 0)]
        steps.append(float(np.median(step)) if step.size else np.nan)
    known = [step for step in steps if np.isfinite(step)]
    if not known:
        return None
    # A scan of one row has no step along y; square pixels are the only sensible picture of it.
    y, x = (step if np.isfinite(step) else known[0] for step in steps)
    return y, x
