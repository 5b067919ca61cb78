"""How far the deviance of a pixel is from its expectation, in standard deviations: pixels side by side in lanes.

The formulas stand in `hpcxrf.fitting.pixels.expected_deviance`. Products leave out what is next to 0.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lane_loops import log_lanes, take_lanes
from hpcxrf.fitting.kernels.lanes import LANES, Lanes, fails, holds, larger, load, root, spread, store, where
from hpcxrf.fitting.kernels.layout import FAR_OUT, FEW_COUNTS, NEAR, NEAR_SCALE, SMALLEST_EXPECTATION
from hpcxrf.fitting.kernels.loops import ROWS, Array, Number, Rows
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_TWO: Final = np.float32(2.0)
_FOUR: Final = np.float32(4.0)
_WIDTH: Final = np.uint64(LANES)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_3: Final = np.uint64(3)
_4: Final = np.uint64(4)
_LOWEST: Final = np.float32(SMALLEST_EXPECTATION)
_FEW: Final = np.float32(FEW_COUNTS)
_SCALE: Final = np.float32(NEAR_SCALE)
_N0, _N1, _N2, _N3 = (tuple(np.float32(c) for c in row) for row in NEAR)
_F0, _F1, _F2, _F3 = (tuple(np.float32(c) for c in row) for row in FAR_OUT)
Terms = tuple[Lanes, Lanes, Lanes, Lanes]


@part
def _near(c: tuple[Number, ...], s: Lanes) -> Lanes:
    return s * (c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * c[4]))))


@part
def _far(c: tuple[Number, ...], x: Lanes) -> Lanes:
    return x * (c[0] + x * (c[1] + x * c[2]))


@part
def _combine(rows: Rows, row: Number, x: Array) -> Lanes:
    """A row of a sparse matrix times x (column, lane). Its numbers come in fours."""
    start, index, value = rows
    total = spread(_ZERO)
    for i in range(_4 * start[row], _4 * start[row + _1], _4):
        first = load(x, index[i]) * value[i] + load(x, index[i + _1]) * value[i + _1]
        second = load(x, index[i + _2]) * value[i + _2] + load(x, index[i + _3]) * value[i + _3]
        total += first + second
    return total


@part
def _find_near_terms(m: Lanes) -> Terms:
    """Mean, variance over m, slope and what a degree of freedom takes, of few counts."""
    up, s = log_lanes(m), m / (m + _SCALE)
    change = _near(_N1, s)
    mean = m * _TWO * (_near(_N0, s) - up)
    variance = _FOUR * (_near(_N2, s) + (up + _ONE) * (up + _ONE - change * _TWO))
    return mean, variance, (change - up - _ONE) * _TWO, _near(_N3, s)


@part
def _find_far_terms(m: Lanes) -> Terms:
    """The same of many."""
    x = _ONE / m
    return _far(_F0, x) + _ONE, (_far(_F2, x) + _TWO) * x, x * _far(_F1, x), _far(_F3, x) + _ONE


@part
def _find_terms(m: Lanes) -> Terms:
    """The same of any; what no pixel needs is not computed."""
    few = m < _FEW
    if not fails(few):
        return _find_near_terms(m)
    if not holds(few):
        return _find_far_terms(m)
    near, far = _find_near_terms(m), _find_far_terms(m)
    return (
        where(few, near[0], far[0]),
        where(few, near[1], far[1]),
        where(few, near[2], far[2]),
        where(few, near[3], far[3]),
    )


@part
def _standardise(
    a: Array,
    unbiased: Array,
    misfit: Lanes,
    share: Number,
    law: tuple[Rows, Rows, Rows, Rows],
    samples: Array,
    variance_floor: Number,
    room: tuple[Array, Array, Array, Array],
) -> Lanes:
    spectra, gather, inverse, response = law
    mu, slope, q, u = room
    n_columns, n_samples = _U(a.shape[0]), _U(samples.shape[1])
    mean, variance = spread(_ZERO), spread(_ZERO)
    for i in range(n_samples):
        m = _combine(spectra, i, a)
        used = larger(m, spread(_LOWEST))
        own, spread_out, steep, free = _find_terms(used)
        # Below the least expectation by a tangent and a line.
        mean += (own + steep * (m - used)) * samples[0, i] - free * (share * samples[1, i])
        variance += spread_out * m * samples[0, i]
        store(mu, i, m)
        store(slope, i, steep)
    # The mean is taken at the unbiased coefficients, along its tangent.
    for k in range(n_columns):
        steep = _combine(gather, k, slope)
        mean += steep * (load(unbiased, k) - load(a, k))
        store(q, k, steep)
    for k in range(n_columns):
        store(u, k, _combine(inverse, k, q))
    # The variance that the amplitudes share with the expectation that is made of them.
    for i in range(n_samples):
        r = _combine(response, i, u)
        variance += load(mu, i) * r * (r - load(slope, i) * _TWO) * samples[0, i]
    return (misfit - mean) / root(larger(variance, spread(variance_floor)))


@kernel(
    f"void(float32[:,::1], float32[:,::1], float32[::1], float32, {ROWS}, {ROWS}, {ROWS}, {ROWS}, float32[:,::1], "
    "float32, float32[::1])",
    makes_arrays=True,
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
    a, unbiased = np.zeros((n_columns, _WIDTH), np.float32), np.zeros((n_columns, _WIDTH), np.float32)
    q, u = np.zeros((n_columns, _WIDTH), np.float32), np.zeros((n_columns, _WIDTH), np.float32)
    mu, slope = np.zeros((n_samples, _WIDTH), np.float32), np.zeros((n_samples, _WIDTH), np.float32)
    z, law, room = np.zeros(_WIDTH, np.float32), (spectra, gather, inverse, response), (mu, slope, q, u)
    for first in range(_U(0), n_pixels, _WIDTH):
        n = min(_WIDTH, n_pixels - first)
        take_lanes(coefficients, first, n, a)
        take_lanes(signed, first, n, unbiased)
        for lane in range(n):
            z[lane] = misfit[first + lane]
        found = _standardise(a, unbiased, load(z, _U(0)), share, law, samples, variance_floor, room)
        store(z, _U(0), found)
        for lane in range(n):
            out[first + lane] = z[lane]
