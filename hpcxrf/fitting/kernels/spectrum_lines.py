"""Kernel: where the peaks of a spectrum stand at one theta, how wide and high they are, and how their ratios change."""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

PLACE_LINES: Final = (
    "void(float64[::1], uint64[::1], float64[::1], float64[:,::1], uint64[:,::1], float64[:,::1], "
    "float64[:,::1], float64[::1], float64[:,::1], float64[:,::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64
_RADIANS: Final = math.pi / 180.0


@part
def _absorb(theta: Array, constants: Array, line: Array, slopes: Array) -> Number:
    """Logarithm of the share that leaves the sample; its derivatives by transmission and light share go to `slopes`."""
    transmission, light = theta[at.N_THETA], theta[at.N_THETA + 1]
    heavy_in, light_in = constants[at.HEAVY_INCIDENT], constants[at.LIGHT_INCIDENT]
    out = (1.0 - light) * line[at.HEAVY] + light * line[at.LIGHT]
    enter = (1.0 - light) * heavy_in + light * light_in
    depth, per_depth = max(-math.log(transmission), constants[at.THINNEST]), 0.5 * (1.0 + out / enter)
    by_light = (line[at.LIGHT] - line[at.HEAVY]) * enter - out * (light_in - heavy_in)
    x = depth * per_depth
    slope = -0.5 if x < constants[at.SMALL_DEPTH] else 1.0 / math.expm1(x) - 1.0 / x
    slopes[0] = -per_depth / transmission * slope
    slopes[1] = 0.5 * depth * by_light / (enter * enter) * slope
    return math.log(-math.expm1(-x) / x)


@part
def _weigh(
    theta: Array, sizes: Array, constants: Array, lines: Array, linear: Array, ratio: Array, slopes: Array
) -> None:
    """Ratios at the parameters of the line ratios, before the sums of the columns are held."""
    for i in range(sizes[at.N_LINES]):
        strength = 0.0
        for q in range(sizes[at.N_RATIOS]):
            strength += linear[i, q] * theta[_U(at.N_THETA) + q]
            slopes[i, q] = linear[i, q]
        if lines[i, at.ABSORBS] > 0.0:
            strength += _absorb(theta, constants, lines[i], slopes[i])
        ratio[i] = lines[i, at.RATIO] * math.exp(strength)


@part
def _hold_sums(sizes: Array, lines: Array, index: Array, sums: Array, ratio: Array, slopes: Array) -> None:
    """Scale ratios so that a column keeps its counts, and take its mean from the derivatives of their logarithms.

    `sums` (column, 2 + parameter): of the ratios before and after, and of ratio times derivative.
    """
    n, n_q = sizes[at.N_LINES], sizes[at.N_RATIOS]
    for c in range(sizes[at.N_COMPONENTS]):
        for q in range(n_q + _U(2)):
            sums[c, q] = 0.0
    for i in range(n):
        c = index[i, at.COLUMN]
        sums[c, 0] += lines[i, at.RATIO]
        sums[c, 1] += ratio[i]
        for q in range(n_q):
            sums[c, _U(2) + q] += ratio[i] * slopes[i, q]
    for i in range(n):
        c = index[i, at.COLUMN]
        total = max(sums[c, 1], 1e-300)
        ratio[i] *= sums[c, 0] / total
        for q in range(n_q):
            slopes[i, q] -= sums[c, _U(2) + q] / total


@part
def _describe_line(theta: Array, constants: Array, line: Array, ratio: Number, term: Array) -> None:
    """One profile of a line."""
    energy = theta[at.INCIDENT] if line[at.FOLLOWS_INCIDENT] > 0.0 else line[at.ENERGY_KEV]
    noise, mu = theta[at.NOISE] / constants[at.FWHM_PER_SIGMA], line[at.MU_PER_UM]
    sigma = math.sqrt(noise * noise + constants[at.WIDTH_FACTOR] * energy * theta[at.FANO])
    switch = 1.0 / (1.0 + math.exp((line[at.EDGE_KEV] - theta[at.INCIDENT]) / constants[at.EDGE_WIDTH_KEV]))
    alpha = theta[at.TAIL_OFFSET] + theta[at.TAIL_LINEAR] * mu
    kbeta = theta[at.KBETA_TAIL_OFFSET] + theta[at.KBETA_TAIL_LINEAR] * mu
    tail = line[at.HAS_TAIL] * (alpha + line[at.IS_KBETA] * (kbeta - alpha))
    shelf = mu * (theta[at.STEP_OFFSET] + theta[at.STEP_LINEAR] * energy)
    norm, plain = 1.0 / (1.0 + tail + shelf), ratio * switch
    height = plain * (1.0 + line[at.IS_ESCAPE] * (theta[at.ESCAPE_FACTOR] - 1.0)) * norm
    term[at.CENTRE] = energy
    term[at.SIGMA] = sigma
    term[at.GAMMA] = theta[at.GAMMA_OFFSET] + theta[at.GAMMA_LINEAR] * energy
    term[at.GAUSS] = height / sigma
    term[at.TAIL] = height / sigma * tail
    term[at.SHELF] = height * shelf / (2.0 * energy)
    term[at.NORM] = norm
    term[at.TAIL_SHARE] = tail
    term[at.STEP_SHARE] = shelf
    term[at.SWITCH] = switch
    term[at.PLAIN] = plain
    term[at.WIDENED] = 1.0
    term[at.BY_INCIDENT] = line[at.FOLLOWS_INCIDENT]
    term[at.BY_ANGLE] = 0.0


@part
def _describe_compton(theta: Array, constants: Array, line: Array, ratio: Number, terms: Array) -> None:
    """The three profiles of a Compton peak; of its tails' parameters NORM, of no escape and no edge."""
    before = theta[at.INCIDENT] if line[at.FOLLOWS_INCIDENT] > 0.0 else line[at.ENERGY_KEV]
    rest, angle = constants[at.REST_KEV], theta[at.ANGLE] * _RADIANS
    energy = before / (1.0 + before / rest * (1.0 - math.cos(angle)))
    noise = theta[at.NOISE] / constants[at.FWHM_PER_SIGMA]
    sigma = math.sqrt(noise * noise + constants[at.WIDTH_FACTOR] * energy * theta[at.FANO])
    low, high, shelf = theta[at.COMPTON_TAIL], theta[at.COMPTON_HI_TAIL], theta[at.COMPTON_STEP]
    norm, widening = 1.0 / (1.0 + shelf + low + high), theta[at.COMPTON_WIDENING]
    for k in range(3):
        term = terms[k]
        for j in range(_U(at.TERMS)):
            term[j] = 0.0
        term[at.CENTRE] = energy
        term[at.NORM] = norm
        term[at.PLAIN] = ratio
        term[at.BY_INCIDENT] = line[at.FOLLOWS_INCIDENT] * (energy / before) * (energy / before)
        term[at.BY_ANGLE] = -energy * energy / rest * math.sin(angle) * _RADIANS
        term[at.SIGMA] = sigma
        term[at.GAMMA] = theta[at.COMPTON_GAMMA]
        term[at.WIDENED] = 1.0
        term[at.SWITCH] = 1.0
    terms[0, at.SIGMA] = sigma * widening
    terms[0, at.WIDENED] = widening
    terms[0, at.GAUSS] = ratio * norm / (sigma * widening)
    terms[1, at.TAIL] = ratio * norm * low / sigma
    terms[1, at.SHELF] = ratio * norm * shelf / (2.0 * energy)
    terms[2, at.SIGMA] = -sigma
    terms[2, at.WIDENED] = -1.0
    terms[2, at.GAMMA] = theta[at.COMPTON_HI_GAMMA]
    terms[2, at.TAIL] = ratio * norm * high / sigma


@kernel(PLACE_LINES)
def place_lines(
    theta: Array,
    sizes: Array,
    constants: Array,
    lines: Array,
    index: Array,
    linear: Array,
    sums: Array,
    ratio: Array,
    slopes: Array,
    terms: Array,
) -> None:
    """Write the terms (profile, term) of all profiles, lines in order, a Compton peak's three in a row.

    Args:
        theta: (parameter,) theta, followed by the parameters of the line ratios.
        sizes: (number,).
        constants: (number,).
        lines: (line, property).
        index: (line, number).
        linear: (line, parameter of the ratios): derivative of the logarithm of a ratio.
        sums: (column, 2 + parameter), room.
        ratio: (line,) written.
        slopes: (line, parameter of the ratios) written: derivative of the logarithm, sums of a column held.
        terms: written.
    """
    _weigh(theta, sizes, constants, lines, linear, ratio, slopes)
    _hold_sums(sizes, lines, index, sums, ratio, slopes)
    k = _U(0)
    for i in range(sizes[at.N_LINES]):
        if index[i, at.IS_COMPTON]:
            _describe_compton(theta, constants, lines[i], ratio[i], terms[k:])
            k += _U(3)
        else:
            _describe_line(theta, constants, lines[i], ratio[i], terms[k])
            k += _U(1)
