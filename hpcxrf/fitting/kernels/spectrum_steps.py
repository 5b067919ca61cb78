"""Kernels: the normal equations of the free parameters, amplitudes projected out, and a damped step."""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.loops import Array, Number
from hpcxrf.fitting.kernels.machine_code import kernel, part
from hpcxrf.fitting.kernels.spectrum_amplitudes import factorise, solve_factorised
from hpcxrf.fitting.kernels.spectrum_layout import AT_BOUND, MOST_STEP, NNLS_RIDGE

BUILD_EQUATIONS: Final = (
    "void(uint64[::1], float64[:,::1], float64[:,::1], uint64[::1], float64[:,::1], uint64[:,::1], float64[:,::1], "
    "uint64[:,::1], float64[:,::1], float64[:,:,::1], uint64[:,::1], uint64[:,::1], float64[:,::1], float64[:,::1], "
    "float64[:,::1], float64[::1])"
)
TAKE_STEP: Final = (
    "float64(float64[::1], float64[:,::1], float64, float64, float64[:,::1], float64[::1], float64[:,:,::1], "
    "float64[:,::1], uint64[:,::1], float64[::1])"
)
"""Signatures of the kernels."""
_U: Final = np.uint64


@part
def finish_rows(sizes: Array, data: Array, space: Array, wanted: Array, rows: Array, spans: Array) -> None:
    """Counts per step of a parameter: the width of the channels, the axis by its first row, and the units."""
    n = sizes[at.N_CHANNELS]
    for back in range(sizes[at.N_ROWS]):
        r = sizes[at.N_ROWS] - _U(1) - back
        p = wanted[r]
        scale = space[at.SCALE, p] * space[at.FREE, p]
        if p == _U(at.SLOPE) or p == _U(at.QUADRATIC):
            spans[r, 0], spans[r, 1] = _U(0), n
            for i in range(n):
                shift, per_kev = rows[0, i] * data[at.BIN_KEV, i], data[at.PEAKS, i] / data[at.BIN_KEV, i]
                value = shift * data[at.CHANNEL, i] + per_kev
                if p == _U(at.QUADRATIC):
                    value = data[at.CHANNEL, i] * (value + per_kev)
                rows[r, i] = value * scale
        else:
            for i in range(spans[r, 0], spans[r, 1]):
                rows[r, i] *= data[at.BIN_KEV, i] * scale


@part
def _project_out(sizes: Array, cross: Array, lower: Array, order: Array, m: Number, small: Array) -> None:
    """Take what the columns explain from the curvature; `cross` (row, column) becomes L^-1 of its free columns."""
    for r in range(sizes[at.N_ROWS]):
        # Free columns rise, so that none is written over before it was read.
        for i in range(m):
            cross[r, i] = cross[r, order[i]]
        for i in range(m):
            s = cross[r, i]
            for k in range(i):
                s -= lower[i, k] * cross[r, k]
            cross[r, i] = s / lower[i, i]
        for s_ in range(r + _U(1)):
            total = 0.0
            for i in range(m):
                total += cross[r, i] * cross[s_, i]
            small[r, s_] -= total


@part
def multiply_rows(
    sizes: Array,
    data: Array,
    rows: Array,
    spans: Array,
    weighted: Array,
    column_spans: Array,
    cross: Array,
    small: Array,
) -> None:
    """Products of rows with each other and with the columns (row, column)."""
    for r in range(sizes[at.N_ROWS]):
        for c in range(sizes[at.N_COLUMNS]):
            total = 0.0
            for i in range(max(spans[r, 0], column_spans[c, 0]), min(spans[r, 1], column_spans[c, 1])):
                total += rows[r, i] * weighted[c, i]
            cross[r, c] = total
        for i in range(spans[r, 0], spans[r, 1]):
            data[at.ROOM, i] = rows[r, i] * data[at.WEIGHTS, i]
        for s in range(r + _U(1)):
            total = 0.0
            for i in range(max(spans[r, 0], spans[s, 0]), min(spans[r, 1], spans[s, 1])):
                total += data[at.ROOM, i] * rows[s, i]
            small[r, s] = total


