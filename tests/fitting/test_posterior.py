"""Draws of the posterior: gradient against autograd, chains on a known law, convergence figures by hand, a spectrum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import drawn, expected_counts, setup, table

from hpcxrf.errors import FitError
from hpcxrf.fitting.spectrum.chains import compute_effective_size, compute_r_hat
from hpcxrf.fitting.spectrum.density import Density, evaluate_density, put_together, take_apart
from hpcxrf.fitting.spectrum.hmc import run_chains
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.posterior import build_target, sample_posterior
from hpcxrf.physics.model import evaluate

LINES = table(("Ca", "Fe"))
FREE = ("energy_offset", "energy_slope", "fwhm_offset", "coherent_sct_energy")


def small_problem():
    problem = setup(LINES, energy_min_kev=2.5, energy_max_kev=7.5)
    parameters = tuple(replace(p, free=p.name in FREE) for p in problem.parameters)
    return replace(problem, parameters=parameters)


@pytest.fixture(scope="module")
def fit():
    return fit_spectrum(drawn(sum(expected_counts(3e4, lines=LINES, truth={})), 3), small_problem())


def test_the_gradient_is_that_of_automatic_differentiation(fit):
    target, linear = build_target(fit, small_problem())
    place = put_together(fit.theta, linear.clamp(min=2.0), target)
    position = (place + 0.1 * torch.sin(torch.arange(float(len(place))))).repeat(2, 1)
    position[1] += 0.2
    position.requires_grad_(True)
    found = evaluate_density(position, target)
    (expected,) = torch.autograd.grad(found.value.sum(), position)
    np.testing.assert_allclose(found.gradient.detach(), expected, rtol=1e-7, atol=1e-6)


def test_coordinates_and_values_are_each_others_inverse(fit):
    target, linear = build_target(fit, small_problem())
    at = take_apart(put_together(fit.theta, linear.clamp(min=1.0), target), target)
    np.testing.assert_allclose(at.theta, fit.theta, rtol=1e-12)
    np.testing.assert_allclose(at.linear, linear.clamp(min=1.0), rtol=1e-12)


def test_chains_find_mean_and_covariance_of_a_normal_law():
    covariance = torch.tensor([[4.0, 1.5, 0.0], [1.5, 1.0, 0.0], [0.0, 0.0, 0.01]]).double()
    inverse, mean = torch.linalg.inv(covariance), torch.tensor([3.0, -1.0, 0.5]).double()

    def density(position):
        away = position - mean
        return Density(value=-0.5 * ((away @ inverse) * away).sum(dim=-1), gradient=-away @ inverse)

    start = torch.zeros(8, 3).double()
    factor = torch.eye(3).double()
    generator = torch.Generator().manual_seed(1)
    found = run_chains(start, factor, density, warm_up=200, draws=400, generator=generator)
    flat = found.position.reshape(-1, 3)
    np.testing.assert_allclose(flat.mean(dim=0), mean, atol=0.15)
    np.testing.assert_allclose(flat.T.cov(), covariance, atol=0.4)
    assert 0.6 < float(found.acceptance.mean()) < 0.98
    assert not bool(found.diverging.any())
    assert bool((compute_r_hat(found.position.movedim(0, 1)) < 1.02).all())


def test_r_hat_of_equal_chains_is_one_and_of_chains_apart_is_not():
    rng = np.random.default_rng(4)
    draws = torch.from_numpy(rng.normal(size=(4, 500, 2)))
    draws[0, :, 1] += 5.0
    together, apart = compute_r_hat(draws).tolist()
    assert together == pytest.approx(1.0, abs=0.01)
    assert apart > 1.3


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_the_effective_size_of_an_autoregressive_chain_is_the_known_one(memory):
    """AR(1) of coefficient r: n (1 - r) / (1 + r) independent draws."""
    rng, n = np.random.default_rng(5), 4000
    noise, chains = rng.normal(size=(4, n, 1)), np.zeros((4, n, 1))
    for i in range(1, n):
        chains[:, i] = memory * chains[:, i - 1] + noise[:, i] * np.sqrt(1 - memory**2)
    expected = 4 * n * (1 - memory) / (1 + memory)
    assert float(compute_effective_size(torch.from_numpy(chains))) == pytest.approx(expected, rel=0.15)


def test_draws_of_a_spectrum_agree_with_the_normal_law_of_its_fit(fit):
    found = sample_posterior(fit, small_problem(), chains=2, warm_up=80, draws=80, seed=2)
    i = fit.component_names.index("Fe")
    amplitude = found.amplitude[..., i]
    noise = float(fit.errors.variances.amplitude[i].sqrt())
    assert float(amplitude.mean()) == pytest.approx(float(fit.amplitude[i]), abs=0.5 * noise)
    assert float(amplitude.std()) == pytest.approx(noise, rel=0.35)
    assert found.parameter_names == FREE
    # Elastic and Compton lie beyond the range: no draw says anything of them.
    assert bool(found.amplitude[..., fit.component_names.index("COHERENT_SCT_AMPLITUDE")].isnan().all())
    assert float(found.effective_size[FREE.index("energy_offset")]) > 20


def test_the_same_seed_gives_the_same_draws(fit):
    one, two = (sample_posterior(fit, small_problem(), chains=2, warm_up=40, draws=8, seed=5) for _ in range(2))
    assert torch.equal(one.theta, two.theta)


def test_what_cannot_be_sampled_is_refused_in_one_message(fit):
    with pytest.raises(FitError, match=r"chains is 1.*draws is 2") as refused:
        sample_posterior(fit, small_problem(), chains=1, draws=2)
    assert "warm_up" not in str(refused.value)
    empty = fit_spectrum(torch.zeros(1500), small_problem())
    with pytest.raises(FitError, match="no solution"):
        sample_posterior(empty, small_problem())


def test_the_target_is_the_model_that_was_fitted():
    """Hats elsewhere, as at the theta where the fit ended and not where it began, would be another background."""
    fit = fit_spectrum(drawn(sum(expected_counts(1e6)), 3), setup())
    target, linear = build_target(fit, setup())
    columns = torch.cat([evaluate(fit.theta, target.model).phi, target.hats], dim=1)
    torch.testing.assert_close(columns @ linear + target.fixed, fit.model, rtol=2e-5, atol=0.02)
    assert target.hats.shape[1] == fit.background_parts.shape[0] > 5
