"""Kernel: derivatives of a spectrum's model by its free parameters, amplitudes held.

With u = (E_n - E_l) / s, G the Gaussian, T the tail and S the shelf, every derivative of a profile is
`(c0 + c1 u + c2 u^2) G + (c3 + c4 u) T + c5 S` (`hpcxrf.physics.jacobian`). A parameter's six numbers are a sum over a
few ways in which a profile can change, each with a factor.
"""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

DERIVE: Final = (
    "void(float64[::1], uint64[::1], float64[::1], float64[:,::1], uint64[:,::1], float64[:,::1], float64[:,::1], "
    "uint64[:,::1], float64[::1], float64[:,::1], float64[::1], uint64[::1], float64[:,::1], float64[:,::1], "
    "float64[:,::1], uint64[:,::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64
_RADIANS: Final = math.pi / 180.0
# Ways to change: (way, 6).
_BY_ENERGY: Final = 0
_BY_SIGMA: Final = 1
_BY_GAMMA: Final = 2
_BY_HEIGHT: Final = 3
_BY_TAIL: Final = 4
_BY_STEP: Final = 5
_OF_ITS_OWN: Final = 6
"""Of a line its height without escape factor; of a Compton peak's shelf the energy that divides it."""
_WAYS: Final = 7


@part
def _clear(x: Array) -> None:
    for i in range(_U(x.shape[0])):
        for j in range(_U(x.shape[1])):
            x[i, j] = 0.0


@part
def _list_ways(term: Array, amplitude: Number, is_line: Number, ways: Array) -> None:
    """What all profiles have in common."""
    s, g = term[at.SIGMA], term[at.GAMMA]
    hg, ht, hs = amplitude * term[at.GAUSS], amplitude * term[at.TAIL], amplitude * term[at.SHELF]
    pull, edge = ht / (g * s), 2.0 * hs / s
    ways[_BY_ENERGY, 0] = -pull - edge
    ways[_BY_ENERGY, 1] = -hg / s
    ways[_BY_ENERGY, 3] = pull
    ways[_BY_SIGMA, 0] = -hg / s
    ways[_BY_SIGMA, 1] = pull + edge
    ways[_BY_SIGMA, 2] = hg / s
    ways[_BY_SIGMA, 3] = -ht / s
    ways[_BY_SIGMA, 4] = -pull
    ways[_BY_GAMMA, 0] = ht / (g * g * g)
    ways[_BY_GAMMA, 3] = -ht * (1.0 / g + 1.0 / (g * g * g))
    ways[_BY_GAMMA, 4] = -ht / (g * g)
    ways[_BY_HEIGHT, 0] = hg
    ways[_BY_HEIGHT, 3] = ht
    ways[_BY_HEIGHT, 5] = hs
    if is_line:
        q, tail, step = term[at.NORM], term[at.TAIL_SHARE], term[at.STEP_SHARE]
        half = 0.5 * hg * s / term[at.CENTRE]
        plain = amplitude * term[at.PLAIN] * q / s
        ways[_BY_TAIL, 0] = -hg * q
        ways[_BY_TAIL, 3] = hg * (1.0 - q * tail)
        ways[_BY_TAIL, 5] = -hs * q
        ways[_BY_STEP, 0] = -hg * q
        ways[_BY_STEP, 3] = -ht * q
        ways[_BY_STEP, 5] = half * (1.0 - q * step)
        ways[_OF_ITS_OWN, 0] = plain
        ways[_OF_ITS_OWN, 3] = plain * tail
        ways[_OF_ITS_OWN, 5] = plain * s * step / (2.0 * term[at.CENTRE])


@part
def _factor_line(theta: Array, constants: Array, line: Array, term: Array, factors: Array) -> None:
    """Factors (parameter, way) of what acts on lines alone."""
    mu, kbeta = line[at.MU_PER_UM], line[at.IS_KBETA] * line[at.HAS_TAIL]
    alpha = line[at.HAS_TAIL] - kbeta
    factors[at.INCIDENT, _BY_HEIGHT] = (1.0 - term[at.SWITCH]) / constants[at.EDGE_WIDTH_KEV]
    factors[at.INCIDENT, _BY_GAMMA] = term[at.BY_INCIDENT] * theta[at.GAMMA_LINEAR]
    factors[at.TAIL_OFFSET, _BY_TAIL] = alpha
    factors[at.TAIL_LINEAR, _BY_TAIL] = alpha * mu
    factors[at.KBETA_TAIL_OFFSET, _BY_TAIL] = kbeta
    factors[at.KBETA_TAIL_LINEAR, _BY_TAIL] = kbeta * mu
    factors[at.GAMMA_OFFSET, _BY_GAMMA] = 1.0
    factors[at.GAMMA_LINEAR, _BY_GAMMA] = term[at.CENTRE]
    factors[at.STEP_OFFSET, _BY_STEP] = mu
    factors[at.STEP_LINEAR, _BY_STEP] = mu * term[at.CENTRE]
    factors[at.ESCAPE_FACTOR, _OF_ITS_OWN] = line[at.IS_ESCAPE]


@part
def _factor_compton(kind: Number, term: Array, amplitude: Number, ways: Array, factors: Array) -> None:
    """The same of a profile of a Compton peak, and the ways that its parameters have."""
    norm = term[at.NORM]
    factors[at.COMPTON_TAIL, _BY_HEIGHT] = -norm
    factors[at.COMPTON_HI_TAIL, _BY_HEIGHT] = -norm
    factors[at.COMPTON_STEP, _BY_HEIGHT] = -norm
    each = amplitude * term[at.PLAIN] * norm
    if kind == at.COMPTON_WIDE:
        factors[at.COMPTON_WIDENING, _BY_SIGMA] = term[at.SIGMA] / term[at.WIDENED]
        return
    ways[_BY_TAIL, 3] = each / abs(term[at.SIGMA])
    if kind == at.COMPTON_HIGH:
        factors[at.COMPTON_HI_TAIL, _BY_TAIL] = 1.0
        factors[at.COMPTON_HI_GAMMA, _BY_GAMMA] = 1.0
        return
    ways[_BY_STEP, 5] = each / (2.0 * term[at.CENTRE])
    ways[_OF_ITS_OWN, 5] = -amplitude * term[at.SHELF] / term[at.CENTRE]
    factors[at.COMPTON_TAIL, _BY_TAIL] = 1.0
    factors[at.COMPTON_GAMMA, _BY_GAMMA] = 1.0
    factors[at.COMPTON_STEP, _BY_STEP] = 1.0
    factors[at.INCIDENT, _OF_ITS_OWN] = term[at.BY_INCIDENT]
    factors[at.ANGLE, _OF_ITS_OWN] = term[at.BY_ANGLE]


@part
def _factor_width(theta: Array, constants: Array, term: Array, factors: Array) -> None:
    """Factors of the energy axis, of the law of the width, and of what moves a peak."""
    k, widened = constants[at.WIDTH_FACTOR], term[at.WIDENED]
    sigma = term[at.SIGMA] / widened
    per_sigma = constants[at.FWHM_PER_SIGMA] * constants[at.FWHM_PER_SIGMA]
    by_centre = widened * k * theta[at.FANO] / (2.0 * sigma)
    factors[at.OFFSET, _BY_ENERGY] = 1.0
    factors[at.NOISE, _BY_SIGMA] = widened * theta[at.NOISE] / (per_sigma * sigma)
    factors[at.FANO, _BY_SIGMA] = widened * k * term[at.CENTRE] / (2.0 * sigma)
    factors[at.INCIDENT, _BY_ENERGY] = -term[at.BY_INCIDENT]
    factors[at.INCIDENT, _BY_SIGMA] = term[at.BY_INCIDENT] * by_centre
    factors[at.ANGLE, _BY_ENERGY] = -term[at.BY_ANGLE]
    factors[at.ANGLE, _BY_SIGMA] = term[at.BY_ANGLE] * by_centre


@part
def _add_row(energy: Array, term: Array, profile: Array, c: Array, shapes: Array, row: Array, span: Array) -> None:
    """Add `(c0 + c1 u + c2 u^2) G + (c3 + c4 u) T + c5 S` to a row."""
    centre, per_sigma = term[at.CENTRE], 1.0 / term[at.SIGMA]
    for kind in range(_U(3)):
        first = kind * _U(3) - (kind >> _U(1))
        c0, c1, c2 = c[first], 0.0, 0.0
        if kind < _U(2):
            c1 = c[first + _U(1)]
        if kind == _U(0):
            c2 = c[2]
        place = _U(at.RUNS) + _U(3) * kind
        begin, end, o = profile[place], profile[place + _U(1)], profile[place + _U(2)]
        if begin < end and (c0 != 0.0 or c1 != 0.0 or c2 != 0.0):
            span[0], span[1] = min(span[0], begin), max(span[1], end)
            for i in range(end - begin):
                u = (energy[begin + i] - centre) * per_sigma
                row[begin + i] += (c0 + u * (c1 + u * c2)) * shapes[o + i]


@part
def _add_profile(
    sizes: Array,
    energy: Array,
    term: Array,
    profile: Array,
    slopes: Array,
    ways: Array,
    factors: Array,
    wanted: Array,
    shapes: Array,
    rows: Array,
    spans: Array,
) -> None:
    """Add the derivatives of one profile to the rows of all free parameters."""
    c = ways[_WAYS]
    for r in range(sizes[at.N_ROWS]):
        p, some = wanted[r], False
        for j in range(6):
            c[j] = 0.0
        if p >= _U(at.N_THETA):
            factor = slopes[p - _U(at.N_THETA)]
            some = factor != 0.0
            for j in range(6):
                c[j] = factor * ways[_BY_HEIGHT, j]
        else:
            for way in range(_WAYS):
                factor = factors[p, way]
                if factor != 0.0:
                    some = True
                    for j in range(6):
                        c[j] += factor * ways[way, j]
        if some:
            _add_row(energy, term, profile, c, shapes, rows[r], spans[r])


@kernel(DERIVE)
def derive(
    theta: Array,
    sizes: Array,
    constants: Array,
    lines: Array,
    index: Array,
    slopes: Array,
    terms: Array,
    profiles: Array,
    shapes: Array,
    data: Array,
    linear: Array,
    wanted: Array,
    ways: Array,
    factors: Array,
    rows: Array,
    spans: Array,
) -> None:
    """Derivative of the model's counts, per unit of density, by the free parameters.

    Args:
        theta: (parameter,).
        sizes: (number,).
        constants: (number,).
        lines: (line, property).
        index: (line, number).
        slopes: (line, parameter of the ratios).
        terms: (profile, term).
        profiles: (profile, number).
        shapes: (place,).
        data: (row, channel).
        linear: (component and hat,) coefficients.
        wanted: (row,) parameters, counted in theta; the energy of the channels counts as the first of the axis.
        ways: (way + 1, 6), room.
        factors: (parameter of theta, way), room.
        rows: (row, channel) written, counts per unit of the parameter.
        spans: (row, 2) written: first channel, channel after the last.
    """
    n = sizes[at.N_CHANNELS]
    _clear(rows)
    for r in range(sizes[at.N_ROWS]):
        spans[r, 0], spans[r, 1] = n, _U(0)
    for k in range(sizes[at.N_PROFILES]):
        i, kind = profiles[k, at.LINE], profiles[k, at.KIND]
        amplitude = linear[index[i, at.COLUMN]]
        if amplitude != 0.0:
            _clear(ways)
            _clear(factors)
            _list_ways(terms[k], amplitude, kind == _U(at.A_LINE), ways)
            _factor_width(theta, constants, terms[k], factors)
            if kind == _U(at.A_LINE):
                _factor_line(theta, constants, lines[i], terms[k], factors)
            else:
                _factor_compton(kind, terms[k], amplitude, ways, factors)
            _add_profile(
                sizes, data[at.ENERGY], terms[k], profiles[k], slopes[i], ways, factors, wanted, shapes, rows, spans
            )
