"""Each pixel method against its own oracle: scipy, the truth that was simulated, the fit with theta known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_samples import (
    BASIS,
    CPU,
    MODEL,
    N_COMPONENTS,
    OPERATOR,
    SOLVERS,
    THETA,
    drifted_pixels,
    fit,
    poisson_pixels,
    two_classes,
)
from scipy.optimize import minimize, nnls

from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels import nnls as pixel_nnls
from hpcxrf.fitting.pixels.basis import pixel_basis, pixel_operator, shared_weights
from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.pixels.full import full_model, full_solver
from hpcxrf.fitting.pixels.nnls import fit_nnls, shared_factor
from hpcxrf.fitting.pixels.poisson import fit_poisson, likelihood
from hpcxrf.fitting.pixels.tangent import drift_sd, fit_tangent, tangent_operator, tangents_at
from hpcxrf.fitting.pixels.weight_classes import find_weight_classes
from hpcxrf.fitting.result import FitStatus
from hpcxrf.physics.model import evaluate
from hpcxrf.physics.parameters import INDEX

COLUMNS = BASIS.columns.numpy()


def varied(n, level=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=generator, dtype=torch.float64)
    return level * share * BASIS.coefficients


# --- non-negative least squares -----------------------------------------------------------------


@pytest.mark.parametrize("level", [0.01, 0.1, 1.0, 100.0])
def test_non_negative_pixels_are_those_of_scipy(level):
    counts = poisson_pixels(varied(60, level))
    found = fit(counts, "nnls")
    root = np.sqrt(shared_weights(BASIS.expected).numpy())
    expected = np.stack([nnls(root[:, None] * COLUMNS, root * y)[0] for y in counts.double().numpy()])[:, :N_COMPONENTS]
    wrong = np.abs(found.amplitude.numpy() - expected) / found.sigma.numpy()
    assert wrong.max() < 1e-3
    assert (found.amplitude.numpy()[expected == 0.0] < 1e-4 * found.sigma.numpy().max()).all()


def test_ordinary_pixels_pass_the_check(monkeypatch):
    """Solving one exactly costs as much as the iteration of twenty."""

    def refuse(*_):
        raise AssertionError("the check failed")

    monkeypatch.setattr(pixel_nnls, "_exact", refuse)
    for level in (0.1, 1.0, 30.0):
        counts = poisson_pixels(varied(500, level))
        assert int(fit(counts, "nnls").status.min()) == int(FitStatus.CONVERGED)


def test_pixels_that_fail_the_check_are_solved_exactly(monkeypatch):
    """Columns that are nearly alike: the iteration is far from done after its 40 rounds, and the check sees it."""
    twin = 0.95 * BASIS.columns[:, 1:2] + 0.05 * BASIS.columns[:, 1:2].roll(2, dims=0)
    columns = torch.cat([BASIS.columns[:, :N_COMPONENTS], twin], dim=1)
    mean = torch.cat([BASIS.coefficients[:N_COMPONENTS], BASIS.coefficients[1:2]])
    operator = pixel_operator(pixel_basis(columns, mean, torch.zeros(0, len(columns)).double(), 1))
    counts = poisson_pixels(varied(200))
    factor = shared_factor(operator)
    signed = counts @ operator.projector
    root = np.sqrt(shared_weights(columns @ mean).numpy())
    expected = np.stack([nnls(root[:, None] * columns.numpy(), root * y)[0] for y in counts.double().numpy()])
    found = fit_nnls(counts, signed, operator, factor)
    np.testing.assert_allclose(found.coefficients, expected, atol=0.02, rtol=1e-3)
    assert bool(found.solved.all())
    monkeypatch.setattr(pixel_nnls, "_is_optimal", lambda x, *_: torch.ones(len(x)).bool())
    unchecked = fit_nnls(counts, signed, operator, factor)
    assert float((unchecked.coefficients - found.coefficients).abs().max()) > 1.0


# --- maximum likelihood -------------------------------------------------------------------------


def most_likely(y):
    """By scipy: bounded minimisation from several starts, with the gradient."""

    def objective(x):
        mu = COLUMNS @ x + 1e-9
        return float((mu - y * np.log(mu)).sum()), COLUMNS.T @ (1.0 - y / mu)

    starts = [np.full(COLUMNS.shape[1], y.sum() / COLUMNS.shape[1]), BASIS.coefficients.numpy()]
    found = [
        minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * len(start),
            options={"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-14, "gtol": 1e-7, "maxcor": 30},
        )
        for start in starts
    ]
    return min(found, key=lambda r: r.fun).x


@pytest.mark.parametrize("level", [0.05, 0.3, 3.0, 100.0])
def test_the_likelihood_is_that_of_scipy(level):
    counts = poisson_pixels(varied(12, level))
    expected = torch.from_numpy(np.stack([most_likely(y) for y in counts.double().numpy()]))
    theirs = poisson_deviance(counts.double(), expected @ BASIS.columns.T, floor=1e-9)
    signed = counts @ OPERATOR.projector
    by_tensors = fit_poisson(counts, signed, OPERATOR, likelihood(OPERATOR), errors=True)
    by_kernel = SOLVERS["poisson"].estimate(counts, signed, deviance=True, errors=True)
    for found in (by_tensors, by_kernel):
        ours = poisson_deviance(counts.double(), found.coefficients.double() @ BASIS.columns.T, floor=1e-9)
        assert float((ours - theirs).max()) < 0.05
        assert bool(found.solved.all())
        sigma = found.variance.sqrt()
        assert float(((found.coefficients - expected)[:, :N_COMPONENTS] / sigma).abs().max()) < 0.1
    # Where a few counts leave the estimate open, its variance is too.
    torch.testing.assert_close(by_kernel.variance, by_tensors.variance, rtol=0.02 if level > 0.1 else 0.2, atol=0.0)


def test_hot_spots_come_to_an_end():
    """1e3 to 1e6 counts of one column, over nothing or over a hundredth of another, and what is as dark as that."""
    n = len(BASIS.coefficients)
    one = torch.eye(n).repeat(4, 1) * torch.logspace(3, 6, 4).repeat_interleave(n)[:, None]
    counts = poisson_pixels(torch.cat([one, one + 0.01 * one.roll(1, dims=1), 1e-6 * one]).double())
    found = fit(counts, "poisson")
    some = counts.sum(dim=1) > 0
    assert bool((found.status[some] == int(FitStatus.CONVERGED)).all())
    tensors = fit_poisson(counts, counts @ OPERATOR.projector, OPERATOR, likelihood(OPERATOR), errors=False)
    kernel = SOLVERS["poisson"].estimate(counts, counts @ OPERATOR.projector, deviance=True, errors=False)
    theirs, ours = (
        poisson_deviance(counts.double(), f.coefficients.double() @ BASIS.columns.T, floor=1e-6)
        for f in (tensors, kernel)
    )
    assert float((ours - theirs)[tensors.solved].max()) < 0.1


def test_the_deviance_is_lower_than_that_of_non_negative_least_squares():
    counts = poisson_pixels(varied(500, 0.3))
    best, other = fit(counts, "poisson").deviance, fit(counts, "nnls").deviance
    assert bool((best <= other + 0.05 / counts.shape[1]).all())
    assert float((best < other).double().mean()) > 0.9


def test_an_amplitude_by_likelihood_is_as_precise_as_its_sigma_says_without_neighbours():
    """A single line on nothing: the amplitude is the number of counts, its sigma the square root."""
    column = BASIS.columns[:, 1:2]
    share = float(column.sum())
    operator = pixel_operator(
        pixel_basis(column, torch.tensor([50.0]).double(), torch.zeros(0, len(column)).double(), 1)
    )
    counts = torch.poisson((80.0 * column).T.expand(50, -1), generator=torch.Generator().manual_seed(0))
    found = fit_poisson(
        counts.float(), counts.float() @ operator.projector, operator, likelihood(operator), errors=True
    )
    total = counts.sum(dim=1) / share
    np.testing.assert_allclose(found.coefficients[:, 0], total, rtol=1e-3)
    np.testing.assert_allclose(found.variance[:, 0].sqrt(), (total / share).sqrt(), rtol=0.02)


# --- tangent dictionary -------------------------------------------------------------------------


def drifts(n, seed=0):
    """8 eV, 0.15 % gain, 4 eV width: one standard deviation."""
    sd = torch.tensor([0.008, 0.0015 * float(THETA[1]), 0.004], dtype=torch.float64)
    return sd * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)).double()


def test_the_columns_follow_theta_to_second_order():
    tangents = tangents_at(THETA, MODEL)
    for d in (torch.tensor([0.6, -0.4, 0.5]), torch.tensor([-0.5, 0.8, -0.6])):
        step = d.double() * tangents.prior_sd
        theta = THETA.clone()
        for name, change in zip(tangents.names, step, strict=True):
            theta[INDEX[name]] += change
        weights = [*d, *(d[i] * d[j] * (0.5 if i == j else 1.0) for i, j in tangents.pairs)]
        followed = evaluate(THETA, MODEL).phi + sum(w * c for w, c in zip(weights, tangents.columns, strict=True))
        true = evaluate(theta, MODEL).phi
        moved = float((true - evaluate(THETA, MODEL).phi).abs().max())
        assert float((followed - true).abs().max()) < 0.05 * moved


def test_drifts_are_recovered_and_amplitudes_are_as_good_as_with_theta_known():
    n = 1500
    coefficients, drift = varied(n, 5.0), drifts(n)
    counts = drifted_pixels(coefficients, drift)
    found, blind = fit(counts, "nonlinear"), fit(counts, "linear")
    error = (found.theta_shift.double() - drift) / drift.std(dim=0)
    assert float(error[:, :2].square().mean().sqrt()) < 0.6
    slope = (found.theta_shift.double() * drift).mean(dim=0) / drift.square().mean(dim=0)
    assert bool((slope[:2] > 0.6).all() & (slope < 1.05).all()), slope
    truth = coefficients[:, :N_COMPONENTS]
    pull = (found.amplitude - truth) / found.sigma
    assert 0.66 < float((pull.abs() < 1.0).double().mean()) < 0.71
    assert float(pull.square().mean().sqrt()) < 1.1
    known = fit(poisson_pixels(coefficients, seed=1), "linear")
    rms = [float(((f.amplitude - truth) / known.sigma).square().mean().sqrt()) for f in (known, found, blind)]
    assert rms[1] < 1.15 * rms[0]
    assert rms[1] < 0.85 * rms[2]


def test_shift_and_amplitudes_are_the_optimum_of_the_dictionary():
    """The gradient of weighted misfit and prior, by autograd, vanishes there."""
    counts = drifted_pixels(varied(20, 30.0), drifts(20))
    tangents = tangents_at(THETA, MODEL)
    given = fit(counts, "nonlinear")
    operator = tangent_operator(BASIS, tangents, OPERATOR)
    found = fit_tangent(counts, counts @ OPERATOR.projector, operator, errors=True)
    a = found.coefficients.double().requires_grad_()
    d = (found.shift.double() / tangents.prior_sd).requires_grad_()
    weights = shared_weights(BASIS.expected)
    products = [d[:, i] * d[:, j] * (0.5 if i == j else 1.0) for i, j in tangents.pairs]
    changes = torch.stack([*d.T, *products], dim=1)
    phi = BASIS.columns[:, :N_COMPONENTS] + torch.einsum("pq,qnc->pnc", changes, tangents.columns)
    model = (phi @ a[:, :N_COMPONENTS, None])[..., 0]
    model = model + a[:, N_COMPONENTS:] @ BASIS.columns[:, N_COMPONENTS:].T
    level = counts.double().sum(dim=1) / BASIS.expected.sum()
    misfit = (weights * (counts - model) ** 2).sum(dim=1) / level + (d * d).sum(dim=1)
    misfit.sum().backward()
    sigma = found.variance.double().sqrt()
    # The gradient in sigmas is twice the distance from the optimum in sigmas.
    assert float((a.grad[:, :N_COMPONENTS] * sigma).abs().max()) < 0.3
    assert float(d.grad.abs().max()) < 1.0
    assert float(d.grad.abs().median()) < 0.05
    assert given.theta_shift.shape == (20, 3)


def test_a_shift_beyond_reach_is_flagged_and_a_new_expansion_there_mends_it():
    coefficients = varied(200, 20.0)
    # 70 eV: two thirds of a width.
    far = torch.tensor([0.07, 0.0, 0.0], dtype=torch.float64).expand(200, -1)
    counts = drifted_pixels(coefficients, far)
    prior = drift_sd(THETA) | {"energy_offset": 0.05}
    wide = prepare_solver("nonlinear", replace(BASIS, tangents=tangents_at(THETA, MODEL, prior)))
    found = fit(counts, "nonlinear", wide)
    assert float((found.status == int(FitStatus.BEYOND_TANGENT)).double().mean()) > 0.9
    assert bool((found.status != int(FitStatus.CONVERGED)).all())
    theta = THETA.clone()
    for i, name in enumerate(drift_sd(THETA)):
        theta[INDEX[name]] += found.theta_shift[:, i].double().median()
    columns = evaluate(theta, MODEL).phi
    background = (BASIS.columns[:, N_COMPONENTS:] * BASIS.coefficients[N_COMPONENTS:]).T
    basis = pixel_basis(columns, BASIS.coefficients[:N_COMPONENTS], background, 1)
    there = prepare_solver("nonlinear", replace(basis, tangents=tangents_at(theta, MODEL, prior)))
    again = fit(counts, "nonlinear", there)
    assert bool((again.status == int(FitStatus.CONVERGED)).all())
    pull = (again.amplitude - coefficients[:, :N_COMPONENTS]) / again.sigma
    assert float(pull.square().mean().sqrt()) < 1.15


# --- the true model -----------------------------------------------------------------------------


def test_the_full_model_recovers_drifts_and_agrees_with_the_dictionary():
    n = 48
    coefficients, drift = varied(n, 20.0), drifts(n)
    counts = drifted_pixels(coefficients, drift)
    found, tangent = fit(counts, "full"), fit(counts, "nonlinear")
    assert bool((found.status == int(FitStatus.CONVERGED)).all())
    pull = (found.amplitude - coefficients[:, :N_COMPONENTS]) / found.sigma
    assert 0.85 < float(pull.square().mean().sqrt()) < 1.15
    apart = (found.amplitude - tangent.amplitude) / found.sigma
    assert float(apart.square().mean().sqrt()) < 0.35
    error = (found.theta_shift.double() - drift)[:, :2]
    assert float((error.square().mean(dim=0) / drift[:, :2].square().mean(dim=0)).max()) < 0.25
    # Where the dictionary cannot follow, the model does.
    far = torch.tensor([0.05, 0.0, 0.01], dtype=torch.float64).expand(8, -1)
    wide = {name: 0.05 if name == "energy_offset" else sd for name, sd in drift_sd(THETA).items()}
    solver = full_solver(full_model(MODEL, THETA, BASIS, wide), BASIS, CPU)
    found = fit(drifted_pixels(coefficients[:8], far), "full", solver)
    np.testing.assert_allclose(found.theta_shift[:, 0], 0.05, atol=0.012)


def test_a_theta_that_is_known_costs_no_precision_and_one_that_is_not_costs_some():
    counts = poisson_pixels(varied(16, 30.0))
    known = fit(counts, "poisson").sigma

    def ratio(width):
        prior = {name: width * sd for name, sd in drift_sd(THETA).items()}
        solver = full_solver(full_model(MODEL, THETA, BASIS, prior), BASIS, CPU)
        return float((fit(counts, "full", solver).sigma / known).mean())

    assert abs(ratio(1e-4) - 1.0) < 0.02
    assert ratio(1e-4) + 0.02 < ratio(1.0) < ratio(10.0)


# --- weight classes -----------------------------------------------------------------------------


def class_pixels(n, level, seed=0):
    """Half of the pixels of each class: coefficients and labels."""
    label = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed))
    return level * two_classes()[label], label


@pytest.mark.parametrize("level", [0.3, 5.0])
def test_classes_that_differ_are_found_and_weights_of_their_own_gain_what_is_predicted(level):
    coefficients, label = class_pixels(6000, level)
    counts = poisson_pixels(coefficients)
    mean = coefficients.mean(dim=0)
    n = N_COMPONENTS
    background = (BASIS.columns[:, n:] * mean[n:]).T
    basis = pixel_basis(BASIS.columns[:, :n], mean[:n], background, 1)
    every = torch.ones(len(counts), dtype=torch.bool)
    classes = find_weight_classes(counts, every, basis)
    assert len(classes.share) == 2
    assert classes.report.startswith(
        "fit weights chosen separately for 2 pixel classes; expected noise reduction up to"
    )
    ours = fit(counts, "linear", prepare_solver("linear", replace(basis, weight_classes=classes)))
    shared = fit(counts, "linear", prepare_solver("linear", basis))
    light = label == 1
    truth = coefficients[:, :n]
    best = int((classes.gain).argmax())
    gain = 1.0 - (ours.amplitude - truth)[light].std(dim=0) / (shared.amplitude - truth)[light].std(dim=0)
    assert float(classes.gain[best]) > 0.1
    assert float(gain.max()) == pytest.approx(float(classes.gain[best]), abs=0.06)
    assert float(gain.min()) > -0.03


@pytest.mark.parametrize("level", [0.02, 0.1, 1.0])
def test_weights_by_class_leave_the_amplitudes_unbiased(level):
    """Within 1 % or 3 standard errors, down to 8 counts a pixel, where most are judged by chance."""
    coefficients, label = class_pixels(60_000, level, seed=1)
    found = fit(poisson_pixels(coefficients, seed=2), "weight_classes", errors=False, deviance=False)
    for one in (0, 1):
        a = found.amplitude[label == one].double()
        truth = level * two_classes()[one][:N_COMPONENTS]
        error = a.std(dim=0) / len(a) ** 0.5
        wrong = (a.mean(dim=0) - truth).abs()
        assert bool(((wrong < 3.3 * error) | (wrong < 0.01 * truth)).all()), wrong / error


def test_pixels_of_one_composition_have_one_set_of_weights_and_the_report_says_so():
    for level in (0.02, 1.0, 30.0):
        counts = poisson_pixels((level * BASIS.coefficients).expand(4000, -1))
        classes = find_weight_classes(counts, torch.ones(4000).bool(), BASIS)
        assert len(classes.share) == 1
        assert classes.report.startswith("one set of weights: classes would reduce the noise by")
        torch.testing.assert_close(classes.coefficients[0], BASIS.coefficients)
    few = find_weight_classes(counts[:30], torch.ones(30).bool(), BASIS)
    assert few.report == "one set of weights: 30 pixels are too few for classes"


def test_classes_ignore_dead_and_broken_pixels_and_are_found_again_the_same():
    coefficients, _ = class_pixels(4000, 1.0)
    counts = poisson_pixels(coefficients)
    broken = torch.cat([counts, torch.full_like(counts[:50], torch.nan), 0.0 * counts[:50]])
    measured = torch.ones(len(broken)).bool()
    first, again = (find_weight_classes(broken, measured, BASIS) for _ in range(2))
    clean = find_weight_classes(counts, measured[:4000], BASIS)
    assert torch.equal(first.coefficients, again.coefficients)
    torch.testing.assert_close(first.coefficients, clean.coefficients)
