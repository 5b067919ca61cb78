"""The map kernel for pixels of few counts: channels without any are skipped where their counts are read.

Counts are looked at by words of 8 bytes, of which most are 0, and those that are not are packed. Amplitudes are sums of
rows of the projector, logarithms are of the packed channels alone. The expectation of every channel still goes in the
deviance, not below its least one: it is summed for many pixels side by side, and so are variances.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.layout import (
    HIGHEST_PULL,
    LOWEST_PULL,
    PULL_STEPS,
    SMALLEST_EXPECTATION,
    SMALLEST_SIGMA,
    UINT8,
    UINT16,
    UINT32,
)
from hpcxrf.fitting.kernels.loops import LARGEST, ROWS, TABLES, TINY, Array, Number, Rows, clear, log, put_pixels
from hpcxrf.fitting.kernels.machine_code import kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_I: Final = np.int32
_ZERO: Final = np.float32(0.0)
_LANES: Final = np.uint64(256)
# Distance of rows of lanes, a cache line more: of those that lie a power of two apart few are in a cache at a time.
_PITCH: Final = np.uint64(272)
_NEXT: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_FOUR: Final = np.uint64(4)
_EIGHT: Final = np.uint64(8)
# Pairs of channels that are summed before they are added to the others: sums of a thousand would round more.
_BLOCK: Final = np.uint64(32)
_DE_BRUIJN: Final = np.uint64(0x03F79D71B4CB0A89)
_LOWEST: Final = np.float32(SMALLEST_EXPECTATION)
_SMALLEST_SIGMA: Final = np.float32(SMALLEST_SIGMA)
# By the first six bits of 2^i times the sequence, i.
_ORDER: Final = np.zeros(64, np.uint8)
_ORDER[[((1 << i) * int(_DE_BRUIJN) >> 58) & 63 for i in range(64)]] = np.arange(64)


@part
def _find_words(words: Array, n: Number, place: Array) -> Number:
    """Words that are not 0; how many. Without a branch, which would be guessed wrong at each of them."""
    k = _U(0)
    for w in range(n):
        place[k] = w
        k += _U(words[w] != _U(0))
    return k


@part
def _unpack(words: Array, filled: Array, n: Number, bits: Number, order: Array, place: Array, found: Array) -> Number:
    """Channels of whole numbers of so many bits in the filled words, and their counts; how many."""
    k = _U(0)
    per_word, mask = _U(64) // bits, (_NEXT << bits) - _NEXT
    for i in range(n):
        word, base = words[filled[i]], filled[i] * per_word
        while word != _U(0):
            # The place of the lowest bit that is not 0, by de Bruijn's sequence.
            lowest = word & (~word + _NEXT)
            which = _U(order[(lowest * _DE_BRUIJN) >> _U(58)]) // bits
            shift = which * bits
            place[k] = base + which
            found[k] = _F((word >> shift) & mask)
            word &= ~(mask << shift)
            k += _NEXT
    return k


@part
def _append(values: Array, first: Number, n: Number, k: Number, place: Array, found: Array) -> Number:
    """Append what is not 0 of the last counts, which fill no word."""
    for i in range(first, n):
        v = _F(values[i])
        place[k] = i
        found[k] = v
        # NaN is not 0.
        k += _U(v != _ZERO)
    return k


@part
def _pack(
    data: Array, kind: Number, begin: Number, n: Number, order: Array, filled: Array, place: Array, found: Array
) -> Number:
    """Channels with counts of any type, and their counts; how many."""
    if kind == UINT8:
        own = data[begin : begin + n]
        words = own[: n // _EIGHT * _EIGHT].view(np.uint64)
        k = _unpack(words, filled, _find_words(words, n // _EIGHT, filled), _EIGHT, order, place, found)
        return _append(own, n // _EIGHT * _EIGHT, n, k, place, found)
    if kind == UINT16:
        own = data[_TWO * begin : _TWO * (begin + n)]
        words = own[: n // _FOUR * _EIGHT].view(np.uint64)
        k = _unpack(words, filled, _find_words(words, n // _FOUR, filled), _U(16), order, place, found)
        return _append(own.view(np.uint16), n // _FOUR * _FOUR, n, k, place, found)
    own = data[_FOUR * begin : _FOUR * (begin + n)]
    if kind == UINT32:
        words = own[: n // _TWO * _EIGHT].view(np.uint64)
        k = _unpack(words, filled, _find_words(words, n // _TWO, filled), _U(32), order, place, found)
        return _append(own.view(np.uint32), n // _TWO * _TWO, n, k, place, found)
    return _append(own.view(np.float32), _U(0), n, _U(0), place, found)


@part
def _count(place: Array, found: Array, k: Number, first: Number, stop: Number) -> Number:
    """Sum of the packed counts in some channels; NaN where one of any channel is not finite."""
    inside = every = _ZERO
    for i in range(k):
        every += found[i]
        if place[i] >= first and place[i] < stop:
            inside += found[i]
    # Not by isfinite: numba makes it `x - x`, which is reordered to 0.
    return inside if abs(every) <= LARGEST else _F(np.nan)


@part
def _add_rows(place: Array, found: Array, k: Number, rows: Array, a: Array) -> None:
    """`counts @ projector`, of the packed channels; columns in eights."""
    width = _U(a.shape[0])
    for j in range(_U(0), width, _EIGHT):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _ZERO
        for i in range(k):
            v = found[i]
            o = place[i] * width + j
            s0 += v * rows[o]
            s1 += v * rows[o + _U(1)]
            s2 += v * rows[o + _U(2)]
            s3 += v * rows[o + _U(3)]
            s4 += v * rows[o + _U(4)]
            s5 += v * rows[o + _U(5)]
            s6 += v * rows[o + _U(6)]
            s7 += v * rows[o + _U(7)]
        a[j], a[j + _U(1)], a[j + _U(2)], a[j + _U(3)] = s0, s1, s2, s3
        a[j + _U(4)], a[j + _U(5)], a[j + _U(6)], a[j + _U(7)] = s4, s5, s6, s7


@part
def _compare(place: Array, found: Array, k: Number, rows: Array, a: Array, model: Array) -> Number:
    """Sum over the packed channels of `-y + y log(y / mu)`."""
    width = _U(a.shape[0])
    for i in range(k):
        o = place[i] * width
        m = _ZERO
        for j in range(width):
            m += a[j] * rows[o + j]
        model[i] = max(m, _LOWEST)
    total = _ZERO
    for i in range(k):
        v = found[i]
        total += v * log(max(v / model[i], TINY)) - v
    return total


@part
def _add_pair(columns: Rows, pair: Number, x: Array, mu: Array, sums: Array) -> None:
    """Add the expectations of two channels, of x (column, lane), to the sums (lane,), neither below the least one."""
    start, index, value = columns
    g = _FOUR * start[pair]
    count = start[pair + _NEXT] - start[pair]
    k0, k1, k2, k3 = index[g], index[g + _U(1)], index[g + _U(2)], index[g + _U(3)]
    q = _TWO * g
    v0, v1, v2, v3 = value[q], value[q + _U(1)], value[q + _U(2)], value[q + _U(3)]
    w0, w1, w2, w3 = value[q + _U(4)], value[q + _U(5)], value[q + _U(6)], value[q + _U(7)]
    if count == _NEXT:
        for lane in range(_LANES):
            x0, x1, x2, x3 = x[k0, lane], x[k1, lane], x[k2, lane], x[k3, lane]
            m = v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3
            n = w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
            sums[lane] += max(m, _LOWEST) + max(n, _LOWEST)
        return
    g += _FOUR
    k4, k5, k6, k7 = index[g], index[g + _U(1)], index[g + _U(2)], index[g + _U(3)]
    q = _TWO * g
    v4, v5, v6, v7 = value[q], value[q + _U(1)], value[q + _U(2)], value[q + _U(3)]
    w4, w5, w6, w7 = value[q + _U(4)], value[q + _U(5)], value[q + _U(6)], value[q + _U(7)]
    if count == _TWO:
        for lane in range(_LANES):
            x0, x1, x2, x3 = x[k0, lane], x[k1, lane], x[k2, lane], x[k3, lane]
            x4, x5, x6, x7 = x[k4, lane], x[k5, lane], x[k6, lane], x[k7, lane]
            m = (v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3) + (v4 * x4 + v5 * x5 + v6 * x6 + v7 * x7)
            n = (w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3) + (w4 * x4 + w5 * x5 + w6 * x6 + w7 * x7)
            sums[lane] += max(m, _LOWEST) + max(n, _LOWEST)
        return
    for lane in range(_LANES):
        x0, x1, x2, x3 = x[k0, lane], x[k1, lane], x[k2, lane], x[k3, lane]
        x4, x5, x6, x7 = x[k4, lane], x[k5, lane], x[k6, lane], x[k7, lane]
        mu[_U(0), lane] = (v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3) + (v4 * x4 + v5 * x5 + v6 * x6 + v7 * x7)
        mu[_U(1), lane] = (w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3) + (w4 * x4 + w5 * x5 + w6 * x6 + w7 * x7)
    for _ in range(_TWO, count):
        g += _FOUR
        q = _TWO * g
        k0, k1, k2, k3 = index[g], index[g + _U(1)], index[g + _U(2)], index[g + _U(3)]
        v0, v1, v2, v3 = value[q], value[q + _U(1)], value[q + _U(2)], value[q + _U(3)]
        w0, w1, w2, w3 = value[q + _U(4)], value[q + _U(5)], value[q + _U(6)], value[q + _U(7)]
        for lane in range(_LANES):
            x0, x1, x2, x3 = x[k0, lane], x[k1, lane], x[k2, lane], x[k3, lane]
            mu[_U(0), lane] += v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3
            mu[_U(1), lane] += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
    for lane in range(_LANES):
        sums[lane] += max(mu[_U(0), lane], _LOWEST) + max(mu[_U(1), lane], _LOWEST)


@part
def _sum_expected(
    columns: Rows, left_out: Array, n_channels: Number, x: Array, mu: Array, some: Array, sums: Array
) -> None:
    """Sum of the expectations of all channels (lane,), with what the sparse rows leave out."""
    n_pairs = _U(columns[0].shape[0]) - _NEXT
    for lane in range(_LANES):
        # Of the channel that fills up the last pair.
        sums[lane] = -_F(_TWO * n_pairs - n_channels) * _LOWEST
    for first in range(_U(0), n_pairs, _BLOCK):
        clear(some)
        for pair in range(first, min(first + _BLOCK, n_pairs)):
            _add_pair(columns, pair, x, mu, some)
        for lane in range(_LANES):
            sums[lane] += some[lane]
    for j in range(_U(left_out.shape[0])):
        for lane in range(_LANES):
            sums[lane] += left_out[j] * x[j, lane]


@part
def _multiply(e: Array, matrix: Array, floor: Array, out: Array) -> None:
    """`e @ matrix` (component, lane), not below the floor; e (column, lane)."""
    for i in range(_U(matrix.shape[1])):
        for lane in range(_LANES):
            out[i, lane] = _ZERO
        for j in range(_U(0), _U(matrix.shape[0]), _FOUR):
            v0, v1, v2, v3 = matrix[j, i], matrix[j + _U(1), i], matrix[j + _U(2), i], matrix[j + _U(3), i]
            for lane in range(_LANES):
                out[i, lane] += (v0 * e[j, lane] + v1 * e[j + _U(1), lane]) + (
                    v2 * e[j + _U(2), lane] + v3 * e[j + _U(3), lane]
                )
        for lane in range(_LANES):
            out[i, lane] = max(out[i, lane], floor[i])


@part
def _expect(a: Array, variance: Array, hazard: Array, i: Number, root: Array, pull: Array, e: Array) -> None:
    """Expectation of a coefficient that is not negative given its estimate, as in the kernel of all channels."""
    last = _U(hazard.shape[0]) - _U(2)
    for lane in range(_LANES):
        root[lane] = max(np.sqrt(variance[i, lane]), _SMALLEST_SIGMA)
    for lane in range(_LANES):
        pull[lane] = max(a[i, lane] / root[lane], _F(LOWEST_PULL))
    # Apart: what is looked up is not vectorised.
    for lane in range(_LANES):
        t = (min(pull[lane], _F(HIGHEST_PULL)) - _F(LOWEST_PULL)) * _F(PULL_STEPS)
        whole = _I(t)
        k = min(_U(np.uint32(whole)), last)
        h = hazard[k]
        e[i, lane] = h + (t - _F(whole)) * (hazard[k + _NEXT] - h)
    for lane in range(_LANES):
        e[i, lane] = (e[i, lane] + pull[lane]) * root[lane]


@part
def _variances(a: Array, matrix: Array, tables: Rows, root: Array, pull: Array, e: Array, variance: Array) -> None:
    """Variance (component, lane) of the expectation of all coefficients, which is left in e."""
    hazard, floor, _ = tables
    for j in range(_U(a.shape[0])):
        for lane in range(_LANES):
            e[j, lane] = max(a[j, lane], _ZERO)
    _multiply(e, matrix, floor, variance)
    for i in range(_U(matrix.shape[1])):
        _expect(a, variance, hazard, i, root, pull, e)
    _multiply(e, matrix, floor, variance)


@part
def _write_variances(e: Array, variance: Array, tables: Rows, p: Number, n: Number, out: Array, nulls: Array) -> None:
    _, floor, own = tables
    for i in range(_U(out.shape[0])):
        for lane in range(n):
            out[i, p + lane] = variance[i, lane]
            nulls[i, p + lane] = max(variance[i, lane] - e[i, lane] * own[i], floor[i])


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, uint64, uint64, float32[::1], float32[::1], {ROWS}, float32[::1], "
    f"float32[:,::1], {TABLES}, float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], float32[::1])",
    makes_arrays=True,
)
def fit_sparse_pixels(
    data: Array,
    kind: int,
    stride: int,
    n_channels: int,
    first: int,
    stop: int,
    projector: Array,
    spectra: Array,
    columns: Rows,
    left_out: Array,
    matrix: Array,
    tables: Rows,
    coefficients: Array,
    total: Array,
    variances: Array,
    nulls: Array,
    deviance: Array,
) -> None:
    """Fit pixels.

    Args:
        data: bytes of the counts of all pixels.
        kind: type of the counts.
        stride: counts from one pixel to the next.
        n_channels: channels of a pixel.
        first: first of the channels whose counts make the total.
        stop: channel after the last of them.
        projector: (channel x width) rows of the projector, width the columns filled up to a multiple of 8.
        spectra: (channel x width) the same of Phi.
        columns: sparse rows of Phi by pairs of channels: fours of columns, at least one, and for each four 8 numbers,
            those of the first channel and of the second.
        left_out: (column,) sums over channels of what they leave out.
        matrix: (width, component) variance of components by coefficients.
        tables: hazard of the normal law, least variance and variance by its own count (component,).
        coefficients: (column, pixel).
        total: (pixel,); NaN where a count is not finite, and the coefficients are 0.
        variances: (component, pixel).
        nulls: (component, pixel) variance in the absence of the component.
        deviance: (pixel,).
    """
    n_components, n_pixels, width = _U(variances.shape[0]), _U(total.shape[0]), _U(matrix.shape[0])
    place, found = np.zeros(n_channels + _NEXT, np.uint64), np.zeros(n_channels + _NEXT, np.float32)
    filled = np.zeros(n_channels + _NEXT, np.uint64)
    model, own = np.zeros(n_channels + _NEXT, np.float32), np.zeros(width, np.float32)
    a, e = np.zeros((width, _PITCH), np.float32), np.zeros((width, _PITCH), np.float32)
    spread = np.zeros((_U(matrix.shape[1]), _PITCH), np.float32)
    mu, some = np.zeros((_TWO, _LANES), np.float32), np.zeros(_LANES, np.float32)
    sums, seen = np.zeros(_LANES, np.float32), np.zeros(_LANES, np.float32)
    for p in range(_U(0), n_pixels, _LANES):
        n = min(_LANES, n_pixels - p)
        for lane in range(n):
            k = _pack(data, kind, (p + lane) * stride, n_channels, _ORDER, filled, place, found)
            total[p + lane] = _count(place, found, k, first, stop)
            if total[p + lane] != total[p + lane]:
                k = _U(0)
            _add_rows(place, found, k, projector, own)
            for j in range(width):
                a[j, lane] = own[j]
            if deviance.shape[0] > 0:
                seen[lane] = _compare(place, found, k, spectra, own, model)
        put_pixels(a, p, n, coefficients)
        if n_components > 0:
            _variances(a, matrix, tables, mu[_U(0)], some, e, spread)
            _write_variances(e, spread, tables, p, n, variances, nulls)
        if deviance.shape[0] > 0:
            _sum_expected(columns, left_out, n_channels, a, mu, some, sums)
            for lane in range(n):
                deviance[p + lane] = _F(2.0) * (sums[lane] + seen[lane])
