"""Uncertainties: coverage on simulated spectra, the same covariance computed another way, Currie by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, amplitudes, drawn, expected_counts, setup, table, theta_of

from hpcxrf.fitting.limits import decision_limit, detection_limit, null_sigma
from hpcxrf.fitting.model_error import Flaws
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit, find_flaws
from hpcxrf.fitting.uncertainty import _sum_information, spectrum_uncertainty
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import INDEX, PARAMETERS

TABLE = table(("Si", "Ca", "Fe", "Zn", "Ba_L"))
# Lines without an edge are a user's own: their ratios are not fitted.
HELD = replace(TABLE, edge_kev=torch.zeros_like(TABLE.edge_kev))
FREE = np.array([p.free for p in PARAMETERS])


def spectra(total, count, first_seed=0):
    mean = sum(expected_counts(total, lines=TABLE))
    return [drawn(mean, first_seed + i) for i in range(count)]


def coverage(total, count):
    """Shares of amplitudes and of theta whose truth lies within one and within two sigma."""
    truth, theta = amplitudes(total, TABLE), theta_of(**TRUTH)
    heights, thetas = [], []
    for counts in spectra(total, count):
        fit = fit_spectrum(counts, setup(TABLE))
        heights.append((fit.amplitude - truth) / fit.amplitude_sigma)
        pull = (fit.theta - theta) / fit.theta_sigma
        thetas.append(pull[torch.isfinite(pull)])
    pulls = torch.stack(heights).abs(), torch.cat(thetas).abs()
    return [(float((p < 1.0).double().mean()), float((p < 2.0).double().mean())) for p in pulls]


def test_68_percent_intervals_hold_the_truth_in_two_thirds_of_sixty_spectra():
    # 420 amplitudes, correlated within a spectrum: binomial sd of 60 is 6 %, of 420 is 2 %.
    (one, two), (theta_one, theta_two) = coverage(1e5, 60)
    assert 0.58 < one < 0.78
    assert two > 0.90
    assert 0.58 < theta_one < 0.88
    assert theta_two > 0.88


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("total", [2e4, 1e6])
def test_68_percent_intervals_hold_the_truth_in_two_thirds_of_five_hundred_spectra(total):
    (one, two), (theta_one, theta_two) = coverage(total, 500)
    assert 0.63 < one < 0.74
    assert two > 0.93
    assert 0.60 < theta_one < 0.85
    assert theta_two > 0.90


def finite_difference_jacobian(fit, steps):
    """(channel, parameter) of the fitted model by central differences, nothing of the package's Jacobian."""
    n = len(fit.counts)
    channel = torch.arange(fit.first_channel, fit.first_channel + n, dtype=torch.float64)

    def model(theta):
        return model_spectrum(theta, fit.amplitude, TABLE, channel, constants=PHYSICS).numpy()

    columns = []
    for i, step in enumerate(steps):
        move = torch.zeros_like(fit.theta)
        move[i] = step
        columns.append((model(fit.theta + move) - model(fit.theta - move)) / (2.0 * step))
    return np.stack(columns, axis=1)


