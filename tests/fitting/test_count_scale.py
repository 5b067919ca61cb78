"""How counts scatter: raw ones as photons, scaled ones by their factor, rounded or not, whatever the map shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import drawn, expected_counts, setup

from hpcxrf.fitting.count_scale import carry_count_factor, estimate_count_scale
from hpcxrf.fitting.model_error import estimate_model_error
from hpcxrf.fitting.spectrum.integrated import fit_spectrum

CHANNELS = np.arange(800)


def photons(seed, mean_counts=None):
    """Poisson pixels (pixel, channel) of a map of mixtures: flat, in spots, along an edge, or of scattered grains."""
    rng = np.random.default_rng(seed)
    width, n = rng.uniform(1.2, 6.0), int(rng.integers(3, 10))
    centres = rng.uniform(40, 760, n)
    shapes = [np.exp(-0.5 * ((CHANNELS - c) / width) ** 2) + 1e-4 for c in centres]
    shapes = np.array([*shapes, np.exp(-CHANNELS / 300) + 0.01])
    shapes /= shapes.sum(axis=1, keepdims=True)
    n_y, n_x = rng.integers(8, 28, 2)
    y, x = np.mgrid[:n_y, :n_x]
    maps = []
    for _ in shapes:
        spot = np.exp(-((y - rng.uniform(0, n_y)) ** 2 + (x - rng.uniform(0, n_x)) ** 2) / rng.uniform(2, 40))
        kinds = [np.ones((n_y, n_x)), 30 * spot + 0.01, y / n_y + x / n_x + 0.05, rng.lognormal(0, 1, (n_y, n_x))]
        maps.append(kinds[rng.integers(4)].ravel() * rng.lognormal(0, 1))
    mean = np.array(maps).T @ shapes
    mean *= (mean_counts or 10 ** rng.uniform(1.7, 4.5)) / mean.sum(axis=1).mean()
    return rng.poisson(mean).astype(float)


def factor_of(counts):
    scale = estimate_count_scale(torch.from_numpy(counts[:: max(1, len(counts) // 512)]))
    return None if scale is None else scale.factor


# Seeds that nothing was tuned on. A run takes whole counts for raw between 0.7 and 1.4.
@pytest.mark.parametrize("first", range(50_000, 50_100, 10))
def test_raw_counts_are_never_taken_for_scaled_ones(first):
    found = [factor_of(photons(seed)) for seed in range(first, first + 10)]
    assert sum(f is not None for f in found) >= 6
    assert all(0.78 < f < 1.3 for f in found if f is not None)


@pytest.mark.parametrize("seed", range(60_000, 60_006))
@pytest.mark.parametrize("scale", [0.25, 1.6, 2.50025, 12.0])
def test_the_factor_of_scaled_counts_is_found(seed, scale):
    counts = photons(seed, 2000.0)
    assert factor_of(scale * counts) == pytest.approx(scale * factor_of(counts), rel=1e-6)
    assert factor_of(scale * counts) == pytest.approx(scale, rel=0.15)


@pytest.mark.parametrize("seed", range(61_000, 61_006))
def test_rounding_hides_no_factor(seed):
    counts = photons(seed, 3000.0)
    assert factor_of(np.rint(2.5 * counts)) == pytest.approx(2.5, rel=0.15)


def test_too_few_pixels_or_photons_tell_nothing():
    counts = photons(1, 2000.0)
    assert factor_of(counts[:10]) is None
    assert factor_of(np.zeros((200, 800))) is None
    assert factor_of(photons(2, 5.0)[:100]) is None


FIT = fit_spectrum(drawn(sum(expected_counts(1e6)), 7), setup())


@pytest.mark.parametrize("factor", [2.5, 0.4])
def test_counting_noise_carries_the_factor_and_flaws_do_not(factor):
    fit, parts = carry_count_factor(FIT, factor), FIT.errors.variances
    k = estimate_model_error(parts.visible, factor=factor)
    expected = (factor * parts.amplitude + k**2 * parts.amplitude_flaws).sqrt()
    np.testing.assert_allclose(fit.amplitude_sigma, expected, rtol=1e-12)
    null = (factor * parts.null + k**2 * parts.null_flaws).sqrt()
    np.testing.assert_allclose(fit.detection_limit, 2.71 * factor * parts.photon + 3.29 * null, rtol=1e-12)
    np.testing.assert_allclose(fit.decision_limit, 1.645 * null + 0.35 * factor * parts.photon, rtol=1e-9)
    assert fit.theta_sigma.shape == FIT.theta_sigma.shape
    assert fit.reduced_chi2 == pytest.approx(FIT.reduced_chi2 / factor)
    assert fit.deviance == pytest.approx(FIT.deviance / factor)
    assert 1.0 - fit.r2_expected == pytest.approx(factor * (1.0 - FIT.r2_expected))


def test_scatter_beyond_that_of_photons_is_not_taken_for_flaws():
    # Counts times 9: three times the noise of photons with the same mean.
    wide = fit_spectrum(9.0 * drawn(sum(expected_counts(1e6 / 9.0)), 7), setup())
    before, after = wide.model_error, carry_count_factor(wide, 9.0).model_error
    assert after < before


def test_raw_counts_carry_nothing():
    assert carry_count_factor(FIT, 1.0) is FIT


def test_a_fit_without_parts_has_all_of_its_sigma_scaled():
    alone = replace(FIT, errors=None)
    fit = carry_count_factor(alone, 2.5)
    np.testing.assert_allclose(fit.amplitude_sigma, FIT.amplitude_sigma * 2.5**0.5, rtol=1e-12)
    np.testing.assert_allclose(fit.decision_limit, (alone.decision_limit - 0.35) * 2.5**0.5 + 0.35 * 2.5, rtol=1e-9)
