"""Amplitudes, their variance and the deviance of pixels, side by side in lanes (`hpcxrf.fitting.kernels.lanes`)."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lane_loops import (
    add_strips,
    end_of_run,
    fill_rows,
    log_lanes,
    multiply_lanes,
    project_lanes,
    put_lanes,
    read_lanes,
    take_lanes,
)
from hpcxrf.fitting.kernels.lanes import LANES, Lanes, larger, load, root, smaller, spread, store
from hpcxrf.fitting.kernels.layout import HIGHEST_PULL, LOWEST_PULL, PULL_STEPS, SMALLEST_EXPECTATION, SMALLEST_SIGMA
from hpcxrf.fitting.kernels.loops import STRIPS, TABLES, TINY, Array, Number, Strips
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
_SMALLEST_EXPECTATION: Final = np.float32(SMALLEST_EXPECTATION)
_SMALLEST_SIGMA: Final = np.float32(SMALLEST_SIGMA)
_WIDTH: Final = np.uint64(LANES)


@part
def _compare(y: Array, mu: Array, begin: Number, stop: Number) -> Lanes:
    """Sum over channels of `mu - y + y log(y / mu)`, as it is: sums of its parts would cancel to a thousandth."""
    total = spread(_ZERO)
    for i in range(begin, stop):
        m, v = larger(load(mu, i), spread(_SMALLEST_EXPECTATION)), load(y, i)
        total += (m - v) + v * log_lanes(larger(v / m, spread(TINY)))
    return total


@part
def _find_deviance(y: Array, a: Array, strips: Strips, mu: Array, n_channels: Number) -> Lanes:
    """Poisson deviance, run by run of channels, while what is expected of them is in the nearest cache."""
    places, j = strips[0], _U(0)
    total = spread(_ZERO)
    while j < _U(places.shape[0]):
        begin, stop = places[j, 0], end_of_run(strips, j)
        fill_rows(mu, begin, places[j, 1], _ZERO)
        add_strips(a, strips, j, stop, mu)
        total += _compare(y, mu, begin, min(begin + places[j, 1], n_channels))
        j = stop
    return total * _F(2.0)


@part
def _expect(a: Array, variance: Array, n: Number, hazard: Array, pull: Array, sigma: Array, e: Array) -> None:
    """Expectation of what is not negative given its estimate: a + s h(a / s), h the hazard of the normal law."""
    last = _U(hazard.shape[0]) - _U(2)
    for i in range(n):
        s = larger(root(load(variance, i)), spread(_SMALLEST_SIGMA))
        t = larger(load(a, i) / s, spread(_F(LOWEST_PULL)))
        store(sigma, i, s)
        store(e, i, t)
        store(pull, i, (smaller(t, spread(_F(HIGHEST_PULL))) - _F(LOWEST_PULL)) * _F(PULL_STEPS))
    # Apart: what is looked up is no vector.
    for i in range(n):
        for lane in range(_WIDTH):
            t = pull[i, lane]
            whole = _I(t)
            # The least: of a coefficient that is not a number.
            k = min(_U(np.uint32(whole)), last)
            h = hazard[k]
            pull[i, lane] = h + (t - _F(whole)) * (hazard[k + _U(1)] - h)
    for i in range(n):
        store(e, i, (load(e, i) + load(pull, i)) * load(sigma, i))


@part
def _raise_to(floor: Array, n: Number, x: Array) -> None:
    for i in range(n):
        store(x, i, larger(load(x, i), spread(floor[i])))


@part
def _find_variance(
    a: Array, n: Number, strips: Strips, tables: Strips, room: tuple[Array, Array], e: Array, variance: Array
) -> None:
    """Variance of the first n coefficients, of the expectation of all, which is left in e."""
    hazard, floor, _ = tables
    for i in range(_U(a.shape[0])):
        store(e, i, larger(load(a, i), spread(_ZERO)))
    multiply_lanes(e, strips, variance)
    _raise_to(floor, n, variance)
    _expect(a, variance, n, hazard, room[0], room[1], e)
    multiply_lanes(e, strips, variance)
    _raise_to(floor, n, variance)


@part
def _take_own(variance: Array, tables: Strips, n: Number, e: Array) -> None:
    """The variance in the absence of each component, in the place of its expectation: without what its counts add."""
    _, floor, own = tables
    for k in range(n):
        store(e, k, larger(load(variance, k) - load(e, k) * own[k], spread(floor[k])))


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, uint64, uint64, int64, {STRIPS}, {STRIPS}, {STRIPS}, {STRIPS}, "
    f"{TABLES}, float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], float32[:,::1], float32[::1])",
    makes_arrays=True,
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
    coefficients: Array,
    total: Array,
    variances: Array,
    nulls: Array,
    expected: Array,
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
        coefficients: (column, pixel).
        total: (pixel,); NaN where a count is not finite, and the coefficients are 0.
        variances: (component, pixel).
        nulls: (component, pixel) variance in the absence of the component.
        expected: (column, pixel) what is expected of coefficients that are not negative, given these.
        deviance: (pixel,).
    """
    n_columns, n_components = _U(coefficients.shape[0]), _U(variances.shape[0])
    n_pixels, form = _U(coefficients.shape[1]), (kind, stride, n_channels, first, stop)
    # One more row for what fills strips up.
    a, b = np.zeros((n_columns + _U(1), _WIDTH), np.float32), np.zeros((n_columns + _U(1), _WIDTH), np.float32)
    spreads = np.zeros((n_components, _WIDTH), np.float32)
    room = (np.zeros((n_components, _WIDTH), np.float32), np.zeros((n_components, _WIDTH), np.float32))
    y, mu = np.zeros((n_channels, _WIDTH), np.float32), np.zeros((n_channels, _WIDTH), np.float32)
    misfit = np.zeros(_WIDTH, np.float32)
    for begin in range(_U(0), n_pixels, _WIDTH):
        n = min(_WIDTH, n_pixels - begin)
        read_lanes(data, form, begin, n, y, total)
        if known:
            take_lanes(coefficients, begin, n, a)
        else:
            project_lanes(y, projector, b)
            multiply_lanes(b, mixing, a[:n_columns])
            put_lanes(a, begin, n, coefficients)
        if n_components > 0:
            _find_variance(a, n_components, variance, tables, room, b, spreads)
            put_lanes(spreads, begin, n, variances)
            put_lanes(b, begin, n, expected)
            _take_own(spreads, tables, n_components, b)
            put_lanes(b, begin, n, nulls)
        if deviance.shape[0] > 0:
            store(misfit, _U(0), _find_deviance(y, a, columns, mu, n_channels))
            for lane in range(n):
                deviance[begin + lane] = misfit[lane]
