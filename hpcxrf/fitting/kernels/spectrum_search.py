"""Parts of a kernel: the damped steps of one spectrum, as `hpcxrf.fitting.spectrum.separable` takes them.

What belongs to a theta is drawn in one of three sets of arrays: at the start, which all spectra share, where the
search stands, and at the step that is tried. The kernels come as arguments: called by their names they would be
compiled once more with all that calls them.
"""

from typing import Any, Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import glue, part
from hpcxrf.fitting.kernels.spectrum_amplitudes import LEAVE_RESIDUAL, MULTIPLY_COLUMNS, SOLVE_MEMBERS
from hpcxrf.fitting.kernels.spectrum_columns import DRAW_COLUMNS, set_axis
from hpcxrf.fitting.kernels.spectrum_lines import PLACE_LINES
from hpcxrf.fitting.kernels.spectrum_slopes import DERIVE
from hpcxrf.fitting.kernels.spectrum_steps import BUILD_EQUATIONS, TAKE_STEP

Arrays = tuple[Array, ...]
Model = tuple[Any, ...]
"""Sizes, constants, lines, index and slopes of lines (`hpcxrf.fitting.spectrum.pack`), space, wanted parameters;
then `KERNELS`, which read them."""
Drawn = Arrays
"""By set: terms, profiles, slopes of the ratios, shapes, columns, spans of the columns."""
Room = tuple[Array, Arrays, Arrays, Arrays, Arrays]
"""Data (row, channel), and room for lines (sums, ratio), for amplitudes (weighted columns, Gram matrix (1, column,
column), right-hand side (1, column), square, vectors, numbers, found), for equations (ways, factors, rows, spans of
the rows, cross, small) and for steps (work, vectors, numbers)."""
Point = Arrays
"""Theta, and the one that is tried, (parameter,); coefficients, and those that are tried, (1, column); columns that are
free (column,), and those that are tried (1, column); curvature and slope."""
KERNELS: Final = {
    "place_lines": PLACE_LINES,
    "draw_columns": DRAW_COLUMNS,
    "multiply_columns": MULTIPLY_COLUMNS,
    "solve_members": SOLVE_MEMBERS,
    "leave_residual": LEAVE_RESIDUAL,
    "derive": DERIVE,
    "build_equations": BUILD_EQUATIONS,
    "take_step": TAKE_STEP,
}
"""Names of the kernels in `hpcxrf.fitting.kernels.spectrum`, and their signatures."""
MODEL: Final = (
    "Tuple((uint64[::1], float64[::1], float64[:,::1], uint64[:,::1], float64[:,::1], float64[:,::1], uint64[::1], "
    f"{', '.join(f'FunctionType({one})' for one in KERNELS.values())}))"
)
DRAWN: Final = (
    "Tuple((float64[:,:,::1], uint64[:,:,::1], float64[:,:,::1], float64[:,::1], float64[:,:,::1], uint64[:,:,::1]))"
)
ROOM: Final = (
    "Tuple((float64[:,::1], Tuple((float64[:,::1], float64[::1])), "
    "Tuple((float64[:,::1], float64[:,:,::1], float64[:,::1], float64[:,:,::1], float64[:,::1], uint64[:,::1], "
    "uint64[::1])), "
    "Tuple((float64[:,::1], float64[:,::1], float64[:,::1], uint64[:,::1], float64[:,::1], float64[:,::1])), "
    "Tuple((float64[:,:,::1], float64[:,::1], uint64[:,::1]))))"
)
POINT: Final = (
    "Tuple((float64[::1], float64[::1], float64[:,::1], float64[:,::1], uint64[::1], uint64[:,::1], float64[:,::1], "
    "float64[::1]))"
)
STUCK: Final = -1.0
"""The misfit where pivoting goes in a circle."""
_U: Final = np.uint64
_LARGEST: Final = 1.7976931348623157e308


@part
def is_finite(x: Number) -> Number:
    """Whether a number is finite; by `isfinite` numba would make it `x - x`, which is reordered to 0."""
    return abs(x) <= _LARGEST


@glue
def fit_amplitudes(of: Number, model: Model, drawn: Drawn, room: Room, point: Point) -> Number:
    """Coefficients that are tried, for the columns of a set, and their residual; the misfit."""
    data, (weighted, gram, rhs, square, vectors, numbers, found) = room[0], room[2]
    sizes, columns, spans, linear, free = model[0], drawn[4][of], drawn[5][of], point[3], point[5]
    model[9](sizes, data, columns, spans, weighted, gram[0], rhs[0])
    model[10](gram, rhs, at.MOST_EXCHANGES, free, square, vectors, numbers, linear, found)
    misfit = model[11](sizes, data, columns, spans, linear[0])
    return misfit if found[0] else STUCK


@part
def _prepare_trial(fresh: Number, point: Point) -> None:
    """Columns that are free at first: all at a new start, else those of where the search stands."""
    for j in range(_U(point[4].shape[0])):
        point[5][0, j] = _U(1) if fresh else point[4][j]
    if fresh:
        for p in range(_U(point[0].shape[0])):
            point[1][p] = point[0][p]


