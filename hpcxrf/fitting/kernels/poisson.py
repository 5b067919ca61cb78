"""Maximum likelihood of pixels side by side in lanes, as `hpcxrf.fitting.pixels.poisson` describes it.

In single precision by projected Newton steps, of which the length is that of a self-concordant function instead of a
search along the line. A pixel that has come to its end keeps its coefficients while the others go on. Below a hundred
counts exact steps follow from there (`exact_poisson`): in double precision, one pixel after the other. They are all
where counts are so few that the curvature jumps about, so many that single precision does not tell the deviance to a
tenth, or where it finds no end.
"""

from typing import Final

import numpy as np

from hpcxrf.fitting.kernels.exact_poisson import climb_exactly, make_room
from hpcxrf.fitting.kernels.lane_loops import (
    add_rows,
    add_strips,
    end_of_run,
    fill_rows,
    project_lanes,
    project_strips,
    read_lanes,
    substitute_back,
)
from hpcxrf.fitting.kernels.lanes import (
    LANES,
    Lanes,
    Mask,
    both,
    either,
    holds,
    inverse,
    larger,
    load,
    root,
    smaller,
    spread,
    store,
    where,
)
from hpcxrf.fitting.kernels.layout import (
    CURVATURE_FLOOR,
    DARK,
    ERROR_FLOOR,
    JOINED,
    JOINED_STEPS,
    NEAR_BOUND,
    RIDGE,
    ROUNDING,
    TOLERANCE,
)
from hpcxrf.fitting.kernels.loops import STRIPS, Array, Number, Strips, read_counts
from hpcxrf.fitting.kernels.machine_code import glue, kernel, part

_F: Final = np.float32
_U: Final = np.uint64
_ZERO: Final = np.float32(0.0)
_HALF: Final = np.float32(0.5)
_ONE: Final = np.float32(1.0)
_TINY: Final = np.float32(1e-30)
_DARK: Final = np.float32(DARK)
_CURVATURE_FLOOR: Final = np.float32(CURVATURE_FLOOR)
_ERROR_FLOOR: Final = np.float32(ERROR_FLOOR)
_RIDGE: Final = np.float32(RIDGE)
_NEAR_BOUND: Final = np.float32(NEAR_BOUND)
_TOLERANCE: Final = np.float32(TOLERANCE)
_ROUNDING: Final = np.float32(ROUNDING)
_LONG: Final = np.float32(0.5)
_STEPS: Final = 24
_FEWEST_COUNTS: Final = np.float32(8.0)
# From here on the curvature of joined channels says when the end is reached.
_MANY_COUNTS: Final = np.float32(100.0)
# Of an equal share of the counts: the least start of exact steps, of a column that single precision left at 0.
_LEAST_SHARE: Final = 0.02
_MOST_COUNTS: Final = np.float32(1e5)
_WIDTH: Final = np.uint64(LANES)
_JOINED: Final = np.uint64(JOINED)
_1: Final = np.uint64(1)
_2: Final = np.uint64(2)
_3: Final = np.uint64(3)
Grids = tuple[Strips, Strips, Strips]
Counts = tuple[Array, Array]
"""Counts (channel, lane) and (joined channel, lane)."""
Scratch = tuple[Array, Array, Array]
"""Room by channel, and twice by joined channel."""
System = tuple[Array, Array, Array, Array, Array]
"""Packed information, its factor by rows, the inverse of that one's diagonal, right-hand side, and 1 for a column that
goes with the others, else 0; all with lanes."""
_GRIDS: Final = f"Tuple(({STRIPS}, {STRIPS}, {STRIPS}))"


@part
def _join(y: Array, first: Number, stop: Number, joined: Array) -> None:
    """Sums over neighbouring channels."""
    for i in range(first, stop):
        k = _JOINED * i
        store(joined, i, (load(y, k) + load(y, k + _1)) + (load(y, k + _2) + load(y, k + _3)))