@kernel(BUILD_EQUATIONS)
def build_equations(
    sizes: Array,
    data: Array,
    space: Array,
    wanted: Array,
    rows: Array,
    spans: Array,
    weighted: Array,
    column_spans: Array,
    gram: Array,
    square: Array,
    free: Array,
    numbers: Array,
    cross: Array,
    small: Array,
    hessian: Array,
    gradient: Array,
) -> None:
    """Curvature and slope of the misfit by the free parameters, amplitudes following.

    Args:
        sizes: (number,).
        data: (row, channel).
        space: (row, parameter).
        wanted: (row,).
        rows: (row, channel) of `derive`; counts per step of a parameter are left.
        spans: (row, 2).
        weighted: (column, channel).
        column_spans: (column, 2).
        gram: (column, column) Gram matrix of the columns.
        square: (2, column, column), room.
        free: (1, column) columns that are free.
        numbers: (3, column), room.
        cross: (row, column), room.
        small: (row, row), room.
        hessian: (parameter, parameter) written, in steps of the parameters.
        gradient: (parameter,) written.
    """
    finish_rows(sizes, data, space, wanted, rows, spans)
    multiply_rows(sizes, data, rows, spans, weighted, column_spans, cross, small)
    m = factorise(gram, free[0], NNLS_RIDGE, square[0], numbers[1])
    sound = m <= sizes[at.N_COLUMNS]
    if sound:
        _project_out(sizes, cross, square[0], numbers[1], m, small)
    for p in range(_U(gradient.shape[0])):
        gradient[p] = 0.0
        for q in range(_U(gradient.shape[0])):
            hessian[p, q] = 0.0
    for r in range(sizes[at.N_ROWS]):
        total = 0.0
        for i in range(spans[r, 0], spans[r, 1]):
            total += rows[r, i] * data[at.WEIGHTS, i] * data[at.RESIDUAL, i]
        gradient[wanted[r]] = total
        for s in range(r + _U(1)):
            value = small[r, s] if sound else np.nan
            hessian[wanted[r], wanted[s]] = value
            hessian[wanted[s], wanted[r]] = value


@part
def _solve_moving(damped: Array, slope: Array, moving: Array, lower: Array, order: Array, step: Array) -> None:
    """Step of the parameters that move; 0 for all where there is none."""
    for p in range(_U(step.shape[0])):
        step[p] = 0.0
    m = factorise(damped, moving, 0.0, lower, order)
    if m <= _U(step.shape[0]):
        solve_factorised(lower, order, m, slope, step)


@part
def _prepare_step(
    theta: Array,
    space: Array,
    per_channel: Number,
    damping: Number,
    hessian: Array,
    work: Array,
    v: Array,
    moving: Array,
) -> None:
    """Curvature with prior and damping, slope, and which parameters are free to move."""
    n = _U(theta.shape[0])
    for p in range(n):
        scale = space[at.SCALE, p]
        ratio = scale / space[at.PRIOR_SD, p]
        precision = per_channel * space[at.FREE, p] * ratio * ratio
        v[0, p] += precision * (space[at.CENTRE_OF_PRIOR, p] - theta[p]) / scale
        for q in range(n):
            work[0, p, q] = hessian[p, q]
            work[1, p, q] = hessian[p, q]
        work[0, p, p] += precision
        work[1, p, p] = work[0, p, p] * (1.0 + damping)
        near = AT_BOUND * scale
        blocked = (theta[p] <= space[at.LOWER, p] + near and v[0, p] < 0.0) or (
            theta[p] >= space[at.UPPER, p] - near and v[0, p] > 0.0
        )
        moving[p] = space[at.FREE, p] > 0.0 and not blocked and work[0, p, p] > 0.0
        v[1, p] = max((space[at.LOWER, p] - theta[p]) / scale, -MOST_STEP)
        v[2, p] = min((space[at.UPPER, p] - theta[p]) / scale, MOST_STEP)


@part
def _promise(work: Array, v: Array) -> Number:
    """Gain of the quadratic model."""
    n, gain = _U(v.shape[1]), 0.0
    for p in range(n):
        curve = 0.0
        for q in range(n):
            curve += work[0, p, q] * v[4, q]
        gain += v[4, p] * (2.0 * v[0, p] - curve)
    return gain


@kernel(TAKE_STEP)
def take_step(
    theta: Array,
    space: Array,
    per_channel: Number,
    damping: Number,
    hessian: Array,
    gradient: Array,
    work: Array,
    v: Array,
    numbers: Array,
    trial: Array,
) -> Number:
    """Solve `(H + lambda diag H) d = g` over the parameters that are free to move; the gain that is promised.

    Args:
        theta: (parameter,).
        space: (row, parameter).
        per_channel: misfit per channel, the unit of the prior.
        damping: lambda.
        hessian: (parameter, parameter), in steps of the parameters, without prior.
        gradient: (parameter,).
        work: (3, parameter, parameter), room.
        v: (5, parameter), room: slope, room below and above, a solution, the step.
        numbers: (2, parameter), room.
        trial: (parameter,) written: theta after the step, inside its bounds.
    """
    n, moving, order = _U(theta.shape[0]), numbers[0], numbers[1]
    for p in range(n):
        v[0, p] = gradient[p]
    _prepare_step(theta, space, per_channel, damping, hessian, work, v, moving)
    # What runs into a limit in the first round stops there, and the others take the best step that goes with it.
    for p in range(n):
        v[4, p] = 0.0
    for last in range(2):
        _solve_moving(work[1], v[0] if last == 0 else trial, moving, work[2], order, v[3])
        for p in range(n):
            cut = min(max(v[3, p], v[1, p]), v[2, p])
            held = moving[p] and cut != v[3, p]
            if held or last == 1:
                v[4, p] += cut
            if held:
                moving[p] = _U(0)
        for p in range(n):
            trial[p] = v[0, p]
            for q in range(n):
                trial[p] -= work[1, p, q] * v[4, q]
    for p in range(n):
        moved = theta[p] + v[4, p] * space[at.SCALE, p]
        trial[p] = min(max(moved, space[at.LOWER, p]), space[at.UPPER, p])
    return _promise(work, v)
