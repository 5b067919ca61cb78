"""The incident flux: a count is divided by its own clock, and a reference scan's amplifier is taken into account."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.quantify.i0 import I0, average_i0, compute_gate_s, compute_i0_rate, find_sensitivity_a_per_v


def test_a_count_is_divided_by_the_seconds_of_its_gate_and_has_the_error_of_counting():
    i0 = compute_i0_rate(np.array([[400.0, 90000.0]]), kind="count", gate_s=np.array([[0.5, 2.0]]))
    np.testing.assert_allclose(i0.rate, [[800.0, 45000.0]])
    # sqrt(400) / 0.5 s, sqrt(90000) / 2 s
    np.testing.assert_allclose(i0.sigma, [[40.0, 150.0]])


def test_the_error_of_a_rate_is_that_of_the_counts_in_its_gate_and_unknown_without_one():
    values = np.array([[800.0]])
    np.testing.assert_allclose(compute_i0_rate(values, kind="rate", gate_s=0.5).sigma, [[np.sqrt(800.0 * 0.5) / 0.5]])
    np.testing.assert_allclose(compute_i0_rate(values, kind="rate", gate_s=0.5).rate, values)
    assert compute_i0_rate(values, kind="rate", gate_s=None).sigma.tolist() == [[0.0]]


@pytest.mark.parametrize("bad", [0.0, -3.0, np.nan, np.inf, -np.inf])
def test_i0_that_is_not_positive_or_not_a_number_is_not_known(bad):
    for kind in ("count", "rate"):
        i0 = compute_i0_rate(np.array([[bad, 5.0]]), kind=kind, gate_s=1.0)
        assert np.isnan(i0.rate[0, 0])
        assert i0.rate[0, 1] == 5.0


@pytest.mark.parametrize("gate", [0.0, -1.0, np.nan])
def test_a_count_without_the_time_of_its_gate_is_not_known(gate):
    assert np.isnan(compute_i0_rate(np.array([[5.0]]), kind="count", gate_s=np.array([[gate]])).rate[0, 0])


def test_a_count_without_any_gate_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="gate"):
        compute_i0_rate(np.array([[5.0]]), kind="count", gate_s=None)


@given(st.floats(1.0, 1e8), st.floats(1e-3, 1e3), st.floats(0.1, 10.0))
def test_a_longer_gate_gives_the_same_rate_with_a_smaller_error(rate, seconds, times):
    short, long = (compute_i0_rate(np.array([[rate * t]]), kind="count", gate_s=t) for t in (seconds, seconds * times))
    assert long.rate[0, 0] == pytest.approx(short.rate[0, 0], rel=1e-9)
    assert long.sigma[0, 0] == pytest.approx(short.sigma[0, 0] / times**0.5, rel=1e-9)


def test_ticks_of_a_clock_become_seconds():
    np.testing.assert_array_equal(compute_gate_s(np.array([[25e6, 0.0, np.nan]]), 25e6), [[1.0, np.nan, np.nan]])


def test_the_places_of_an_sr570_are_its_sensitivity():
    # Place 5 is 50 and unit 1 nA/V: the extra PV of the same scan has the text "50".
    found = find_sensitivity_a_per_v(
        np.array([[5.0, 6.0, 0.0, 9.0, np.nan, -1.0]]), np.array([[1.0, 1.0, 3.0, 1.0, 1.0, 1.0]])
    )
    np.testing.assert_allclose(found, [[50e-9, 100e-9, 1e-3, np.nan, np.nan, np.nan]])


def test_a_higher_sensitivity_of_the_amplifier_is_a_larger_current_at_the_same_count():
    i0 = compute_i0_rate(np.array([[100.0]]), kind="count", gate_s=1.0, gain=2.0)
    assert i0.rate[0, 0] == 200.0
    assert i0.sigma[0, 0] == 20.0


def test_the_mean_is_over_known_pixels_weighted_by_their_times():
    i0 = I0(rate=np.array([[100.0, 200.0, np.nan]]), sigma=np.array([[3.0, 4.0, 0.0]]))
    assert average_i0(i0) == pytest.approx((150.0, 2.5))
    mean, sigma = average_i0(i0, np.array([[3.0, 1.0, 9.0]]))
    assert mean == pytest.approx(125.0)
    assert sigma == pytest.approx(np.hypot(9.0, 4.0) / 4.0)
    assert np.isnan(average_i0(i0, np.array([[0.0, 0.0, 1.0]]))[0])
