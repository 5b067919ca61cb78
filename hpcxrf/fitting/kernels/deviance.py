"""How far the deviance of a pixel is from its expectation, in standard deviations: pixels side by side.

The formulas stand in `hpcxrf.fitting.pixels.expected_deviance`. Inner loops run over pixels, as many as make up for
what a loop costs, so that all functions of an expectation are vectorised and products leave out what is next to 0.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.layout import FAR_OUT, FEW_COUNTS, NEAR, NEAR_SCALE, SMALLEST_EXPECTATION
from hpcxrf.fitting.kernels.loops import ROWS, Array, Number, Rows, clear, log, take_pixels
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_TWO: Final = np.float32(2.0)
_FOUR: Final = np.float32(4.0)
_LANES: Final = np.uint64(128)
_LOWEST: Final = np.float32(SMALLEST_EXPECTATION)
_FEW: Final = np.float32(FEW_COUNTS)
_SCALE: Final = np.float32(NEAR_SCALE)
_N0, _N1, _N2, _N3 = (tuple(np.float32(c) for c in row) for row in NEAR)
_F0, _F1, _F2, _F3 = (tuple(np.float32(c) for c in row) for row in FAR_OUT)


@part
def _near(c: tuple[Number, ...], s: Number) -> Number:
    return s * (c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * c[4]))))


@part
def _far(c: tuple[Number, ...], x: Number) -> Number:
    return x * (c[0] + x * (c[1] + x * c[2]))


@part
def _combine(rows: Rows, row: Number, x: Array, out: Array, place: Number) -> None:
    """A row of a sparse matrix times x (column, lane): out (lane,). Its numbers come in fours."""
    start, index, value = rows
    for lane in range(_LANES):
        out[place, lane] = _ZERO
    for i in range(start[row], start[row + _U(1)]):
        g = _U(4) * i
        k0, k1, k2, k3 = index[g], index[g + _U(1)], index[g + _U(2)], index[g + _U(3)]
        v0, v1, v2, v3 = value[g], value[g + _U(1)], value[g + _U(2)], value[g + _U(3)]
        for lane in range(_LANES):
            out[place, lane] += (v0 * x[k0, lane] + v1 * x[k1, lane]) + (v2 * x[k2, lane] + v3 * x[k3, lane])


@part
def _add_terms(mu: Array, row: Number, number: Number, leverage: Number, slope: Array, sums: Array) -> None:
    """Add a sample's mean and variance, below the least expectation by a tangent and a line; its slopes."""
    for lane in range(_LANES):
        m = max(mu[row, lane], _LOWEST)
        below = mu[row, lane] - m
        up, s, x = log(m), m / (m + _SCALE), _ONE / m
        few = m < _FEW
        change = _near(_N1, s)
        steep = _TWO * (change - up - _ONE) if few else x * _far(_F1, x)
        mean = _TWO * m * (_near(_N0, s) - up) if few else _ONE + _far(_F0, x)
        near = _FOUR * m * (_near(_N2, s) + (_ONE + up) * (_ONE + up - _TWO * change))
        variance = near if few else _TWO + _far(_F2, x)
        free = _near(_N3, s) if few else _ONE + _far(_F3, x)
        slope[row, lane] = steep
        sums[_U(0), lane] += number * (mean + steep * below) - leverage * free
        sums[_U(1), lane] += number * variance * (_ONE + below * x)


@part
def _take_off(mu: Array, slope: Array, response: Array, row: Number, number: Number, sums: Array) -> None:
    """Take off the variance that the amplitudes share with the expectation that is made of them."""
    for lane in range(_LANES):
        r = response[_U(0), lane]
        sums[_U(1), lane] += number * mu[row, lane] * r * (r - _TWO * slope[row, lane])


@part
def _move_mean(steep: Array, unbiased: Array, a: Array, sums: Array) -> None:
    """Take the mean at the unbiased coefficients, along its tangent."""
    for k in range(_U(a.shape[0])):
        for lane in range(_LANES):
            sums[_U(0), lane] += steep[k, lane] * (unbiased[k, lane] - a[k, lane])


@part
def _compare(misfit: Array, sums: Array, variance_floor: Number) -> None:
    """The deviance less its mean, over its standard deviation, in the place of the deviance."""
    for lane in range(_LANES):
        misfit[lane] = (misfit[lane] - sums[_U(0), lane]) / np.sqrt(max(sums[_U(1), lane], variance_floor))


@kernel(
    f"void(float32[:,::1], float32[:,::1], float32[::1], float32, {ROWS}, {ROWS}, {ROWS}, {ROWS}, float32[:,::1], "
    "float32, float32[::1])"
)
def standardise(
    coefficients: Array,
    signed: Array,
    misfit: Array,
    share: Number,
    spectra: Rows,
    gather: Rows,
    inverse: Rows,
    response: Rows,
    samples: Array,
    variance_floor: Number,
    out: Array,
) -> None:
    """Deviance less its expectation, over its standard deviation.

    Args:
        coefficients: (column, pixel).
        signed: (column, pixel) unbiased coefficients.
        misfit: (pixel,) deviance.
        share: degrees of freedom of all parameters over those of the columns.
        spectra: rows of the basis (sample, column).
        gather: the same turned, times the channels that a sample stands for (column, sample).
        inverse: inverse Gram matrix (column, column).
        response: weighted basis (sample, column).
        samples: (2, sample): channels that one stands for, leverage.
        variance_floor: least variance.
        out: (pixel,).
    """
    n_columns, n_samples = _U(coefficients.shape[0]), _U(samples.shape[1])
    n_pixels = _U(out.shape[0])
    a, q = np.zeros((n_columns, _LANES), np.float32), np.zeros((n_columns, _LANES), np.float32)
    u, unbiased = np.zeros((n_columns, _LANES), np.float32), np.zeros((n_columns, _LANES), np.float32)
    z = np.zeros(_LANES, np.float32)
    mu, slope = np.zeros((n_samples, _LANES), np.float32), np.zeros((n_samples, _LANES), np.float32)
    back, sums = np.zeros((1, _LANES), np.float32), np.zeros((2, _LANES), np.float32)
    for first in range(_U(0), n_pixels, _LANES):
        n = min(_LANES, n_pixels - first)
        # All lanes are computed with, also of what is left of other pixels: a processor may round what remains after
        # whole vectors otherwise.
        take_pixels(coefficients, first, n, a)
        take_pixels(signed, first, n, unbiased)
        for lane in range(n):
            z[lane] = misfit[first + lane]
        clear(sums[0])
        clear(sums[1])
        for i in range(n_samples):
            _combine(spectra, i, a, mu, i)
            _add_terms(mu, i, samples[0, i], share * samples[1, i], slope, sums)
        for k in range(n_columns):
            _combine(gather, k, slope, q, k)
        _move_mean(q, unbiased, a, sums)
        for k in range(n_columns):
            _combine(inverse, k, q, u, k)
        for i in range(n_samples):
            _combine(response, i, u, back, _U(0))
            _take_off(mu, slope, back, i, samples[0, i], sums)
        _compare(z, sums, variance_floor)
        for lane in range(n):
            out[first + lane] = z[lane]
