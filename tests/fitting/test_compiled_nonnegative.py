"""Non-negative least squares by the kernel, beside scipy's and the tensor operations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_samples import BASIS, SOLVERS, fit, poisson_pixels
from scipy.optimize import nnls

from hpcxrf.fitting.pixels.compiled_nonnegative import CompiledNonnegative, hold_at_zero
from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.fitting.pixels.nnls import tensor_solver
from hpcxrf.fitting.result import FitStatus

COMPILED = SOLVERS["nnls"]
TENSORS = replace(tensor_solver(COMPILED.operator), law=COMPILED.law)


def pixels(level, n=300):
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=torch.Generator().manual_seed(3)).double()
    return poisson_pixels(level * share * BASIS.coefficients)


@pytest.mark.parametrize(("n", "likeness"), [(5, 0.3), (21, 0.6), (40, 0.95)])
def test_the_solution_is_scipys_also_where_columns_are_alike(n, likeness):
    rng = np.random.default_rng(n)
    columns = rng.random((3 * n, n)) * (1.0 - likeness) + likeness * rng.random((3 * n, 1))
    columns /= np.linalg.norm(columns, axis=0)
    scale = rng.uniform(0.1, 10.0, n)
    shared = CompiledNonnegative(inverse=np.linalg.inv(columns.T @ columns), scale=scale)
    signed = torch.from_numpy(rng.normal(0.3, 1.0, (60, n)) * scale).float()
    found, solved = hold_at_zero(signed, shared)
    assert bool(solved.all())
    for given, x in zip(signed.double().numpy() / scale, found.double().numpy() / scale, strict=True):
        expected, _ = nnls(columns, columns @ given)
        np.testing.assert_allclose(x, expected, atol=1e-5 * np.abs(given).max())


@pytest.mark.parametrize("level", [0.01, 0.5, 5.0, 300.0])
@pytest.mark.parametrize("deviance", [True, False])
def test_the_kernel_gives_what_the_tensors_give(level, deviance):
    counts = pixels(level).to(torch.uint16)
    every = torch.ones(len(counts), dtype=torch.bool)
    ours, theirs = (fit_pixels(counts, every, solver, deviance=deviance) for solver in (COMPILED, TENSORS))
    assert torch.equal(ours.status, theirs.status)
    assert float(((ours.amplitude - theirs.amplitude) / theirs.sigma).abs().max()) < 1e-3
    assert float((ours.sigma / theirs.sigma - 1.0).abs().max()) < 2e-3
    assert bool((ours.amplitude >= 0.0).all())
    if deviance:
        # Of pixels of 30 000 counts single precision has no more digits, and processors round otherwise.
        assert float((ours.deviance - theirs.deviance).abs().max()) < 2e-4
        assert float((ours.deviance_z - theirs.deviance_z).abs().max()) < 0.02


def test_what_is_not_negative_is_left_as_it_is_and_no_tile_changes_a_bit():
    counts = pixels(300.0)
    signed, held = fit(counts, "linear").amplitude, fit(counts, "nnls").amplitude
    # Background columns, too.
    positive = (counts @ COMPILED.operator.projector > 1.0).all(dim=1)
    assert int(positive.sum()) > 50
    assert torch.equal(held[positive], signed[positive])
    few = pixels(0.5)
    whole, part = fit(few, "nnls"), fit(few[41:48], "nnls")
    for name in ("amplitude", "sigma", "detection_limit", "deviance", "deviance_z"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[41:48])


def test_pixels_that_are_empty_broken_or_not_measured_have_their_status():
    counts = pixels(1.0, 5)
    counts[1] = 0.0
    counts[2, 7] = float("nan")
    found = fit_pixels(counts, torch.arange(5) != 3, COMPILED)
    assert found.status.tolist() == [
        FitStatus.CONVERGED,
        FitStatus.EMPTY,
        FitStatus.NONFINITE,
        FitStatus.NOT_MEASURED,
        FitStatus.CONVERGED,
    ]
    assert found.amplitude[1].tolist() == [0.0] * BASIS.n_components
    assert bool(found.amplitude[2:4].isnan().all())
