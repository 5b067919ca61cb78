"""Steps of amplitudes and theta of pixels that have a theta each, by the tangent dictionary.

The same steps as `hpcxrf.fitting.pixels.tangent` takes with tensors. Three pixels at a time meet four rows of a matrix:
twelve sums that stay in registers, of numbers that are read once. Every pixel ends by itself, when a step has become
too short to count, and has the same numbers whichever of the three it is.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.loops import LARGEST, Array, Number, clear
from hpcxrf.fitting.kernels.machine_code import kernel, part
from hpcxrf.fitting.kernels.tangent_layout import FARTHEST, LONGEST_STEP, SHORT, SIDE, STEPS

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_3: Final = np.uint64(3)
_4: Final = np.uint64(4)
_SIDE: Final = np.uint64(SIDE)
_SHORT: Final = np.float32(SHORT)
_LONGEST_STEP: Final = np.float32(LONGEST_STEP)
_FARTHEST: Final = np.float32(FARTHEST)


@part
def _multiply_4(matrix: Array, begin: Number, n: Number, x: Array, out: Array, to: Number, rows: Number) -> None:
    """Four rows of a matrix times the three vectors."""
    a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = d0 = d1 = d2 = _ZERO
    for i in range(n):
        x0, x1, x2 = x[i], x[i + n], x[i + _2 * n]
        k = begin + i
        g = matrix[k]
        a0 += x0 * g
        a1 += x1 * g
        a2 += x2 * g
        g = matrix[k + n]
        b0 += x0 * g
        b1 += x1 * g
        b2 += x2 * g
        g = matrix[k + _2 * n]
        c0 += x0 * g
        c1 += x1 * g
        c2 += x2 * g
        g = matrix[k + _3 * n]
        d0 += x0 * g
        d1 += x1 * g
        d2 += x2 * g
    out[to], out[to + rows], out[to + _2 * rows] = a0, a1, a2
    to += _1
    out[to], out[to + rows], out[to + _2 * rows] = b0, b1, b2
    to += _1
    out[to], out[to + rows], out[to + _2 * rows] = c0, c1, c2
    to += _1
    out[to], out[to + rows], out[to + _2 * rows] = d0, d1, d2


@part
def _multiply(matrix: Array, x: Array, out: Array) -> None:
    """`matrix @ x` of each of the three, x (pixel, column) and the result (pixel, row)."""
    rows, n = _U(matrix.shape[0]), _U(matrix.shape[1])
    numbers, vectors, results = matrix.reshape(matrix.size), x.reshape(x.size), out.reshape(out.size)
    for r in range(_U(0), rows, _4):
        _multiply_4(numbers, r * n, n, vectors, results, r, rows)


@part
def _spread(a: Array, d: Array, pairs: Array, half: Array, n: Number, k: Number, weights: Array, every: Array) -> None:
    """Factors of the columns' changes, and coefficients of all columns, of a pixel."""
    m = _U(d.shape[0])
    for q in range(m):
        weights[q] = d[q]
    for p in range(_U(half.shape[0])):
        weights[m + p] = half[p] * d[pairs[p, 0]] * d[pairs[p, 1]]
    for c in range(k):
        every[c] = a[c]
    for q in range(_U(weights.shape[0])):
        w, begin = weights[q], k + q * n
        for c in range(n):
            every[begin + c] = w * a[c]


@part
def _pair_up(own: Array, n: Number, products: Array) -> None:
    """Products of every two amplitudes, each pair once."""
    place = _U(0)
    for i in range(n):
        x = own[i]
        for j in range(i + _1):
            products[place + j] = x * own[j]
        place += i + _1


