"""Pixels by classes with weights of their own: by the kernels, beside the tensor operations."""

from dataclasses import replace

import pytest
import torch
from pixel_samples import BASIS, SOLVERS, deviance_of_faint, fit, poisson_pixels

from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.fitting.result import FitStatus

KERNEL = SOLVERS["weight_classes"]
TENSORS = replace(KERNEL, compiled=None)
MAPS = ("amplitude", "sigma", "detection_limit", "deviance", "deviance_z", "status")


def pixels(level, n=400, seed=3):
    """Pixels of unlike composition."""
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=generator).double()
    share[torch.rand(share.shape, generator=generator) < 0.4] *= 0.02
    return poisson_pixels(level * share * BASIS.coefficients, seed)


@pytest.mark.parametrize("level", [0.05, 3.0, 200.0])
def test_the_kernels_give_what_the_tensors_give(level):
    counts = pixels(level)
    ours, theirs = (fit(counts, solver=solver) for solver in (KERNEL, TENSORS))
    assert torch.equal(ours.status, theirs.status)
    apart = ((ours.amplitude - theirs.amplitude).abs() / theirs.sigma).amax(dim=1)
    # Of a pixel whose likelihoods are as good as equal each may choose its own.
    same = apart < 1e-3
    assert int((~same).sum()) <= 1
    assert float(apart[same].max()) < 3e-4
    for name, allowed in (("sigma", 1e-3), ("detection_limit", 5e-3)):
        assert float((getattr(ours, name) / getattr(theirs, name) - 1.0)[same].abs().max()) < allowed
    allowed = 1e-4 * theirs.deviance + deviance_of_faint(counts)
    assert bool(((ours.deviance - theirs.deviance).abs() < allowed)[same].all())


def test_more_than_one_class_is_met():
    """Else nothing here would tell classes apart."""
    one = replace(KERNEL, compiled=replace(KERNEL.compiled, fits=KERNEL.compiled.fits[:1] * 4))
    counts = pixels(20.0)
    assert not torch.equal(fit(counts, solver=one).amplitude, fit(counts, solver=KERNEL).amplitude)


def test_the_type_of_the_counts_and_the_tile_change_no_bit():
    counts = pixels(0.5).clamp(max=200.0)
    whole = fit(counts, solver=KERNEL)
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.int64):
        for start, stop in ((0, 400), (41, 42), (41, 58)):
            found = fit(counts[start:stop].to(dtype), solver=KERNEL)
            for name in MAPS:
                assert torch.equal(getattr(found, name), getattr(whole, name)[start:stop]), (dtype, name)


def test_a_broken_pixel_is_flagged_and_changes_no_other():
    counts = pixels(3.0, 40)
    broken = counts.clone()
    broken[7, 3], broken[20, -1] = float("nan"), float("inf")
    every = torch.ones(40, dtype=torch.bool)
    ours, whole = (fit_pixels(one, every, KERNEL) for one in (broken, counts))
    others = torch.tensor([i for i in range(40) if i not in {7, 20}])
    assert ours.status[[7, 20]].tolist() == [FitStatus.NONFINITE] * 2
    for name in MAPS:
        assert torch.equal(getattr(ours, name)[others], getattr(whole, name)[others])


def test_no_pixels_have_maps_of_no_pixels():
    found = fit(torch.zeros((0, BASIS.columns.shape[0])), solver=KERNEL)
    assert found.amplitude.shape == (0, BASIS.n_components)
    assert found.deviance.shape == found.status.shape == (0,)
