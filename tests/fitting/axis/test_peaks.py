"""Peaks and widths in channels, against Gaussians whose area, place and width are known."""

import numpy as np
import pytest

from hpcxrf.fitting.axis.peaks import find_peaks

CHANNELS = np.arange(2048, dtype=float)


def gaussian(centre, area, width):
    return area / (width * np.sqrt(2.0 * np.pi)) * np.exp(-0.5 * ((CHANNELS - centre) / width) ** 2)


def width_at(channel):
    """A silicon detector at 10 eV a channel: g^2 = 20 + 0.04 c."""
    return np.sqrt(20.0 + 0.04 * channel)


PLACES = [174.0, 230.7, 331.2, 369.0, 451.3, 640.5, 748.0, 863.9, 1050.0, 1174.2, 1400.6]


def spectrum(total, seed=1, places=PLACES, background=1.0):
    expected = sum(gaussian(c, total / len(places), width_at(c)) for c in places)
    return np.random.default_rng(seed).poisson(expected + background).astype(float)


@pytest.mark.parametrize("total", [2e4, 1e6, 1e8])
def test_every_line_is_found_in_its_place_with_its_area(total):
    found = find_peaks(spectrum(total))
    near = np.abs(found.channel[:, None] - PLACES).min(axis=0)
    assert float(near.max()) < 1.0
    area = [found.area[np.argmin(np.abs(found.channel - c))] for c in PLACES]
    assert area == pytest.approx([total / len(PLACES)] * len(PLACES), rel=0.12)


@pytest.mark.parametrize("total", [2e4, 1e6, 1e8])
def test_the_law_of_the_width_is_that_of_the_lines(total):
    at = np.array([300.0, 640.0, 1200.0])
    assert find_peaks(spectrum(total)).width.at(at) == pytest.approx(width_at(at), rel=0.08)


def test_doublets_and_a_wide_hump_do_not_widen_the_law():
    counts = spectrum(1e6) + np.random.default_rng(2).poisson(
        gaussian(1270.0, 2e5, 32.0) + gaussian(540.0, 6e4, 6.4) + gaussian(556.0, 5e4, 6.5)
    )
    at = np.array([300.0, 640.0, 1200.0])
    assert find_peaks(counts).width.at(at) == pytest.approx(width_at(at), rel=0.1)


def test_noise_and_a_smooth_continuum_have_no_peak():
    smooth = 3000.0 * np.exp(-CHANNELS / 700.0) + 20.0
    assert find_peaks(np.random.default_rng(3).poisson(smooth).astype(float)).channel.size == 0
    assert find_peaks(np.zeros(512)).channel.size == 0


def test_a_peak_in_the_first_channels_is_found():
    counts = spectrum(1e6, places=[*PLACES, 12.0])
    assert float(np.abs(find_peaks(counts).channel - 12.0).min()) < 1.5