def test_sigma_is_that_of_an_independent_covariance():
    """`(J' J / mu + prior)^-1` by numpy, J from differences; hats at 0 left out; flaws beside it."""
    fit = fit_spectrum(spectra(1e5, 1)[0], setup(HELD))
    moving = (fit.free & ~fit.at_bound).numpy()
    jacobian = finite_difference_jacobian(fit, [1e-4 * p.scale for p in PARAMETERS])[:, moving]
    phi = (fit.component_counts / fit.amplitude[:, None]).numpy().T
    assert float(fit.amplitude.min()) > 0.0
    hats = fit.background_parts.numpy().T / fit.background_parts.numpy().max(axis=1)
    full = np.concatenate([phi, hats, jacobian], axis=1)
    prior = np.zeros(full.shape[1])
    prior[-moving.sum() :] = np.array([p.prior_sd for p in PARAMETERS])[moving] ** -2.0
    weight = 1.0 / np.maximum(fit.model.numpy(), 0.1)
    information = full.T @ (weight[:, None] * full) + np.diag(prior)
    scale = 1.0 / np.sqrt(np.diag(information))
    covariance = np.linalg.inv(information * scale * scale[:, None]) * scale * scale[:, None]
    residual = fit.counts.numpy() - fit.model.numpy()
    chi2 = (weight * residual**2).sum() / (len(residual) - full.shape[1])
    assert fit.reduced_chi2 == pytest.approx(chi2, rel=1e-9)
    flaws = find_flaws(evaluate_fit(fit, setup(HELD)).at, setup(HELD).detector).columns.numpy()
    shift = covariance @ (full.T @ (np.sqrt(weight)[:, None] * flaws))
    variance = np.diag(covariance) + fit.model_error**2 * (shift**2).sum(axis=1)
    assert fit.model_error > 0.0
    np.testing.assert_allclose(fit.amplitude_sigma, np.sqrt(variance[: len(fit.amplitude)]), rtol=2e-4)
    np.testing.assert_allclose(fit.theta_sigma.numpy()[moving], np.sqrt(variance[-moving.sum() :]), rtol=1e-3)
    noise = fit.errors.variances.amplitude
    np.testing.assert_allclose(noise, np.diag(covariance)[: len(fit.amplitude)], rtol=2e-4)


def test_counting_noise_grows_with_the_root_of_the_counts_and_flaws_with_the_counts():
    one, hundred = (
        fit_spectrum(sum(expected_counts(t, lines=TABLE)), setup(TABLE)).errors.variances for t in (1e6, 1e8)
    )
    np.testing.assert_allclose((hundred.amplitude / one.amplitude).sqrt(), 10.0, rtol=0.07)
    # A prior that holds a parameter against the noise lets flaws move what it held.
    grown = (hundred.amplitude_flaws / one.amplitude_flaws).sqrt()
    assert bool(((grown > 50.0) & (grown < 200.0)).all())


def test_a_lone_line_on_nothing_has_the_root_of_its_counts_as_sigma():
    """One column of area 1 that holds all counts, weights 1 / mu: sum(phi^2 / mu)^-1 = N."""
    phi = torch.exp(-0.5 * ((torch.arange(200.0) - 100.0) / 6.0) ** 2).double()[:, None]
    phi = phi / phi.sum()
    amplitude = torch.tensor([1e8], dtype=torch.float64)
    mean = phi @ amplitude
    found = spectrum_uncertainty(
        mean,
        mean,
        phi,
        torch.zeros(200, 2).double(),
        amplitude,
        moving=torch.zeros(2).bool(),
        positive_hats=torch.zeros(0).bool(),
        prior_precision=torch.ones(2).double(),
    )
    assert float(found.amplitude_sigma) == pytest.approx(1e4, rel=1e-4)
    assert found.degrees_of_freedom == 199
    assert found.reduced_chi2 == 0.0
    assert bool(found.theta_sigma.isnan().all())


def gaussian_on_flat(height, level):
    phi = torch.exp(-0.5 * ((torch.arange(400.0) - 200.0) / 6.0) ** 2).double()[:, None]
    columns = torch.cat([phi / phi.sum(), torch.ones(400, 1).double()], dim=1)
    return columns, columns @ torch.tensor([height, level], dtype=torch.float64)


def uncertainty_of(counts, mean, columns, height, **options):
    return spectrum_uncertainty(
        counts,
        mean,
        columns,
        torch.zeros(400, 1).double(),
        torch.tensor([height]).double(),
        moving=torch.zeros(1).bool(),
        positive_hats=torch.ones(1).bool(),
        prior_precision=torch.ones(1).double(),
        **options,
    )


def test_the_detection_limit_is_that_of_currie_by_hand():
    # L_D = 2.71 + 3.29 sigma_0; sigma_0 = 10: 35.61
    assert float(detection_limit(torch.tensor(10.0))) == pytest.approx(35.61, abs=1e-4)
    assert float(detection_limit(torch.tensor(0.0))) == pytest.approx(2.71, abs=1e-6)


