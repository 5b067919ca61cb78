"""Amplitudes, their variance and the deviance of one pixel after the other, vectorised over channels and columns.

Matrices come as strips (`hpcxrf.fitting.pixels.strips`): 4 or 8 columns over a run of channels, so that what is
next to nothing is not multiplied. Loops over channels sum into registers, and nothing is stored there: a compiler that
cannot know which arrays overlap would test it in every call. Indices are unsigned: one that may be negative is not
vectorised.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.kernels.layout import (
    EIGHT,
    FOUR,
    HIGHEST_PULL,
    LOWEST_PULL,
    PITCH,
    PULL_STEPS,
    UINT8,
    UINT16,
    UINT32,
)
from hpcxrf.fitting.kernels.machine_code import kernel, part

Array = NDArray[Any]
Number = Any
"""Scalar of a machine type: float32 or uint64."""
Strips = tuple[Array, Array, Array]

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
_SMALLEST_EXPECTATION: Final = np.float32(1e-3)
_SMALLEST_SIGMA: Final = np.float32(1e-6)
_LARGEST: Final = np.float32(3.4028235e38)
_TINY: Final = np.float32(1.1754944e-38)
_STRIPS: Final = "Tuple((uint64[:,::1], uint64[:,::1], float32[::1]))"
_TABLES: Final = "Tuple((float32[::1], float32[::1], float32[::1]))"
_COLUMN_1: Final = np.uint64(PITCH)
_COLUMN_2: Final = np.uint64(2 * PITCH)
_COLUMN_3: Final = np.uint64(3 * PITCH)
_COLUMN_4: Final = np.uint64(4 * PITCH)
_COLUMN_5: Final = np.uint64(5 * PITCH)
_COLUMN_6: Final = np.uint64(6 * PITCH)
_COLUMN_7: Final = np.uint64(7 * PITCH)


@part
def _log(x: Number) -> Number:
    """Natural logarithm of a positive number, to 1e-7; a library's is a call for each number.

    x = 2^e (1 + f), 2/3 <= 1 + f < 4/3; f^2 q(f) is log(1 + f) - f, fitted at Chebyshev points.
    """
    bits = _F(x).view(np.int32)
    e = _I(_I(bits - _I(0x3F2AAAAB)) & _I(-8388608))
    f = _I(bits - e).view(np.float32) - _F(1.0)
    q = _F(-0.1565677970647812)
    q = q * f + _F(0.17200186848640442)
    q = q * f + _F(-0.16358855366706848)
    q = q * f + _F(0.19783316552639008)
    q = q * f + _F(-0.2501148283481598)
    q = q * f + _F(0.3333808481693268)
    q = q * f + _F(-0.49999868869781494)
    return _F(e) * _F(8.262958424e-08) + (q * f * f + f)


@part
def _read(data: Array, kind: Number, begin: Number, n: Number, y: Array) -> None:
    """The counts of a pixel as float32."""
    if kind == UINT8:
        for i in range(n):
            y[i] = _F(data[begin + i])
    elif kind == UINT16:
        pairs = data.view(np.uint16)
        for i in range(n):
            y[i] = _F(pairs[begin + i])
    elif kind == UINT32:
        words = data.view(np.uint32)
        for i in range(n):
            y[i] = _F(words[begin + i])
    else:
        numbers = data.view(np.float32)
        for i in range(n):
            y[i] = numbers[begin + i]


@part
def _sum(y: Array, begin: Number, n: Number) -> Number:
    total = _ZERO
    for i in range(n):
        total += y[begin + i]
    return total


@part
def _clear(x: Array) -> None:
    for i in range(_U(x.shape[0])):
        x[i] = _ZERO


@part
def _project_4(y: Array, place: Array, columns: Array, t: Array, b: Array) -> None:
    begin, o = place[0], place[2]
    s0 = s1 = s2 = s3 = _ZERO
    for i in range(place[1]):
        v = y[begin + i]
        k = o + i
        s0 += v * t[k]
        s1 += v * t[k + _COLUMN_1]
        s2 += v * t[k + _COLUMN_2]
        s3 += v * t[k + _COLUMN_3]
    b[columns[0]] += s0
    b[columns[1]] += s1
    b[columns[2]] += s2
    b[columns[3]] += s3


@part
def _project_8(y: Array, place: Array, columns: Array, t: Array, b: Array) -> None:
    begin, o = place[0], place[2]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _ZERO
    for i in range(place[1]):
        v = y[begin + i]
        k = o + i
        s0 += v * t[k]
        s1 += v * t[k + _COLUMN_1]
        s2 += v * t[k + _COLUMN_2]
        s3 += v * t[k + _COLUMN_3]
        s4 += v * t[k + _COLUMN_4]
        s5 += v * t[k + _COLUMN_5]
        s6 += v * t[k + _COLUMN_6]
        s7 += v * t[k + _COLUMN_7]
    b[columns[0]] += s0
    b[columns[1]] += s1
    b[columns[2]] += s2
    b[columns[3]] += s3
    b[columns[4]] += s4
    b[columns[5]] += s5
    b[columns[6]] += s6
    b[columns[7]] += s7


@part
def _project(y: Array, strips: Strips, b: Array) -> None:
    """`y @ matrix` (column,), b with one more place for what fills strips up."""
    place, columns, t = strips
    _clear(b)
    for j in range(_U(place.shape[0])):
        if place[j, 3] == FOUR:
            _project_4(y, place[j], columns[j], t, b)
        else:
            _project_8(y, place[j], columns[j], t, b)


@part
def _add_4(x: Array, place: Array, columns: Array, c: Array, out: Array) -> None:
    begin, o = place[0], place[2]
    x0, x1, x2, x3 = x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]
    for i in range(place[1]):
        k = o + i
        out[begin + i] += x0 * c[k] + x1 * c[k + _COLUMN_1] + x2 * c[k + _COLUMN_2] + x3 * c[k + _COLUMN_3]


@part
def _add_8(x: Array, place: Array, columns: Array, c: Array, out: Array) -> None:
    begin, o = place[0], place[2]
    x0, x1, x2, x3 = x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]
    x4, x5, x6, x7 = x[columns[4]], x[columns[5]], x[columns[6]], x[columns[7]]
    for i in range(place[1]):
        k = o + i
        first = x0 * c[k] + x1 * c[k + _COLUMN_1] + x2 * c[k + _COLUMN_2] + x3 * c[k + _COLUMN_3]
        second = x4 * c[k + _COLUMN_4] + x5 * c[k + _COLUMN_5] + x6 * c[k + _COLUMN_6] + x7 * c[k + _COLUMN_7]
        out[begin + i] += first + second


@part
def _multiply(x: Array, strips: Strips, out: Array) -> None:
    """`x @ matrix`, of a small matrix in strips of 8 of its rows; x with a 0 after its last number."""
    place, rows, c = strips
    _clear(out)
    for j in range(_U(place.shape[0])):
        _add_8(x, place[j], rows[j], c, out)


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
        first = a0 * c[k] + a1 * c[k + _COLUMN_1] + a2 * c[k + _COLUMN_2] + a3 * c[k + _COLUMN_3]
        second = a4 * c[k + _COLUMN_4] + a5 * c[k + _COLUMN_5] + a6 * c[k + _COLUMN_6] + a7 * c[k + _COLUMN_7]
        m = max(mu[begin + i] + (first + second), _SMALLEST_EXPECTATION)
        v = y[begin + i]
        total += (m - v) + v * _log(max(v / m, _TINY))
    return total


@part
def _deviance(y: Array, a: Array, strips: Strips, mu: Array, n_channels: Number) -> Number:
    """Poisson deviance; y and mu reach to whole strips, where y is 0 and the least expectation is taken off again."""
    place, columns, c = strips
    _clear(mu)
    total = -_F(_U(y.shape[0]) - n_channels) * _SMALLEST_EXPECTATION
    for j in range(_U(place.shape[0])):
        if place[j, 3] == FOUR:
            _add_4(a, place[j], columns[j], c, mu)
        elif place[j, 3] == EIGHT:
            _add_8(a, place[j], columns[j], c, mu)
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
    _multiply(e, strips, variance)
    _raise_to(floor, variance)
    _expect(a, variance, hazard, root, e)
    for i in range(n, n_columns):
        e[i] = max(a[i], _ZERO)
    _multiply(e, strips, variance)
    _raise_to(floor, variance)


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, uint64, uint64, int64, {_STRIPS}, {_STRIPS}, {_STRIPS}, {_STRIPS}, "
    f"{_TABLES}, float32[::1], float32[::1], float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], "
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
        _read(data, kind, p * stride, n_channels, y)
        seen = _sum(y, first, stop - first)
        every = seen + _sum(y, _U(0), first) + _sum(y, stop, n_channels - stop)
        total[p] = seen
        # Not by isfinite: numba makes it `x - x`, which is reordered to 0.
        if not abs(every) <= _LARGEST:
            total[p] = np.nan
            _clear(y)
        if known:
            for j in range(n_columns):
                a[j] = coefficients[j, p]
        else:
            _project(y, projector, b)
            _multiply(b, mixing, spread)
            for j in range(n_columns):
                a[j] = coefficients[j, p] = spread[j]
        if n_components > 0:
            _variance(a, n_columns, n_components, variance, tables, root, b, spread)
            for j in range(n_components):
                variances[j, p] = spread[j]
                nulls[j, p] = max(spread[j] - b[j] * own[j], floor[j])
        if deviance.shape[0] > 0:
            deviance[p] = _deviance(y, a, columns, mu, n_channels)
