"""Pixels that drift out of the range of the dictionary are expanded again where they are."""

from dataclasses import replace

import pytest
import torch
from pixel_samples import BASIS, CHANNEL, CPU, MODEL, N_COMPONENTS, ONE_DETECTOR, TABLE, THETA, drifted_pixels, fit

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.pixels.full import full_model, full_solver
from hpcxrf.fitting.pixels.model import DetectorPart, PixelModel, columns_at
from hpcxrf.fitting.pixels.nonlinear import expansions, model_tangents
from hpcxrf.fitting.pixels.tangent import drift_sd
from hpcxrf.fitting.result import FitStatus
from hpcxrf.physics.constants import PHYSICS

ONE = torch.ones(N_COMPONENTS, dtype=torch.float64)
HERE = replace(BASIS, tangents=model_tangents(ONE_DETECTOR))
FOLLOWED = prepare_solver("nonlinear", HERE, ONE_DETECTOR)
ALONE = prepare_solver("nonlinear", HERE)
SD = torch.tensor(list(drift_sd(THETA).values()), dtype=torch.float64)


def nonlinear(counts, solver=FOLLOWED, **options):
    return fit(counts, "nonlinear", solver, **options)


def far_pixels(n, in_sd, level=20.0, seed=0):
    drift = (torch.tensor(in_sd, dtype=torch.float64) * SD).expand(n, -1)
    coefficients = (level * BASIS.coefficients).expand(n, -1)
    return drifted_pixels(coefficients, drift, seed), coefficients[:, :N_COMPONENTS], drift


@pytest.mark.parametrize("in_sd", [(2.9, 2.9, 0.0), (-2.9, -2.9, 2.5), (2.5, 2.9, -2.9)])
def test_no_pixel_within_three_deviations_of_the_prior_stays_beyond(in_sd):
    counts, truth, drift = far_pixels(100, in_sd)
    alone = nonlinear(counts, ALONE)
    assert float((alone.status == int(FitStatus.BEYOND_TANGENT)).double().mean()) > 0.9
    found = nonlinear(counts)
    assert bool((found.status == int(FitStatus.CONVERGED)).all())
    pull = (found.amplitude - truth) / found.sigma
    assert float(pull.square().mean().sqrt()) < 1.15
    # What lies at the third deviation of a prior is pulled by it.
    assert float(pull.mean(dim=0).abs().max()) < 0.5
    known = (found.theta_shift - drift) / found.theta_shift_sigma
    # The prior pulls a pixel at its third deviation towards 0, by less than the uncertainty.
    assert float(known.square().mean().sqrt()) < 2.0
    assert bool((found.theta_shift_sigma < SD).all())
    still = float(nonlinear(far_pixels(100, (0.0, 0.0, 0.0))[0]).deviance.mean())
    assert float(found.deviance.mean()) == pytest.approx(still, rel=0.03)
    assert float(alone.deviance.mean()) > float(found.deviance.mean())


def test_a_shift_has_the_spread_that_its_sigma_says():
    for in_sd in ((0.2, -0.1, 0.1), (2.0, 2.0, 0.0)):
        counts, _, drift = far_pixels(400, in_sd, level=5.0)
        found = nonlinear(counts)
        spread = (found.theta_shift.double() - drift).std(dim=0)
        sigma = found.theta_shift_sigma.double().mean(dim=0)
        assert bool((spread < 1.15 * sigma).all())
        # The prior shrinks: an estimate scatters less than what is not known.
        assert bool((spread > 0.4 * sigma).all())


def test_pixels_in_range_keep_their_bits_whatever_their_neighbours_do():
    near, _, _ = far_pixels(40, (0.3, 0.2, 0.0))
    far, _, _ = far_pixels(40, (2.9, 2.9, 0.0), seed=1)
    mixed = nonlinear(torch.cat([near, far]))
    for name in ("amplitude", "sigma", "theta_shift", "status"):
        assert torch.equal(getattr(mixed, name)[:40], getattr(nonlinear(near), name)), name
        assert torch.equal(getattr(mixed, name)[40:], getattr(nonlinear(far), name)), name


