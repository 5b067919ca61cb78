"""Counts to counts per second at a reference I0: maps of a detector, detectors combined, integrated spectra.

A normalised rate is `counts / live_time_s * reference / i0`. Its variance has three terms, which are kept apart as long
as detectors are combined: counting (each detector's own), theta (of integrated spectra), and I0, which all detectors
share, so that no average over detectors makes it smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.limits import CURRIE_FACTOR, CURRIE_OFFSET
from hpcxrf.quantify.i0 import I0, FloatMap

Floats = NDArray[Any]
"""Numbers of 4 or 8 bytes; what is calculated keeps the type of the maps."""


class PixelFlag(IntEnum):
    """Why a pixel has no normalised value, or that it has one."""

    NOT_RUN = 0
    NORMALISED = 1
    NOT_FITTED = 2
    """It has no amplitudes; the status in the group `maps` says why."""
    NO_LIVE_TIME = 3
    NO_I0 = 4
    """I0 was not measured, or is 0 or negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedMaps:
    """Some pixels of one detector, or of several combined; NaN where the flag is not NORMALISED.

    Arrays are of the type of the maps that they are made of.
    """

    rate: Floats
    """(component, y, x) counts per second at the reference I0."""
    counting_sigma: Floats
    """(component, y, x) its standard uncertainty by counting, at the fitted theta."""
    i0_relative_sigma: Floats
    """(y, x) relative standard uncertainty by I0."""
    detection_limit: Floats
    """(component, y, x) Currie, 95 %, in the unit of the rate."""
    factor: Floats
    """(y, x) rate of one count; NaN of detectors that are combined."""
    flag: NDArray[np.uint8]
    """(y, x) PixelFlag."""

    @property
    def sigma(self) -> Floats:
        """(component, y, x) standard uncertainty of the rate, counting and I0 together."""
        return add_i0_error(self.rate, self.counting_sigma, self.i0_relative_sigma)


def add_i0_error(rate: Floats, counting_sigma: Floats, i0_relative_sigma: Floats) -> Floats:
    """Standard uncertainty (component, y, x) of rates, counting and I0 together; as in `NormalisedMaps`."""
    total = rate * i0_relative_sigma
    total *= total
    total += counting_sigma * counting_sigma
    root: Floats = np.sqrt(total, out=total)
    return root


def normalise_maps(
    amplitude: Floats,
    sigma: Floats,
    detection_limit: Floats,
    *,
    live_time_s: Floats,
    i0: I0 | None,
    reference: float = 1.0,
) -> NormalisedMaps:
    """Normalise the maps of one detector.

    Args:
        amplitude: (component, y, x) counts, NaN where a pixel was not fitted.
        sigma: (component, y, x) counts.
        detection_limit: (component, y, x) counts.
        live_time_s: (y, x) seconds; 0, negative or NaN: not known.
        i0: incident flux of the pixels; None: rates are not divided by it.
        reference: I0 that the rates are brought to, in the unit of `i0`.
    """
    flag = find_flags(amplitude, live_time_s=live_time_s, i0=i0)
    good = flag == PixelFlag.NORMALISED
    factor = compute_factor(good, live_time_s, None if i0 is None else i0.rate, reference).astype(amplitude.dtype)
    relative = np.where(good, 0.0, np.nan) if i0 is None else np.where(good, i0.sigma / i0.rate, np.nan)
    return NormalisedMaps(
        rate=amplitude * factor,
        counting_sigma=sigma * factor,
        i0_relative_sigma=relative.astype(amplitude.dtype),
        detection_limit=detection_limit * factor,
        factor=factor,
        flag=flag,
    )


def find_flags(amplitude: Floats, *, live_time_s: Floats, i0: I0 | None) -> NDArray[np.uint8]:
    """Flags (y, x) of the pixels of one detector, as `normalise_maps` takes them."""
    timed = live_time_s > 0.0
    lit = np.ones(timed.shape, dtype=np.bool_) if i0 is None else i0.rate > 0.0
    fitted = np.isfinite(amplitude).any(axis=0)
    flag = np.full(timed.shape, PixelFlag.NORMALISED, dtype=np.uint8)
    for good, why in ((lit, PixelFlag.NO_I0), (timed, PixelFlag.NO_LIVE_TIME), (fitted, PixelFlag.NOT_FITTED)):
        flag[~good] = why
    return flag


