"""The kernel of pixel method `full` against the tensors, an independent search, and finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import drawn
from pixel_samples import BASIS, CHANNEL, CPU, MODEL, N_COMPONENTS, THETA, drifted_pixels, fit, poisson_pixels
from scipy.optimize import minimize, nnls

from hpcxrf.fitting.pixels import full
from hpcxrf.fitting.pixels.basis import pixel_basis
from hpcxrf.fitting.pixels.compiled_full import STUCK
from hpcxrf.fitting.pixels.full import can_be_compiled, fit_full, full_model, full_solver
from hpcxrf.fitting.pixels.parts import move_to
from hpcxrf.fitting.pixels.tangent import drift_sd
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum import separable
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.model import SpectrumModel, design_matrix, evaluate
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.tube import Tube
from hpcxrf.physics.tube_table import build_tube_table, find_scatter_copies

# What no default prior frees, with tails, shelf, scatter and escape among it.
OTHERS = {
    "energy_offset": 0.01,
    "energy_quadratic": 1e-7,
    "fwhm_offset": 0.005,
    "coherent_sct_energy": 0.01,
    "compton_angle": 1.0,
    "compton_f_step": 0.01,
    "f_tail_offset": 0.01,
    "step_offset": 0.005,
    "gamma_offset": 0.3,
}
# That of lines alone, the axis being known.
WIDTH_ALONE = {"fwhm_offset": 0.005}


def varied(n, level=1.0, seed=0, basis=BASIS):
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(basis.coefficients), generator=generator, dtype=torch.float64)
    return level * share * basis.coefficients


def drifts(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sd = torch.tensor(list(drift_sd(THETA).values()), dtype=torch.float64)
    return sd * torch.randn(n, len(sd), generator=generator, dtype=torch.float64)


def behind_a_tube():
    """A model whose scattered lines are those of an anode, and a basis of it."""
    tube, detector = Tube(anode="Rh", kv=40.0), Detector()
    lines = build_tube_table(("Ca", "Fe", "Zn"), tube, detector=detector)
    copies = find_scatter_copies(tube, detector, lowest_kev=2.0, highest_kev=24.0)
    theta = THETA.clone()
    theta[INDEX["coherent_sct_energy"]] = 40.0
    channel = torch.arange(100, 1150, dtype=torch.float64)
    model = SpectrumModel(table=lines, channel=channel, constants=MODEL.constants, elastic=False, copies=copies)
    phi = evaluate(theta, model).phi
    mean = torch.linspace(50.0, 200.0, phi.shape[1], dtype=torch.float64)
    return (
        model,
        theta,
        pixel_basis(phi, mean, 40.0 * torch.ones(1, len(channel), dtype=torch.float64) / len(channel), 1),
    )


def by_tensors(counts, solver, model, monkeypatch):
    """The same fit, every step by the tensors."""
    with monkeypatch.context() as patch:
        patch.setattr(separable, "can_be_compiled", lambda *_: False)
        there = replace(solver, estimate=lambda counts, signed, **_: fit_full(counts, model))
        return fit(counts, "full", there)


def assert_same(here, there):
    """Theta to 1e-3 sigma, amplitudes to 1e-4 sigma, and what is said of them."""
    assert torch.equal(here.status, there.status)
    assert float(((here.amplitude - there.amplitude).abs() / there.sigma).max()) < 1e-4
    assert float(((here.theta_shift - there.theta_shift).abs() / there.theta_shift_sigma).max()) < 1e-3
    for name in ("sigma", "detection_limit", "theta_shift_sigma", "deviance"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=1e-4, atol=0.0)


# --- the tensors --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.03, 0.3, 3.0, 100.0])
def test_pixels_that_drift_are_those_of_the_tensors(level, monkeypatch):
    model = full_model(MODEL, THETA, BASIS)
    solver = full_solver(model, BASIS, CPU)
    counts = drifted_pixels(varied(24, level), drifts(24))
    assert_same(fit(counts, "full", solver), by_tensors(counts, solver, model, monkeypatch))


@pytest.mark.parametrize("prior", [OTHERS, WIDTH_ALONE])
def test_other_parameters_that_are_free_are_those_of_the_tensors(prior, monkeypatch):
    model = full_model(MODEL, THETA, BASIS, prior)
    solver = full_solver(model, BASIS, CPU)
    counts = poisson_pixels(varied(12, 30.0))
    here = fit(counts, "full", solver)
    assert here.theta_shift.shape == (12, len(prior))
    assert_same(here, by_tensors(counts, solver, model, monkeypatch))


def test_pixels_behind_a_tube_are_those_of_the_tensors(monkeypatch):
    lines, theta, basis = behind_a_tube()
    model = full_model(lines, theta, basis)
    solver = full_solver(model, basis, CPU)
    counts = drawn((varied(8, 10.0, basis=basis) @ basis.columns.T).clamp(min=0.0), 0).to(torch.float32)
    assert_same(fit(counts, "full", solver), by_tensors(counts, solver, model, monkeypatch))


def test_pixels_of_nothing_of_nonsense_and_of_no_measurement_are_those_of_the_tensors(monkeypatch):
    model = full_model(MODEL, THETA, BASIS)
    solver = full_solver(model, BASIS, CPU)
    counts = poisson_pixels(varied(6, 3.0))
    counts[1], counts[2, 7], counts[3, 9] = 0.0, torch.nan, torch.inf
    measured = torch.tensor([True, True, True, True, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(separable, "can_be_compiled", lambda *_: False)
        tensors = replace(solver, estimate=lambda counts, signed, **_: fit_full(counts, model))
        there = fit(counts, "full", tensors, measured=measured)
    here = fit(counts, "full", solver, measured=measured)
    wanted = [FitStatus.CONVERGED, FitStatus.EMPTY, FitStatus.NONFINITE, FitStatus.NONFINITE, FitStatus.NOT_MEASURED]
    assert here.status[:5].tolist() == [int(status) for status in wanted] == there.status[:5].tolist()
    for name in ("amplitude", "sigma", "detection_limit", "theta_shift", "theta_shift_sigma", "deviance"):
        ours, theirs = getattr(here, name), getattr(there, name)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_a_pixel_whose_pivoting_goes_in_a_circle_is_taken_from_the_tensors(monkeypatch):
    model = full_model(MODEL, THETA, BASIS)
    solver = full_solver(model, BASIS, CPU)
    counts = poisson_pixels(varied(5, 3.0))
    clean, kernel = fit(counts, "full", solver), full.fit_true_model

    def circling(counts, compiled):
        found = kernel(counts, compiled)
        found.status[2] = STUCK
        for values in (found.theta, found.coefficients, found.variance, found.theta_sigma, found.misfit):
            values[2] = np.nan
        return found

    monkeypatch.setattr(full, "fit_true_model", circling)
    assert_same(fit(counts, "full", solver), clean)


# --- independent oracles ------------------------------------------------------------------------


def columns_of(theta):
    """Columns (channel, column) float64 by the tensors, at theta (parameter,)."""
    phi = design_matrix(torch.as_tensor(theta), MODEL.table, CHANNEL, constants=MODEL.constants).numpy()
    return np.concatenate([phi, BASIS.columns[:, N_COMPONENTS:].numpy()], axis=1)


def weights_of(expected):
    return 1.0 / np.maximum(expected, max(0.05 * expected.mean(), 1e-3))


def search_by_simplex(y, names, sd):
    """Shift of theta, in prior standard deviations, and coefficients: Nelder and Mead, nnls inside, two passes."""

    def theta_at(d):
        theta = THETA.numpy().copy()
        for name, step, size in zip(names, d, sd, strict=True):
            theta[INDEX[name]] += step * size
        return theta

    def solve(d, weights):
        columns, root = columns_of(theta_at(d)), np.sqrt(weights)
        x, _ = nnls(columns * root[:, None], y * root)
        return x, columns @ x

    def misfit(d, weights):
        left = (weights * (y - solve(d, weights)[1]) ** 2).sum()
        return left * (1.0 + d @ d / len(y))

    d = np.zeros(len(names))
    weights = weights_of(solve(d, np.ones_like(y))[1])
    for _ in range(2):
        options = {"xatol": 1e-4, "fatol": 1e-7, "initial_simplex": np.vstack([d, d + 0.2 * np.eye(len(names))])}
        d = minimize(misfit, d, args=(weights,), method="Nelder-Mead", options=options).x
        last, weights = weights, weights_of(solve(d, weights)[1])
    return d, solve(d, last)[0]


def test_a_search_without_derivatives_ends_at_the_same_theta_and_amplitudes():
    names, sd = list(drift_sd(THETA)), np.array(list(drift_sd(THETA).values()))
    counts = drifted_pixels(varied(3, 30.0, seed=4), drifts(3, seed=4))
    found = fit(counts, "full")
    for i, y in enumerate(counts.double().numpy()):
        d, x = search_by_simplex(y, names, sd)
        # The search stops where a step promises less than 1e-6 of the misfit: 0.02 sigma.
        assert (np.abs(d * sd - found.theta_shift[i].numpy()) < 0.05 * found.theta_shift_sigma[i].numpy()).all()
        assert (np.abs(x[:N_COMPONENTS] - found.amplitude[i].numpy()) < 0.02 * found.sigma[i].numpy()).all()


def test_sigmas_and_limits_are_those_of_the_information_by_finite_differences():
    prior = drift_sd(THETA)
    model = full_model(MODEL, THETA, BASIS)
    counts = drifted_pixels(varied(4, 30.0, seed=6), drifts(4, seed=6))
    found = full.fit_true_model(counts, full.compile_model(model.model, model.space, model.background, full.PASSES))
    for i in range(len(counts)):
        theta, x = found.theta[i], found.coefficients[i]
        columns, rows = columns_of(theta), []
        for name, sd in prior.items():
            step = np.zeros_like(theta)
            step[INDEX[name]] = 1e-3 * sd
            rows.append((columns_of(theta + step) @ x - columns_of(theta - step) @ x) / 2e-3)
        every = np.concatenate([columns, np.stack(rows, axis=1)], axis=1)
        weights = weights_of(columns @ x)
        diagonal = np.r_[np.zeros(len(x)), np.ones(len(prior))]
        covariance = np.linalg.inv(every.T @ (weights[:, None] * every) + np.diag(diagonal))
        sigma = np.sqrt(np.diagonal(covariance))
        np.testing.assert_allclose(np.sqrt(found.variance[i]), sigma[:N_COMPONENTS], rtol=1e-5)
        np.testing.assert_allclose(found.theta_sigma[i], sigma[len(x) :] * list(prior.values()), rtol=1e-5)
        estimator = (weights[:, None] * every) @ covariance[:, :N_COMPONENTS]
        own = x[:N_COMPONENTS] * (columns[:, :N_COMPONENTS] * estimator**2).sum(axis=0)
        np.testing.assert_allclose(found.null_variance[i], sigma[:N_COMPONENTS] ** 2 - own, rtol=1e-5)


# --- which fits it makes ------------------------------------------------------------------------


def test_the_kernel_is_chosen_by_device_and_line_shape_alone():
    model = full_model(MODEL, THETA, BASIS)
    maps = full_model(replace(MODEL, constants=constant_set("maps-3.58")), THETA, BASIS)
    assert can_be_compiled(model)
    assert not can_be_compiled(move_to(torch.device("meta"), model))
    assert not can_be_compiled(maps)
    found = fit(poisson_pixels(varied(2, 30.0)), "full", full_solver(maps, BASIS, CPU))
    assert bool(found.amplitude.isfinite().all())


def test_threads_batches_and_neighbours_change_no_bit():
    counts = poisson_pixels(varied(30, 3.0))
    whole = fit(counts, "full")
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    for found, pixels in (
        (fit(counts, "full", batch=7, threads=3), slice(None)),
        (fit(counts[order], "full"), order),
        (fit(counts[3:4].to(torch.uint16), "full"), slice(3, 4)),
    ):
        for name in ("amplitude", "sigma", "detection_limit", "theta_shift", "theta_shift_sigma", "deviance", "status"):
            assert torch.equal(getattr(found, name), getattr(whole, name)[pixels])