def test_what_is_no_drift_any_more_stays_flagged():
    counts, _, _ = far_pixels(20, (12.0, 0.0, 0.0))
    found = nonlinear(counts)
    assert bool((found.status == int(FitStatus.BEYOND_TANGENT)).all())


def test_without_deviance_or_errors_the_amplitudes_of_followed_pixels_are_the_same():
    counts, _, _ = far_pixels(20, (2.9, 2.9, 0.0))
    found, bare = nonlinear(counts), nonlinear(counts, deviance=False, errors=False)
    assert torch.equal(found.amplitude, bare.amplitude)
    assert bool(bare.deviance.isnan().all() & bare.sigma.isnan().all())
    assert bare.theta_shift_sigma is None


def test_columns_of_two_equal_detectors_are_those_of_one():
    half = DetectorPart(theta=THETA, table=TABLE, share=0.5 * ONE)
    both = PixelModel(parts=(half, half), channel=CHANNEL, constants=PHYSICS, elastic=True)
    torch.testing.assert_close(columns_at(both), BASIS.columns[:, :N_COMPONENTS])
    torch.testing.assert_close(model_tangents(both).columns, HERE.tangents.columns, atol=1e-9, rtol=1e-9)
    with pytest.raises(FitError, match="not of a sum"):
        prepare_solver("full", HERE, both)
    with pytest.raises(FitError, match="tangents"):
        expansions(both, BASIS, CPU)


def test_the_full_model_of_the_store_is_that_of_the_fit():
    counts, _, _ = far_pixels(8, (0.5, 0.5, 0.0))
    ours = fit(counts, "full", prepare_solver("full", HERE, ONE_DETECTOR))
    theirs = fit(counts, "full", full_solver(full_model(MODEL, THETA, BASIS), BASIS, CPU))
    torch.testing.assert_close(ours.amplitude, theirs.amplitude, rtol=1e-5, atol=1e-3)
    true = 0.5 * SD * torch.tensor([1.0, 1.0, 0.0])
    known = (ours.theta_shift.double() - true) / ours.theta_shift_sigma
    assert 0.2 < float(known.square().mean().sqrt()) < 1.6


@pytest.mark.parametrize("level", [0.003, 0.03, 0.3])
def test_faint_pixels_whose_counts_tell_no_theta_keep_that_of_the_scan(level):
    """A pixel of one count has no lines that could shift: what left the range is the map of `linear`, and says so."""
    counts = drifted_pixels((level * BASIS.coefficients).expand(400, -1), torch.zeros(400, 3, dtype=torch.float64), 5)
    found = nonlinear(counts)
    kept = found.status == int(FitStatus.THETA_KEPT)
    allowed = [int(s) for s in (FitStatus.CONVERGED, FitStatus.EMPTY, FitStatus.THETA_KEPT)]
    assert set(found.status.tolist()) <= set(allowed)
    if level < 0.01:
        assert bool(kept.any())
    linear = fit(counts)
    torch.testing.assert_close(found.amplitude[kept], linear.amplitude[kept], rtol=1e-3, atol=1e-3)
    assert bool((found.theta_shift[kept] == 0.0).all())
    torch.testing.assert_close(found.theta_shift_sigma[kept], SD.to(torch.float32).expand(int(kept.sum()), -1))
    assert bool(torch.isfinite(found.sigma[kept]).all() & torch.isfinite(found.deviance[kept]).all())


def test_pixels_far_from_the_mean_composition_find_their_end():
    """Steps whose curvature is that of the scan's theta go to and fro there: the misfit must fall with each."""
    generator = torch.Generator().manual_seed(7)
    mix = torch.exp(1.5 * torch.randn((200, BASIS.columns.shape[1]), generator=generator, dtype=torch.float64))
    drift = torch.randn((200, 3), generator=generator, dtype=torch.float64).clamp(-2.0, 2.0) * SD
    for level in (3.0, 300.0):
        counts = drifted_pixels(level * mix * BASIS.coefficients, drift, 3)
        found = nonlinear(counts)
        allowed = {int(FitStatus.CONVERGED), int(FitStatus.THETA_KEPT)}
        assert set(found.status.tolist()) <= allowed, level