def compute_factor(
    good: NDArray[np.bool_], live_time_s: Floats, i0_rate: Floats | None, reference: float = 1.0
) -> FloatMap:
    """Rate (y, x) of one count at the reference I0; NaN of pixels that are not good.

    Args:
        good: (y, x) pixels that have a live time and an I0.
        live_time_s: (y, x).
        i0_rate: (y, x); None: rates are not divided by it.
        reference: I0 that the rates are brought to.
    """
    factor: FloatMap = 1.0 / np.where(good, live_time_s, np.nan).astype(np.float64)
    return factor if i0_rate is None else factor * (reference / i0_rate.astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """How detectors are combined, the same in every pixel: no weight follows the noise of a pixel."""

    share: NDArray[np.float64]
    """(detector, component): part of the rate of all detectors that one has; adds up to 1."""
    weight: NDArray[np.float64]
    """(detector, component): adds up to 1."""


# Elements of one sample differ in their shares because windows and angles do: by less than that.
_SHARE_SPREAD: Final = 0.3
_CLEAR: Final = 5.0


def find_combination(rate: Floats, sigma: Floats, pixel_variance: Floats) -> Combination:
    """Find shares and weights of the detectors that are combined.

    All detectors together have the rate R of a component, one has the share s of it: rate / s is an estimate of R of
    variance v / s^2. The weights are the inverse of these variances. Where counts alone make the noise, v grows as s,
    and the combination is the sum of the rates whatever the shares are; a detector with a larger background counts for
    less.

    Args:
        rate: (detector, component) rates of the integrated spectra, which give the shares; a share that is not clear
            is drawn to that of all components.
        sigma: (detector, component) their standard uncertainties.
        pixel_variance: (detector, component) mean variance of a pixel's rate by counting.
    """
    known = np.where(np.isfinite(rate), rate, 0.0).clip(min=0.0)
    common = known.sum(axis=1)
    # Of a scan without counts nothing is known of the shares, and they matter to nothing.
    common = common / common.sum() if common.sum() > 0.0 else np.full(len(common), 1.0 / len(common))
    total, error = np.nansum(rate, axis=0), np.sqrt(np.nansum(sigma**2, axis=0))
    clear = total > _CLEAR * error
    divisor = np.where(clear, total, np.nan)
    own, own_error = rate / divisor, sigma / divisor
    measured = np.isfinite(own) & np.isfinite(own_error) & (own_error > 0.0)
    precision = np.where(measured, 1.0 / np.where(measured, own_error, 1.0) ** 2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        prior = np.where(common > 0.0, 1.0 / (_SHARE_SPREAD * common) ** 2, 0.0)[:, None]
        share = (np.where(measured, own, 0.0) * precision + common[:, None] * prior) / (precision + prior)
    share = np.where(common[:, None] > 0.0, share.clip(min=0.05 * common[:, None]), 0.0)
    share = share / share.sum(axis=0)
    usable = (share > 0.0) & np.isfinite(pixel_variance) & (pixel_variance > 0.0)
    inverse = np.where(usable, share**2 / np.where(usable, pixel_variance, 1.0), 0.0)
    # Without a pixel's variance the noise is taken for that of counts.
    inverse = np.where(inverse.sum(axis=0) > 0.0, inverse, share)
    return Combination(share=share, weight=inverse / inverse.sum(axis=0))


def combine_detectors(
    maps: Sequence[NormalisedMaps], combination: Combination, photon_variance: Floats
) -> NormalisedMaps:
    """Combine the normalised maps of several detectors into the rate that all of them have together.

    The result estimates the sum of their rates: the counts of all detectors per second of live time at the reference
    I0. In a pixel that some of them do not have, the others stand for all by their shares.

    Args:
        maps: maps of each detector, of the same pixels.
        combination: shares and weights, in the same order.
        photon_variance: (detector, component) variance that one recorded count adds to an amplitude, count.
    """
    shape, kind = maps[0].rate.shape, maps[0].rate.dtype
    signal, variance, null, photon, weight, scratch = (np.zeros(shape, dtype=kind) for _ in range(6))
    relative = np.zeros(shape[1:], dtype=kind)
    for d, one in enumerate(maps):
        share, own = combination.share[d], combination.weight[d]
        scale = np.divide(own, share, out=np.zeros_like(own), where=share > 0.0)
        good = one.flag == PixelFlag.NORMALISED
        complete = bool(good.all()) and bool((own > 0.0).all())
        _add_detector(
            (signal, variance, null, photon, weight),
            one,
            True if complete else good & np.isfinite(one.rate) & (own > 0.0)[:, None, None],
            scale=scale,
            share=share,
            weight=own,
            photon_variance=photon_variance[d],
            scratch=scratch,
        )
        np.fmax(relative, one.i0_relative_sigma, out=relative)
    norm = np.divide(1.0, weight, out=np.full_like(weight, np.nan), where=weight > 0.0)
    flag = np.min([one.flag for one in maps], axis=0)
    for total in (variance, null):
        np.sqrt(total, out=total)
    null *= CURRIE_FACTOR
    photon *= CURRIE_OFFSET
    photon *= norm
    null += photon
    for total in (signal, variance, null):
        np.multiply(total, norm, out=total)
    return NormalisedMaps(
        rate=signal,
        counting_sigma=variance,
        i0_relative_sigma=np.where(flag == PixelFlag.NORMALISED, relative, np.nan).astype(kind),
        detection_limit=null,
        factor=np.full(shape[1:], np.nan, dtype=kind),
        flag=flag.astype(np.uint8),
    )


def _add_detector(
    sums: tuple[Floats, Floats, Floats, Floats, Floats],
    one: NormalisedMaps,
    good: NDArray[np.bool_] | Literal[True],
    *,
    scale: FloatMap,
    share: FloatMap,
    weight: FloatMap,
    photon_variance: Floats,
    scratch: Floats,
) -> None:
    """Add a detector to the sums (component, y, x) of signal, variance, null variance, photon variance and weight.

    Every term is made in one array that stays in the processor's cache.

    Args:
        sums: added to in place.
        one: maps of the detector.
        good: (component, y, x) where it is added; True: everywhere.
        scale: (component,) weight over share.
        share: (component,).
        weight: (component,).
        photon_variance: (component,) variance that one recorded count adds, count.
        scratch: (component, y, x), written over.
    """
    signal, variance, null, photon, total = sums

    def column(values: Floats) -> Floats:
        return np.asarray(values, dtype=scratch.dtype)[:, None, None]

    np.multiply(one.rate, column(scale), out=scratch)
    np.add(signal, scratch, out=signal, where=good)
    np.multiply(one.counting_sigma, column(scale), out=scratch)
    scratch *= scratch
    np.add(variance, scratch, out=variance, where=good)
    # What the limit was made of, `null_sigma`, in the unit of the rate: a count adds the factor as often.
    np.multiply(column(-CURRIE_OFFSET * photon_variance), one.factor, out=scratch)
    scratch += one.detection_limit
    scratch *= column(scale / CURRIE_FACTOR)
    scratch *= scratch
    np.add(null, scratch, out=null, where=good)
    np.multiply(column(scale**2 * share * photon_variance), one.factor, out=scratch)
    np.add(photon, scratch, out=photon, where=good)
    np.add(total, column(weight), out=total, where=good)


def sum_live_time(live_time_s: Floats, share: Floats) -> FloatMap:
    """Live time (y, x) of a raw sum of detectors: that by which its counts become the sum of their rates.

    Counts of the sum are `sum s L R` with each detector's share s and live time L, so that the mean of the live times
    by shares is right for every component whose shares are those of all counts, and nearly so for others, as the live
    times of one pixel are alike.

    Args:
        live_time_s: (detector, y, x) seconds; 0 where a detector has no part in the pixel's sum.
        share: (detector,) parts of the rate of all counts; adds up to 1.
    """
    weighed = np.asarray(share, dtype=np.float64)
    # One that counts nothing may have no live time.
    live = np.where(weighed[:, None, None] > 0.0, live_time_s, 0.0)
    mean: FloatMap = np.tensordot(weighed, live, axes=1)
    return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedSpectrum:
    """Amplitudes of an integrated spectrum as rates at the reference I0, with their errors apart."""

    rate: NDArray[np.float64]
    """(component,) counts per second at the reference I0."""
    counting_sigma: NDArray[np.float64]
    """(component,) standard uncertainty by counting."""
    theta_sigma: NDArray[np.float64]
    """(component,) standard uncertainty by theta and the model's flaws."""
    i0_sigma: NDArray[np.float64]
    """(component,) standard uncertainty by I0, the same share of every rate."""
    detection_limit: NDArray[np.float64] | None = None
    """(component,) Currie, 95 %."""

    @property
    def sigma(self) -> NDArray[np.float64]:
        """(component,) all errors together."""
        return np.sqrt(self.counting_sigma**2 + self.theta_sigma**2 + self.i0_sigma**2)


def normalise_spectrum(
    amplitude: Floats,
    counting_sigma: Floats,
    theta_sigma: Floats,
    *,
    live_time_s: float,
    i0: tuple[float, float] | None = None,
    reference: float = 1.0,
    detection_limit: Floats | None = None,
) -> NormalisedSpectrum:
    """Normalise the amplitudes of a spectrum that is the sum of many pixels.

    Args:
        amplitude: (component,) counts of all pixels.
        counting_sigma: (component,) counts.
        theta_sigma: (component,) counts, without what counting does.
        live_time_s: live time of all pixels together, seconds.
        i0: mean I0 of these pixels, weighted by their live times, and its standard uncertainty, as of `average_i0`;
            None: rates are not divided by it.
        reference: I0 that the rates are brought to, in the unit of `i0`.
        detection_limit: (component,) counts.

    Raises:
        ValueError: a live time or an I0 that is not positive.
    """
    mean, error = (1.0, 0.0) if i0 is None else i0
    if not (live_time_s > 0.0 and mean > 0.0):
        raise ValueError(f"live time {live_time_s} s and I0 {mean}; both must be positive")
    factor = (1.0 if i0 is None else reference / mean) / live_time_s
    rate = np.asarray(amplitude, dtype=np.float64) * factor
    return NormalisedSpectrum(
        rate=rate,
        counting_sigma=np.asarray(counting_sigma, dtype=np.float64) * factor,
        theta_sigma=np.asarray(theta_sigma, dtype=np.float64) * factor,
        i0_sigma=np.abs(rate) * (error / mean),
        detection_limit=None if detection_limit is None else np.asarray(detection_limit, np.float64) * factor,
    )


# Ratios are compared beyond what windows and angles make of them, which no error of a fit has in it.
_RATIO_FLOOR: Final = 0.05
_RATIO_SIGMA: Final = 3.0
_LEAST_TO_COMPARE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioOutlier:
    """A detector whose elements have other ratios than those of the other detectors."""

    detector: int
    component: int
    """Place of the component that differs most."""
    deviation: float
    """Its part of the detector's rates over that of the others, less 1."""
    sigma: float
    """Standard uncertainty of the deviation."""


def find_ratio_outliers(rate: Floats, sigma: Floats) -> tuple[RatioOutlier, ...]:
    """Find detectors whose ratios of elements disagree with those of the others by more than their error.

    The rates of a detector are divided by what all components have in common, its own share, and compared with the
    median of the other detectors. A difference counts from three times its error, which is that of the fits, the spread
    of the others, and 5 % for windows and angles. A minority is wrong: of two detectors nobody knows which.

    Args:
        rate: (detector, component) rates of integrated spectra, of components that all detectors see alike.
        sigma: (detector, component) their standard uncertainties.
    """
    if rate.shape[0] < _LEAST_TO_COMPARE or rate.shape[1] < 2:
        return ()
    found = tuple(one for d in range(rate.shape[0]) if (one := _compare_ratios(d, rate, sigma)) is not None)
    return found if 2 * len(found) < rate.shape[0] else ()


def _compare_ratios(detector: int, rate: Floats, sigma: Floats) -> RatioOutlier | None:
    clear = (rate > _CLEAR * sigma).all(axis=0)
    if clear.sum() < 2:
        return None
    values, errors = rate[:, clear], sigma[:, clear] / rate[:, clear]
    # What most components have in common is the detector's own share of all counts.
    ratios = values / np.median(np.delete(values, detector, axis=0), axis=0)
    ratios = ratios / np.median(ratios, axis=1, keepdims=True)
    others = np.delete(ratios, detector, axis=0)
    usual = np.median(others, axis=0)
    spread = np.median(np.abs(others - usual), axis=0)
    deviation = ratios[detector] / usual - 1.0
    others_error = np.median(np.delete(errors, detector, axis=0), axis=0)
    error = np.sqrt(errors[detector] ** 2 + others_error**2 + spread**2 + _RATIO_FLOOR**2)
    worst = int(np.argmax(np.abs(deviation) / error))
    if not abs(deviation[worst]) > _RATIO_SIGMA * error[worst]:
        return None
    return RatioOutlier(
        detector=detector,
        component=int(np.flatnonzero(clear)[worst]),
        deviation=float(deviation[worst]),
        sigma=float(error[worst]),
    )