@part
def _compare_all(y: Array, x: Array, strips: Strips, mu: Array, near: Array, slope: Array) -> None:
    """Counts over their expectation, projected; what is expected of joined channels. Run by run, in the nearest cache.

    `mu` is left with the ratios.
    """
    places, j = strips[0], _U(0)
    fill_rows(slope, _U(0), _U(slope.shape[0]), _ZERO)
    while j < _U(places.shape[0]):
        begin, n, stop = places[j, 0], places[j, 1], end_of_run(strips, j)
        fill_rows(mu, begin, n, _DARK)
        add_strips(x, strips, j, stop, mu)
        _join(mu, begin // _JOINED, (begin + n + _3) // _JOINED, near)
        for i in range(begin, begin + n):
            store(mu, i, load(y, i) / load(mu, i))
        project_strips(mu, strips, j, stop, slope)
        j = stop


@part
def _compare_joined(joined: Array, x: Array, strips: Strips, near: Array, ratio: Array, slope: Array) -> None:
    """The same of joined channels."""
    n = _U(joined.shape[0])
    fill_rows(near, _U(0), n, _DARK)
    add_strips(x, strips, _U(0), _U(strips[0].shape[0]), near)
    for i in range(n):
        store(ratio, i, load(joined, i) / load(near, i))
    project_lanes(ratio, strips, slope)


@part
def _weigh(joined: Array, near: Array, floor: Lanes, weight: Array) -> None:
    """Curvature of joined channels: the mean of the observed and the expected information."""
    for i in range(_U(joined.shape[0])):
        mu = load(near, i)
        floored = mu + floor
        store(weight, i, (load(joined, i) + mu) * _HALF / (floored * floored))


@part
def _go_alone(x: Array, slope: Array, usable: Array, going: Mask, system: System) -> Lanes:
    """Columns at 0 whose slope points below it take steps of their own; the deviance that they promise, half.

    Writes which columns are left, and their right-hand side.
    """
    packed, _, _, b, kept = system
    promised, place = spread(_ZERO), _U(0)
    for j in range(_U(usable.shape[0])):
        place += j
        own = load(packed, place + j)
        if usable[j] > _ZERO:
            s, at = load(slope, j), load(x, j)
            free = either(at > _NEAR_BOUND, s <= _ZERO)
            store(kept, j, where(free, spread(_ONE), spread(_ZERO)))
            store(b, j, where(free, s, spread(_ZERO)))
            down = where(free, spread(_ZERO), smaller(s / larger(own, spread(_TINY)), at))
            promised += s * down
            store(x, j, where(going, at - down, at))
        else:
            store(kept, j, spread(_ZERO))
            store(b, j, spread(_ZERO))
    return promised


@part
def _factorise(n: Number, system: System) -> Mask:
    """Cholesky's factor of the kept rows and columns, 1 on the diagonal of the others; whether there is one."""
    packed, lower, inverse_root, _, kept = system
    sound = spread(_ZERO) <= _ZERO
    row = _U(0)
    for i in range(n):
        row += i
        own, column = load(kept, i), _U(0)
        for j in range(i):
            column += j
            s = load(packed, row + j) * (own * load(kept, j))
            for k in range(j):
                s -= load(lower, row + k) * load(lower, column + k)
            store(lower, row + j, s * load(inverse_root, j))
        s = own * (load(packed, row + i) * (_ONE + _RIDGE) + _TINY) + (_ONE - own)
        for k in range(i):
            v = load(lower, row + k)
            s -= v * v
        positive = s > _ZERO
        sound = both(sound, positive)
        diagonal = root(where(positive, s, spread(_ONE)))
        store(lower, row + i, diagonal)
        store(inverse_root, i, _ONE / diagonal)
    return sound


@part
def _solve(n: Number, system: System) -> Lanes:
    """Solve in place; `|L^-1 b|^2`."""
    _, lower, inverse_root, b, _ = system
    length, row = spread(_ZERO), _U(0)
    for i in range(n):
        row += i
        s = load(b, i)
        for k in range(i):
            s -= load(lower, row + k) * load(b, k)
        s *= load(inverse_root, i)
        store(b, i, s)
        length += s * s
    substitute_back(lower, inverse_root, n, b)
    return length


@part
def _step(x: Array, slope: Array, usable: Array, going: Mask, system: System) -> tuple[Lanes, Mask]:
    """One projected Newton step of those that are going, in place.

    The deviance that it promises to take off, and whether there is one.
    """
    n = _U(usable.shape[0])
    promised = _go_alone(x, slope, usable, going, system)
    sound = _factorise(n, system)
    square = _solve(n, system)
    length = root(square)
    share = where(length > _LONG, _ONE / (_ONE + length), spread(_ONE))
    moving = both(going, sound)
    for j in range(n):
        at = load(x, j)
        store(x, j, where(moving, larger(at - share * load(system[3], j), spread(_ZERO)), at))
    return (promised + square) * _F(2.0), sound


@part
def _find_slope(units: Array, slope: Array) -> None:
    for j in range(_U(units.shape[1])):
        store(slope, j, units[0, j] - load(slope, j))


@part
def _climb(
    counts: Counts, x: Array, slope: Array, grids: Grids, units: Array, scratch: Scratch, system: System
) -> Lanes:
    """Steps to the most likely coefficients: those of joined channels first; 1 where they came to an end, else 0."""
    (y, joined), (fine, coarse, pairs), (mu, near, weight) = counts, grids, scratch
    usable = units[1]
    total = add_rows(y, _U(0), _U(y.shape[0]))
    floor = larger(total * (_ONE / _F(joined.shape[0])), spread(_F(JOINED) * _DARK)) * _CURVATURE_FLOOR
    enough = total * _ROUNDING + _TOLERANCE
    alive = both(total >= _FEWEST_COUNTS, total <= _MOST_COUNTS)
    going = alive
    for _ in range(JOINED_STEPS):
        if not holds(going):
            break
        _compare_joined(joined, x, coarse, near, weight, slope)
        _find_slope(units, slope)
        _weigh(joined, near, floor, weight)
        project_lanes(weight, pairs, system[0])
        promised, sound = _step(x, slope, usable, going, system)
        alive = both(alive, either(sound, inverse(going)))
        going = both(going, both(sound, promised > enough))
    going, solved = alive, both(alive, inverse(alive))
    for _ in range(_STEPS - JOINED_STEPS):
        if not holds(going):
            break
        _compare_all(y, x, fine, mu, near, slope)
        _find_slope(units, slope)
        _weigh(joined, near, floor, weight)
        project_lanes(weight, pairs, system[0])
        promised, sound = _step(x, slope, usable, going, system)
        going = both(going, sound)
        solved = either(solved, both(going, promised <= enough))
        going = both(going, promised > enough)
    return where(solved, spread(_ONE), spread(_ZERO))


@part
def _take_back(x: Array, lane: Number, done: Number, counts: Number, at: Array) -> None:
    """The end of a pixel, or where exact steps begin: what the others have left, if they have tried."""
    tried = counts >= _FEWEST_COUNTS and counts <= _MOST_COUNTS
    for j in range(_U(at.shape[0])):
        left = x[j, lane]
        if tried and not done:
            left = max(left, _ZERO) if left < _F(1e30) else _ZERO
        at[j] = left


@glue
def _make_system(n: Number, n_packed: Number) -> System:
    packed, lower = np.zeros((n_packed + _1, _WIDTH), np.float32), np.zeros((n_packed, _WIDTH), np.float32)
    inverse_root, b = np.zeros((n, _WIDTH), np.float32), np.zeros((n, _WIDTH), np.float32)
    return packed, lower, inverse_root, b, np.zeros((n, _WIDTH), np.float32)


@kernel(
    f"void(uint8[::1], int64, uint64, uint64, {_GRIDS}, float32[:,::1], float32[:,::1], float64[::1], "
    "float32[:,::1], uint8[::1])",
    makes_arrays=True,
)
def maximise(
    data: Array,
    kind: int,
    stride: int,
    n_channels: int,
    grids: Grids,
    units: Array,
    rows: Array,
    totals: Array,
    x: Array,
    solved: Array,
) -> None:
    """Find the most likely coefficients of pixels.

    Args:
        data: bytes of the counts of all pixels.
        kind: type of the counts.
        stride: counts from one pixel to the next.
        n_channels: channels of a pixel.
        grids: strips of the columns over channels, over joined channels, and of products of two over joined channels.
        units: (2, column): counts of one unit, and 1 where a column has counts at all.
        rows: (channel, column).
        totals: (column,) counts of one unit.
        x: (pixel, column): start, and result.
        solved: (pixel,): 1 where the end was found.
    """
    n, n_joined = _U(x.shape[1]), (n_channels + _3) // _JOINED
    n_packed = n * (n + _1) // _2
    # To whole joined channels; and one more row for what fills strips up.
    y, mu = np.zeros((n_joined * _JOINED, _WIDTH), np.float32), np.zeros((n_joined * _JOINED, _WIDTH), np.float32)
    joined = np.zeros((n_joined, _WIDTH), np.float32)
    near, weight = np.zeros((n_joined, _WIDTH), np.float32), np.zeros((n_joined, _WIDTH), np.float32)
    lanes, slope = np.zeros((n + _1, _WIDTH), np.float32), np.zeros((n + _1, _WIDTH), np.float32)
    system = _make_system(n, n_packed)
    form, seen = (kind, stride, n_channels, _U(0), n_channels), np.zeros(x.shape[0], np.float32)
    exact = make_room(n, n_channels)
    ended, at, one = np.zeros(_WIDTH, np.float32), np.zeros(n, np.float32), np.zeros(n_channels, np.float32)
    for begin in range(_U(0), _U(x.shape[0]), _WIDTH):
        count = min(_WIDTH, _U(x.shape[0]) - begin)
        read_lanes(data, form, begin, count, y, seen)
        _join(y, _U(0), n_joined, joined)
        for lane in range(count):
            for j in range(n):
                lanes[j, lane] = x[begin + lane, j]
        store(ended, _U(0), _climb((y, joined), lanes, slope, grids, units, (mu, near, weight), system))
        for lane in range(count):
            p = begin + lane
            done = ended[lane] > _ZERO
            _take_back(lanes, lane, done, seen[p], at)
            if not done or seen[p] < _MANY_COUNTS:
                read_counts(data, kind, p * stride, n_channels, one)
                least = 0.0 if done else _LEAST_SHARE
                done = climb_exactly(one, n_channels, at, rows, totals, units[1], least, exact)
            for j in range(n):
                x[p, j] = at[j]
            solved[p] = 1 if done else 0


@part
def _invert(j: Number, n: Number, system: System) -> Lanes:
    """`(L L')^-1` at (j, j): squares of column j of L^-1."""
    _, lower, inverse_root, b, _ = system
    own = load(inverse_root, j)
    store(b, j, own)
    total, row = own * own, j * (j + _1) // _2
    for i in range(j + _1, n):
        row += i
        s = spread(_ZERO)
        for k in range(j, i):
            s -= load(lower, row + k) * load(b, k)
        s *= load(inverse_root, i)
        store(b, i, s)
        total += s * s
    return total


@kernel(f"void(float32[:,::1], {STRIPS}, {STRIPS}, uint64, float32[::1], float32[:,::1])", makes_arrays=True)
def invert_information(x: Array, coarse: Strips, pairs: Strips, n_joined: int, usable: Array, variance: Array) -> None:
    """Diagonal of the inverse of the expected information, with the floor of the shared weights; NaN: singular.

    Args:
        x: (pixel, column) expected coefficients.
        coarse: strips of the columns over joined channels.
        pairs: strips of products of two columns over joined channels.
        n_joined: joined channels.
        usable: (column,) 1 where a column has counts.
        variance: (pixel, column).
    """
    n = _U(x.shape[1])
    share = _ONE / _F(n_joined)
    mu, lanes = np.zeros((n_joined, _WIDTH), np.float32), np.zeros((n + _1, _WIDTH), np.float32)
    system = _make_system(n, n * (n + _1) // _2)
    found = np.zeros((n, _WIDTH), np.float32)
    for j in range(n):
        store(system[4], j, spread(usable[j]))
    for begin in range(_U(0), _U(x.shape[0]), _WIDTH):
        count = min(_WIDTH, _U(x.shape[0]) - begin)
        for lane in range(count):
            for j in range(n):
                lanes[j, lane] = x[begin + lane, j]
        fill_rows(mu, _U(0), n_joined, _DARK)
        add_strips(lanes, coarse, _U(0), _U(coarse[0].shape[0]), mu)
        floor = larger(add_rows(mu, _U(0), n_joined) * share, spread(share)) * _ERROR_FLOOR
        for i in range(n_joined):
            store(mu, i, _ONE / (load(mu, i) + floor))
        project_lanes(mu, pairs, system[0])
        sound = _factorise(n, system)
        for j in range(n):
            wanted = both(sound, load(system[4], j) > _ZERO)
            store(found, j, where(wanted, _invert(j, n, system), spread(_F(np.nan))))
        for lane in range(count):
            for j in range(n):
                variance[begin + lane, j] = found[j, lane]
