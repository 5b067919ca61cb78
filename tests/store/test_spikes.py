"""Channels that no detector can have counted, by their neighbours alone."""

import numpy as np
import pytest

from hpcxrf.store.spikes import find_spikes, is_spike

N = 900


def spectra(rng, width, total, n_pixels):
    """Poisson pixels (1, 1, pixel, channel) of Gaussian peaks, integrated over channels by their error function."""
    from scipy.special import erf

    edges = np.arange(N + 1) - 0.5
    mean = np.full(N, 0.02)
    for centre, height in zip(rng.uniform(50, N - 50, 12), rng.lognormal(0, 1.5, 12), strict=True):
        mean += height * np.diff(erf((edges - centre) / (width * 2**0.5)))
    scale = total * rng.lognormal(0, 0.7, (n_pixels, 1)) / mean.sum()
    return rng.poisson(mean * scale)[None, None]


@pytest.mark.parametrize("seed", range(9000, 9012))
def test_no_peak_of_any_width_is_a_spike(seed):
    """Seeds that nothing was tuned on; with the scaled ones 6 million channels."""
    rng = np.random.default_rng(seed)
    for width in (0.8, 1.5, 4.0):
        counts = spectra(rng, width, 10 ** rng.uniform(1, 6.5), 100)
        assert not len(find_spikes(counts.astype("u4")))
        assert not len(find_spikes((2.5 * counts).astype("f4")))


@pytest.mark.parametrize("dtype", ["u2", "u4", "i4", "f4"])
@pytest.mark.parametrize(("width", "value"), [(1, 60), (1, 65534), (2, 5000), (4, 30000), (30, 30000), (N, 30000)])
def test_a_block_of_channels_with_steep_ends_is_found(dtype, width, value):
    counts = spectra(np.random.default_rng(2), 5.0, 300.0, 50).astype(dtype)
    first = 0 if width == N else 400
    counts[0, 0, 17, first : first + width] = value
    found = find_spikes(counts)
    assert len(found)
    assert {tuple(place) for place in found[:, :3].tolist()} == {(0, 0, 17)}
    assert ((found[:, 3] >= first) & (found[:, 3] < first + width)).all()


def test_random_numbers_are_found():
    rng = np.random.default_rng(5)
    counts = spectra(rng, 5.0, 300.0, 20).astype("u2")
    counts[0, 0, 3] = rng.integers(0, 65535, N)
    assert set(find_spikes(counts)[:, 2].tolist()) == {3}


def test_places_are_those_of_detector_row_and_column():
    counts = np.ones((3, 4, 5, 64), dtype="u2")
    counts[2, 1, 3, 20] = 900
    assert find_spikes(counts).tolist() == [[2, 1, 3, 20]]
    assert is_spike(counts[2, 1, 3].astype(float), 20)
    assert not is_spike(counts[2, 1, 2].astype(float), 20)


def test_spectra_of_few_channels_or_without_counts_have_none():
    assert not len(find_spikes(np.full((1, 1, 2, 2), 9000, dtype="u2")))
    assert not len(find_spikes(np.zeros((1, 1, 2, 64), dtype="f4")))
