"""Amplitudes, their variance and the deviance of one pixel after the other, vectorised over channels and columns.

Matrices come as strips (`hpcxrf.fitting.pixels.strips`): 4 or 8 columns over a run of channels, so that what is
next to nothing is not multiplied.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.layout import (
    EIGHT,
    FOUR,
    HIGHEST_PULL,
    LOWEST_PULL,
    PULL_STEPS,
    SMALLEST_EXPECTATION,
    SMALLEST_SIGMA,
)
from hpcxrf.fitting.kernels.loops import (
    COLUMN_1,
    COLUMN_2,
    COLUMN_3,
    COLUMN_4,
    COLUMN_5,
    COLUMN_6,
    COLUMN_7,
    LARGEST,
    STRIPS,
    TABLES,
    TINY,
    Array,
    Number,
    Strips,
    add_4,
    add_8,
    add_up,
    clear,
    log,
    multiply,
    project,
    read_counts,
)
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
_SMALLEST_EXPECTATION: Final = np.float32(SMALLEST_EXPECTATION)
_SMALLEST_SIGMA: Final = np.float32(SMALLEST_SIGMA)


@part
def _compare(a: Array, place: Array, columns: Array, c: Array, mu: Array, y: Array) -> Number:
    """Sum over a strip of `mu - y + y log(y / mu)`, of which `mu` holds what earlier strips have of the expectation.

    Added as it is, channel by channel: sums of its parts would cancel to a thousandth.
    """
    begin, o = place[0], place[2]
    a0, a1, a2, a3 = a[columns[0]], a[columns[1]], a[columns[2]], a[columns[3]]
    a4, a5, a6, a7 = a[columns[4]], a[columns[5]], a[columns[6]], a[columns[7]]
    total = _ZERO
    for i in range(place[1]):
        k = o + i
        first = a0 * c[k] + a1 * c[k + COLUMN_1] + a2 * c[k + COLUMN_2] + a3 * c[k + COLUMN_3]
        second = a4 * c[k + COLUMN_4] + a5 * c[k + COLUMN_5] + a6 * c[k + COLUMN_6] + a7 * c[k + COLUMN_7]
        m = max(mu[begin + i] + (first + second), _SMALLEST_EXPECTATION)
        v = y[begin + i]
        total += (m - v) + v * log(max(v / m, TINY))
    return total


@part
def _deviance(y: Array, a: Array, strips: Strips, mu: Array, n_channels: Number) -> Number:
    """Poisson deviance; y and mu reach to whole strips, where y is 0 and the least expectation is taken off again."""
    place, columns, c = strips
    clear(mu)
    total = -_F(_U(y.shape[0]) - n_channels) * _SMALLEST_EXPECTATION
    for j in range(_U(place.shape[0])):
        if place[j, 3] == FOUR:
            add_4(a, place[j], columns[j], c, mu)
        elif place[j, 3] == EIGHT:
            add_8(a, place[j], columns[j], c, mu)
        else:
            total += _compare(a, place[j], columns[j], c, mu, y)
    return _F(2.0) * total


@part
def _expect(a: Array, variance: Array, hazard: Array, root: Array, e: Array) -> None:
    """Expectation of what is not negative given its estimate: a + s h(a / s), h the hazard of the normal law."""
    n, last = _U(root.shape[0]), _U(hazard.shape[0]) - _U(2)
    for i in range(n):
        root[i] = max(np.sqrt(variance[i]), _SMALLEST_SIGMA)
    for i in range(n):
        e[i] = max(a[i] / root[i], _F(LOWEST_PULL))
    # Apart: what is looked up is not vectorised.
    for i in range(n):
        t = (min(e[i], _F(HIGHEST_PULL)) - _F(LOWEST_PULL)) * _F(PULL_STEPS)
        whole = _I(t)
        # The least: of a coefficient that is not a number.
        k = min(_U(np.uint32(whole)), last)
        h = hazard[k]
        e[i] = (e[i] + h + (t - _F(whole)) * (hazard[k + _U(1)] - h)) * root[i]


@part
def _raise_to(floor: Array, x: Array) -> None:
    for i in range(_U(floor.shape[0])):
        x[i] = max(x[i], floor[i])


@part
def _variance(
    a: Array, n_columns: Number, n: Number, strips: Strips, tables: Strips, root: Array, e: Array, variance: Array
) -> None:
    """Variance of the first n coefficients, of the expectation of all, which is left in e."""
    hazard, floor, _ = tables
    for i in range(n_columns):
        e[i] = max(a[i], _ZERO)
    multiply(e, strips, variance)
    _raise_to(floor, variance)
    _expect(a, variance, hazard, root, e)
    for i in range(n, n_columns):
        e[i] = max(a[i], _ZERO)
    multiply(e, strips, variance)
    _raise_to(floor, variance)


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, uint64, uint64, int64, {STRIPS}, {STRIPS}, {STRIPS}, {STRIPS}, "
    f"{TABLES}, float32[::1], float32[::1], float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], "
    "float32[::1])"
)
def fit_pixels(
    data: Array,
    kind: int,
    stride: int,
    n_channels: int,
    first: int,
    stop: int,
    known: int,
    projector: Strips,
    mixing: Strips,
    columns: Strips,
    variance: Strips,
    tables: Strips,
    y: Array,
    mu: Array,
    coefficients: Array,
    total: Array,
    variances: Array,
    nulls: Array,
    deviance: Array,
) -> None:
    """Fit pixels by shared weights; what is not wanted comes with no room for its result.

    Args:
        data: bytes of the counts of all pixels.
        kind: type of the counts.
        stride: counts from one pixel to the next.
        n_channels: channels of a pixel.
        first: first of the channels whose counts make the total.
        stop: channel after the last of them.
        known: 1 where the coefficients are there already, else 0.
        projector: strips of T over channels.
        mixing: strips of `(T' Phi)^-1` transposed.
        columns: strips of Phi over channels.
        variance: strips of the variance of components by columns.
        tables: hazard of the normal law, least variance and variance by its own count (component,).
        y: room for the counts of a pixel, to whole strips, 0 beyond the last channel.
        mu: room of the same size.
        coefficients: (column, pixel).
        total: (pixel,); NaN where a count is not finite, and the coefficients are 0.
        variances: (component, pixel).
        nulls: (component, pixel) variance in the absence of the component.
        deviance: (pixel,).
    """
    n_columns, n_components = _U(coefficients.shape[0]), _U(variances.shape[0])
    _, floor, own = tables
    size = _U(floor.shape[0])
    a = np.zeros(size + _U(1), np.float32)
    b = np.zeros(size + _U(1), np.float32)
    spread = np.zeros(size, np.float32)
    root = np.zeros(size, np.float32)
    for p in range(_U(coefficients.shape[1])):
        read_counts(data, kind, p * stride, n_channels, y)
        seen = add_up(y, first, stop - first)
        every = seen + add_up(y, _U(0), first) + add_up(y, stop, n_channels - stop)
        total[p] = seen
        # Not by isfinite: numba makes it `x - x`, which is reordered to 0.
        if not abs(every) <= LARGEST:
            total[p] = np.nan
            clear(y)
        if known:
            for j in range(n_columns):
                a[j] = coefficients[j, p]
        else:
            project(y, projector, b)
            multiply(b, mixing, spread)
            for j in range(n_columns):
                a[j] = coefficients[j, p] = spread[j]
        if n_components > 0:
            _variance(a, n_columns, n_components, variance, tables, root, b, spread)
            for j in range(n_components):
                variances[j, p] = spread[j]
                nulls[j, p] = max(spread[j] - b[j] * own[j], floor[j])
        if deviance.shape[0] > 0:
            deviance[p] = _deviance(y, a, columns, mu, n_channels)