@pytest.mark.parametrize("photon", [1.0, 1.8])
def test_a_component_at_its_detection_limit_is_missed_in_one_of_twenty(photon):
    """L_C + 1.645 sigma_D = L_D, sigma_D^2 = sigma_0^2 + f L_D: the definition, not the formula of the code."""
    for sigma in (0.5, 3.0, 40.0):
        limit = float(detection_limit(torch.tensor(sigma).double(), photon))
        at_limit = (sigma**2 + photon * limit) ** 0.5
        assert 1.645 * sigma + 1.645 * at_limit == pytest.approx(limit, rel=2e-3)
        assert float(null_sigma(limit, photon)) == pytest.approx(sigma, rel=1e-12)


def test_a_count_adds_its_own_variance_where_a_peak_stands_alone_and_more_beside_another():
    """By least squares at weights 1 / level: f = sum g^2 phi, g the row of the estimator."""
    columns, mean = gaussian_on_flat(0.0, 20.0)
    estimator = np.linalg.pinv((columns / 20.0**0.5).numpy())[0] / 20.0**0.5
    by_hand = float((estimator**2) @ columns[:, 0].numpy())
    found = uncertainty_of(mean, mean, columns, 0.0)
    assert float(found.photon_variance) == pytest.approx(by_hand, rel=1e-9)
    assert float(found.photon_variance) > 1.0


def test_the_detection_limit_takes_the_spectrum_without_the_component():
    """Level 20, peak of 6 channels: sigma_0^2 = 20 / (sum phi^2 - 1 / 400), whatever the peak's height."""
    limits = []
    for height in (0.0, 50.0, 5000.0):
        columns, mean = gaussian_on_flat(height, 20.0)
        limits.append(float(uncertainty_of(mean, mean, columns, height).detection_limit))
    phi = gaussian_on_flat(0.0, 20.0)[0][:, 0].numpy()
    precision = (phi**2).sum() - phi.sum() ** 2 / 400
    added = (((phi - phi.mean()) / precision) ** 2 * phi).sum()
    by_hand = 2.71 * added + 3.29 * np.sqrt(20.0 / precision)
    np.testing.assert_allclose(limits, by_hand, rtol=1e-6)


