"""What the deviance of a pixel is expected to be, beside sums over the law of Poisson and simulated right fits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_samples import BASIS, ONE_DETECTOR, SOLVERS, fit, poisson_pixels, prepare
from scipy.stats import poisson

from hpcxrf.fitting.pixels.basis import shared_weights
from hpcxrf.fitting.pixels.expected_deviance import (
    compile_law,
    deviance_moments,
    deviance_terms,
    sample_basis,
    standardise,
)
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.nonlinear import model_tangents
from hpcxrf.fitting.pixels.tabulated_deviance import standardise_half, tabulate

LAW = sample_basis(BASIS)
SHARES = BASIS.coefficients / BASIS.coefficients.sum()
LEVELS = (10, 50, 180, 1700)


def exact_moments(mu):
    """Mean and variance of `2 (mu - y + y log(y / mu))`, by scipy's probabilities."""
    y = np.arange(0, int(mu + 15 * mu**0.5 + 40))
    term = 2.0 * (mu - y + y * np.log(np.maximum(y, 1) / mu))
    p = poisson.pmf(y, mu)
    mean = (p * term).sum()
    return mean, (p * (term - mean) ** 2).sum()


def pixels(level, n=4000, seed=3):
    share = 2.0 * torch.rand(n, len(SHARES), generator=torch.Generator().manual_seed(seed)).double()
    return poisson_pixels(level * share * SHARES, seed)


@pytest.mark.parametrize("mu", [1e-3, 0.01, 0.07, 0.3, 1.0, 2.5, 4.9, 5.1, 12.0, 90.0, 3e3])
def test_the_terms_are_sums_over_the_law_of_poisson(mu):
    mean, variance, slope, free = (float(one) for one in deviance_terms(torch.tensor(mu, dtype=torch.float64)))
    exact, spread = exact_moments(mu)
    assert mean == pytest.approx(exact, rel=2e-4)
    assert variance == pytest.approx(spread, rel=3e-3)
    step = 1e-3 * mu
    low, high = exact_moments(mu - step)[0], exact_moments(mu + step)[0]
    assert slope == pytest.approx((high - low) / (2.0 * step), abs=3e-3 + 1e-5 / mu)
    assert free == pytest.approx(1.0 + mu * (high - 2.0 * exact + low) / step**2 / 2.0, abs=3e-3)


def moments_of_all_channels(coefficients):
    """Mean and variance by every channel, with the least-squares matrices of the basis."""
    phi, w = BASIS.columns, shared_weights(BASIS.expected)
    projector = torch.linalg.solve(phi.T @ (w[:, None] * phi), phi.T * w)
    mu = coefficients @ phi.T
    used = mu.clamp(min=1e-3)
    mean, variance, slope, free = deviance_terms(used)
    response = slope @ phi @ projector
    leverage = (phi * projector.T).sum(dim=1)
    total = (mean + slope * (mu - used) - leverage * free).sum(dim=1)
    return total, (variance * mu / used - 2.0 * response * mu * slope + response**2 * mu).sum(dim=1)


def test_samples_stand_for_all_channels():
    assert LAW.columns.shape[1] <= len(BASIS.expected) // 2
    assert float(LAW.number.sum()) == len(BASIS.expected)
    share = torch.rand(200, len(SHARES), generator=torch.Generator().manual_seed(1)).double() * SHARES
    for total in (30.0, 500.0, 5e4):
        coefficients = (total * share).float()
        mean, variance = deviance_moments(coefficients, coefficients, LAW)
        exact, spread = moments_of_all_channels(coefficients.double())
        assert float(((mean - exact) / spread.sqrt()).abs().max()) < 0.05
        assert float((variance / spread - 1.0).abs().max()) < 0.1


def in_double():
    names = ("columns", "number", "leverage", "weights", "inverse")
    return replace(LAW, **{name: getattr(LAW, name).double() for name in names})


def standardise_in_double(misfit, coefficients, signed):
    return standardise(misfit.double(), coefficients.double(), in_double(), signed=signed.double(), more_parameters=3)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1, 1.0, 30.0, 1e3, 1e5])
