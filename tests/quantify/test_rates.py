"""Counts per second at a reference I0: hand numbers, simulated detectors, and what no pixel may do silently."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.quantify.i0 import I0
from hpcxrf.quantify.normalise import (
    PixelFlag,
    combine_detectors,
    find_combination,
    find_ratio_outliers,
    normalise_maps,
    normalise_spectrum,
    sum_live_time,
)


def normalised(amplitude, sigma, limit, live, *, i0=None, reference=1.0):
    """Maps of one row of pixels; `i0` is (rate, sigma)."""
    flux = None if i0 is None else I0(rate=np.array([i0[0]]), sigma=np.array([i0[1]]))
    arrays = (np.asarray(one, dtype=np.float64)[:, None, :] for one in (amplitude, sigma, limit))
    return normalise_maps(*arrays, live_time_s=np.array([live]), i0=flux, reference=reference)


def test_a_pixel_by_hand():
    maps = normalised([[100.0]], [[10.0]], [[35.6]], [0.5], i0=([250.0], [5.0]), reference=500.0)
    # 100 / 0.5 s * 500 / 250
    assert maps.rate[0, 0, 0] == pytest.approx(400.0)
    assert maps.counting_sigma[0, 0, 0] == pytest.approx(40.0)
    assert maps.i0_relative_sigma[0, 0] == pytest.approx(0.02)
    assert maps.sigma[0, 0, 0] == pytest.approx(np.hypot(40.0, 8.0))
    assert maps.detection_limit[0, 0, 0] == pytest.approx(142.4)
    assert maps.flag[0, 0] == PixelFlag.NORMALISED


def test_without_i0_a_pixel_is_counts_per_second_of_live_time():
    maps = normalised([[100.0]], [[10.0]], [[35.6]], [0.5])
    assert maps.rate[0, 0, 0] == 200.0
    assert maps.sigma[0, 0, 0] == 20.0


def test_a_pixel_that_cannot_be_normalised_says_why_and_has_no_value():
    good, bad = 1.0, np.nan
    maps = normalised(
        [[100.0, bad, 100.0, 100.0, 100.0, bad]],
        [[10.0] * 6],
        [[35.0] * 6],
        [good, good, bad, 0.0, good, bad],
        i0=([good, good, good, good, bad, bad], [0.1] * 6),
    )
    assert maps.flag[0].tolist() == [
        PixelFlag.NORMALISED,
        PixelFlag.NOT_FITTED,
        PixelFlag.NO_LIVE_TIME,
        PixelFlag.NO_LIVE_TIME,
        PixelFlag.NO_I0,
        PixelFlag.NOT_FITTED,
    ]
    for values in (maps.rate, maps.sigma, maps.detection_limit):
        assert np.isfinite(values[0, 0]).tolist() == [True, False, False, False, False, False]


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_exposure_and_flux_of_a_pixel_do_not_change_its_rate(exposure, flux, reference):
    amplitude = 300.0 * exposure * flux
    maps = normalised(
        [[300.0, amplitude]],
        [[9.0, 9.0]],
        [[9.0, 9.0]],
        [1.0, exposure],
        i0=([2.0, 2.0 * flux], [0.0, 0.0]),
        reference=reference,
    )
    assert maps.rate[0, 0, 1] == pytest.approx(maps.rate[0, 0, 0], rel=1e-9)
    assert maps.rate[0, 0, 0] == pytest.approx(150.0 * reference)


def simulate(shares, backgrounds, rate, live, *, n=20000, seed=0):
    """Detectors that count one component, with its share of the rate, over a background that is subtracted."""
    rng = np.random.default_rng(seed)
    maps = []
    for share, background, seconds in zip(shares, backgrounds, live, strict=True):
        mean, under = share * rate * seconds, background * seconds
        counts = rng.poisson(mean + under, n) - under
        sigma0 = np.sqrt(under)
        maps.append(
            normalised(
                [counts], [np.full(n, np.sqrt(mean + under))], [np.full(n, 2.71 + 3.29 * sigma0)], np.full(n, seconds)
            )
        )
    return maps


def combination_of(shares, rate, maps):
    total = np.array(shares)[:, None] * rate
    variance = np.stack([(one.counting_sigma**2).mean(axis=(1, 2)) for one in maps])
    return find_combination(total, 1e-3 * total, variance)


def test_detectors_without_background_are_added_up_and_scatter_as_their_sigma_says():
    shares, live = [0.5, 0.3, 0.2], [0.49, 0.50, 0.48]
    maps = simulate(shares, [0.0, 0.0, 0.0], 200.0, live)
    found = combine_detectors(maps, combination_of(shares, 200.0, maps), np.ones((3, 1)))
    added = sum(one.rate for one in maps)
    assert found.rate.mean() == pytest.approx(200.0, rel=2e-3)
    assert found.rate.std() == pytest.approx(float(found.counting_sigma.mean()), rel=0.02)
    # Live times that differ by 4 % change weights as little.
    np.testing.assert_allclose(found.rate, added, rtol=0.05)


def test_a_detector_with_a_large_background_counts_for_less_and_the_mean_stays():
    shares, live = [0.5, 0.5], [0.5, 0.5]
    maps = simulate(shares, [1.0, 4000.0], 200.0, live)
    combination = combination_of(shares, 200.0, maps)
    found = combine_detectors(maps, combination, np.ones((2, 1)))
    assert combination.weight[0, 0] > 0.9
    assert found.rate.mean() == pytest.approx(200.0, abs=4.0 * 0.15)
    assert found.rate.std() == pytest.approx(float(found.counting_sigma.mean()), rel=0.02)
    assert found.rate.std() < 0.5 * (maps[0].rate + maps[1].rate).std()


def test_the_limit_of_detectors_that_are_combined_is_that_of_their_sum():
    shares, live = [0.6, 0.4], [1.0, 1.0]
    maps = simulate(shares, [60.0, 40.0], 0.0, live)
    combination = find_combination(np.array([[60.0], [40.0]]), np.ones((2, 1)), np.array([[60.0], [40.0]]))
    found = combine_detectors(maps, combination, np.ones((2, 1)))
    # Currie of one detector with all the background.
    assert found.detection_limit.mean() == pytest.approx(2.71 + 3.29 * 10.0, rel=1e-3)
    assert (found.rate > 1.645 * 10.0).mean() == pytest.approx(0.05, abs=0.01)


def test_the_limit_by_hand_also_where_a_pixel_lacks_a_detector():
    sigma0 = (5.0, 10.0)
    first, second = (
        normalised([row], [[8.0] * 2], [[2.71 + 3.29 * one] * 2], [1.0] * 2)
        for row, one in zip(([50.0, 50.0], [50.0, np.nan]), sigma0, strict=True)
    )
    # Variances 25 and 100: weights 0.8 and 0.2, each over a share of a half.
    combination = find_combination(np.full((2, 1), 50.0), np.full((2, 1), 1e-3), np.array([[25.0], [100.0]]))
    found = combine_detectors([first, second], combination, np.ones((2, 1))).detection_limit[0, 0]
    np.testing.assert_allclose(combination.weight[:, 0], [0.8, 0.2], rtol=1e-6)
    assert found[0] == pytest.approx(2.71 * (1.6**2 + 0.4**2) / 2 + 3.29 * np.hypot(1.6 * 5.0, 0.4 * 10.0))
    assert found[1] == pytest.approx(2.71 * 2.0 + 3.29 * 2.0 * 5.0)


def test_the_error_of_i0_is_common_to_all_detectors_and_not_averaged():
    one = normalised([[1e6]], [[1e3]], [[1e3]], [1.0], i0=([100.0], [5.0]))
    combination = find_combination(np.full((4, 1), 1e6), np.full((4, 1), 1e3), np.full((4, 1), 1e6))
    found = combine_detectors([one] * 4, combination, np.ones((4, 1)))
    assert found.i0_relative_sigma[0, 0] == pytest.approx(0.05)
    assert found.sigma[0, 0, 0] / found.rate[0, 0, 0] == pytest.approx(np.hypot(0.05, 5e-4))


def test_the_others_stand_for_a_detector_that_a_pixel_lacks():
    first = normalised([[60.0, np.nan, np.nan]], [[8.0] * 3], [[30.0] * 3], [1.0] * 3)
    second = normalised([[40.0, 40.0, np.nan]], [[6.0] * 3], [[25.0] * 3], [1.0] * 3)
    combination = find_combination(np.array([[60.0], [40.0]]), np.full((2, 1), 1e-3), np.array([[60.0], [40.0]]))
    found = combine_detectors([first, second], combination, np.ones((2, 1)))
    np.testing.assert_allclose(found.rate[0, 0], [100.0, 100.0, np.nan], rtol=1e-6)
    assert found.flag[0].tolist() == [PixelFlag.NORMALISED, PixelFlag.NORMALISED, PixelFlag.NOT_FITTED]
    assert found.counting_sigma[0, 0, 1] == pytest.approx(6.0 / 0.4)


def test_shares_of_a_component_that_is_not_there_are_those_of_all_others():
    rate, sigma = np.array([[60.0, 0.2], [40.0, -0.3]]), np.array([[0.1, 0.5], [0.1, 0.5]])
    found = find_combination(rate, sigma, np.ones((2, 2)))
    np.testing.assert_allclose(found.share[:, 0], [0.6, 0.4], atol=1e-3)
    np.testing.assert_allclose(found.share[:, 1], [0.6, 0.4], atol=5e-3)
    np.testing.assert_allclose(found.weight.sum(axis=0), 1.0)


def test_a_scan_without_counts_is_combined_all_alike():
    found = find_combination(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)))
    np.testing.assert_allclose(found.share, 1.0 / 3.0)
    np.testing.assert_allclose(found.weight, 1.0 / 3.0)


def test_the_live_time_of_a_raw_sum_gives_the_sum_of_the_rates():
    share, live = np.array([0.7, 0.3]), np.array([[[0.5]], [[0.9]]])
    rate = 1000.0
    counts = (share * live[:, 0, 0] * rate).sum()
    assert counts / sum_live_time(live, share)[0, 0] == pytest.approx(rate)
    # One that counts nothing may have no live time.
    assert sum_live_time(np.array([[[0.5]], [[np.nan]]]), np.array([1.0, 0.0]))[0, 0] == 0.5


def ratios(deviation=0.0, *, n=4, sigma=0.01):
    """Rates of six elements in n detectors of different size; the last has so much more of the third."""
    rate = np.outer(np.linspace(1.0, 0.5, n), [100.0, 400.0, 50.0, 900.0, 20.0, 70.0])
    rate[-1, 2] *= 1.0 + deviation
    return rate, sigma * rate


def test_a_detector_with_other_ratios_is_named_with_its_element():
    (found,) = find_ratio_outliers(*ratios(0.4))
    assert (found.detector, found.component) == (3, 2)
    assert found.deviation == pytest.approx(0.4)
    assert 0.05 < found.sigma < 0.06


@pytest.mark.parametrize("deviation", [0.0, 0.1, -0.1])
def test_what_windows_and_angles_make_of_ratios_is_no_disagreement(deviation):
    assert find_ratio_outliers(*ratios(deviation)) == ()


def test_a_difference_within_the_errors_is_no_disagreement():
    assert find_ratio_outliers(*ratios(0.4, sigma=0.15)) == ()


def test_of_two_detectors_nobody_knows_which_is_wrong():
    assert find_ratio_outliers(*ratios(2.0, n=2)) == ()


def test_two_kinds_of_two_detectors_each_stay():
    rate, _ = ratios(0.0)
    rate[2:, 1] *= 0.2
    assert find_ratio_outliers(rate, 0.01 * rate) == ()


def test_an_integrated_spectrum_keeps_its_errors_apart():
    found = normalise_spectrum(
        np.array([1e4, 400.0]),
        np.array([100.0, 20.0]),
        np.array([50.0, 1.0]),
        live_time_s=50.0,
        i0=(2e5, 1e3),
        reference=1e5,
        detection_limit=np.array([40.0, 40.0]),
    )
    np.testing.assert_allclose(found.rate, [100.0, 4.0])
    np.testing.assert_allclose(found.counting_sigma, [1.0, 0.2])
    np.testing.assert_allclose(found.theta_sigma, [0.5, 0.01])
    np.testing.assert_allclose(found.i0_sigma, [0.5, 0.02])
    np.testing.assert_allclose(found.sigma, np.sqrt([1.5, 0.0405]))
    np.testing.assert_allclose(found.detection_limit, [0.4, 0.4])


def test_an_integrated_spectrum_is_the_mean_of_its_pixels():
    rng = np.random.default_rng(1)
    live, flux = rng.uniform(0.5, 2.0, (5, 7)), rng.uniform(90.0, 110.0, (5, 7))
    counts = 3.0 * live * flux
    mean = float((live * flux).sum() / live.sum())
    one = np.array([1.0])
    found = normalise_spectrum(
        counts.sum() * one, one, one, live_time_s=float(live.sum()), i0=(mean, 0.0), reference=100.0
    )
    assert found.rate[0] == pytest.approx(300.0)


@pytest.mark.parametrize(("live", "i0"), [(0.0, (1.0, 0.0)), (1.0, (0.0, 0.0)), (np.nan, None), (1.0, (np.nan, 0.0))])
def test_a_spectrum_without_live_time_or_i0_is_refused(live, i0):
    one = np.array([1.0])
    with pytest.raises(ValueError, match="must be positive"):
        normalise_spectrum(one, one, one, live_time_s=live, i0=i0)
