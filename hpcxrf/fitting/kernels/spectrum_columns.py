"""Kernel: the columns of a spectrum's model, each drawn over the channels where it is not nothing."""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

DRAW_COLUMNS: Final = (
    "void(float64[::1], uint64[::1], float64[::1], float64[:,::1], uint64[:,::1], uint64[:,::1], float64[:,::1], "
    "float64[::1], float64[:,::1], uint64[:,::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64
_PER_ROOT_2: Final = math.sqrt(0.5)
_DENSITY: Final = 1.0 / math.sqrt(2.0 * math.pi)
# As in `hpcxrf.physics.shapes`.
_LOWEST: Final = -4.5
_MOST_EXPONENT: Final = 40.0
_EVERYWHERE: Final = 1e9
_SHELF_REACH: Final = 8.7 / _PER_ROOT_2
# (1 + 2 x) exp(x^2) erfc(x) by powers of (x - 3) / (x + 3), through its values at Chebyshev points of 0 <= x <= 9.
_C: Final = (
    1.2530080582697296,
    -0.13562110612459827,
    -0.047562294353410556,
    0.12964515870482649,
    -0.11927366341668756,
    0.06830802727021358,
    -0.023770514935296857,
    0.002529392991125555,
    0.0018886914191118362,
    -0.0007798417372038334,
    -0.00010517424872448897,
    0.0001251366997439135,
    5.037499474029302e-06,
    -2.0146562007984794e-05,
    -9.834847807670608e-07,
    3.356039745785355e-06,
    6.224062312191235e-07,
    -2.915841218775189e-07,
    -9.345792373178175e-08,
)


@part
def find_channel(energy: Array, n: Number, wanted: Number) -> Number:
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
def _exp(x: Number) -> Number:
    """`exp(x)`, -80 < x < 80, to 3e-14: Taylor's series of x / 128, squared seven times; it vectorises."""
    y = x * (1.0 / 128.0)
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
    return p * p


@part
def _erfcx(x: Number) -> Number:
    """`exp(x^2) erfc(x)`, 0 <= x < 9, to 2e-15, by a series of `(x - 3) / (x + 3)` (Shepherd and Laframboise 1981)."""
    t = (x - 3.0) / (x + 3.0)
    p = t * _C[18] + _C[17]
    p = p * t + _C[16]
    p = p * t + _C[15]
    p = p * t + _C[14]
    p = p * t + _C[13]
    p = p * t + _C[12]
    p = p * t + _C[11]
    p = p * t + _C[10]
    p = p * t + _C[9]
    p = p * t + _C[8]
    p = p * t + _C[7]
    p = p * t + _C[6]
    p = p * t + _C[5]
    p = p * t + _C[4]
    p = p * t + _C[3]
    p = p * t + _C[2]
    p = p * t + _C[1]
    p = p * t + _C[0]
    return p / (1.0 + 2.0 * x)


@part
def _draw_gaussian(energy: Array, begin: Number, n: Number, term: Array, shape: Array) -> None:
    centre, per_sigma = term[at.CENTRE], 1.0 / term[at.SIGMA]
    for i in range(n):
        u = (energy[begin + i] - centre) * per_sigma
        shape[i] = _DENSITY * _exp(max(-0.5 * u * u, -_MOST_EXPONENT))


@part
def _draw_folded(inverse: Number, energy: Array, begin: Number, end: Number, term: Array, shape: Array) -> None:
    """`exp(u g + g^2 / 2) erfc((u + g) / sqrt 2)`: times g / 2 the tail, g = 1 / gamma; with g = 0 the shelf.

    Where z = (u + g) / sqrt 2 is low, erfc is 2 and nothing but the exponential is left. Elsewhere it comes from
    `exp(z^2) erfc(z)`, as `exp(u g + g^2 / 2 - z^2)` is the Gaussian.
    """
    centre, per_sigma, n = term[at.CENTRE], 1.0 / term[at.SIGMA], end - begin
    factor = 0.5 * inverse if inverse > 0.0 else 1.0
    far = factor * math.erfc(_LOWEST)
    for i in range(n):
        u = (energy[begin + i] - centre) * per_sigma
        shape[i] = far * _exp(min(max((u + 0.5 * inverse) * inverse, -_MOST_EXPONENT), _MOST_EXPONENT))
    middle = find_channel(energy, end, centre + term[at.SIGMA] * (_LOWEST / _PER_ROOT_2 - inverse))
    first = _U(0)
    if per_sigma > 0.0:
        first = max(middle, begin) - begin
    else:
        n = max(middle, begin) - begin
    whole = 2.0 / math.erfc(_LOWEST)
    for i in range(n - first):
        u = (energy[begin + first + i] - centre) * per_sigma
        z = (u + inverse) * _PER_ROOT_2
        near = factor * _exp(max(-0.5 * u * u, -_MOST_EXPONENT)) * _erfcx(abs(z))
        shape[first + i] = near if z >= 0.0 else whole * shape[first + i] - near


@part
def _place_run(kind: Number, energy: Array, n: Number, constants: Array, term: Array, run: Array) -> None:
    """The channels where a shape is not nothing."""
    below = above = constants[at.REACH]
    if kind == _U(1):
        below = at.TAIL_REACH + constants[at.DECAYS] * term[at.GAMMA]
    if kind == _U(2):
        below, above = _EVERYWHERE, _SHELF_REACH
    sigma = term[at.SIGMA]
    low, high = term[at.CENTRE] - below * sigma, term[at.CENTRE] + above * sigma
    run[0], run[1] = find_channel(energy, n, min(low, high)), find_channel(energy, n, max(low, high))


@part
def set_axis(theta: Array, n: Number, data: Array) -> Number:
    """Energies and widths of the channels; whether the energies rise."""
    for i in range(n):
        channel = data[at.CHANNEL, i]
        data[at.ENERGY, i] = theta[at.OFFSET] + channel * (theta[at.SLOPE] + channel * theta[at.QUADRATIC])
        data[at.BIN_KEV, i] = theta[at.SLOPE] + 2.0 * theta[at.QUADRATIC] * channel
    return data[at.BIN_KEV, 0] > 0.0 and data[at.BIN_KEV, n - _U(1)] > 0.0


@part
def _add_shape(kind: Number, height: Number, term: Array, data: Array, run: Array, shape: Array, column: Array) -> None:
    """Draw a shape over its run, and add it to the column of its component."""
    if kind == _U(0):
        _draw_gaussian(data[at.ENERGY], run[0], run[1] - run[0], term, shape)
    else:
        inverse = 1.0 / term[at.GAMMA] if kind == _U(1) else 0.0
        _draw_folded(inverse, data[at.ENERGY], run[0], run[1], term, shape)
    for i in range(run[1] - run[0]):
        column[run[0] + i] += height * shape[i]


@part
def _clear(sizes: Array, columns: Array, spans: Array) -> None:
    for c in range(sizes[at.N_COMPONENTS]):
        spans[c, 0], spans[c, 1] = sizes[at.N_CHANNELS], _U(0)
        for i in range(sizes[at.N_CHANNELS]):
            columns[c, i] = 0.0


@kernel(DRAW_COLUMNS)
def draw_columns(
    theta: Array,
    sizes: Array,
    constants: Array,
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
        constants: (number,).
        terms: (profile, term).
        profiles: (profile, number); the runs are written.
        index: (line, number).
        data: (row, channel); energies and widths of the channels are written.
        shapes: (place,), room for all; written.
        columns: (component and hat, channel); those of the components are written.
        spans: (component and hat, 2) first channel, channel after the last; those of the components are written.
    """
    n, o = sizes[at.N_CHANNELS], _U(0)
    rises = set_axis(theta, n, data)
    _clear(sizes, columns, spans)
    for k in range(sizes[at.N_PROFILES]):
        c = index[profiles[k, at.LINE], at.COLUMN]
        for kind in range(_U(3)):
            run, height = profiles[k, _U(at.RUNS) + _U(3) * kind :], terms[k, _U(at.GAUSS) + kind]
            run[0], run[1], run[2] = _U(0), n * profiles[k, _U(at.DRAWS) + kind], o
            if rises and run[1] > _U(0):
                _place_run(kind, data[at.ENERGY], n, constants, terms[k], run)
            if run[0] < run[1]:
                _add_shape(kind, height, terms[k], data, run, shapes[o:], columns[c])
                o += run[1] - run[0]
                if height != 0.0:
                    spans[c, 0], spans[c, 1] = min(spans[c, 0], run[0]), max(spans[c, 1], run[1])
    for c in range(sizes[at.N_COMPONENTS]):
        for i in range(spans[c, 0], spans[c, 1]):
            columns[c, i] *= data[at.BIN_KEV, i]
