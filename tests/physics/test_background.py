"""SNIP and the hat functions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.errors import FitError
from hpcxrf.physics.background import (
    HAT_SPACING_FWHM,
    background_hats,
    fwhm_channels,
    hat_basis,
    hat_knots,
    hats_for_range,
    scatter_hats,
    snip,
    snip_background,
)
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values

PHYSICS = constant_set("physics")
THETA = pack(replace_values(PARAMETERS, {"fwhm_offset": 0.1, "fwhm_fanoprime": 1.2e-4}))
CHANNEL = torch.arange(1200, dtype=torch.float64)


def scalar_snip(counts, width):
    """The definition, one channel and one sweep at a time, in plain floats."""
    n = len(counts)
    smooth = []
    for k in range(n):
        near = [max(counts[j], 0.0) for j in range(max(k - 2, 0), min(k + 3, n))]
        smooth.append(sum(near) / len(near))
    b = [math.log(math.log(v + 1) + 1) for v in smooth]
    for sweep in range(24):
        old = list(b)
        for k in range(n):
            w = width[k] / math.sqrt(2.0) ** max(0, sweep - 15)
            w = min(max(round(w), 1), k, n - 1 - k)
            b[k] = min(old[k], 0.5 * (old[k - w] + old[k + w]))
    return [math.exp(math.exp(v) - 1) - 1 for v in b]


def spectrum(seed=0, n=300):
    rng = np.random.default_rng(seed)
    k = np.arange(n)
    mean = 60 * np.exp(-k / 150) + 5 + 900 * np.exp(-0.5 * ((k - 140) / 5.0) ** 2)
    return torch.from_numpy(rng.poisson(mean).astype(float))


def test_snip_equals_its_definition_evaluated_channel_by_channel():
    counts = spectrum()
    width = torch.linspace(9.3, 24.7, 300, dtype=torch.float64)
    expected = scalar_snip(counts.tolist(), width.tolist())
    np.testing.assert_allclose(snip(counts, half_width_channels=width), expected, rtol=1e-12)


def test_snip_of_a_batch_is_the_stack_of_its_members():
    batch = torch.stack([spectrum(seed) for seed in range(6)]).reshape(2, 3, 300)
    width = torch.full((300,), 15.0, dtype=torch.float64)
    together = snip(batch, half_width_channels=width)
    for i in range(2):
        for j in range(3):
            assert torch.equal(together[i, j], snip(batch[i, j], half_width_channels=width))


def test_snip_takes_one_theta_for_each_member_of_a_batch():
    counts = torch.stack([spectrum(1, 1200), spectrum(2, 1200)])
    thetas = torch.stack([THETA, pack(replace_values(PARAMETERS, {"fwhm_offset": 0.2}))])
    together = snip_background(counts, thetas, constants=PHYSICS)
    alone = [snip_background(counts[i], thetas[i], constants=PHYSICS) for i in range(2)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together[1], snip_background(counts[1], THETA, constants=PHYSICS))


@given(st.floats(0.0, 1e6), st.integers(5, 200))
@settings(max_examples=30, deadline=None)
def test_a_level_background_stays_level_up_to_both_ends(level, n):
    counts = torch.full((n,), level, dtype=torch.float64)
    background = snip(counts, half_width_channels=torch.tensor(12.0))
    torch.testing.assert_close(background, counts, rtol=1e-9, atol=1e-9)


@given(st.lists(st.floats(-10, 1e5), min_size=5, max_size=60), st.floats(0.1, 30.0))
@settings(max_examples=60, deadline=None)
def test_snip_is_never_negative_and_never_above_the_smoothed_counts(values, width):
    counts = torch.tensor(values, dtype=torch.float64)
    background = snip(counts, half_width_channels=torch.tensor(width))
    clipped = np.maximum(values, 0.0)
    smooth = [clipped[max(k - 2, 0) : k + 3].mean() for k in range(len(values))]
    assert torch.all(background >= 0.0)
    assert np.all(background.numpy() <= np.array(smooth) * (1 + 1e-9) + 1e-9)


def test_snip_removes_a_peak_and_keeps_the_continuum_below_it():
    sigma = fwhm_channels(THETA, CHANNEL, PHYSICS)[640] / 2.3548
    continuum = 200 * torch.exp(-CHANNEL / 500) + 20
    counts = continuum + 5000 * torch.exp(-0.5 * ((CHANNEL - 640) / sigma) ** 2)
    background = snip_background(counts, THETA, constants=PHYSICS)
    ratio = (background / continuum)[5:-5]
    assert 0.95 < float(ratio.min()) <= float(ratio.max()) < 1.10


def test_snip_follows_the_detector_width_and_not_the_energy_axis_offset():
    counts = spectrum(3, 1200)
    moved = pack(replace_values(PARAMETERS, {"fwhm_offset": 0.1, "fwhm_fanoprime": 0.0, "energy_offset": 0.3}))
    still = pack(replace_values(PARAMETERS, {"fwhm_offset": 0.1, "fwhm_fanoprime": 0.0}))
    wide = pack(replace_values(PARAMETERS, {"fwhm_offset": 0.2, "fwhm_fanoprime": 0.0}))
    background = [snip_background(counts, t, constants=PHYSICS) for t in (still, moved, wide)]
    assert torch.equal(background[0], background[1])
    assert background[2].sum() < background[0].sum()


def test_snip_gradients_in_the_counts_are_finite_even_at_zero_counts():
    counts = spectrum()
    counts[:100] = 0.0
    counts.requires_grad_()
    snip(counts, half_width_channels=torch.tensor(15.0)).sum().backward()
    assert counts.grad is not None
    assert torch.isfinite(counts.grad).all()
    assert counts.grad.abs().sum() > 0


def test_snip_gradients_equal_finite_differences_where_no_two_values_tie():
    counts = torch.from_numpy(np.random.default_rng(4).uniform(1, 100, 40)).requires_grad_()
    width = torch.tensor(4.0)
    assert torch.autograd.gradcheck(lambda c: snip(c, half_width_channels=width), (counts,), eps=1e-7, atol=1e-4)


def test_snip_refuses_a_spectrum_of_four_channels():
    with pytest.raises(FitError, match="4 channels"):
        snip(torch.ones(4), half_width_channels=torch.tensor(2.0))


def test_the_width_in_channels_is_a_hand_computed_number():
    # sigma^2 = (0.1/2.35482)^2 + 3.58 * 6 * 1.2e-4 keV^2 = 0.0018034 + 0.0025776; FWHM = 155.86 eV
    width = fwhm_channels(THETA, torch.tensor([600.0], dtype=torch.float64), PHYSICS)
    assert float(width) == pytest.approx(15.586, rel=1e-4)


def test_the_width_in_channels_uses_the_local_width_of_a_channel():
    values = {"energy_quadratic": 1e-6, "fwhm_fanoprime": 0.0, "fwhm_offset": 0.12}
    curved = pack(replace_values(PARAMETERS, values))
    width = fwhm_channels(curved, torch.tensor([0.0, 1000.0], dtype=torch.float64), PHYSICS)
    assert width.tolist() == pytest.approx([0.12 / 0.01, 0.12 / 0.012])


@given(st.integers(0, 900), st.integers(2, 1100), st.floats(1.0, 40.0))
@settings(max_examples=60, deadline=None)
def test_hats_are_a_non_negative_partition_of_unity(low, n, spacing):
    channel = torch.arange(low, low + n, dtype=torch.float64)
    hats = hats_for_range(THETA, channel, constants=PHYSICS, spacing_fwhm=spacing)
    assert hats.min() >= 0.0
    torch.testing.assert_close(hats.sum(dim=1), torch.ones(n, dtype=torch.float64))
    assert torch.all((hats > 0).sum(dim=1) <= 2)
    assert torch.all(hats.sum(dim=0) > 0)


def test_hats_interpolate_any_straight_line_between_knots_exactly():
    knots = torch.tensor([100.0, 150.5, 230.0, 400.0], dtype=torch.float64)
    channel = torch.arange(100, 401, dtype=torch.float64)
    at_knots = torch.tensor([3.0, -1.0, 7.0, 2.0], dtype=torch.float64)
    expected = np.interp(channel.numpy(), knots.numpy(), at_knots.numpy())
    np.testing.assert_allclose(hat_basis(channel, knots) @ at_knots, expected, rtol=0, atol=1e-12)


def test_knots_lie_at_equal_steps_of_the_width_and_end_at_the_range():
    knots = hat_knots(THETA, (100, 1100), constants=PHYSICS)
    assert knots[0] == 100.0
    assert knots[-1] == 1100.0
    middle = 0.5 * (knots[1:] + knots[:-1])
    in_fwhm = torch.diff(knots) / fwhm_channels(THETA, middle, PHYSICS)
    assert torch.all(torch.diff(torch.diff(knots)) > 0)
    assert float(in_fwhm.max() / in_fwhm.min()) < 1.01
    assert float(in_fwhm.mean()) == pytest.approx(HAT_SPACING_FWHM, rel=0.06)


def test_a_fit_range_of_one_channel_is_refused():
    with pytest.raises(FitError, match=r"5\.\.5"):
        hat_knots(THETA, (5, 5), constants=PHYSICS)


def hats_between_scatter_peaks(incident_kev):
    values = {"coherent_sct_energy": incident_kev, "energy_offset": 0.0, "energy_slope": 0.01}
    theta, channel = pack(replace_values(PARAMETERS, values)), torch.arange(50, 2400, dtype=torch.float64)
    return scatter_hats(theta, channel, constants=PHYSICS), 0.01 * channel


def test_narrow_hats_stand_between_elastic_and_compton_peak_where_these_are_apart():
    assert hats_between_scatter_peaks(12.0)[0].shape[1] == 0
    hats, energy = hats_between_scatter_peaks(21.0)
    assert 4 <= hats.shape[1] <= 12
    assert torch.all((hats >= 0.0) & (hats <= 1.0))
    lit = energy[hats.sum(dim=1) > 0.0]
    # Compton peaks of 110 degrees (19.87 keV) and less, and no hat under the elastic peak.
    assert float(lit.min()) > 19.5
    assert float(lit.max()) < 21.05
    assert float(hats[(energy - 21.0).abs() < 0.02].max()) < 0.1


def test_a_range_that_ends_below_the_scatter_has_no_narrow_hats():
    theta = pack(replace_values(PARAMETERS, {"coherent_sct_energy": 21.0, "energy_slope": 0.01}))
    channel = torch.arange(100, 1500, dtype=torch.float64)
    assert scatter_hats(theta, channel, constants=PHYSICS).shape[1] == 0
    whole = torch.arange(100, 2300, dtype=torch.float64)
    n_plain = hats_for_range(theta, whole, constants=PHYSICS).shape[1]
    assert background_hats(theta, whole, constants=PHYSICS, elastic=True).shape[1] > n_plain
    assert background_hats(theta, whole, constants=PHYSICS, elastic=False).shape[1] == n_plain
