"""Steps of pixels with a theta each by the kernel, beside those of tensor operations and sums by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_samples import BASIS, CPU, N_COMPONENTS, ONE_DETECTOR, THETA, drifted_pixels, fit, poisson_pixels

from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.compiled import compile_expectation, find_deviance
from hpcxrf.fitting.pixels.compiled_tangent import compile_tangent
from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.pixels.nonlinear import model_tangents
from hpcxrf.fitting.pixels.parts import prepare_operator, project
from hpcxrf.fitting.pixels.tangent import drift_sd, find_misfit, fit_tangent, tangent_operator

HERE = replace(BASIS, tangents=model_tangents(ONE_DETECTOR))
TENSORS = tangent_operator(HERE, HERE.tangents, prepare_operator(HERE, CPU))
KERNEL = replace(TENSORS, compiled=compile_tangent(TENSORS))
SD = torch.tensor(list(drift_sd(THETA).values()), dtype=torch.float64)


def pixels(level, n=200, seed=3):
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=generator).double()
    drift = 0.7 * SD * torch.randn(n, len(SD), generator=generator).double()
    return drifted_pixels(level * share * BASIS.coefficients, drift, seed)


def steps(counts, tangent):
    return fit_tangent(counts, project(counts, tangent.shared.projector), tangent, errors=True)


@pytest.mark.parametrize("level", [0.3, 5.0, 300.0])
def test_the_kernel_takes_the_steps_of_the_tensors(level):
    counts = pixels(level)
    ours, theirs = steps(counts, KERNEL), steps(counts, TENSORS)
    assert torch.equal(ours.solved, theirs.solved)
    assert torch.equal(ours.in_range, theirs.in_range)
    done = theirs.solved
    sigma = theirs.variance.sqrt()
    apart = ((ours.coefficients - theirs.coefficients)[:, :N_COMPONENTS] / sigma)[done].abs()
    assert float(apart.max()) < 5e-4
    assert float(apart.median()) < 2e-5
    moved = ((ours.shift - theirs.shift) / theirs.shift_sigma)[done].abs()
    # Tensors take the same number of steps of all pixels: some slow ones have not quite ended.
    assert float(moved.max()) < 5e-3
    assert float(moved.median()) < 1e-4
    for name in ("variance", "null_variance", "shift_sigma"):
        assert float((getattr(ours, name) / getattr(theirs, name) - 1.0)[done].abs().max()) < 1e-2


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_a_pixel_has_the_same_bits_beside_any_others(n):
    counts = pixels(5.0, 60)
    whole, part = steps(counts, KERNEL), steps(counts[17 : 17 + n], KERNEL)
    for name in ("coefficients", "shift"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[17 : 17 + n])


def test_the_misfit_is_a_minimum_by_numbers():
    """No change of d or of a coefficient lowers the weighted sum of squares, with the prior, by the model itself."""
    counts = pixels(20.0, 12)
    found = steps(counts, KERNEL)
    weights = (1.0 / BASIS.expected.clamp(min=0.01 * float(BASIS.expected.mean()))).numpy()
    columns, changes = BASIS.columns.numpy(), HERE.tangents.columns.numpy()
    d = (found.shift.double() / HERE.tangents.prior_sd).numpy()

    def loss(p, a, d):
        w = [*d, *(d[i] * d[j] * (0.5 if i == j else 1.0) for i, j in HERE.tangents.pairs)]
        moved = columns[:, :N_COMPONENTS] + sum(factor * one for factor, one in zip(w, changes, strict=True))
        model = moved @ a[:N_COMPONENTS] + columns[:, N_COMPONENTS:] @ a[N_COMPONENTS:]
        level = counts[p].double().sum().item() / float(BASIS.expected.sum())
        return (weights * (counts[p].double().numpy() - model) ** 2).sum() + level * (d**2).sum()

    for p in range(len(counts)):
        a = found.coefficients[p].double().numpy()
        least = loss(p, a, d[p])
        for k in range(len(SD)):
            for step in (-0.05, 0.05):
                assert loss(p, a, d[p] + step * np.eye(len(SD))[k]) > least
        for k in range(N_COMPONENTS):
            for step in (-0.1, 0.1):
                assert loss(p, a + step * np.eye(len(a))[k] * float(found.variance[p, k]) ** 0.5, d[p]) > least


def test_the_deviance_of_known_coefficients_is_that_of_its_formula():
    counts = pixels(5.0, 40)
    found = steps(counts, KERNEL)
    model = (found.factors.double() @ TENSORS.all_columns.double()).clamp(min=1e-3)
    expected = poisson_deviance(counts.double(), model)
    ours, theirs = find_misfit(counts, found, KERNEL), find_misfit(counts, found, TENSORS)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=0.05)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0.02)
    for dtype in (torch.uint8, torch.uint16, torch.uint32):
        some = counts.clamp(max=255).to(dtype)
        torch.testing.assert_close(
            find_deviance(some, found.factors, compile_expectation(TENSORS.all_columns)),
            find_misfit(some.float(), found, KERNEL),
            rtol=0,
            atol=0,
        )


@pytest.mark.parametrize("deviance", [True, False])
def test_a_map_is_that_of_the_tensors(deviance):
    counts = pixels(20.0)
    solver = prepare_solver("nonlinear", HERE, ONE_DETECTOR)

    def by_tensors(counts, signed, *, deviance, errors):
        del deviance
        return fit_tangent(counts, signed, TENSORS, errors=errors)

    alone = prepare_solver("nonlinear", HERE)
    ours, theirs = (
        fit(counts, "nonlinear", one, deviance=deviance) for one in (solver, replace(alone, estimate=by_tensors))
    )
    assert torch.equal(ours.status, theirs.status)
    assert float(((ours.amplitude - theirs.amplitude) / theirs.sigma).abs().max()) < 5e-4
    if deviance:
        torch.testing.assert_close(ours.deviance, theirs.deviance, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.deviance_z, theirs.deviance_z, rtol=0, atol=1e-3)


def test_a_faint_pixel_that_takes_more_steps_has_the_same_bits_among_any_companions():
    """Some of 14 counts need more steps than others, which must not go on with them."""
    generator = torch.Generator().manual_seed(5)
    share = 2.0 * torch.rand(600, len(BASIS.coefficients), generator=generator).double()
    share[torch.rand(share.shape, generator=generator) < 0.3] *= 0.01
    counts = poisson_pixels(0.05 * share * BASIS.coefficients, 5)
    whole = fit(counts, "nonlinear")
    for _ in range(30):
        some = torch.randperm(600, generator=generator)[: int(torch.randint(1, 200, (1,), generator=generator))]
        found = fit(counts[some], "nonlinear")
        for name in ("amplitude", "sigma", "deviance", "theta_shift"):
            assert torch.equal(getattr(found, name).nan_to_num(), getattr(whole, name)[some].nan_to_num())
