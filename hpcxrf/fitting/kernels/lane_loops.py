"""Loops over pixels in lanes that several kernels are made of, compiled with each of them.

Matrices come as strips (`hpcxrf.fitting.pixels.strips`): 4 or 8 columns over a run of channels, so that what is next to
nothing is not multiplied, and a number that is read meets all pixels at once.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lanes import LANES, Lanes, exponent, fails, load, mantissa, size, spread, store, turn, where
from hpcxrf.fitting.kernels.layout import FOUR, UINT8, UINT16, UINT32
from hpcxrf.fitting.kernels.loops import LARGEST, Array, Number, Strips
from hpcxrf.fitting.kernels.machine_code import part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_WIDTH: Final = np.uint64(LANES)
# Channels that are summed before they are added to the others: long sums in single precision would round more.
_BLOCK: Final = np.uint64(32)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_3: Final = np.uint64(3)
_4: Final = np.uint64(4)
_5: Final = np.uint64(5)
_6: Final = np.uint64(6)
_7: Final = np.uint64(7)
_8: Final = np.uint64(8)


@part
def fill_rows(rows: Array, begin: Number, n: Number, number: Number) -> None:
    """The same number in n rows of lanes."""
    for i in range(n):
        store(rows, begin + i, spread(number))


@part
def take_lanes(values: Array, first: Number, n: Number, rows: Array) -> None:
    """Some pixels of (column, pixel) into lanes; 0 in those beyond."""
    for k in range(_U(values.shape[0])):
        for lane in range(n):
            rows[k, lane] = values[k, first + lane]
        for lane in range(n, _WIDTH):
            rows[k, lane] = _ZERO


@part
def put_lanes(rows: Array, first: Number, n: Number, values: Array) -> None:
    """Lanes (column, lane) into (column, pixel), row by row: columns lie whole pages apart."""
    for k in range(_U(values.shape[0])):
        for lane in range(n):
            values[k, first + lane] = rows[k, lane]


@part
def _turn_counts(numbers: Array, begin: Number, n: Number, stride: Number, n_channels: Number, y: Array) -> None:
    whole = n_channels // _WIDTH * _WIDTH if n == _WIDTH else _U(0)
    for i in range(_U(0), whole, _WIDTH):
        turn(numbers, begin * stride + i, stride, y, i)
    if n < _WIDTH:
        fill_rows(y, _U(0), n_channels, _ZERO)
    for lane in range(n):
        for i in range(whole, n_channels):
            y[i, lane] = _F(numbers[(begin + lane) * stride + i])


@part
def add_rows(rows: Array, begin: Number, stop: Number) -> Lanes:
    """Sum of rows of lanes."""
    a, b, c, d = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    whole = begin + (stop - begin) // _4 * _4
    for i in range(begin, whole, _4):
        a += load(rows, i)
        b += load(rows, i + _1)
        c += load(rows, i + _2)
        d += load(rows, i + _3)
    for i in range(whole, stop):
        a += load(rows, i)
    return (a + b) + (c + d)


@part
def read_lanes(
    data: Array, form: tuple[Number, Number, Number, Number, Number], begin: Number, n: Number, y: Array, total: Array
) -> None:
    """Counts of n pixels into lanes, and their totals; one of which is not finite has a total of NaN, and counts of 0.

    Args:
        data: bytes of the counts of all pixels.
        form: type of the counts, counts from one pixel to the next, channels, and the first of those whose counts make
            the total with the channel after the last of them.
        begin: first pixel.
        n: pixels; lanes beyond them are 0.
        y: (channel, lane).
        total: (pixel,).
    """
    kind, stride, n_channels, first, stop = form
    if kind == UINT8:
        _turn_counts(data, begin, n, stride, n_channels, y)
    elif kind == UINT16:
        _turn_counts(data.view(np.uint16), begin, n, stride, n_channels, y)
    elif kind == UINT32:
        _turn_counts(data.view(np.uint32), begin, n, stride, n_channels, y)
    else:
        _turn_counts(data.view(np.float32), begin, n, stride, n_channels, y)
    seen = add_rows(y, first, stop)
    finite = size(seen + add_rows(y, _U(0), first) + add_rows(y, stop, n_channels)) <= LARGEST
    # By way of the first row, of which the counts are put back.
    kept = load(y, _U(0))
    store(y, _U(0), where(finite, seen, spread(_F(np.nan))))
    for lane in range(n):
        total[begin + lane] = y[0, lane]
    store(y, _U(0), kept)
    if fails(finite):
        for i in range(n_channels):
            store(y, i, where(finite, load(y, i), spread(_ZERO)))


@part
def _add_4(x: Array, strips: Strips, j: Number, out: Array) -> None:
    places, columns, c = strips
    x0, x1, x2, x3 = load(x, columns[j, 0]), load(x, columns[j, 1]), load(x, columns[j, 2]), load(x, columns[j, 3])
    begin, k = places[j, 0], places[j, 2]
    for i in range(begin, begin + places[j, 1]):
        more = (x0 * c[k] + x1 * c[k + _1]) + (x2 * c[k + _2] + x3 * c[k + _3])
        store(out, i, load(out, i) + more)
        k += _4


@part
def _add_8(x: Array, strips: Strips, j: Number, out: Array) -> None:
    places, columns, c = strips
    x0, x1, x2, x3 = load(x, columns[j, 0]), load(x, columns[j, 1]), load(x, columns[j, 2]), load(x, columns[j, 3])
    x4, x5, x6, x7 = load(x, columns[j, 4]), load(x, columns[j, 5]), load(x, columns[j, 6]), load(x, columns[j, 7])
    begin, k = places[j, 0], places[j, 2]
    for i in range(begin, begin + places[j, 1]):
        first = (x0 * c[k] + x1 * c[k + _1]) + (x2 * c[k + _2] + x3 * c[k + _3])
        second = (x4 * c[k + _4] + x5 * c[k + _5]) + (x6 * c[k + _6] + x7 * c[k + _7])
        store(out, i, load(out, i) + (first + second))
        k += _8


@part
def end_of_run(strips: Strips, j: Number) -> Number:
    """The strip after the last one over the same channels as strip j."""
    places = strips[0]
    stop = j
    while stop < _U(places.shape[0]) and places[stop, 0] == places[j, 0]:
        stop += _1
    return stop


@part
def add_strips(x: Array, strips: Strips, first: Number, stop: Number, out: Array) -> None:
    """Add some strips times x (column, lane) to out (row, lane)."""
    places = strips[0]
    for j in range(first, stop):
        if places[j, 3] == FOUR:
            _add_4(x, strips, j, out)
        else:
            _add_8(x, strips, j, out)


@part
def _add_to(b: Array, row: Number, x: Lanes) -> None:
    store(b, row, load(b, row) + x)


@part
def _project_4(y: Array, begin: Number, stop: Number, k: Number, c: Array, columns: Array, j: Number, b: Array) -> None:
    s0, s1, s2, s3 = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    for i in range(begin, stop):
        v = load(y, i)
        s0 += v * c[k]
        s1 += v * c[k + _1]
        s2 += v * c[k + _2]
        s3 += v * c[k + _3]
        k += _4
    _add_to(b, columns[j, 0], s0)
    _add_to(b, columns[j, 1], s1)
    _add_to(b, columns[j, 2], s2)
    _add_to(b, columns[j, 3], s3)


@part
def _project_8(y: Array, begin: Number, stop: Number, k: Number, c: Array, columns: Array, j: Number, b: Array) -> None:
    s0, s1, s2, s3 = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    s4, s5, s6, s7 = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    for i in range(begin, stop):
        v = load(y, i)
        s0 += v * c[k]
        s1 += v * c[k + _1]
        s2 += v * c[k + _2]
        s3 += v * c[k + _3]
        s4 += v * c[k + _4]
        s5 += v * c[k + _5]
        s6 += v * c[k + _6]
        s7 += v * c[k + _7]
        k += _8
    _add_to(b, columns[j, 0], s0)
    _add_to(b, columns[j, 1], s1)
    _add_to(b, columns[j, 2], s2)
    _add_to(b, columns[j, 3], s3)
    _add_to(b, columns[j, 4], s4)
    _add_to(b, columns[j, 5], s5)
    _add_to(b, columns[j, 6], s6)
    _add_to(b, columns[j, 7], s7)


@part
def project_strips(y: Array, strips: Strips, first: Number, stop: Number, b: Array) -> None:
    """Add `y @ some strips` (column, lane) to b, which has one more row for what fills strips up."""
    places, columns, c = strips
    for j in range(first, stop):
        begin, k = places[j, 0], places[j, 2]
        end = begin + places[j, 1]
        while begin < end:
            till = min(begin + _BLOCK, end)
            if places[j, 3] == FOUR:
                _project_4(y, begin, till, k, c, columns, j, b)
                k += _4 * _BLOCK
            else:
                _project_8(y, begin, till, k, c, columns, j, b)
                k += _8 * _BLOCK
            begin = till


@part
def project_lanes(y: Array, strips: Strips, b: Array) -> None:
    """`y @ matrix` (column, lane)."""
    fill_rows(b, _U(0), _U(b.shape[0]), _ZERO)
    project_strips(y, strips, _U(0), _U(strips[0].shape[0]), b)


@part
def multiply_lanes(x: Array, strips: Strips, out: Array) -> None:
    """`matrix @ x` (row, lane)."""
    fill_rows(out, _U(0), _U(out.shape[0]), _ZERO)
    add_strips(x, strips, _U(0), _U(strips[0].shape[0]), out)


@part
def substitute_back(lower: Array, inverse_root: Array, n: Number, x: Array) -> None:
    """Solve `L' z = x` in place, of a factor by rows and the inverse of its diagonal."""
    for back in range(n):
        i = n - _1 - back
        s = load(x, i)
        for k in range(i + _1, n):
            s -= load(lower, k * (k + _1) // _2 + i) * load(x, k)
        store(x, i, s * load(inverse_root, i))


@part
def log_lanes(x: Lanes) -> Lanes:
    """Natural logarithm of a positive number, to 1e-7.

    x = 2^e (1 + f), 2/3 <= 1 + f < 4/3; f^2 q(f) is log(1 + f) - f, fitted at Chebyshev points.
    """
    e, f = exponent(x), mantissa(x) - _ONE
    q = f * _F(-0.1565677970647812) + _F(0.17200186848640442)
    q = q * f + _F(-0.16358855366706848)
    q = q * f + _F(0.19783316552639008)
    q = q * f + _F(-0.2501148283481598)
    q = q * f + _F(0.3333808481693268)
    q = q * f + _F(-0.49999868869781494)
    return e * _F(8.262958424e-08) + (q * f * f + f)