def test_the_limit_does_not_hang_on_the_background_that_one_draw_left_at_zero():
    channel = torch.arange(60.0, dtype=torch.float64)
    peak, hats = (
        torch.exp(-((channel - 30) ** 2) / 32),
        torch.exp(-((channel[:, None] - torch.tensor([20.0, 40.0])) ** 2) / 200),
    )
    columns = torch.cat([(peak / peak.sum())[:, None], hats / hats.sum(dim=0)], dim=1)
    mean = columns[:, 1:] @ torch.tensor([150.0, 0.0], dtype=torch.float64) + 0.2

    def limit(positive):
        return spectrum_uncertainty(
            mean,
            mean,
            columns,
            torch.zeros((60, 0), dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
            moving=torch.zeros(0, dtype=torch.bool),
            positive_hats=torch.tensor(positive),
            prior_precision=torch.zeros(0, dtype=torch.float64),
        )

    whole, part = limit([True, True]), limit([True, False])
    assert torch.equal(whole.detection_limit, part.detection_limit)
    # The noise of the amplitude is that of this fit, whose background has one column.
    assert float(part.amplitude_sigma) < 0.99 * float(whole.amplitude_sigma)
    weights = 1 / mean
    covariance = np.linalg.inv((columns.T @ (columns * weights[:, None])).numpy())
    assert float(whole.variances.null) == pytest.approx(covariance[0, 0], rel=1e-9)


def test_a_misfit_that_no_flaw_explains_widens_nothing():
    columns, mean = gaussian_on_flat(1000.0, 20.0)
    good = uncertainty_of(mean, mean, columns, 1000.0)
    missed = mean + 3.0 * mean.sqrt() * torch.tensor([1.0, -1.0]).double().repeat(200)
    bad = uncertainty_of(missed, mean, columns, 1000.0)
    # Every residual is 3 sigma: chi2 = 9 * 400 / 398
    assert bad.reduced_chi2 == pytest.approx(9.0 * 400 / 398, rel=1e-9)
    assert float(bad.amplitude_sigma) == float(good.amplitude_sigma)


def test_a_flaw_under_the_peak_adds_to_its_sigma_and_not_to_its_limit():
    """A column b under the peak moves the amplitude by what least squares gives b of the peak's column."""
    columns, mean = gaussian_on_flat(1000.0, 20.0)
    under = columns[:, :1] * 50.0 + torch.sin(torch.arange(400.0) / 3.0).double()[:, None]
    root = (1.0 / mean).sqrt()[:, None]
    flaws = Flaws(columns=under * root, owner=torch.tensor([0]))
    without = uncertainty_of(mean, mean, columns, 1000.0)
    found = uncertainty_of(mean, mean, columns, 1000.0, flaws=flaws, model_error=0.8)
    moved = np.linalg.lstsq((columns * root).numpy(), (under * root).numpy()[:, 0], rcond=None)[0][0]
    expected = np.sqrt(float(without.amplitude_sigma) ** 2 + 0.8**2 * moved**2)
    assert float(found.amplitude_sigma) == pytest.approx(expected, rel=1e-9)
    assert float(found.detection_limit) == pytest.approx(float(without.detection_limit), rel=1e-12)
    foreign = Flaws(columns=flaws.columns, owner=torch.tensor([-1]))
    raised = uncertainty_of(mean, mean, columns, 1000.0, flaws=foreign, model_error=0.8)
    assert float(raised.detection_limit) > float(without.detection_limit)


@pytest.mark.parametrize("factor", [1.0, 2.5, 1e-4])
def test_the_decision_limit_is_that_of_currie_by_hand(factor):
    # sigma_0 = 10 roots of the factor: L_C = 1.645 sigma_0 + .35, whatever the counts were multiplied by
    sigma = torch.tensor(10.0 * factor**0.5, dtype=torch.float64)
    limit = 2.71 * factor + 3.29 * sigma
    assert float(decision_limit(limit, factor)) == pytest.approx(16.45 * factor**0.5 + 0.35 * factor)


def test_a_component_at_zero_has_a_sigma_too():
    counts = drawn(sum(expected_counts(1e5, lines=TABLE)), 2)
    lines = table(("Si", "Ca", "Fe", "Zn", "Ba_L", "Cl", "Cu"))
    fit = fit_spectrum(counts, setup(lines))
    absent = [fit.component_names.index(n) for n in ("Cl", "Cu")]
    assert bool((fit.amplitude_sigma[absent] > 0.0).all())
    assert bool((fit.amplitude[absent] < fit.detection_limit[absent]).all())


def test_a_prior_narrows_theta_and_not_below_the_prior_itself():
    from dataclasses import replace

    counts = spectra(1e4, 1)[0]
    i = INDEX["compton_angle"]
    wide, narrow = (
        fit_spectrum(
            counts,
            setup(
                TABLE,
                parameters=tuple(
                    replace(p, prior_sd=sd) if p.name == "compton_angle" else p for p in setup(TABLE).parameters
                ),
            ),
        )
        for sd in (40.0, 0.2)
    )
    assert float(narrow.theta_sigma[i]) < float(wide.theta_sigma[i])
    noise = narrow.errors.variances.theta[i].sqrt()
    assert float(noise) <= 0.2 + 1e-12
    assert float(narrow.theta_sigma[i]) >= float(noise)


def test_the_information_without_each_component_is_that_of_its_weights():
    """Columns with gaps, with nothing, and over all channels; a case that changes nothing."""
    generator = torch.Generator().manual_seed(8)
    full = torch.rand((80, 9), generator=generator, dtype=torch.float64) - 0.3
    full[:30, 2], full[50:, 3], full[10:70, 4], full[:, 5] = 0.0, 0.0, 0.0, 0.0
    common = 0.5 + torch.rand(80, generator=generator, dtype=torch.float64)
    weights = common * (1.0 + torch.rand((4, 80), generator=generator, dtype=torch.float64))
    weights[1, 20:60] = common[20:60]
    weights[2] = common
    weights[3, :79] = common[:79]
    found = _sum_information(full, weights, full.T @ (common[:, None] * full), common)
    wanted = torch.einsum("nc,kn,nd->kcd", full, weights, full)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.mT)