def test_the_table_of_devices_gives_what_the_tensors_give_at_any_counts(scale):
    coefficients = (scale * torch.randn(50, len(SHARES), generator=torch.Generator().manual_seed(2)) + scale) * 1e2
    coefficients = coefficients * SHARES.float()
    misfit = torch.full((50,), 500.0)
    mean, variance = deviance_moments(coefficients.double(), coefficients.double(), in_double())
    exact = (misfit - mean) / variance.sqrt()
    ours = standardise_half(0.5 * misfit, coefficients, coefficients, tabulate(LAW), more_parameters=0)
    assert float(((ours - exact) / (1.0 + exact.abs())).abs().max()) < 1e-3


def test_the_kernel_gives_what_the_tensors_give_and_no_tile_changes_a_bit():
    generator = torch.Generator().manual_seed(5)
    coefficients = 200.0 * torch.rand(300, len(SHARES), generator=generator) * SHARES.float() * len(SHARES)
    signed = coefficients - 20.0 * torch.rand(300, len(SHARES), generator=generator)
    misfit = 400.0 + 50.0 * torch.rand(300, generator=generator)
    compiled, tabulated = compile_law(LAW), tabulate(LAW)
    for given in (coefficients, signed):
        exact = standardise_in_double(misfit, given, signed)
        assert float((standardise(misfit, given, LAW, signed=signed, more_parameters=3) - exact).abs().max()) < 2e-3
        by_table = standardise_half(0.5 * misfit, given, signed, tabulated, more_parameters=3)
        assert float((by_table - exact).abs().max()) < 2e-3
        ours = standardise(misfit, given, compiled, signed=signed, more_parameters=3)
        theirs = standardise(misfit, given, LAW, signed=signed, more_parameters=3)
        assert float((ours - theirs).abs().max()) < 0.01
        part = standardise(misfit[41:190], given[41:190], compiled, signed=signed[41:190], more_parameters=3)
        assert torch.equal(part, ours[41:190])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("method", ["linear", "nnls", "poisson", "weight_classes"])
def test_right_fits_are_at_zero_with_a_spread_of_one(method, level):
    z = fit(pixels(level, 4000 if method != "poisson" else 2000), method).deviance_z
    low, middle, high = z.double().quantile(torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)).tolist()
    assert abs(middle) < 0.3
    assert 0.85 < (high - low) / 2.0 < 1.12
    assert float((z > 3.0).double().mean()) < 0.01


def test_pixels_with_a_theta_of_their_own_have_no_more_than_noise():
    solver = prepare_solver("nonlinear", replace(BASIS, tangents=model_tangents(ONE_DETECTOR)), ONE_DETECTOR)
    z = fit(pixels(1700, 400), solver=solver).deviance_z
    assert abs(float(z.median())) < 0.3
    assert 0.8 < float(z.std()) < 1.2


@pytest.mark.parametrize(("level", "least"), [(180, 3.0), (1700, 10.0)])
def test_an_element_that_is_missing_is_seen(level, least):
    kept = [0, 2, 3, 4, 5, *range(6, len(SHARES))]
    columns, coefficients = BASIS.columns[:, kept], BASIS.coefficients[kept]
    without = replace(
        BASIS,
        columns=columns,
        coefficients=coefficients,
        expected=columns @ coefficients,
        n_components=BASIS.n_components - 1,
    )
    z = fit(pixels(level, 1000), solver=prepare("linear", without)).deviance_z
    assert float(z.median()) > least


def test_it_is_known_only_where_it_means_something():
    counts = pixels(100, 6)
    counts[1] = 0.0
    counts[2, 7] = float("nan")
    measured = torch.arange(6) != 3
    z = fit_pixels(counts, measured, SOLVERS["linear"]).deviance_z
    assert z.isnan().tolist() == [False, False, True, True, False, False]
    assert abs(float(z[1])) < 0.1
    assert fit(counts[:1], deviance=False).deviance_z is None
    bare = replace(
        BASIS, columns=BASIS.columns[:, : BASIS.n_components], coefficients=BASIS.coefficients[: BASIS.n_components]
    )
    clipped = prepare_solver("linear", bare, ONE_DETECTOR, clipped=True)
    assert fit(counts[:1], solver=clipped).deviance_z is None
