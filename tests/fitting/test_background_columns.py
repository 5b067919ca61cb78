"""Columns of the pixels' background: as few as leave absent components without bias, judged by the pixels."""

from dataclasses import replace

import pytest
import torch
from fit_samples import drawn

from hpcxrf.fitting.pixels.background_columns import (
    CANDIDATES,
    LARGEST_BIAS,
    add_to_groups,
    choose_background,
    group_pixels,
    join_background,
)
from hpcxrf.fitting.pixels.basis import group_background, pixel_basis, pixel_operator

N_CHANNELS = 240
CHANNEL = torch.arange(N_CHANNELS, dtype=torch.float64)
# Ca strong in one kind of pixel, Fe in the other, V between them in none.
NAMES = ("Ca", "V", "Fe")
CENTRES = torch.tensor([70.0, 110.0, 170.0], dtype=torch.float64)
N_HATS = 12


def peaks():
    shape = torch.exp(-0.5 * ((CHANNEL[:, None] - CENTRES) / 4.0) ** 2)
    return shape / shape.sum(dim=0)


def hats():
    """(part, channel): hats of sum 1 over the whole range."""
    place = CHANNEL / (N_CHANNELS - 1) * (N_HATS - 1)
    shape = (1.0 - (place - torch.arange(N_HATS)[:, None]).abs()).clamp(min=0.0)
    return shape / shape.sum(dim=1, keepdim=True)


def backgrounds(*, alike):
    """(2, part) counts: of the pixels with Ca, and of those with Fe."""
    shelf = torch.full((N_HATS,), 2.0, dtype=torch.float64)
    second = shelf.clone()
    if not alike:
        # A shelf that ends at Ca, not where two columns meet.
        shelf[:4] = 12.0
        second[:7] = 6.0
    return torch.stack([shelf, second])


AMPLITUDES = torch.tensor([[300.0, 0.0, 2.0], [3.0, 0.0, 300.0]], dtype=torch.float64)


def spectra_of(*, alike):
    return AMPLITUDES @ peaks().T + backgrounds(alike=alike) @ hats()


def basis_of(*, alike):
    """Basis of as many pixels of either kind, with all hats."""
    parts = backgrounds(alike=alike).mean(dim=0)[:, None] * hats()
    return pixel_basis(peaks(), AMPLITUDES.mean(dim=0), parts, 1, names=NAMES, first_channel=0)


def chosen(n_pixels, *, alike, seed=0, brightness=1.0):
    basis = basis_of(alike=alike)
    basis = replace(basis, coefficients=brightness * basis.coefficients, expected=brightness * basis.expected)
    kind = torch.arange(n_pixels) % 2
    counts = drawn(brightness * spectra_of(alike=alike)[kind], seed)
    measured = torch.ones(n_pixels, dtype=torch.bool)
    some = slice(None, None, max(1, n_pixels // 1024) | 1)
    sums = group_pixels(counts[some], measured[some], basis)
    return choose_background(None if sums is None else add_to_groups(sums, counts, measured), basis)


def biases(n_columns, *, alike):
    """Counts (kind, component) by which the expected maps of either kind are wrong, without noise."""
    basis = join_background(basis_of(alike=alike), n_columns)
    found = spectra_of(alike=alike) @ pixel_operator(basis).projector.to(torch.float64)
    return found[:, : len(NAMES)] - AMPLITUDES


@pytest.mark.parametrize("n_columns", [1, 4, 5, 12])
def test_joined_columns_are_those_that_are_made_of_the_joined_parts(n_columns):
    parts = backgrounds(alike=False).mean(dim=0)[:, None] * hats()
    direct = pixel_basis(peaks(), AMPLITUDES.mean(dim=0), group_background(parts, n_columns), 1, names=NAMES)
    joined = join_background(basis_of(alike=False), n_columns)
    torch.testing.assert_close(joined.columns, direct.columns)
    torch.testing.assert_close(joined.coefficients, direct.coefficients)
    torch.testing.assert_close(joined.expected, direct.expected)


@pytest.mark.parametrize("seed", [1, 2])
def test_unlike_backgrounds_get_as_many_columns_as_leave_no_bias(seed):
    assert float(biases(4, alike=False)[:, 1].abs().max()) > 0.05
    found = chosen(20_000, alike=False, seed=seed)
    assert found.n_columns > 4
    assert float(biases(found.n_columns, alike=False)[:, 1].abs().max()) < 0.02
    assert "columns" in found.report


def test_like_backgrounds_are_joined_to_the_fewest_columns():
    found = chosen(40_000, alike=True, brightness=0.03)
    assert found.n_columns == CANDIDATES[0]
    assert float(biases(found.n_columns, alike=True).abs().max()) < 1e-3
    assert found.bias[0][2] <= LARGEST_BIAS


def test_too_few_pixels_to_judge_keep_all_columns():
    for n_pixels in (50, 2000):
        assert chosen(n_pixels, alike=True).n_columns == N_HATS
    assert "too few" in chosen(50, alike=True).report


def test_the_order_in_which_pixels_are_added_changes_no_bit():
    basis = basis_of(alike=False)
    counts = drawn(spectra_of(alike=False)[torch.arange(3000) % 2], 3)
    measured = torch.ones(3000, dtype=torch.bool)
    measured[5] = False
    first = group_pixels(counts[::3], measured[::3], basis)
    whole = add_to_groups(first, counts, measured)
    parts = first
    for some in (slice(2000, None), slice(700, 2000), slice(0, 700)):
        parts = add_to_groups(parts, counts[some], measured[some])
    for one, other in zip(whole.counts, parts.counts, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whole.n_pixels, parts.n_pixels)
    assert float(whole.n_pixels.sum()) == 2 * 2999
    assert choose_background(whole, basis) == choose_background(parts, basis)
