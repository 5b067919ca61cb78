"""Bins of channels on which peaks are weighed: nothing is lost but what is narrower than a line."""

import pytest
import torch
from fit_samples import TRUTH, channels, drawn, setup, table, theta_of

from hpcxrf.fitting.spectrum.binning import bin_channels
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit
from hpcxrf.fitting.spectrum.projected import build_metric, project
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import model_spectrum

LISTED = ("Si", "Ca", "Fe", "Zn")


@pytest.fixture(scope="module")
def point():
    lines = table(LISTED)
    amplitude = torch.tensor([2e4, 8e4, 3e5, 9e4, 6e4, 1.6e5], dtype=torch.float64)
    peaks = model_spectrum(theta_of(**TRUTH), amplitude, lines, channels(0, 1499), constants=PHYSICS)
    asked = setup(lines)
    return evaluate_fit(fit_spectrum(drawn(peaks + 40.0, 4), asked), asked)


def test_bins_are_runs_of_channels_of_half_a_width_at_most(point):
    bins = bin_channels(point, 2.0)
    steps = bins.number.diff()
    assert int(bins.number[0]) == 0
    assert set(steps.tolist()) == {0, 1}
    assert int(bins.number[-1]) + 1 == len(bins.noise)
    sizes = torch.bincount(bins.number).double()
    sigma_channels = point.fwhm_kev / 2.3548 / point.drawn.bin_kev
    assert bool((sizes[bins.number] <= (0.5 * sigma_channels).ceil()).all())
    assert 2 * len(bins.noise) < len(bins.number)
    assert bins.within == len(bins.number) - len(bins.noise)


def test_counts_and_their_variance_add_up(point):
    bins = bin_channels(point, 2.0)
    counts = torch.stack([point.fit.counts, torch.ones_like(point.fit.counts)], dim=1)
    added = bins.add_up(counts)
    torch.testing.assert_close(added.sum(dim=0), counts.sum(dim=0))
    torch.testing.assert_close(added[:, 1], torch.bincount(bins.number).double())
    torch.testing.assert_close(bins.noise.square().sum(), (1.0 / point.weights).sum())
    torch.testing.assert_close(bins.whiten(counts) * bins.noise[:, None], added)


def test_wide_channels_are_their_own_bins(point):
    bins = bin_channels(point, 100.0)
    assert torch.equal(bins.number, torch.arange(len(point.weights)))
    torch.testing.assert_close(bins.noise, point.weights.rsqrt())


def test_a_line_keeps_its_evidence(point):
    """That of a Gaussian in constant noise loses (bin / sigma)^2 / 24: a hundredth for half a width."""
    column = point.drawn.phi[:, 2:3]

    def lost(per_sigma):
        bins = bin_channels(point, per_sigma)
        kept = bins.add_up(column)[:, 0] / torch.bincount(bins.number).sqrt()
        return 1.0 - float(kept.norm() / column.norm())

    assert 0.0 < lost(2.0) < 0.012
    assert lost(0.5) > 0.03


def test_the_scale_of_a_residual_counts_what_lies_within_the_bins():
    """As many channels of noise as one likes say nothing new: they have a chi2 of one each."""
    residual = torch.full((50,), 3.0, dtype=torch.float64)
    nothing = residual[:, None][:, :0]
    left = [project(nothing, residual[:, None], residual, build_metric(nothing), within=n) for n in (0, 50)]
    assert left[0].scale == pytest.approx(3.0)
    assert left[1].scale == pytest.approx(((50 * 9.0 + 50) / 100) ** 0.5)
