"""Amplitudes, their variance and the deviance of pixels, some of them side by side.

Over channels one loop meets the counts of two pixels with the same numbers of a matrix, which a core reads from its
second cache: that takes longer than to multiply them. What is made of coefficients has pixels as lanes. Matrices come
as strips (`hpcxrf.fitting.pixels.strips`): 4 or 8 columns over a run of channels, so that what is next to nothing is
not multiplied.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.layout import (
    EIGHT,
    FOUR,
    HIGHEST_PULL,
    LANES,
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
    put_pixels,
    read_counts,
    take_pixels,
)
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
_SMALLEST_EXPECTATION: Final = np.float32(SMALLEST_EXPECTATION)
_NEXT: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_LANES: Final = np.uint64(LANES)
_SMALLEST_SIGMA: Final = np.float32(SMALLEST_SIGMA)


@part
def _project_4(y: Array, z: Array, place: Array, columns: Array, t: Array, b: Array, lane: Number) -> None:
    begin, o = place[0], place[2]
    s0 = s1 = s2 = s3 = r0 = r1 = r2 = r3 = _ZERO
    for i in range(place[1]):
        v, w = y[begin + i], z[begin + i]
        k = o + i
        c0, c1, c2, c3 = t[k], t[k + COLUMN_1], t[k + COLUMN_2], t[k + COLUMN_3]
        s0 += v * c0
        s1 += v * c1
        s2 += v * c2
        s3 += v * c3
        r0 += w * c0
        r1 += w * c1
        r2 += w * c2
        r3 += w * c3
    next_ = lane + _NEXT
    b[columns[0], lane] += s0
    b[columns[1], lane] += s1
    b[columns[2], lane] += s2
    b[columns[3], lane] += s3
    b[columns[0], next_] += r0
    b[columns[1], next_] += r1
    b[columns[2], next_] += r2
    b[columns[3], next_] += r3


@part
def _project_8(y: Array, z: Array, place: Array, columns: Array, t: Array, b: Array, lane: Number) -> None:
    begin, o = place[0], place[2]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _ZERO
    r0 = r1 = r2 = r3 = r4 = r5 = r6 = r7 = _ZERO
    for i in range(place[1]):
        v, w = y[begin + i], z[begin + i]
        k = o + i
        c0, c1, c2, c3 = t[k], t[k + COLUMN_1], t[k + COLUMN_2], t[k + COLUMN_3]
        c4, c5, c6, c7 = t[k + COLUMN_4], t[k + COLUMN_5], t[k + COLUMN_6], t[k + COLUMN_7]
        s0 += v * c0
        s1 += v * c1
        s2 += v * c2
        s3 += v * c3
        s4 += v * c4
        s5 += v * c5
        s6 += v * c6
        s7 += v * c7
        r0 += w * c0
        r1 += w * c1
        r2 += w * c2
        r3 += w * c3
        r4 += w * c4
        r5 += w * c5
        r6 += w * c6
        r7 += w * c7
    next_ = lane + _NEXT
    b[columns[0], lane] += s0
    b[columns[1], lane] += s1
    b[columns[2], lane] += s2
    b[columns[3], lane] += s3
    b[columns[4], lane] += s4
    b[columns[5], lane] += s5
    b[columns[6], lane] += s6
    b[columns[7], lane] += s7
    b[columns[0], next_] += r0
    b[columns[1], next_] += r1
    b[columns[2], next_] += r2
    b[columns[3], next_] += r3
    b[columns[4], next_] += r4
    b[columns[5], next_] += r5
    b[columns[6], next_] += r6
    b[columns[7], next_] += r7


@part
def _multiply(x: Array, strips: Strips, out: Array, n: Number) -> None:
    """A small matrix times x (row, lane): the first n of out (column, lane)."""
    place, rows, c = strips
    for i in range(n):
        for lane in range(LANES):
            out[i, lane] = _ZERO
    for j in range(_U(place.shape[0])):
        o = place[j, 2]
        r0, r1, r2, r3 = rows[j, 0], rows[j, 1], rows[j, 2], rows[j, 3]
        r4, r5, r6, r7 = rows[j, 4], rows[j, 5], rows[j, 6], rows[j, 7]
        for i in range(n):
            k = o + i
            c0, c1, c2, c3 = c[k], c[k + COLUMN_1], c[k + COLUMN_2], c[k + COLUMN_3]
            c4, c5, c6, c7 = c[k + COLUMN_4], c[k + COLUMN_5], c[k + COLUMN_6], c[k + COLUMN_7]
            for lane in range(LANES):
                first = c0 * x[r0, lane] + c1 * x[r1, lane] + c2 * x[r2, lane] + c3 * x[r3, lane]
                second = c4 * x[r4, lane] + c5 * x[r5, lane] + c6 * x[r6, lane] + c7 * x[r7, lane]
                out[i, lane] += first + second


@part
def _compare(a: Array, lane: Number, place: Array, columns: Array, c: Array, mu: Array, y: Array) -> Number:
    """Sum over a strip of `mu - y + y log(y / mu)`, of which `mu` holds what earlier strips have of the expectation.

    Added as it is, channel by channel: sums of its parts would cancel to a thousandth.
    """
    begin, o = place[0], place[2]
    a0, a1, a2, a3 = a[columns[0], lane], a[columns[1], lane], a[columns[2], lane], a[columns[3], lane]
    a4, a5, a6, a7 = a[columns[4], lane], a[columns[5], lane], a[columns[6], lane], a[columns[7], lane]
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
def _deviance(y: Array, a: Array, lane: Number, strips: Strips, x: Array, mu: Array, n_channels: Number) -> Number:
    """Poisson deviance; y and mu reach to whole strips, where y is 0 and the least expectation is taken off again."""
    place, columns, c = strips
    clear(mu)
    for k in range(_U(x.shape[0])):
        x[k] = a[k, lane]
    total = -_F(_U(y.shape[0]) - n_channels) * _SMALLEST_EXPECTATION
    for j in range(_U(place.shape[0])):
        if place[j, 3] == FOUR:
            add_4(x, place[j], columns[j], c, mu)
        elif place[j, 3] == EIGHT:
            add_8(x, place[j], columns[j], c, mu)
        else:
            total += _compare(a, lane, place[j], columns[j], c, mu, y)
    return _F(2.0) * total


@part
def _expect(a: Array, variance: Array, n: Number, hazard: Array, root: Array, e: Array) -> None:
    """Expectation of what is not negative given its estimate: a + s h(a / s), h the hazard of the normal law."""
    last = _U(hazard.shape[0]) - _U(2)
    for i in range(n):
        for lane in range(LANES):
            root[i, lane] = max(np.sqrt(variance[i, lane]), _SMALLEST_SIGMA)
            e[i, lane] = max(a[i, lane] / root[i, lane], _F(LOWEST_PULL))
    # Apart: what is looked up is not vectorised.
    for i in range(n):
        for lane in range(LANES):
            t = (min(e[i, lane], _F(HIGHEST_PULL)) - _F(LOWEST_PULL)) * _F(PULL_STEPS)
            whole = _I(t)
            # The least: of a coefficient that is not a number.
            k = min(_U(np.uint32(whole)), last)
            h = hazard[k]
            e[i, lane] = (e[i, lane] + h + (t - _F(whole)) * (hazard[k + _U(1)] - h)) * root[i, lane]


@part
def _raise_to(floor: Array, x: Array, n: Number) -> None:
    for i in range(n):
        for lane in range(LANES):
            x[i, lane] = max(x[i, lane], floor[i])


@part
def _variance(
    a: Array, n_columns: Number, n: Number, strips: Strips, tables: Strips, root: Array, e: Array, variance: Array
) -> None:
    """Variance of the first n coefficients, of the expectation of all, which is left in e."""
    hazard, floor, _ = tables
    for i in range(n_columns):
        for lane in range(LANES):
            e[i, lane] = max(a[i, lane], _ZERO)
    _multiply(e, strips, variance, n)
    _raise_to(floor, variance, n)
    _expect(a, variance, n, hazard, root, e)
    _multiply(e, strips, variance, n)
    _raise_to(floor, variance, n)


@part
def _read_pixels(
    data: Array, form: tuple[Number, Number, Number, Number, Number], begin: Number, n: Number, y: Array, total: Array
) -> None:
    """Counts and totals of n pixels; lanes beyond them are 0, as all are computed with and none depends on another."""
    kind, stride, n_channels, first, stop = form
    for lane in range(n):
        read_counts(data, kind, (begin + lane) * stride, n_channels, y[lane])
        seen = add_up(y[lane], first, stop - first)
        every = seen + add_up(y[lane], _U(0), first) + add_up(y[lane], stop, n_channels - stop)
        total[begin + lane] = seen
        # Not by isfinite: numba makes it `x - x`, which is reordered to 0.
        if not abs(every) <= LARGEST:
            total[begin + lane] = np.nan
            clear(y[lane])
    for lane in range(n, _LANES):
        clear(y[lane])


@part
def _project(y: Array, strips: Strips, b: Array) -> None:
    """`y @ matrix` (column, lane), b with one more row for what fills strips up."""
    place, columns, t = strips
    for k in range(_U(b.shape[0])):
        clear(b[k])
    for lane in range(_U(0), _LANES, _TWO):
        for j in range(_U(place.shape[0])):
            if place[j, 3] == FOUR:
                _project_4(y[lane], y[lane + _NEXT], place[j], columns[j], t, b, lane)
            else:
                _project_8(y[lane], y[lane + _NEXT], place[j], columns[j], t, b, lane)


@part
def _take_own(spread: Array, e: Array, tables: Strips, begin: Number, n: Number, nulls: Array) -> None:
    """The variance in the absence of each component: without what its own counts add."""
    _, floor, own = tables
    for k in range(_U(nulls.shape[0])):
        for lane in range(n):
            nulls[k, begin + lane] = max(spread[k, lane] - e[k, lane] * own[k], floor[k])


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, uint64, uint64, int64, {STRIPS}, {STRIPS}, {STRIPS}, {STRIPS}, "
    f"{TABLES}, float32[:,::1], float32[::1], float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], "
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
        y: (lane, channel) room for the counts of `LANES` pixels, to whole strips, 0 beyond the last channel.
        mu: (channel,) room of the same size.
        coefficients: (column, pixel).
        total: (pixel,); NaN where a count is not finite, and the coefficients are 0.
        variances: (component, pixel).
        nulls: (component, pixel) variance in the absence of the component.
        deviance: (pixel,).
    """
    n_columns, n_components = _U(coefficients.shape[0]), _U(variances.shape[0])
    n_pixels, size = _U(coefficients.shape[1]), _U(tables[1].shape[0])
    form = (kind, stride, n_channels, first, stop)
    a, b = np.zeros((size + _NEXT, _LANES), np.float32), np.zeros((size + _NEXT, _LANES), np.float32)
    spread, root = np.zeros((size, _LANES), np.float32), np.zeros((size, _LANES), np.float32)
    x = np.zeros(size + _NEXT, np.float32)
    for begin in range(_U(0), n_pixels, _LANES):
        n = min(_LANES, n_pixels - begin)
        _read_pixels(data, form, begin, n, y, total)
        if known:
            take_pixels(coefficients, begin, n, a)
        else:
            _project(y, projector, b)
            _multiply(b, mixing, a, n_columns)
            put_pixels(a, begin, n, coefficients)
        if n_components > 0:
            _variance(a, n_columns, n_components, variance, tables, root, b, spread)
            put_pixels(spread, begin, n, variances)
            _take_own(spread, b, tables, begin, n, nulls)
        if deviance.shape[0] > 0:
            for lane in range(n):
                deviance[begin + lane] = _deviance(y[lane], a, lane, columns, x, mu, n_channels)
