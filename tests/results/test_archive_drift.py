"""Steps and outliers of a parameter over an archive."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.results.report.archive.drift import LEAST_POINTS, estimate_noise, find_drift

NOISE = 0.004


def noisy(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.01, NOISE, n)


def errors(values: np.ndarray) -> np.ndarray:
    return np.full(len(values), 0.3 * NOISE)


@pytest.mark.parametrize("n", [LEAST_POINTS, 30, 200, 1200])
def test_noise_alone_has_no_step_and_hardly_an_outlier(n):
    found = [find_drift(noisy(n, seed), errors(np.zeros(n))) for seed in range(700, 750)]
    assert sum(len(one.steps) for one in found) == 0
    assert sum(int(one.is_outlier.sum()) for one in found) <= 2


def test_a_step_is_found_where_it_is_with_its_size():
    at = []
    for seed in range(800, 850):
        values = noisy(160, seed)
        values[70:] += 8 * NOISE
        steps = find_drift(values, errors(values)).steps
        assert len(steps) == 1
        at.append(steps[0].position)
        assert steps[0].size == pytest.approx(8 * NOISE, abs=5 * steps[0].sigma)
        # pi / 2 * (1/8 + 1/8): medians of eight points on either side.
        assert steps[0].sigma == pytest.approx(NOISE * math.sqrt(math.pi / 8), rel=0.5)
    assert np.mean(np.abs(np.array(at) - 70) <= 1) >= 0.95


def test_a_detector_that_was_exchanged_for_six_scans_has_two_steps():
    values = noisy(60, 3)
    values[20:26] += 12 * NOISE
    assert [step.position for step in find_drift(values, errors(values)).steps] == [20, 26]


def test_single_wild_fits_are_outliers_and_no_steps():
    values = noisy(100, 4)
    values[[17, 60, 61]] += [30 * NOISE, -40 * NOISE, 25 * NOISE]
    found = find_drift(values, errors(values))
    assert found.steps == ()
    assert np.flatnonzero(found.is_outlier).tolist() == [17, 60, 61]


def test_an_outlier_with_a_large_error_of_its_own_is_none():
    values = noisy(100, 4)
    sigma = errors(values)
    values[17] += 30 * NOISE
    sigma[17] = 10 * NOISE
    assert not find_drift(values, sigma).is_outlier.any()


def test_what_drifts_slowly_has_no_steps():
    n_steps = 0
    for seed in range(900, 940):
        values = noisy(300, seed) + np.linspace(0, 40 * NOISE, 300)
        n_steps += len(find_drift(values, errors(values)).steps)
    assert n_steps <= 3


def test_a_short_series_is_not_judged():
    values = np.array([0.0] * 5 + [1.0] * 5)
    found = find_drift(values, np.full(10, np.nan))
    assert found.steps == ()
    assert not found.is_outlier.any()
    assert math.isnan(found.noise)


def test_constant_values_have_a_noise_above_zero_and_a_step_of_them_is_found():
    values = np.array([1.0] * 25 + [2.0] * 25)
    assert 0 < estimate_noise(np.ones(30), np.full(30, np.nan)) < 1e-14
    found = find_drift(values, np.full(50, np.nan))
    assert [step.position for step in found.steps] == [25]
    assert found.steps[0].size == 1.0
    assert not found.is_outlier.any()


def test_noise_is_at_least_what_the_fits_say():
    assert estimate_noise(np.ones(30), np.full(30, 0.2)) == 0.2
    assert estimate_noise(noisy(4000, 1), np.full(4000, np.nan)) == pytest.approx(NOISE, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(LEAST_POINTS, 80),
    st.floats(-1e3, 1e3),
    st.sampled_from([1e-6, 1.0, 1e4]),
    st.integers(0, 80),
)
def test_steps_do_not_depend_on_unit_and_zero(seed, n, zero, unit, at):
    values = np.round(np.random.default_rng(seed).normal(size=n), 3)
    values[at:] += 9.0
    sigma = np.full(n, 0.3)
    once = find_drift(values, sigma)
    again = find_drift(unit * (values + zero), unit * sigma)
    assert [step.position for step in again.steps] == [step.position for step in once.steps]
    assert again.is_outlier.tolist() == once.is_outlier.tolist()
