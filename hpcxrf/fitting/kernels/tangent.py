"""Steps of amplitudes and theta of pixels that have a theta each, by the tangent dictionary.

The same steps as `hpcxrf.fitting.pixels.tangent` takes with tensors, pixels side by side in lanes. Every pixel ends by
itself, when a step has become too short to count, and keeps what it has while its companions go on.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.lane_loops import multiply_lanes, put_lanes, take_lanes
from hpcxrf.fitting.kernels.lanes import LANES, Lanes, Mask, both, holds, larger, load, root, size, spread, store, where
from hpcxrf.fitting.kernels.loops import LARGEST, STRIPS, Array, Number, Strips
from hpcxrf.fitting.kernels.machine_code import glue, kernel, part
from hpcxrf.fitting.kernels.tangent_layout import FARTHEST, LONGEST_STEP, SHORT, STEPS

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_ONE: Final = np.float32(1.0)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_WIDTH: Final = np.uint64(LANES)
_SHORT: Final = np.float32(SHORT)
_LONGEST_STEP: Final = np.float32(LONGEST_STEP)
_FARTHEST: Final = np.float32(FARTHEST)
Law = tuple[Array, Array, Array, Array]
"""Centre (parameter,), motion (place, parameter), parameters of the pairs (pair, 2), and their factors (pair,)."""
State = tuple[Array, Array, Array]
"""Coefficients, d, and products of all columns with the counts; all with lanes, as what follows."""
Sums = tuple[Array, Array, Array, Array, Array]
"""Coefficients of all columns, their products with the Gram matrix, factors of the changes, products of every two
amplitudes, and the curvature."""
Slopes = tuple[Array, Array, Array, Array, Array, Array]
"""Slope by the coefficients and by d, the coefficients' answer to either, the step in d, and Cholesky's factor."""


@part
def _spread_out(a: Array, d: Array, law: Law, n: Number, sums: Sums) -> None:
    """Factors of the columns' changes, coefficients of all columns, and products of every two amplitudes."""
    every, _, weights, products, _ = sums
    pairs, half = law[2], law[3]
    m, k = _U(d.shape[0]), _U(a.shape[0]) - _1
    for q in range(m):
        store(weights, q, load(d, q))
    for p in range(_U(half.shape[0])):
        store(weights, m + p, load(d, pairs[p, 0]) * load(d, pairs[p, 1]) * half[p])
    for c in range(k):
        store(every, c, load(a, c))
    for q in range(_U(weights.shape[0])):
        w, begin = load(weights, q), k + q * n
        for c in range(n):
            store(every, begin + c, w * load(a, c))
    place = _U(0)
    for i in range(n):
        x = load(a, i)
        for j in range(i + _1):
            store(products, place + j, x * load(a, j))
        place += i + _1


@part
def _find_slopes(state: State, level: Lanes, law: Law, n: Number, sums: Sums, slopes: Slopes) -> None:
    """Slopes of the misfit, downwards, by the coefficients and by d."""
    a, d, right = state
    _, rest, weights, _, _ = sums
    slope_a, slope_d, _, _, _, _ = slopes
    centre, _, pairs, half = law
    m, k = _U(d.shape[0]), _U(a.shape[0]) - _1
    for c in range(_U(right.shape[0])):
        store(rest, c, load(right, c) - load(rest, c))
    for c in range(k):
        store(slope_a, c, load(rest, c))
    for q in range(m):
        store(slope_d, q, (_ZERO - level) * (load(d, q) + centre[q]))
    for q in range(_U(weights.shape[0])):
        w, gain, begin = load(weights, q), spread(_ZERO), k + q * n
        for c in range(n):
            change = load(rest, begin + c)
            store(slope_a, c, load(slope_a, c) + w * change)
            gain += change * load(a, c)
        if q < m:
            store(slope_d, q, load(slope_d, q) + gain)
        else:
            one, other, share = pairs[q - m, 0], pairs[q - m, 1], gain * half[q - m]
            store(slope_d, one, load(slope_d, one) + share * load(d, other))
            store(slope_d, other, load(slope_d, other) + share * load(d, one))