@part
def _find_slopes(
    right: Array,
    level: Number,
    centre: Array,
    a: Array,
    d: Array,
    rest: Array,
    weights: Array,
    pairs: Array,
    half: Array,
    n: Number,
    slope_a: Array,
    slope_d: Array,
) -> None:
    """Slopes of the misfit of a pixel, downwards, by the coefficients and by d; `rest` is taken from `right`."""
    m, k = _U(d.shape[0]), _U(a.shape[0])
    for c in range(_U(right.shape[0])):
        rest[c] = right[c] - rest[c]
    _copy(rest, k, slope_a)
    for q in range(m):
        slope_d[q] = -level * (d[q] + centre[q])
    for q in range(_U(weights.shape[0])):
        w, gain, begin = weights[q], _ZERO, k + q * n
        for c in range(n):
            change = rest[begin + c]
            slope_a[c] += w * change
            gain += change * a[c]
        if q < m:
            slope_d[q] += gain
        else:
            one, other, share = pairs[q - m, 0], pairs[q - m, 1], half[q - m] * gain
            slope_d[one] += share * d[other]
            slope_d[other] += share * d[one]


@part
def _solve(bent: Array, level: Number, wanted: Array, lower: Array, move: Array) -> None:
    """Solve for a step by Cholesky's factor; 0 where the curvature has none.

    Args:
        bent: lower triangle of the curvature, by rows, without the prior.
        level: curvature of the prior.
        wanted: (parameter,).
        lower: (parameter, parameter), overwritten.
        move: (parameter,).
    """
    m = _U(wanted.shape[0])
    place: Number = _U(0)
    sound: Number = True
    for p in range(m):
        for q in range(p + _1):
            s = bent[place] + level if p == q else bent[place]
            for r in range(q):
                s -= lower[p, r] * lower[q, r]
            if p == q:
                sound = sound and s > _ZERO
                lower[p, p] = np.sqrt(s) if sound else _F(1.0)
            else:
                lower[p, q] = s / lower[q, q]
            place += _1
        s = wanted[p]
        for r in range(p):
            s -= lower[p, r] * move[r]
        move[p] = s / lower[p, p]
    for back in range(m):
        end = m - _1 - back
        s = move[end]
        for r in range(end + _1, m):
            s -= lower[r, end] * move[r]
        move[end] = s / lower[end, end]
    if not sound:
        for p in range(m):
            move[p] = _ZERO


@part
def _shorten(d: Array, limit: Number, motion: Array) -> None:
    """The same direction, no farther than a limit in units of the reach."""
    reached = limit
    for place in range(_U(motion.shape[0])):
        moved = _ZERO
        for q in range(_U(d.shape[0])):
            moved += motion[place, q] * d[q]
        reached = max(reached, abs(moved))
    for q in range(_U(d.shape[0])):
        d[q] *= limit / reached


@part
def _find_move(
    d: Array, level: Number, bent: Array, follow: Array, slope_a: Array, slope_d: Array, lower: Array, move: Array
) -> Number:
    """The step in d, and its length in units of its uncertainty."""
    m = _U(d.shape[0])
    k = _U(follow.shape[0]) // m
    for q in range(m):
        s, begin = slope_d[q], q * k
        for c in range(k):
            s -= follow[begin + c] * slope_a[c]
        slope_d[q] = s
    _solve(bent, level, slope_d, lower, move)
    square = _ZERO
    for q in range(m):
        square += move[q] * slope_d[q]
    return np.sqrt(max(square / level, _ZERO))


@part
def _limit(d: Array, motion: Array, move: Array) -> None:
    """Where a step leads that is not too long, nor leads too far."""
    _shorten(move, _LONGEST_STEP, motion)
    for q in range(_U(d.shape[0])):
        move[q] += d[q]
    _shorten(move, _FARTHEST, motion)


@part
def _go(move: Array, follow: Array, answer: Array, a: Array, d: Array) -> None:
    """Go there; the coefficients follow the change of d."""
    m, k = _U(d.shape[0]), _U(a.shape[0])
    for q in range(m):
        by, begin = move[q] - d[q], q * k
        for c in range(k):
            answer[c] -= by * follow[begin + c]
        d[q] = move[q]
    for c in range(k):
        a[c] += answer[c]


@part
def _load(x: Array, p: Number, out: Array) -> None:
    for c in range(_U(x.shape[0])):
        out[c] = x[c, p]


@part
def _store(x: Array, p: Number, out: Array) -> None:
    for c in range(_U(x.shape[0])):
        out[c, p] = x[c]


@part
def _copy(x: Array, n: Number, out: Array) -> None:
    for c in range(n):
        out[c] = x[c]