@part
def _move(point: Point) -> None:
    """Stand where it was tried."""
    for p in range(_U(point[0].shape[0])):
        point[0][p] = point[1][p]
    for j in range(_U(point[4].shape[0])):
        point[2][0, j], point[4][j] = point[3][0, j], point[5][0, j]


@glue
def _derive(of: Number, model: Model, drawn: Drawn, room: Room, point: Point) -> None:
    """Curvature and slope where the search stands, the amplitudes of which were the last that were fitted."""
    sizes, constants, lines, index, _, space, wanted = model[:7]
    terms, profiles, slopes, shapes, _, spans = drawn
    data, _, (weighted, gram, _, square, _, numbers, _), (ways, factors, rows, row_spans, cross, small), _ = room
    theta, _, linear, _, _, free, hessian, gradient = point
    model[12](
        theta,
        sizes,
        constants,
        lines,
        index,
        slopes[of],
        terms[of],
        profiles[of],
        shapes[of],
        data,
        linear[0],
        wanted,
        ways,
        factors,
        rows,
        row_spans,
    )
    model[13](
        sizes,
        data,
        space,
        wanted,
        rows,
        row_spans,
        weighted,
        spans[of],
        gram[0],
        square,
        free,
        numbers,
        cross,
        small,
        hessian,
        gradient,
    )


@glue
def _draw(of: Number, fresh: Number, model: Model, drawn: Drawn, room: Room, point: Point) -> None:
    """Draw the columns at the theta that is tried into a set; at a new start they are there."""
    sizes, constants, lines, index, linear = model[:5]
    terms, profiles, slopes, shapes, columns, spans = drawn
    data, (sums, ratio), theta = room[0], room[1], point[1]
    if fresh:
        set_axis(theta, sizes[at.N_CHANNELS], data)
    else:
        model[7](theta, sizes, constants, lines, index, linear, sums, ratio, slopes[of], terms[of])
        model[8](theta, sizes, constants, terms[of], profiles[of], index, data, shapes[of], columns[of], spans[of])


@part
def _weigh_prior(theta: Array, space: Array) -> Number:
    """Pull of the priors; not finite where theta is not."""
    total = 0.0
    for p in range(_U(theta.shape[0])):
        pull = (theta[p] - space[at.CENTRE_OF_PRIOR, p]) / space[at.PRIOR_SD, p]
        total += space[at.FREE, p] * pull * pull
    return total


@part
def _adapt_damping(damping: Number, gained: Number, promised: Number) -> Number:
    kept = gained / max(promised, 1e-300)
    factor = 0.2 if kept > 0.75 else 1.0 if kept > 0.4 else 4.0
    return max(damping * factor, at.MIN_DAMPING)


@glue
def search(
    iterations: int, tolerance: float, now: Number, model: Model, drawn: Drawn, room: Room, point: Point
) -> tuple[Number, Number, Number]:
    """Solve the amplitudes where the search stands, and take at most that many damped steps.

    Args:
        iterations: most steps.
        tolerance: relative, of the objective.
        now: set that is drawn at theta.
        model: lines and bounds.
        drawn: sets.
        room: with counts and weights.
        point: where the search stands; written.

    Returns:
        The misfit, `STUCK` where it is not known; the set of theta; whether the search found its end.
    """
    damping, small, done, fresh, misfit, n_channels = at.START_DAMPING, 0, False, True, 0.0, float(room[0].shape[1])
    for _ in range(iterations + 1):
        promised, before, per_channel, of, flat = 0.0, 0.0, misfit / n_channels, now, False
        if not fresh:
            of = _U(2) if now == _U(1) else _U(1)
            promised = model[14](
                point[0],
                model[5],
                per_channel,
                damping,
                point[6],
                point[7],
                room[4][0],
                room[4][1],
                room[4][2],
                point[1],
            )
            before = misfit + per_channel * _weigh_prior(point[0], model[5])
            flat = promised >= 0.0 and promised <= tolerance * before and damping <= at.WEAK_DAMPING
            if flat and promised <= at.NOTHING * tolerance * before:
                done = True
                break
        _prepare_trial(fresh, point)
        _draw(of, fresh, model, drawn, room, point)
        there = fit_amplitudes(of, model, drawn, room, point)
        if there == STUCK:
            misfit = STUCK
            break
        gained = before - there - per_channel * _weigh_prior(point[1], model[5])
        better = fresh or gained > 0.0
        if better:
            misfit, now = there, of
            _move(point)
            _derive(now, model, drawn, room, point)
        if fresh:
            fresh, done = False, not is_finite(misfit)
        else:
            damping = _adapt_damping(damping, gained, promised)
            if better:
                small = small + 1 if gained <= tolerance * before else 0
            # A rejected step that promised little says the same as two small ones: this is the optimum.
            done = small >= at.SMALL_STEPS or (flat and not better) or damping > at.MAX_DAMPING
        if done:
            break
    return misfit, now, done
