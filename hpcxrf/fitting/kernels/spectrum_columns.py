"""Kernel: the columns of a spectrum's model, each drawn over the channels where it is not nothing."""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

_U: Final = np.uint64
_PER_ROOT_2: Final = math.sqrt(0.5)
_DENSITY: Final = 1.0 / math.sqrt(2.0 * math.pi)
# A Gaussian has fallen to 1e-14 there, a tail to as much of what it is at the peak: their derivatives, which grow with
# the square of the distance, to 1e-12.
_REACH: Final = 8.0
_TAIL_REACH: Final = 4.0
_DECAYS: Final = 32.0
# As in `hpcxrf.physics.shapes`.
_LOWEST: Final = -4.5
_MOST_EXPONENT: Final = 40.0
_EVERYWHERE: Final = 1e9
_SHELF_REACH: Final = 8.7 / _PER_ROOT_2


@part
def _find(energy: Array, n: Number, wanted: Number) -> Number:
    """The first channel at or above an energy."""
    low, high = _U(0), n
    while low < high:
        middle = (low + high) >> _U(1)
        if energy[middle] < wanted:
            low = middle + _U(1)
        else:
            high = middle
    return low


@part
def _exponentiate(x: Array, n: Number, factor: Number) -> None:
    """`factor exp(x)` in place, -80 < x < 80, to 3e-14: Taylor's series of x / 128, squared seven times."""
    for i in range(n):
        y = x[i] * (1.0 / 128.0)
        p = 1.0 + y * (1.0 / 12.0 + y * (1.0 / 156.0 + y * (1.0 / 2184.0)))
        p = 1.0 + y * (1.0 / 8.0 + y * (1.0 / 72.0 + y * (1.0 / 720.0 + y * (1.0 / 7920.0) * p)))
        p = 1.0 + y * (1.0 / 4.0 + y * (1.0 / 20.0 + y * (1.0 / 120.0 + y * (1.0 / 840.0) * p)))
        p = 1.0 + y * (1.0 + y * (1.0 / 2.0 + y * (1.0 / 6.0) * p))
        p *= p
        p *= p
        p *= p
        p *= p
        p *= p
        p *= p
        x[i] = factor * (p * p)


@part
def _draw(kind: Number, energy: Array, begin: Number, end: Number, term: Array, shape: Array) -> None:
    """Gaussian (0), tail (1) or shelf (2) over a run of channels."""
    centre, per_sigma, inverse = term[at.CENTRE], 1.0 / term[at.SIGMA], 1.0 / term[at.GAMMA]
    n, a, b, c, factor = end - begin, -0.5, 0.0, 0.0, _DENSITY
    if kind != _U(0):
        a, b, c, factor = 0.0, inverse, 0.5 * inverse * inverse, 0.5 * inverse
    if kind == _U(2):
        b, c, factor = 0.0, 0.0, 1.0
    for i in range(n):
        u = (energy[begin + i] - centre) * per_sigma
        shape[i] = min(max((a * u + b) * u + c, -_MOST_EXPONENT), _MOST_EXPONENT)
    _exponentiate(shape, n, factor)
    if kind != _U(0):
        shift, far = inverse if kind == _U(1) else 0.0, math.erfc(_LOWEST)
        for i in range(n):
            z = ((energy[begin + i] - centre) * per_sigma + shift) * _PER_ROOT_2
            shape[i] *= far if z < _LOWEST else math.erfc(z)


@part
def _place_run(kind: Number, energy: Array, n: Number, term: Array, run: Array) -> None:
    """The channels where a shape is not nothing."""
    below, above = _REACH, _REACH
    if kind == _U(1):
        below = _TAIL_REACH + _DECAYS * term[at.GAMMA]
    if kind == _U(2):
        below, above = _EVERYWHERE, _SHELF_REACH
    sigma = term[at.SIGMA]
    low, high = term[at.CENTRE] - below * sigma, term[at.CENTRE] + above * sigma
    run[0], run[1] = _find(energy, n, min(low, high)), _find(energy, n, max(low, high))


@part
def _set_axis(theta: Array, n: Number, data: Array) -> Number:
    """Energies and widths of the channels; whether the energies rise."""
    for i in range(n):
        channel = data[at.CHANNEL, i]
        data[at.ENERGY, i] = theta[at.OFFSET] + channel * (theta[at.SLOPE] + channel * theta[at.QUADRATIC])
        data[at.BIN_KEV, i] = theta[at.SLOPE] + 2.0 * theta[at.QUADRATIC] * channel
    return data[at.BIN_KEV, 0] > 0.0 and data[at.BIN_KEV, n - _U(1)] > 0.0


@part
def _add_shape(kind: Number, height: Number, term: Array, data: Array, run: Array, shape: Array, column: Array) -> None:
    """Draw a shape over its run, and add it to the column of its component."""
    _draw(kind, data[at.ENERGY], run[0], run[1], term, shape)
    for i in range(run[1] - run[0]):
        column[run[0] + i] += height * shape[i]


@part
def _clear(sizes: Array, columns: Array, spans: Array) -> None:
    for c in range(sizes[at.N_COMPONENTS]):
        spans[c, 0], spans[c, 1] = sizes[at.N_CHANNELS], _U(0)
        for i in range(sizes[at.N_CHANNELS]):
            columns[c, i] = 0.0


@kernel(
    "void(float64[::1], uint64[::1], float64[:,::1], uint64[:,::1], uint64[:,::1], float64[:,::1], float64[::1], "
    "float64[:,::1], uint64[:,::1])"
)
def draw_columns(
    theta: Array,
    sizes: Array,
    terms: Array,
    profiles: Array,
    index: Array,
    data: Array,
    shapes: Array,
    columns: Array,
    spans: Array,
) -> None:
    """Draw the shapes of all profiles, and the columns of the components, counts a channel of one count.

    Args:
        theta: (parameter,).
        sizes: (number,).
        terms: (profile, term).
        profiles: (profile, number); the runs are written.
        index: (line, number).
        data: (row, channel); energies and widths of the channels are written.
        shapes: (place,), room for all; written.
        columns: (component and hat, channel); those of the components are written.
        spans: (component and hat, 2) first channel, channel after the last; those of the components are written.
    """
    n, o = sizes[at.N_CHANNELS], _U(0)
    rises = _set_axis(theta, n, data)
    _clear(sizes, columns, spans)
    for k in range(sizes[at.N_PROFILES]):
        c = index[profiles[k, at.LINE], at.COLUMN]
        for kind in range(_U(3)):
            run, height = profiles[k, _U(at.RUNS) + _U(3) * kind :], terms[k, _U(at.GAUSS) + kind]
            run[0], run[1], run[2] = _U(0), n * profiles[k, _U(at.DRAWS) + kind], o
            if rises and run[1] > _U(0):
                _place_run(kind, data[at.ENERGY], n, terms[k], run)
            if run[0] < run[1]:
                _add_shape(kind, height, terms[k], data, run, shapes[o:], columns[c])
                o += run[1] - run[0]
                if height != 0.0:
                    spans[c, 0], spans[c, 1] = min(spans[c, 0], run[0]), max(spans[c, 1], run[1])
    for c in range(sizes[at.N_COMPONENTS]):
        for i in range(spans[c, 0], spans[c, 1]):
            columns[c, i] *= data[at.BIN_KEV, i]
