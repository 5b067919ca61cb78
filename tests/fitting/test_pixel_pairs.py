"""Channels that are left out or added by twos: the same fits, no bias, and no more loss than is stated."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hpcxrf.fitting.pixels.bands import one_band
from hpcxrf.fitting.pixels.basis import pixel_basis, pixel_operator
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.linear import LINEAR_BATCH
from hpcxrf.fitting.pixels.pairs import HIGHEST_COUNT, MOST_LOSS, Grouping, candidates, every_channel
from hpcxrf.fitting.pixels.product import paired_product

CHANNEL = torch.arange(400, dtype=torch.float64)
MEAN = torch.tensor([300.0, 80.0, 150.0], dtype=torch.float64)
CONTINUUM = torch.exp(-CHANNEL / 150.0)[None] * 2e3


def peaks(width):
    centres = torch.tensor([130.3, 190.6, 228.1], dtype=torch.float64)
    phi = torch.exp(-0.5 * ((CHANNEL[:, None] - centres) / width) ** 2)
    return phi / phi.sum(dim=0)


def basis(width=6.0):
    return pixel_basis(peaks(width), 1000 * MEAN, 100 * CONTINUUM, 1000)


def paired_solver():
    """The linear fit with channels added by twos, as of a spectrum that begins at channel 0."""
    return prepare_solver("linear", replace(basis(), first_channel=0))


def drawn(basis, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    expected = basis.expected.expand(n, -1)
    return torch.poisson(expected, generator=generator).to(torch.uint16)


def every(n):
    return torch.ones(n, dtype=torch.bool)


@given(
    counts=npst.arrays(np.uint16, (7, 23), elements=st.integers(0, HIGHEST_COUNT)),
    first=st.integers(0, 5),
    single=st.integers(0, 6),
    stop=st.integers(17, 23),
)
def test_the_product_is_that_of_the_weights_by_channel(counts, first, single, stop):
    start = first + single
    by = Grouping(n_channels=23, first=first, start=start, count=(stop - start) // 2, stop=stop)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(by.n_sums, 4, dtype=torch.float64, generator=generator)
    matrix = by.by_channel(weights)
    wide = torch.zeros((7, 40), dtype=torch.uint16)
    wide[:, 3:26] = torch.from_numpy(counts)
    found = paired_product(one_band(matrix, by), by).of(wide[:, 3:26])
    wanted = counts.astype(np.float64) @ matrix.numpy()
    allowed = 1e-6 * (counts.astype(np.float64) @ matrix.abs().numpy()) + 1e-9
    assert bool((np.abs(found.numpy()[:, :4] - wanted) <= allowed).all())
    assert found[:, 4].numpy() == pytest.approx(counts[:, first:stop].sum(axis=1), rel=2e-5)


def test_weights_of_sums_see_what_the_sums_hold():
    by = Grouping(n_channels=11, first=1, start=3, count=3, stop=10)
    values, weights = torch.rand(11, 1).double(), torch.rand(6, 1).double()
    assert float((by.added(values) * weights).sum()) == pytest.approx(float((values * by.by_channel(weights)).sum()))


def test_broad_peaks_are_added_by_twos_and_lose_less_than_is_stated():
    whole, paired = pixel_operator(basis()), pixel_operator(basis(), first_channel=7)
    assert paired.grouping.count > 150
    mean = basis().expected
    variance = [(op.projector.double()[:, :3] ** 2).T @ mean for op in (whole, paired)]
    grown = variance[1] / variance[0] - 1.0
    assert 0.0 < float(grown.max()) <= MOST_LOSS
    assert paired.loss == pytest.approx(float(grown.max()), abs=1e-5)
    assert whole.loss == 0.0


def test_peaks_as_narrow_as_channels_are_left_alone():
    narrow = pixel_operator(basis(width=0.7), first_channel=0)
    assert narrow.grouping.count < 110
    assert narrow.loss <= MOST_LOSS


def test_adding_channels_leaves_no_bias():
    operator = pixel_operator(basis(), first_channel=0)
    seen = operator.projector.double().T @ basis().columns
    assert torch.allclose(seen, torch.eye(4, dtype=torch.float64), atol=1e-5)


def test_what_is_given_as_highest_count_or_type_changes_nothing_that_counts():
    counts, solver = drawn(basis(), 3000), paired_solver()
    found = fit_pixels(counts, every(3000), solver)
    known = fit_pixels(counts, every(3000), solver, highest=float(counts.numpy().max()))
    assert torch.equal(found.amplitude, known.amplitude)
    for other in (counts.to(torch.float32), counts.to(torch.uint32)):
        again = fit_pixels(other, every(3000), solver)
        assert float(((again.amplitude - found.amplitude) / found.sigma).abs().max()) < 1e-4
        assert torch.equal(again.status, found.status)


def test_counts_too_high_to_be_added_are_not():
    counts, solver = drawn(basis(), 20), paired_solver()
    counts[3, 188:194] = 40_000
    found = fit_pixels(counts, every(20), solver)
    wanted = counts.to(torch.float64) @ solver.operator.projector.double()[:, :3]
    assert float((found.amplitude - wanted).abs().max()) < 0.05
    assert float(found.amplitude[3, 1]) > 1e5


def test_pixels_do_not_depend_on_tiles_threads_or_where_they_lie_in_memory():
    n = LINEAR_BATCH + 700
    counts, solver = drawn(basis(), n), paired_solver()
    whole = fit_pixels(counts, every(n), solver)
    assert torch.equal(whole.amplitude, fit_pixels(counts, every(n), solver, threads=3).amplitude)
    tile = fit_pixels(counts[LINEAR_BATCH:].clone(), every(700), solver)
    assert torch.equal(whole.amplitude[LINEAR_BATCH:], tile.amplitude)
    assert torch.equal(whole.sigma[LINEAR_BATCH:], tile.sigma)
    for few in (1, 3, 11):
        tile = fit_pixels(counts[5 : 5 + few], every(few), solver)
        assert torch.equal(whole.amplitude[5 : 5 + few], tile.amplitude)
    odd = torch.zeros((n, 403), dtype=torch.uint16)
    odd[:, 1:401] = counts
    assert torch.equal(whole.amplitude, fit_pixels(odd[:, 1:401], every(n), solver).amplitude)


def test_pairs_begin_at_even_channels_of_the_spectrum():
    share = torch.ones(50, 2) / 50
    for first in (0, 1, 4, 7):
        tried = candidates(share, first)
        assert all((first + g.start) % 2 == 0 for g in tried if g.count)
        assert tried[-1] == every_channel(50)


def test_ends_without_information_are_left_out():
    share = torch.zeros(50, 1)
    share[10:40] = 1 / 30
    best = candidates(share, 0)[0]
    assert (best.first, best.stop) == (10, 40)
    assert best.count == 15


@pytest.mark.parametrize("n", [1, 2, 1024, 1025, 2049])
@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("width", [403, 404, 407])
def test_every_batch_size_at_every_place_in_memory_gives_the_same_product(n, offset, width):
    by = Grouping(n_channels=400, first=2, start=5, count=190, stop=398)
    weights = torch.randn(by.n_sums, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = torch.randint(0, HIGHEST_COUNT, (n, 400), generator=torch.Generator().manual_seed(n)).to(torch.uint16)
    wide = torch.zeros((n, width), dtype=torch.uint16)
    wide[:, min(offset, width - 400) : min(offset, width - 400) + 400] = counts
    product = paired_product(one_band(by.by_channel(weights), by), by)
    found = product.of(wide[:, min(offset, width - 400) : min(offset, width - 400) + 400])
    assert torch.equal(found, product.of(counts.clone()))
    by_channel = by.by_channel(weights)
    wrong = (found[:, :3].double() - counts.double() @ by_channel).abs()
    assert bool((wrong <= 1e-6 * (counts.double() @ by_channel.abs())).all())
