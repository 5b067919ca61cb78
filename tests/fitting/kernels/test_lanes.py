"""Numbers of pixels side by side beside numpy's, one operation after the other."""

import operator

import numba
import numpy as np
import pytest

from hpcxrf.fitting.kernels.lane_loops import add_rows, log_lanes, put_lanes, read_lanes, take_lanes
from hpcxrf.fitting.kernels.lanes import (
    LANES,
    both,
    either,
    fails,
    holds,
    inverse,
    larger,
    load,
    root,
    size,
    smaller,
    spread,
    store,
    turn,
    where,
)
from hpcxrf.fitting.kernels.layout import FLOAT32, UINT8, UINT16, UINT32
from hpcxrf.fitting.kernels.machine_code import FAST_MATH

RANDOM = np.random.default_rng(4)
A, B = RANDOM.normal(0.0, 3.0, (2, LANES)).astype(np.float32)
A[1], A[2] = np.nan, B[2]


def part(function):
    """A part of kernels that Python can call."""
    return numba.njit(fastmath=set(FAST_MATH), error_model="numpy")(function)


def of_two(function):
    @part
    def run(x, y, out):
        store(out, np.uint64(0), function(load(x, np.uint64(0)), load(y, np.uint64(0))))

    out = np.empty(LANES, np.float32)
    run(A, B, out)
    return out


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv"])
def test_operators_are_those_of_numbers(name):
    calculate = getattr(operator, name)
    compiled = part(calculate_of(name))
    np.testing.assert_array_equal(of_two(compiled), calculate(A, B))


def calculate_of(name):
    return {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "truediv": lambda x, y: x / y,
    }[name]


def test_a_number_that_all_pixels_share_stands_on_either_side():
    three = np.float32(3.0)
    left, right = part(lambda x, y: (three - x) / y), part(lambda x, y: (x - three) * y)
    np.testing.assert_array_equal(of_two(left), (three - A) / B)
    np.testing.assert_array_equal(of_two(right), (A - three) * B)


def test_the_second_is_taken_where_the_first_is_no_number():
    np.testing.assert_array_equal(of_two(larger), np.where(A > B, A, B))
    np.testing.assert_array_equal(of_two(smaller), np.where(A < B, A, B))


def test_masks_choose_and_no_number_fulfils_none():
    zero, one = np.float32(0.0), np.float32(1.0)
    masks = {
        part(lambda x, y: x > y): A > B,
        part(lambda x, y: x >= y): A >= B,
        part(lambda x, y: x < y): A < B,
        part(lambda x, y: x <= y): A <= B,
        part(lambda x, y: x == y): A == B,
        part(lambda x, y: both(x > y, y > zero)): (A > B) & (B > 0),
        part(lambda x, y: either(x > y, y > zero)): (A > B) | (B > 0),
        part(lambda x, y: inverse(x > y)): ~(A > B),
    }
    for mask, wanted in masks.items():
        found = of_two(part(lambda x, y, mask=mask: where(mask(x, y), spread(one), spread(zero))))
        np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_whether_a_mask_holds_anywhere_or_fails_somewhere():
    @part
    def run(x, limit):
        one = load(x, np.uint64(0))
        return holds(one > limit), fails(one > limit)

    x = np.arange(LANES, dtype=np.float32)
    limits = [-1.0, 0.0, LANES - 1.5, LANES - 1.0]
    assert [run(x, np.float32(limit)) for limit in limits] == [(1, 0), (1, 1), (1, 1), (0, 1)]


