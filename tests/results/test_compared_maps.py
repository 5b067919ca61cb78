"""Figures of a comparison against numbers worked by hand, numpy and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from hpcxrf.results.compare.agreement import compare_component


def test_figures_of_four_pixels_by_hand():
    ours, theirs = np.array([[10.0, 20.0], [30.0, 40.0]]), np.array([[12.0, 18.0], [33.0, 45.0]])
    found = compare_component("Fe", ours, np.full((2, 2), 2.0), theirs)
    assert (found.pixels, found.ours_counts, found.theirs_counts) == (4, 100.0, 108.0)
    assert found.ratio == pytest.approx(1.08)
    assert found.ratio_sigma == pytest.approx(1.08 * 4.0 / 100.0)
    assert found.mean_difference == pytest.approx(2.0)
    spread = np.std([2.0, -2.0, 3.0, 5.0], ddof=1)
    assert found.lower_limit == pytest.approx(2.0 - stats.norm.ppf(0.975) * spread)
    assert found.upper_limit == pytest.approx(2.0 + stats.norm.ppf(0.975) * spread)
    assert found.rms_in_sigma == pytest.approx(math.sqrt((4 + 4 + 9 + 25) / 4) / 2)
    assert found.correlation == pytest.approx(stats.pearsonr(ours.ravel(), theirs.ravel()).statistic)


def test_counts_of_the_strongest_line_become_those_of_the_family():
    ours = np.random.default_rng(0).poisson(50.0, (8, 9)).astype(float)
    found = compare_component("Fe", ours, np.sqrt(ours), 0.58 * ours, strongest_share=0.58)
    assert found.ratio == pytest.approx(1.0)
    assert found.upper_limit == pytest.approx(0.0, abs=1e-12)


def test_pixels_that_one_has_not_fitted_count_for_neither():
    ours, theirs = np.array([[1.0, np.nan, 3.0, 5.0]]), np.array([[2.0, 9.0, np.nan, 5.0]])
    found = compare_component("Fe", ours, np.ones((1, 4)), theirs)
    assert (found.pixels, found.ours_counts, found.theirs_counts) == (2, 6.0, 7.0)
    assert math.isnan(found.correlation)
    assert math.isnan(found.lower_limit)


def test_an_empty_comparison_has_no_numbers():
    nothing = np.full((2, 2), np.nan)
    found = compare_component("Fe", nothing, nothing, nothing)
    assert found.pixels == 0
    assert all(math.isnan(x) for x in (found.ratio, found.correlation, found.mean_difference, found.rms_in_sigma))
