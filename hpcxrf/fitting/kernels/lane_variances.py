"""Variances of amplitudes of pixels in lanes, compiled with the kernels that give them."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lane_loops import multiply_lanes
from hpcxrf.fitting.kernels.lanes import LANES, larger, load, root, smaller, spread, store
from hpcxrf.fitting.kernels.layout import HIGHEST_PULL, LOWEST_PULL, PULL_STEPS, SMALLEST_SIGMA
from hpcxrf.fitting.kernels.loops import Array, Number, Strips
from hpcxrf.fitting.kernels.machine_code import part

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
_SMALLEST_SIGMA: Final = np.float32(SMALLEST_SIGMA)
_WIDTH: Final = np.uint64(LANES)


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
def find_variance(
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
def take_own(variance: Array, tables: Strips, n: Number, e: Array) -> None:
    """The variance in the absence of each component, in the place of its expectation: without what its counts add."""
    _, floor, own = tables
    for k in range(n):
        store(e, k, larger(load(variance, k) - load(e, k) * own[k], spread(floor[k])))
