"""Most likely coefficients by the kernel: how far from the optimum, and what companions change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_samples import BASIS, SOLVERS, fit, poisson_pixels
from scipy.optimize import minimize

from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.result import FitStatus

KERNEL = SOLVERS["poisson"]
COLUMNS = KERNEL.operator.columns.to(torch.float64)


def pixels(counts_a_pixel, n, seed=3):
    """Pixels of unlike composition; some hold none of a component."""
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=generator).double()
    share[torch.rand(share.shape, generator=generator) < 0.4] *= 0.01
    level = counts_a_pixel / float(BASIS.expected.sum())
    return poisson_pixels(level * share * BASIS.coefficients, seed)


def coefficients_of(counts):
    signed = (counts.double() @ KERNEL.operator.projector.double()).float()
    return KERNEL.estimate(counts, signed, deviance=True, errors=True)


def find_excess(counts, x):
    """Deviance (pixel,) above that of a bounded quasi-Newton search in double precision that begins at x."""
    unit = COLUMNS.sum(dim=1).numpy()
    left = []
    for y, start in zip(counts.double().numpy(), x.double().numpy(), strict=True):
        # Every column has something, which a search along slopes needs to raise it.
        scale = y.sum() / unit / len(unit)

        def deviance(z, y=y, scale=scale):
            mu = np.maximum((z * scale) @ COLUMNS.numpy(), 1e-12)
            value = 2.0 * (mu.sum() - y.sum() + (y[y > 0] * np.log(y[y > 0] / mu[y > 0])).sum())
            return value, 2.0 * scale * (COLUMNS.numpy() @ (1.0 - y / mu))

        begin = np.maximum(start / scale, 1e-3)
        options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-13, "gtol": 1e-8, "maxcor": 20}
        best = minimize(deviance, begin, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(unit), options=options)
        left.append(deviance(start / scale)[0] - best.fun)
    return torch.tensor(left)


@pytest.mark.parametrize(("counts_a_pixel", "most"), [(12, 1e-3), (40, 1e-3), (85, 1e-3), (150, 0.1), (6000, 0.1)])
def test_every_pixel_ends_at_the_optimum(counts_a_pixel, most):
    """Below a hundred counts exact steps leave nothing; above them single precision leaves what it says."""
    counts = pixels(counts_a_pixel, 1200)
    counts = counts[(counts.sum(dim=1) > 0) & ((counts.sum(dim=1) < 100) == (counts_a_pixel < 100))]
    found = coefficients_of(counts)
    assert bool(found.solved.all())
    assert float(found.coefficients.min()) >= 0.0
    left = find_excess(counts, found.coefficients)
    assert float(left.max()) < most
    assert float(left.quantile(0.99)) < 0.5 * most


def test_a_pixel_has_the_same_bits_beside_any_others():
    counts = torch.cat([pixels(level, 30) for level in (6, 40, 90, 120, 3000)])
    counts = counts[torch.randperm(len(counts), generator=torch.Generator().manual_seed(0))]
    whole = fit(counts, "poisson")
    for start, stop in ((0, 1), (41, 43), (41, 58), (17, 150)):
        part = fit(counts[start:stop], "poisson")
        for name in ("amplitude", "sigma", "deviance"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[start:stop])


def test_empty_broken_and_hot_pixels_keep_to_themselves():
    counts = pixels(300, 40)
    bright = counts.clone()
    bright[3] = 0.0
    bright[11, 5] = float("nan")
    bright[20] *= 1e4
    every = torch.ones(40, dtype=torch.bool)
    ours, whole = (fit_pixels(one, every, KERNEL) for one in (bright, counts))
    others = torch.tensor([i for i in range(40) if i not in {3, 11, 20}])
    assert ours.status[[3, 11]].tolist() == [FitStatus.EMPTY, FitStatus.NONFINITE]
    assert int(ours.status[20]) == FitStatus.CONVERGED
    assert torch.equal(ours.amplitude[others], whole.amplitude[others])


def test_a_column_without_counts_has_none():
    columns = BASIS.columns.clone()
    columns[:, 2] = 0.0
    solver = prepare_solver("poisson", replace(BASIS, columns=columns))
    found = fit(pixels(300, 20), solver=solver)
    assert bool(found.amplitude[:, 2].isnan().all())
    assert bool(found.amplitude[:, [0, 1, 3]].isfinite().all())
