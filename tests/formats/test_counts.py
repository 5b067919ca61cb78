"""What stands in files instead of counts: NaN, negative numbers, numbers beyond 32 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.errors import InputFileError
from hpcxrf.formats.counts import SATURATED_UINT32, CountFaults, mend_counts

SHAPE = (2, 3, 4, 500)


def block(dtype="f4"):
    return np.random.default_rng(1).poisson(3.0, SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8", "i2", "i4", "f4", "f8"])
def test_what_is_right_stays_the_array_that_it_is(dtype):
    counts = block(dtype)
    mended = mend_counts(counts, "x")
    assert mended.counts is counts
    assert not mended.missing.any()
    assert not mended.negative.any()


def test_a_spectrum_of_nan_is_not_measured_and_its_counts_are_0():
    counts = block()
    counts[1, 2, 3] = np.nan
    mended = mend_counts(counts, "x")
    assert mended.missing.sum() == 1
    assert mended.missing[1, 2, 3]
    assert (mended.counts[1, 2, 3] == 0).all()
    assert np.isnan(counts[1, 2, 3]).all()  # the caller's array is as it was
    np.testing.assert_array_equal(mended.counts[0], counts[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_is_refused(value):
    counts = block()
    counts[0, 1, 1, 7] = value
    with pytest.raises(InputFileError, match=r"^rows 3: counts .* must be finite"):
        mend_counts(counts, "rows 3")


@given(st.integers(0, 12), st.sampled_from(["i2", "i4", "i8", "f4", "f8"]))
def test_negative_counts_are_0_and_counted(number, dtype):
    counts = block(dtype)
    rng = np.random.default_rng(number)
    places = rng.choice(counts.size, number, replace=False)
    counts.flat[places] = -rng.integers(1, 317, number)
    mended = mend_counts(counts, "x")
    assert mended.negative.sum() == number
    assert mended.lowest == min(counts.min(), 0)
    np.testing.assert_array_equal(mended.counts, np.maximum(counts, 0))


@pytest.mark.parametrize(
    ("dtype", "value"), [("f4", 2.0**32 - 1), ("f8", 1e15), ("u8", 2**40), ("i8", 2**32), ("f8", 2.0**32)]
)
def test_a_count_beyond_32_bits_is_a_full_one(dtype, value):
    counts = block(dtype)
    counts[0, 0, 0, 3] = value
    mended = mend_counts(counts, "x")
    assert int(mended.counts.astype(np.uint32)[0, 0, 0, 3]) >= SATURATED_UINT32
    assert int(mended.counts[0, 0, 0, 3]) < 2**32


def test_up_to_a_thousandth_may_be_negative():
    faults = CountFaults(size=20_000)
    faults.add(20, -316.0, 0, "a.spx")
    assert [note.text for note in faults.notes()] == [
        "20 of 20000 counts were negative, down to -316, and are taken as 0"
    ]
    with pytest.raises(InputFileError, match=r"^a\.spx: 21 of the scan's 20000 counts are negative, down to -316"):
        faults.add(1, -1.0, 0, "b.spx")


def test_nothing_wrong_is_nothing_said():
    faults = CountFaults(size=100)
    faults.add(0, 0.0, 0, "x")
    assert faults.notes() == []
