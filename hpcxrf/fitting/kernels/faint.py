"""Pixels of few counts, each by its own counts: what of a spectrum is 0 is not multiplied.

Vectors lie along the columns of the model, not across pixels: a count meets its row of a matrix. Which pixels are faint
is a matter of each one's counts, so that its numbers do not hang on its companions.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lane_loops import log_lanes, multiply_lanes
from hpcxrf.fitting.kernels.lanes import (
    LANES,
    WORD_BYTES,
    Lanes,
    add_lanes,
    fetch_ahead,
    larger,
    load,
    lowest,
    mark_bytes,
    spread,
    store,
)
from hpcxrf.fitting.kernels.layout import FAINT, SMALLEST_EXPECTATION, UINT8, UINT16, UINT32
from hpcxrf.fitting.kernels.loops import STRIPS, TINY, Array, Number, Strips
from hpcxrf.fitting.kernels.machine_code import glue, part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_SMALLEST_EXPECTATION: Final = np.float32(SMALLEST_EXPECTATION)
_WIDTH: Final = np.uint64(LANES)
_WORD: Final = np.uint64(WORD_BYTES)
_FAINT: Final = np.uint64(FAINT)
_0: Final = np.uint64(0)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_4: Final = np.uint64(4)
# Pixels that are fetched ahead: memory takes as long as some of them.
_AHEAD: Final = np.uint64(8)
Form = tuple[Number, Number, Number, Number, Number]
"""Type of counts, counts from one pixel to the next, channels, and which of them make the total."""
Model = tuple[Array, Array, Strips, Array, Array]
"""Rows of T and of Phi, filled up to whole vectors (number,); strips of Phi over some channels, how many each of them
stands for, and the sum of each column."""
MODEL: Final = f"Tuple((float32[::1], float32[::1], {STRIPS}, float32[::1], float32[::1]))"
"""Its type in signatures."""
Picked = tuple[Array, Array, Array, Array, Array, Array]
"""Of the pixels in lanes: 1 for faint ones; where their counts begin, and end; channels and numbers of the counts
(count,); and room: by count, and by column."""
Words = tuple[Array, Array]
"""First channels of words that hold a count, and bits of those that do."""


@glue
def make_room(n_channels: Number, n_columns: Number) -> tuple[Picked, Words]:
    """Room for faint pixels, of as many as there are lanes."""
    most, n_words = _WIDTH * _FAINT, n_channels * _4 // _WORD + _WORD
    picked = (
        np.zeros(_WIDTH, np.uint64),
        np.zeros((_2, _WIDTH), np.uint64),
        np.zeros(most, np.uint64),
        np.zeros(most, np.float32),
        np.zeros(most, np.float32),
        np.zeros(_count_vectors(n_columns) * _WIDTH, np.float32),
    )
    return picked, (np.zeros(n_words, np.uint64), np.zeros(n_words, np.uint64))


@part
def _count_vectors(n_columns: Number) -> Number:
    return (n_columns + _WIDTH - _1) // _WIDTH


@part
def _mark_counts(data: Array, begin: Number, shift: Number) -> Number:
    """Which of the counts in a word are not 0: the lowest bit of each."""
    seen = mark_bytes(data, begin << shift)
    if shift == _0:
        return seen
    seen |= seen >> _1
    if shift == _1:
        return seen & _U(0x5555555555555555)
    return (seen | seen >> _2) & _U(0x1111111111111111)


@part
def _read_count(data: Array, kind: Number, place: Number) -> Number:
    if kind == UINT8:
        return _F(data[place])
    if kind == UINT16:
        return _F(data.view(np.uint16)[place])
    if kind == UINT32:
        return _F(data.view(np.uint32)[place])
    return data.view(np.float32)[place]


@part
def _find_words(data: Array, form: Form, first: Number, words: Words) -> Number:
    """Fill in the words that hold a count, and say how many; channels after the last whole word are one each."""
    places, marks = words
    kind, stride, n_channels, _, _ = form
    shift, n = _find_shift(kind), _0
    together = _WORD >> shift
    whole = n_channels // together * together
    # Without a branch, which nobody could foretell.
    for begin in range(_0, whole, together):
        fetch_ahead(data, (first + begin + _AHEAD * stride) << shift)
        seen = _mark_counts(data, first + begin, shift)
        places[n], marks[n] = begin, seen
        n += _U(seen != _0)
    for i in range(whole, n_channels):
        places[n], marks[n] = i, _1
        n += _U(_read_count(data, kind, first + i) != _ZERO)
    return n


@part
def _find_shift(kind: Number) -> Number:
    """Binary logarithm of the bytes of a count."""
    return _0 if kind == UINT8 else _1 if kind == UINT16 else _2


@part
def _pick_counts(
    data: Array, first: Number, form: Form, picked: Picked, words: Words, at: Number
) -> tuple[Number, Number, Number]:
    """Put the counts of a pixel from a place on: where they end, their sum over all channels, and that of the total.

    Of a pixel that is not faint the sum is the least that is none, and the rest is of no use.
    """
    kind, _, _, start, stop = form
    _, _, channels, counts, _, _ = picked
    places, marks = words
    shift, sum_of_all, total = _find_shift(kind), _0, _0
    for k in range(_find_words(data, form, first, words)):
        place, seen = places[k], marks[k]
        while seen:
            i = place + (lowest(seen) >> shift)
            v = _read_count(data, kind, first + i)
            # A negative one, or what is no number, is none of a faint pixel either.
            count = _U(v) if _ZERO <= v < _F(FAINT) else _FAINT
            sum_of_all += count
            if sum_of_all >= _FAINT or _F(count) != v:
                return at, _FAINT, total
            channels[at], counts[at] = i, v
            total += count * _U(start <= i < stop)
            # A negative zero is no count.
            at += _U(count > _0)
            seen &= seen - _1
    return at, sum_of_all, total


@part
def pick_pixels(
    data: Array, form: Form, begin: Number, n: Number, counted: Number, picked: Picked, words: Words, total: Array
) -> Number:
    """Take the counts of faint pixels, and their totals; how many of the others there are.

    Args:
        data: bytes of the counts of all pixels.
        form: how they lie there, and which of them make the total. A pixel with a count that is not whole is not faint.
        begin: first pixel.
        n: pixels.
        counted: 1 where the totals are there already, else 0.
        picked: the faint pixels, and which ones are; what follows takes them from here.
        words: room.
        total: (pixel,).
    """
    own, ends, at, others = picked[0], picked[1], _0, _0
    for lane in range(n):
        ends[0, lane], ends[1, lane], own[lane] = at, at, _0
        if not counted or total[begin + lane] < _F(FAINT):
            at, sum_of_all, inside = _pick_counts(data, (begin + lane) * form[1], form, picked, words, at)
            if sum_of_all < _FAINT:
                own[lane], ends[1, lane], total[begin + lane] = _1, at, _F(inside)
            else:
                at = ends[0, lane]
        others += _1 - own[lane]
    return others


@part
def project_picked(picked: Picked, n: Number, n_columns: Number, rows: Array, b: Array) -> None:
    """`T' y` of the faint ones among n pixels, into their lanes of b."""
    own, ends, channels, counts, _, column = picked
    n_vectors = _count_vectors(n_columns)
    for lane in range(n):
        if own[lane]:
            for j in range(n_vectors):
                s = spread(_ZERO)
                for e in range(ends[0, lane], ends[1, lane]):
                    s += load(rows, channels[e] * n_vectors + j) * counts[e]
                store(column, j, s)
            for k in range(n_columns):
                b[k, lane] = column[k]


@part
def _expect_counts(a: Array, model: Model, mu: Array) -> Lanes:
    """Counts that are expected of all channels, each at least the least: what it lacks is summed over some channels."""
    _, _, samples, numbers, totals = model
    multiply_lanes(a, samples, mu[: _U(numbers.shape[0])])
    total = spread(_ZERO)
    for k in range(_U(totals.shape[0])):
        total += load(a, k) * totals[k]
    for i in range(_U(numbers.shape[0])):
        m = load(mu, i)
        total += (larger(m, spread(_SMALLEST_EXPECTATION)) - m) * numbers[i]
    return total


@part
def _expect_picked(picked: Picked, n: Number, a: Array, rows: Array, n_columns: Number) -> Number:
    """What is expected where a faint pixel has counts; how many these are."""
    own, ends, channels, _, expected, column = picked
    n_vectors = _count_vectors(n_columns)
    for lane in range(n):
        if own[lane]:
            for k in range(n_columns):
                column[k] = a[k, lane]
            for e in range(ends[0, lane], ends[1, lane]):
                s = spread(_ZERO)
                for j in range(n_vectors):
                    s += load(rows, channels[e] * n_vectors + j) * load(column, j)
                expected[e] = add_lanes(s)
    return ends[1, n - _1]


@part
def find_picked_deviance(picked: Picked, n: Number, a: Array, model: Model, mu: Array, misfit: Array) -> None:
    """Poisson deviance of the faint ones among n pixels: what is expected, and `y log(y / mu) - y` where y is not 0."""
    own, ends, _, counts, expected, _ = picked
    store(misfit, _U(0), _expect_counts(a, model, mu))
    n_picked = _expect_picked(picked, n, a, model[1], _U(model[4].shape[0]))
    for i in range((n_picked + _WIDTH - _1) // _WIDTH):
        v, m = load(counts, i), larger(load(expected, i), spread(_SMALLEST_EXPECTATION))
        store(expected, i, v * log_lanes(larger(v / m, spread(TINY))) - v)
    for lane in range(n):
        if own[lane]:
            half = misfit[lane]
            for e in range(ends[0, lane], ends[1, lane]):
                half += expected[e]
            misfit[lane] = _F(2.0) * half