@part
def _solve(bent: Array, level: Lanes, wanted: Array, lower: Array, move: Array) -> None:
    """Solve for a step by Cholesky's factor; 0 where the curvature has none.

    Args:
        bent: lower triangle of the curvature, by rows, without the prior.
        level: curvature of the prior.
        wanted: (parameter, lane).
        lower: lower triangle by rows, overwritten.
        move: (parameter, lane).
    """
    m, row = _U(move.shape[0]), _U(0)
    sound = spread(_ZERO) <= _ZERO
    for p in range(m):
        row += p
        column = _U(0)
        for q in range(p):
            column += q
            s = load(bent, row + q)
            for r in range(q):
                s -= load(lower, row + r) * load(lower, column + r)
            store(lower, row + q, s / load(lower, column + q))
        s, v = load(bent, row + p) + level, load(wanted, p)
        for r in range(p):
            one = load(lower, row + r)
            s -= one * one
            v -= one * load(move, r)
        positive = s > _ZERO
        sound = both(sound, positive)
        diagonal = root(where(positive, s, spread(_ONE)))
        store(lower, row + p, diagonal)
        store(move, p, v / diagonal)
    for back in range(m):
        end = m - _1 - back
        s = load(move, end)
        for r in range(end + _1, m):
            s -= load(lower, r * (r + _1) // _2 + end) * load(move, r)
        s /= load(lower, end * (end + _1) // _2 + end)
        store(move, end, s)
    for p in range(m):
        store(move, p, where(sound, load(move, p), spread(_ZERO)))


@part
def _shorten(d: Array, limit: Number, motion: Array) -> None:
    """The same direction, no farther than a limit in units of the reach."""
    reached = spread(limit)
    for place in range(_U(motion.shape[0])):
        moved = spread(_ZERO)
        for q in range(_U(d.shape[0])):
            moved += load(d, q) * motion[place, q]
        reached = larger(size(moved), reached)
    for q in range(_U(d.shape[0])):
        store(d, q, load(d, q) * (limit / reached))


@part
def _find_move(d: Array, level: Lanes, bent: Array, law: Law, slopes: Slopes) -> Lanes:
    """Where a step in d leads that is not too long, nor leads too far; its length in units of its uncertainty."""
    slope_a, slope_d, follow, _, move, lower = slopes
    m = _U(d.shape[0])
    k = _U(follow.shape[0]) // m
    for q in range(m):
        s, begin = load(slope_d, q), q * k
        for c in range(k):
            s -= load(follow, begin + c) * load(slope_a, c)
        store(slope_d, q, s)
    _solve(bent, level, slope_d, lower, move)
    square = spread(_ZERO)
    for q in range(m):
        square += load(move, q) * load(slope_d, q)
    _shorten(move, _LONGEST_STEP, law[1])
    for q in range(m):
        store(move, q, load(move, q) + load(d, q))
    _shorten(move, _FARTHEST, law[1])
    return root(larger(square / level, spread(_ZERO)))


@part
def _go(state: State, going: Mask, slopes: Slopes) -> None:
    """Go there, those that are going; the coefficients follow the change of d."""
    a, d, _ = state
    _, _, follow, answer, move, _ = slopes
    m, k = _U(d.shape[0]), _U(answer.shape[0])
    for q in range(m):
        by, begin = load(move, q) - load(d, q), q * k
        for c in range(k):
            store(answer, c, load(answer, c) - by * load(follow, begin + c))
        store(d, q, where(going, load(move, q), load(d, q)))
    for c in range(k):
        at = load(a, c)
        store(a, c, where(going, at + load(answer, c), at))


@part
def _take_steps(
    state: State,
    level: Lanes,
    matrices: tuple[Strips, Strips, Strips, Strips],
    law: Law,
    n: Number,
    sums: Sums,
    slopes: Slopes,
) -> Lanes:
    """Coefficients and d, in place; the length of the last step of each."""
    gram, inverse, response, curvature = matrices
    a, d, _ = state
    length = spread(LARGEST)
    for _ in range(STEPS):
        going = length > _SHORT
        if not holds(going):
            break
        _spread_out(a, d, law, n, sums)
        multiply_lanes(sums[0], gram, sums[1])
        multiply_lanes(a, response, slopes[2])
        multiply_lanes(sums[3], curvature, sums[4])
        _find_slopes(state, level, law, n, sums, slopes)
        step = _find_move(d, level, sums[4], law, slopes)
        multiply_lanes(slopes[0], inverse, slopes[3])
        _go(state, going, slopes)
        length = where(going, step, length)
    return length


@glue
def _make_rows(n: Number) -> Array:
    return np.zeros((n, _WIDTH), np.float32)


_MATRIX: Final = "float32[:,::1]"
_MATRICES: Final = f"Tuple(({STRIPS}, {STRIPS}, {STRIPS}, {STRIPS}))"
_LAW: Final = f"Tuple((float32[::1], {_MATRIX}, uint64[:,::1], float32[::1]))"


@kernel(
    f"void({_MATRIX}, {_MATRIX}, float32[::1], {_MATRICES}, {_LAW}, uint64, {_MATRIX}, {_MATRIX}, float32[::1])",
    makes_arrays=True,
)
def take_steps(
    signed: Array,
    rhs: Array,
    level: Array,
    matrices: tuple[Strips, Strips, Strips, Strips],
    law: Law,
    n: int,
    found: Array,
    shift: Array,
    moved: Array,
) -> None:
    """Coefficients and d of all pixels.

    Args:
        signed: (column, pixel) at d = 0.
        rhs: (all columns, pixel) their products with the counts.
        level: (pixel,) counts in units of the mean pixel.
        matrices: strips of the Gram matrix (all, all), the inverse (column, column), the response (parameter and
            column, component), and the curvature (pair of parameters, pair of components).
        law: centre (parameter,), motion (place, parameter), parameters of the pairs (pair, 2), their factors (pair,).
        n: number of components.
        found: (column, pixel).
        shift: (parameter, pixel).
        moved: (pixel,) length of the last step in d, in units of its uncertainty.
    """
    k, m, n_all = _U(signed.shape[0]), _U(shift.shape[0]), _U(rhs.shape[0])
    n_changes, n_bent = m + _U(law[3].shape[0]), m * (m + _1) // _2
    # With one more row where strips are filled up.
    state = (_make_rows(k + _1), _make_rows(m), _make_rows(n_all))
    sums = (
        _make_rows(n_all + _1),
        _make_rows(n_all),
        _make_rows(n_changes),
        _make_rows(n * (n + _1) // _2 + _1),
        _make_rows(n_bent),
    )
    slopes = (_make_rows(k + _1), _make_rows(m), _make_rows(m * k), _make_rows(k), _make_rows(m), _make_rows(n_bent))
    own = np.ones(_WIDTH, np.float32)
    n_pixels = _U(signed.shape[1])
    for begin in range(_U(0), n_pixels, _WIDTH):
        count = min(_WIDTH, n_pixels - begin)
        take_lanes(signed, begin, count, state[0])
        take_lanes(rhs, begin, count, state[2])
        for q in range(m):
            store(state[1], q, spread(_ZERO))
        for lane in range(count):
            own[lane] = level[begin + lane]
        store(own, _U(0), _take_steps(state, load(own, _U(0)), matrices, law, n, sums, slopes))
        for lane in range(count):
            moved[begin + lane] = own[lane]
            own[lane] = _ONE
        put_lanes(state[0], begin, count, found)
        put_lanes(state[1], begin, count, shift)
