"""Simulated standards of seven elements, three geometries that the calibration does not know: intervals hold the truth.

`tests/figures/quantify_coverage.py` prints the same for more of them.
"""

import numpy as np
import pytest
from fisx_oracle import load_elements
from quantify_samples import GEOMETRIES, STANDARDS, simulate


@pytest.fixture(scope="module", params=STANDARDS)
def rows(request):
    """(pull, deviation beside the certificate, origin) of 200 simulations."""
    load_elements()
    found = {"own point": [], "curve": []}
    for i in range(200):
        geometry = list(GEOMETRIES)[i % len(GEOMETRIES)]
        for _, origin, value, true, sigma, certificate in simulate(np.random.default_rng(i), request.param, geometry):
            row = ((value - true) / sigma, value / true / (1.0 + certificate) - 1.0)
            found["own point" if origin == "own point" else "curve"].append(row)
    return {origin: np.array(values) for origin, values in found.items()}


@pytest.mark.more
def test_intervals_of_own_points_are_68_percent_intervals(rows):
    assert 0.63 <= np.mean(abs(rows["own point"][:, 0]) <= 1.0) <= 0.73


@pytest.mark.more
def test_own_points_are_within_two_percent_beside_the_certificate(rows):
    off = rows["own point"][:, 1]
    assert np.sqrt(np.mean(off**2)) < 0.02
    assert abs(np.median(off)) < 0.002


@pytest.mark.more
def test_the_curve_covers_what_is_not_known_of_the_detector(rows):
    """Its errors hold for any of the geometries: they are wide for most elements, and too narrow for none."""
    pull = abs(rows["curve"][:, 0])
    assert np.mean(pull <= 1.0) >= 0.68
    assert np.mean(pull <= 2.0) >= 0.99
