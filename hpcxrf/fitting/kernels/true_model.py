"""Kernel: the true model in one pixel after the other, each with a theta of its own (`hpcxrf.fitting.pixels.full`)."""

import math
from typing import Final

import numpy as np

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.layout import SMALLEST_EXPECTATION
from hpcxrf.fitting.kernels.loops import Array, Number, read_counts
from hpcxrf.fitting.kernels.machine_code import glue, kernel, part
from hpcxrf.fitting.kernels.spectrum_search import (
    DRAWN,
    KERNELS,
    MODEL,
    POINT,
    ROOM,
    STUCK,
    Arrays,
    Drawn,
    Model,
    Point,
    Room,
    search,
)
from hpcxrf.fitting.kernels.spectrum_steps import multiply_rows
from hpcxrf.fitting.kernels.spectrum_variances import find_variances

__all__ = ["KERNELS", "fit_true_model"]

_U: Final = np.uint64
_TOGETHER: Final = "Tuple((float64[:,:,::1], float64[:,::1], uint64[:,::1]))"
_RESULTS: Final = (
    "Tuple((float64[:,::1], float64[:,::1], float64[:,::1], float64[:,::1], float64[:,::1], float64[::1], uint8[::1]))"
)


@part
def _copy(source: Array, target: Array) -> None:
    for i in range(_U(source.shape[0])):
        target[i] = source[i]


@part
def _project(counts: Array, columns: Array, spans: Array, free: Array, rhs: Array) -> None:
    """Right-hand side (column,) of unit weights, and all columns free."""
    for j in range(_U(rhs.shape[0])):
        free[j], total = _U(1), 0.0
        for i in range(spans[j, 0], spans[j, 1]):
            total += columns[j, i] * counts[i]
        rhs[j] = total


@part
def _weigh(data: Array) -> None:
    """Weights of what is expected, which the residual was left by: `1 / mu`, with a share of the mean at least."""
    n, total = _U(data.shape[1]), 0.0
    for i in range(n):
        total += data[at.COUNTS, i] - data[at.RESIDUAL, i]
    floor = max(at.WEIGHT_FLOOR * total / float(n), at.LEAST_COUNTS)
    for i in range(n):
        data[at.WEIGHTS, i] = 1.0 / max(data[at.COUNTS, i] - data[at.RESIDUAL, i], floor)


@part
def _find_deviance(data: Array) -> Number:
    """Poisson deviance of what is expected (`hpcxrf.fitting.objective`)."""
    total = 0.0
    for i in range(_U(data.shape[1])):
        y = data[at.COUNTS, i]
        mu = max(y - data[at.RESIDUAL, i], SMALLEST_EXPECTATION)
        total += mu - y
        if y > 0.0:
            total += y * math.log(y / mu)
    return 2.0 * total


@part
def _keep(
    space: Array, wanted: Array, sound: Number, n: Number, vectors: Array, sigmas: tuple[Array, Array, Array]
) -> None:
    """Variances (component,), those in the absence of the component, and sigma of the free parameters; NaN: none."""
    variance, null, theta_sigma = sigmas
    for j in range(_U(variance.shape[0])):
        variance[j] = vectors[3, j] if sound else np.nan
        null[j] = vectors[4, j] if sound else np.nan
    k = n
    for r in range(_U(wanted.shape[0])):
        if space[at.FREE, wanted[r]] > 0.0:
            theta_sigma[k - n] = space[at.SCALE, wanted[r]] * math.sqrt(vectors[3, k]) if sound else np.nan
            k += _U(1)


@glue
def _describe(
    p: Number, of: Number, model: Model, drawn: Drawn, room: Room, point: Point, together: Arrays, results: Arrays
) -> None:
    """Results of a pixel where its search ended, whose residual and rows were left last."""
    sizes, space, wanted = model[0], model[5], model[6]
    data, _, (weighted, gram, rhs, _, _, _, _), (_, _, rows, row_spans, cross, small), _ = room
    columns, spans, linear = drawn[4][of], drawn[5][of], point[2][0]
    square, vectors, numbers = together
    _copy(point[0], results[0][p])
    _copy(linear, results[1][p])
    results[5][p] = _find_deviance(data)
    model[9](sizes, data, columns, spans, weighted, gram[0], rhs[0])
    multiply_rows(sizes, data, rows, row_spans, weighted, spans, cross, small)
    sound = find_variances(
        sizes,
        data,
        space,
        wanted,
        columns,
        spans,
        gram[0],
        rows,
        row_spans,
        cross,
        small,
        linear,
        square,
        vectors,
        numbers,
    )
    _keep(space, wanted, sound, sizes[at.N_COLUMNS], vectors, (results[2][p], results[3][p], results[4][p]))


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, {MODEL}, float64[:,:,::1], float64[:,::1], {DRAWN}, {ROOM}, "
    f"{POINT}, {_TOGETHER}, {_RESULTS})"
)
def fit_true_model(
    data: Array,
    kind: int,
    stride: int,
    n_channels: int,
    model: Model,
    gram: Array,
    passes: Array,
    drawn: Drawn,
    room: Room,
    point: Point,
    together: Arrays,
    results: Arrays,
) -> None:
    """Fit pixels.

    Args:
        data: bytes of the counts of all pixels.
        kind: type of the counts.
        stride: counts from one pixel to the next.
        n_channels: channels of a pixel.
        model: lines and bounds; the centre of the priors is where every pixel starts.
        gram: (1, column, column) of the columns at the start, unit weights.
        passes: (pass, 2) steps and tolerance; the weights are those of what was expected before.
        drawn: of three sets, the first of which is drawn at the start.
        room: room.
        point: room.
        together: room for columns and free parameters together: (2, all, all), (5, all), (3, all).
        results: (pixel, any) each: theta, coefficients, variance, variance in the absence of the component, sigma of
            theta, deviance, and a status, which is 1 where the search found its end, 0 where it did not, and 2 where
            pivoting went in a circle and nothing else is written.
    """
    spectrum, (_, _, rhs, square, vectors, numbers, found), sizes = room[0], room[2], model[0]
    for p in range(_U(results[0].shape[0])):
        read_counts(data, kind, p * stride, n_channels, spectrum[at.COUNTS])
        _project(spectrum[at.COUNTS], drawn[4][0], drawn[5][0], point[5][0], rhs[0])
        model[10](gram, rhs, at.MOST_EXCHANGES, point[5], square, vectors, numbers, point[2], found)
        _copy(model[5][at.CENTRE_OF_PRIOR], point[0])
        misfit, now, done = 0.0 if found[0] else STUCK, _U(0), False
        for k in range(_U(passes.shape[0])):
            if misfit != STUCK:
                model[11](sizes, spectrum, drawn[4][now], drawn[5][now], point[2][0])
                _weigh(spectrum)
                misfit, now, done = search(int(passes[k, 0]), passes[k, 1], now, model, drawn, room, point)
        results[6][p] = 2 if misfit == STUCK else 1 if done else 0
        if misfit != STUCK:
            model[11](sizes, spectrum, drawn[4][now], drawn[5][now], point[2][0])
            _weigh(spectrum)
            _describe(p, now, model, drawn, room, point, together, results)
