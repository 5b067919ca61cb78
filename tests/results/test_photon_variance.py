"""The variance that a recorded count adds: kept beside the limits, so that these give back the decision limit."""

import numpy as np
import pytest
import xarray as xr

import hpcxrf
from hpcxrf.results.photon_variance import read_photon_variance

hpcxrf.register_accessor()


def maps_of(amplitude, limit, attributes):
    dims = ("detector", "component", "y", "x") if np.ndim(amplitude) == 4 else ("component", "y", "x")
    names = {"component": ["Fe", "Zn"]} | ({"detector": ["0", "sum"]} if len(dims) == 4 else {})
    arrays = {"amplitude": (dims, amplitude), "detection_limit": (dims, limit)}
    return xr.Dataset(arrays, coords=names, attrs=attributes)


def test_found_is_what_exceeds_the_decision_limit_of_its_component():
    """sigma_0 = 2: L_D = 2.71 f + 6.58, L_C = 3.29 + .35 f: 3.64 counts for f = 1, 3.99 for f = 2."""
    photon = {"0": {"Fe": 1.0, "Zn": 2.0}}
    limit = np.array([9.29, 12.0])[:, None, None] + np.zeros((2, 1, 3))
    maps = maps_of(np.array([3.6, 3.7, np.nan]) + np.zeros((2, 1, 3)), limit, {"photon_variance": photon})
    assert maps.xrf.found("Fe").values.tolist() == [[False, True, False]]
    assert maps.xrf.found("Zn").values.tolist() == [[False, False, False]]
    more = maps.assign(amplitude=maps["amplitude"] + 0.3)
    assert more.xrf.found("Zn").values.tolist() == [[False, True, False]]


def test_every_detector_has_its_own():
    photon = {"0": {"Fe": 1.0, "Zn": 1.0}, "sum": {"Fe": 2.0, "Zn": 1.0}}
    amplitude = np.full((2, 2, 1, 1), 3.8)
    limit = np.array([9.29, 12.0])[:, None, None, None] + np.zeros((2, 2, 1, 1))
    found = maps_of(amplitude, limit, {"photon_variance": photon}).xrf.found("Fe")
    assert found.dims == ("detector", "y", "x")
    assert found.values.ravel().tolist() == [True, False]


def test_stores_without_it_have_the_variance_over_mean_of_their_counts():
    maps = maps_of(np.zeros((2, 1, 1)), np.zeros((2, 1, 1)), {})
    np.testing.assert_array_equal(read_photon_variance(maps, "0", 2.5), [2.5, 2.5])


def test_a_fitted_map_keeps_what_its_limits_were_made_with():
    """At 30 counts a pixel sigma_0 is small, and f of Mn beside Fe larger than 1: found by the limits' own f alone."""
    rng = np.random.default_rng(5)
    fit = hpcxrf.fit_spectrum(*_spectrum(rng))
    maps = hpcxrf.fit_map(rng.poisson(np.tile(_spectrum(None)[0] / 2e4, (500, 1))), fit)
    photon = maps.attrs["photon_variance"]["0"]
    assert photon["Mn"] > 1.1
    share = float(maps.xrf.found("Mn").mean())
    limit, amplitude = (
        maps[name].sel(component="Mn").values.astype(float) for name in ("detection_limit", "amplitude")
    )
    sigma = (limit - 2.71 * photon["Mn"]) / 3.29
    assert share == pytest.approx((amplitude > 1.645 * sigma + 0.35 * photon["Mn"]).mean(), abs=1e-12)
    assert 0.005 < share < 0.12


def _spectrum(rng):
    energy = np.arange(900) * 0.01

    def peak(at, counts):
        return counts * 0.01 / (0.06 * 2.5066) * np.exp(-0.5 * ((energy - at) / 0.06) ** 2)

    mean = peak(6.404, 4e5) + peak(7.058, 6e4) + peak(3.691, 1e5) + peak(4.013, 1.5e4) + peak(8.6, 6e4) + 20.0
    options = (["Ca", "Mn", "Fe"], 8.6)
    return (mean if rng is None else rng.poisson(mean), *options)
