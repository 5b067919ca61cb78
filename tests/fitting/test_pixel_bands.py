"""Columns left out where they say nothing: the same coefficients by fewer multiplications, or none left out."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.fitting.pixels.bands import LEFT_OUT, banded_projector, one_band, rounding
from hpcxrf.fitting.pixels.basis import pixel_basis, pixel_operator
from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.fitting.pixels.linear import projection_solver
from hpcxrf.fitting.pixels.pairs import Grouping

N = 900
CHANNEL = torch.arange(N, dtype=torch.float64)
CENTRES = torch.tensor([90.3, 160.6, 228.1, 350.0, 462.2, 510.0, 600.5, 690.0, 745.0])
MEAN = torch.tensor([300.0, 80.0, 150.0, 40.0, 20.0, 700.0, 5.0, 90.0, 400.0])
GROUPING = Grouping(n_channels=N, first=20, start=40, count=405, stop=871)


def basis(centres=CENTRES, background=True, width=6.0):
    phi = torch.exp(-0.5 * ((CHANNEL[:, None] - centres.double()) / width) ** 2)
    mean = MEAN[: len(centres)].double()
    continuum = 3e5 * torch.exp(-CHANNEL / 300.0)[None] if background else torch.zeros(0, N).double()
    return pixel_basis(phi / phi.sum(dim=0), 1000 * mean, continuum, 1000)


def drawn(basis, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(basis.expected.expand(n, -1), generator=generator).to(torch.uint16)


def every(n):
    return torch.ones(n, dtype=torch.bool)


def without_bands(operator):
    whole = one_band(operator.projector.double(), operator.grouping)
    return replace(operator, banded=whole)


def multiplications(operator):
    return sum((band.stop - band.start) * len(band.columns) for band in operator.banded.bands)


@pytest.mark.parametrize("background", [True, False])
def test_bands_change_no_amplitude_by_a_ten_thousandth_of_its_sigma(background):
    fit, counts = basis(background=background), drawn(basis(background=background), 2000)
    operator = pixel_operator(fit, first_channel=0)
    assert len(operator.banded.bands) > 2
    assert multiplications(operator) < 0.6 * multiplications(without_bands(operator))
    found = fit_pixels(counts, every(2000), projection_solver(operator))
    whole = fit_pixels(counts, every(2000), projection_solver(without_bands(operator)))
    exact = counts.double() @ operator.projector.double()[:, : fit.n_components]
    for amplitude in (found.amplitude, whole.amplitude):
        assert float(((amplitude - exact) / found.sigma).abs().max()) < 1e-4
    assert torch.equal(found.status, whole.status)


def test_bands_leave_no_gap_and_every_column_most_of_its_information():
    operator = pixel_operator(basis(), first_channel=0)
    bands = operator.banded.bands
    assert bands[0].start == 0
    assert bands[-1].stop == operator.grouping.n_sums
    assert all(left.stop == right.start for left, right in pairwise(bands))
    columns = basis().columns
    kept = (operator.banded.weights[:, :-1] * columns).sum(dim=0)
    share = kept / (operator.weighted * columns).sum(dim=0).clamp(min=1e-300)
    assert float(share.min()) > 1.0 - len(bands) * LEFT_OUT
    assert float(share.max()) <= 1.0 + 1e-12


@settings(max_examples=30)
@given(
    centres=st.lists(st.floats(60.0, 800.0), min_size=1, max_size=9, unique_by=lambda c: round(c / 12)),
    seed=st.integers(0, 5),
)
def test_bands_are_unbiased_wherever_the_peaks_are(centres, seed):
    fit = basis(torch.tensor(centres))
    weighted = GROUPING.by_channel(GROUPING.added(fit.columns) / GROUPING.added(fit.expected[:, None] + 0.1))
    used = torch.ones(weighted.shape[1], dtype=torch.bool)
    banded = banded_projector(fit.columns, weighted, used, GROUPING)
    amplitude = 1e4 * torch.rand(len(used), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    seen = (fit.columns @ amplitude) @ banded.weights @ banded.mixing
    assert seen[:-1].tolist() == pytest.approx(amplitude.tolist(), rel=1e-9, abs=1e-6)


def test_columns_that_are_nearly_mixtures_are_left_in_one_band():
    close = torch.tensor([150.3, 400.0, 400.5, 750.0])
    operator = pixel_operator(basis(close, width=25.0), first_channel=0)
    assert len(operator.banded.bands) == 1
    apart, expected = pixel_operator(basis(), first_channel=0), basis().expected
    assert float(rounding(apart.banded, expected)[: len(MEAN)].max()) < 3e-5


def test_a_column_without_counts_stays_at_nothing():
    fit = basis()
    empty = replace(fit, columns=fit.columns.clone())
    empty.columns[:, 3] = 0.0
    operator = pixel_operator(empty, first_channel=0)
    found = fit_pixels(drawn(fit, 50), every(50), projection_solver(operator))
    assert bool(found.amplitude[:, 3].isnan().all())
    assert bool(found.amplitude[:, [0, 1, 2, 4]].isfinite().all())


def test_a_pixel_is_the_same_to_the_bit_wherever_it_stands():
    operator, n = pixel_operator(basis(), first_channel=0), 2500
    counts = drawn(basis(), n)
    whole = fit_pixels(counts, every(n), projection_solver(operator)).amplitude
    for first, few in ((0, 1), (5, 3), (700, 15), (1000, 16), (3, 17), (1023, 130), (10, 1024), (1, 1025)):
        tile = fit_pixels(counts[first : first + few].clone(), every(few), projection_solver(operator))
        assert torch.equal(whole[first : first + few], tile.amplitude), (first, few)
