"""Amplitudes, their variance and the deviance of pixels, side by side in lanes (`hpcxrf.fitting.kernels.lanes`)."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.faint import MODEL, Model, find_picked_deviance, make_room, pick_pixels, project_picked
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
from hpcxrf.fitting.kernels.lane_variances import find_variance, take_own
from hpcxrf.fitting.kernels.lanes import LANES, Lanes, holds, inverse, larger, load, spread, store
from hpcxrf.fitting.kernels.layout import SMALLEST_EXPECTATION
from hpcxrf.fitting.kernels.loops import STRIPS, TABLES, TINY, Array, Number, Strips
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_SMALLEST_EXPECTATION: Final = np.float32(SMALLEST_EXPECTATION)
_WIDTH: Final = np.uint64(LANES)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)


@part
def _compare(y: Array, mu: Array, begin: Number, stop: Number) -> Lanes:
    """Sum over channels of `mu - y + y log(y / mu)`, as it is: sums of its parts would cancel to a thousandth."""
    total = spread(_ZERO)
    for i in range(begin, stop):
        m, v = larger(load(mu, i), spread(_SMALLEST_EXPECTATION)), load(y, i)
        # Where no pixel has a count, as in most channels of faint ones, the rest is 0.
        if holds(inverse(v == _ZERO)):
            total += (m - v) + v * log_lanes(larger(v / m, spread(TINY)))
        else:
            total += m
    return total


@part
def _find_deviance(y: Array, a: Array, strips: Strips, mu: Array) -> Lanes:
    """Poisson deviance, run by run of channels, while what is expected of them is in the nearest cache."""
    places, j = strips[0], _U(0)
    total = spread(_ZERO)
    while j < _U(places.shape[0]):
        begin, stop = places[j, 0], end_of_run(strips, j)
        fill_rows(mu, begin, places[j, 1], _ZERO)
        add_strips(a, strips, j, stop, mu)
        total += _compare(y, mu, begin, begin + places[j, 1])
        j = stop
    return total * _F(2.0)


@part
def _put_others(found: Lanes, own: Array, n: Number, rest: Array, misfit: Array) -> None:
    """Deviance of the pixels that are not faint."""
    store(rest, _U(0), found)
    for lane in range(n):
        if not own[lane]:
            misfit[lane] = rest[lane]


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, uint64, uint64, int64, {STRIPS}, {STRIPS}, {STRIPS}, {MODEL}, "
    f"{STRIPS}, {TABLES}, float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], float32[:,::1], float32[::1])",
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
    faint: Model,
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
        faint: `hpcxrf.fitting.kernels.faint.Model`, what pixels of few counts are fitted by.
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
    misfit, rest = np.zeros(_WIDTH, np.float32), np.zeros(_WIDTH, np.float32)
    (picked, words), few = make_room(n_channels, n_columns), _U(0)
    for begin in range(_U(0), n_pixels, _WIDTH):
        n = min(_WIDTH, n_pixels - begin)
        others = pick_pixels(data, form, begin, n, _U(0), picked, words, total) if few else n
        if others:
            read_lanes(data, form, begin, n, y, total)
            others = pick_pixels(data, form, begin, n, _1, picked, words, total)
        # Of which the next ones are likely to be.
        few = _U(_2 * others < n)
        if known:
            take_lanes(coefficients, begin, n, a)
        else:
            if others:
                project_lanes(y, projector, b)
            project_picked(picked, n, n_columns, faint[0], b)
            multiply_lanes(b, mixing, a[:n_columns])
            put_lanes(a, begin, n, coefficients)
        if n_components > 0:
            find_variance(a, n_components, variance, tables, room, b, spreads)
            put_lanes(spreads, begin, n, variances)
            put_lanes(b, begin, n, expected)
            take_own(spreads, tables, n_components, b)
            put_lanes(b, begin, n, nulls)
        if deviance.shape[0] > 0:
            if others < n:
                find_picked_deviance(picked, n, a, faint, mu, misfit)
            if others:
                _put_others(_find_deviance(y, a, columns, mu), picked[0], n, rest, misfit)
            for lane in range(n):
                deviance[begin + lane] = misfit[lane]


@kernel(f"void(uint8[::1], int64, uint64, uint64, {STRIPS}, float32[:,::1], float32[::1])", makes_arrays=True)
def project_pixels(
    data: Array, kind: int, stride: int, n_channels: int, matrix: Strips, products: Array, total: Array
) -> None:
    """Products of the columns of a matrix with the counts of pixels.

    Args:
        data: bytes of the counts of all pixels.
        kind: type of the counts.
        stride: counts from one pixel to the next.
        n_channels: channels of a pixel.
        matrix: strips of the columns over channels.
        products: (column, pixel).
        total: (pixel,) counts; NaN where one is not finite, and the products are 0.
    """
    form = (kind, stride, n_channels, _U(0), n_channels)
    # With one more row for what fills strips up.
    y, sums = np.zeros((n_channels, _WIDTH), _F), np.zeros((_U(products.shape[0]) + _U(1), _WIDTH), _F)
    n_pixels = _U(products.shape[1])
    for begin in range(_U(0), n_pixels, _WIDTH):
        count = min(_WIDTH, n_pixels - begin)
        read_lanes(data, form, begin, count, y, total)
        project_lanes(y, matrix, sums)
        put_lanes(sums, begin, count, products)
