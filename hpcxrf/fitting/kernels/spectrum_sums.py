"""Kernel: sums over the lines of a group, and of a component, of what a usual flaw of a line adds to its peak."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part

SUM_LINES: Final = (
    "void(uint64[::1], float64[:,::1], uint64[:,::1], uint64[:,::1], float64[::1], float64[:,::1], float64[::1], "
    "uint64[::1], float64[:,::1], float64[:,:,::1], float64[:,:,::1])"
)
"""Signature of the kernel."""
_U: Final = np.uint64


@part
def _add_gaussians(
    energy: Array, term: Array, run: Array, height: Number, factors: Array, shape: Array, groups: Array, family: Array
) -> None:
    begin, n = run[0], run[1] - run[0]
    centre, per_sigma = term[at.CENTRE], 1.0 / term[at.SIGMA]
    absorbed, tail = height * factors[at.ABSORPTION_SD], height * factors[at.TAIL_SD]
    for i in range(n):
        u, g = (energy[begin + i] - centre) * per_sigma, shape[i]
        groups[at.WHOLE, begin + i] += height * g
        groups[at.SHIFTED, begin + i] += height * per_sigma * u * g
        groups[at.WIDENED_BY, begin + i] += height * (u * u - 1.0) * g
        groups[at.TAILED, begin + i] -= tail * g
        family[0, begin + i] += height * g
        family[1, begin + i] += absorbed * g


@part
def _add_tails(
    term: Array, run: Array, amplitude: Number, factors: Array, shape: Array, groups: Array, family: Array
) -> None:
    begin, n = run[0], run[1] - run[0]
    height, tail = amplitude * term[at.TAIL], amplitude * term[at.GAUSS] * factors[at.TAIL_SD]
    absorbed = height * factors[at.ABSORPTION_SD]
    for i in range(n):
        groups[at.WHOLE, begin + i] += height * shape[i]
        groups[at.TAILED, begin + i] += tail * shape[i]
        family[0, begin + i] += height * shape[i]
        family[1, begin + i] += absorbed * shape[i]


@kernel(SUM_LINES)
def sum_lines(
    sizes: Array,
    terms: Array,
    profiles: Array,
    index: Array,
    shapes: Array,
    data: Array,
    linear: Array,
    group: Array,
    factors: Array,
    groups: Array,
    families: Array,
) -> None:
    """Add up what was drawn last, counts per keV; Compton peaks are no lines.

    Args:
        sizes: (number,).
        terms: (profile, term).
        profiles: (profile, number).
        index: (line, number).
        shapes: (place,).
        data: (row, channel).
        linear: (component and hat,) coefficients.
        group: (line,).
        factors: (line, 2): relative error by absorption, and of the share of the tail.
        groups: (group, 4, channel), 0 at first; of the lines of a group the peaks with their tails, their derivatives
            by a shift and by a relative widening, and tails in the place of Gaussians.
        families: (component, 2, channel), 0 at first; peaks with their tails, and times the error by absorption.
    """
    for k in range(sizes[at.N_PROFILES]):
        i = profiles[k, at.LINE]
        c = index[i, at.COLUMN]
        amplitude = linear[c]
        if profiles[k, at.KIND] == _U(at.A_LINE) and amplitude != 0.0:
            term, numbers = terms[k], profiles[k]
            run, tail = numbers[_U(at.RUNS) :], numbers[_U(at.RUNS) + _U(3) :]
            if run[0] < run[1]:
                height, shape = amplitude * term[at.GAUSS], shapes[run[2] :]
                _add_gaussians(data[at.ENERGY], term, run, height, factors[i], shape, groups[group[i]], families[c])
            if tail[0] < tail[1]:
                _add_tails(term, tail, amplitude, factors[i], shapes[tail[2] :], groups[group[i]], families[c])