def test_roots_sizes_and_logarithms():
    np.testing.assert_array_equal(of_two(part(lambda x, y: root(y * y))), np.sqrt(B * B))
    np.testing.assert_array_equal(of_two(part(lambda x, y: size(x))), np.abs(A))
    for scale in (1e-35, 1e-3, 1.0, 1e3, 1e30):
        found = of_two(part(lambda x, y, scale=scale: log_lanes(size(y) * np.float32(scale))))
        wanted = np.log(np.abs(B.astype(np.float64)) * scale)
        np.testing.assert_allclose(found, wanted, rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
def test_a_square_of_counts_is_turned(dtype):
    counts = RANDOM.integers(0, 200, (LANES, LANES + 5)).astype(dtype)

    @part
    def run(numbers, begin, stride, rows):
        turn(numbers, begin, stride, rows, np.uint64(2))

    rows = np.full((LANES + 3, LANES), -1.0, np.float32)
    run(counts.reshape(-1), np.uint64(3), np.uint64(LANES + 5), rows)
    np.testing.assert_array_equal(rows[2:-1], counts[:, 3 : LANES + 3].T)
    assert np.all(rows[:2] == -1.0)
    assert np.all(rows[-1] == -1.0)


@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.uint8, UINT8), (np.uint16, UINT16), (np.uint32, UINT32), (np.float32, FLOAT32)]
)
@pytest.mark.parametrize("n", [LANES, 3])
def test_counts_of_pixels_are_read_with_their_totals(dtype, kind, n):
    counts = RANDOM.integers(0, 200, (LANES + 2, 2 * LANES + 3)).astype(dtype)

    @part
    def run(data, form, begin, n, y, total):
        read_lanes(data, form, begin, n, y, total)

    y, total = np.full((2 * LANES + 1, LANES), -1.0, np.float32), np.zeros(LANES + 2, np.float32)
    form = (kind, np.uint64(2 * LANES + 3), np.uint64(2 * LANES + 1), np.uint64(4), np.uint64(LANES + 2))
    run(counts.view(np.uint8).reshape(-1), form, np.uint64(2), np.uint64(n), y, total)
    np.testing.assert_array_equal(y[:, :n], counts[2 : 2 + n, : 2 * LANES + 1].T)
    assert not y[:, n:].any()
    np.testing.assert_array_equal(total[2 : 2 + n], counts[2 : 2 + n, 4 : LANES + 2].sum(axis=1))
    assert not total[:2].any()


def test_a_pixel_with_what_is_no_count_is_emptied_and_its_companions_are_not():
    counts = RANDOM.integers(0, 200, (LANES, 40)).astype(np.float32)
    counts[3, 7], counts[5, 39] = np.inf, np.nan
    y, total = np.zeros((40, LANES), np.float32), np.zeros(LANES, np.float32)

    @part
    def run(data, form, begin, n, y, total):
        read_lanes(data, form, begin, n, y, total)

    form = (FLOAT32, np.uint64(40), np.uint64(40), np.uint64(10), np.uint64(30))
    run(counts.view(np.uint8).reshape(-1), form, np.uint64(0), np.uint64(LANES), y, total)
    good = [lane for lane in range(LANES) if lane not in (3, 5)]
    np.testing.assert_array_equal(y[:, good], counts[good].T)
    assert not y[:, [3, 5]].any()
    assert np.isnan(total[[3, 5]]).all()
    assert np.isfinite(total[good]).all()


def test_rows_are_summed_taken_and_put():
    rows = RANDOM.integers(0, 9, (11, LANES)).astype(np.float32)

    @part
    def run(rows, out):
        store(out, np.uint64(0), add_rows(rows, np.uint64(2), np.uint64(11)))

    @part
    def there_and_back(values, lanes, out):
        take_lanes(values, np.uint64(1), np.uint64(3), lanes)
        put_lanes(lanes, np.uint64(2), np.uint64(3), out)

    out = np.empty(LANES, np.float32)
    run(rows, out)
    np.testing.assert_array_equal(out, rows[2:].sum(axis=0))
    values, lanes, back = RANDOM.random((4, 6)).astype(np.float32), np.ones((4, LANES), np.float32), np.zeros((4, 6))
    there_and_back(values, lanes, back := back.astype(np.float32))
    np.testing.assert_array_equal(lanes[:, :3], values[:, 1:4])
    assert not lanes[:, 3:].any()
    np.testing.assert_array_equal(back[:, 2:5], values[:, 1:4])
    assert not back[:, [0, 1, 5]].any()