_MATRIX: Final = "float32[:,::1]"
_OPERATOR: Final = (
    f"Tuple(({_MATRIX}, {_MATRIX}, {_MATRIX}, {_MATRIX}, float32[::1], {_MATRIX}, uint64[:,::1], float32[::1]))"
)


@kernel(
    f"void({_MATRIX}, {_MATRIX}, float32[::1], {_OPERATOR}, uint64, {_MATRIX}, {_MATRIX}, float32[::1])",
    makes_arrays=True,
)
def take_steps(
    signed: Array,
    rhs: Array,
    level: Array,
    operator: tuple[Array, ...],
    n: Number,
    found: Array,
    shift: Array,
    moved: Array,
) -> None:
    """Coefficients and d of all pixels.

    Args:
        signed: (column, pixel) at d = 0.
        rhs: (all columns, pixel) their products with the counts.
        level: (pixel,) counts in units of the mean pixel.
        operator: Gram matrix (all, all), inverse (column, column), response (parameter and column, component),
            curvature (pair of parameters, pair of components), all filled up to multiples of 4 rows and 8 columns;
            centre (parameter,), motion (place, parameter), parameters of the pairs (pair, 2), their factors (pair,).
        n: number of components.
        found: (column, pixel).
        shift: (parameter, pixel).
        moved: (pixel,) length of the last step in d, in units of its uncertainty.
    """
    gram, inverse, response, curvature, centre, motion, pairs, half = operator
    k, m, n_all = _U(signed.shape[0]), _U(shift.shape[0]), _U(rhs.shape[0])
    every, rest = np.zeros((SIDE, gram.shape[1]), _F), np.zeros((SIDE, gram.shape[0]), _F)
    slope_a, answer = np.zeros((SIDE, inverse.shape[1]), _F), np.zeros((SIDE, inverse.shape[0]), _F)
    own, follow = np.zeros((SIDE, response.shape[1]), _F), np.zeros((SIDE, response.shape[0]), _F)
    products, bent = np.zeros((SIDE, curvature.shape[1]), _F), np.zeros((SIDE, curvature.shape[0]), _F)
    a, right, weights = np.zeros((SIDE, k), _F), np.zeros((SIDE, n_all), _F), np.zeros((SIDE, m + half.shape[0]), _F)
    d, move, slope_d, lower = np.zeros((SIDE, m), _F), np.zeros((SIDE, m), _F), np.zeros(m, _F), np.zeros((m, m), _F)
    length, place = np.zeros(SIDE, _F), np.zeros(SIDE, np.uint64)
    n_pixels = _U(signed.shape[1])
    for begin in range(_U(0), n_pixels, _SIDE):
        for s in range(_SIDE):
            # The last one beside those that are left is fitted again with them.
            place[s] = begin + s if begin + s < n_pixels else n_pixels - _1
            _load(signed, place[s], a[s])
            _load(rhs, place[s], right[s])
            length[s] = LARGEST
            clear(d[s])
        for _ in range(STEPS):
            if max(length[0], length[1], length[2]) <= _SHORT:
                break
            for s in range(_SIDE):
                _copy(a[s], n, own[s])
                _spread(a[s], d[s], pairs, half, n, k, weights[s], every[s])
                _pair_up(own[s], n, products[s])
            _multiply(gram, every, rest)
            _multiply(response, own, follow)
            _multiply(curvature, products, bent)
            for s in range(_SIDE):
                at = level[place[s]]
                _find_slopes(right[s], at, centre, a[s], d[s], rest[s], weights[s], pairs, half, n, slope_a[s], slope_d)
                step = _find_move(d[s], at, bent[s], follow[s, : m * k], slope_a[s], slope_d, lower, move[s])
                # One that has come to its end stays there, and keeps what it went last.
                length[s] = step if length[s] > _SHORT else -length[s]
                _limit(d[s], motion, move[s])
            _multiply(inverse, slope_a, answer)
            for s in range(_SIDE):
                if length[s] >= _ZERO:
                    _go(move[s], follow[s, : m * k], answer[s], a[s], d[s])
                length[s] = abs(length[s])
        for s in range(_SIDE):
            moved[place[s]] = length[s]
            _store(a[s], place[s], found)
            _store(d[s], place[s], shift)
