"""The pixel methods through a whole run: from a file to maps that agree with each other, stores that can be opened."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import xarray as xr

from hpcxrf.fitting.result import FitStatus
from hpcxrf.results.store.basis import read_basis
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

pytestmark = [pytest.mark.slow, pytest.mark.more]

SHAPE = (2, 12, 16, 1536)
METHODS = ("linear", "nnls", "poisson", "nonlinear")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Results stores of the same scan by every method."""
    folder = tmp_path_factory.mktemp("scan")
    write_scan(simulate_scan(demo_spec(seed=3, shape=SHAPE, name="small")), folder)
    elements = ",".join(demo_spec(seed=3).listed_elements)
    found = {}
    for method in METHODS:
        run = folder / method
        command = [sys.executable, "-m", "hpcxrf", "run", str(folder / "small.h50"), "-o", str(run)]
        options = ["--elements", elements, "--detectors", "both", "--pixels", method, "--workers", "1"]
        subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        (found[method],) = (run / "results").glob("small-*.zarr")
    return found


def maps(stores, method):
    return xr.open_zarr(stores[method], group="maps", chunks=None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", METHODS[1:])
def test_strong_elements_agree_with_the_linear_maps(stores, method):
    linear, other = maps(stores, "linear"), maps(stores, method)
    assert list(other.detector.values) == ["sum", "0", "1"]
    solved = {int(FitStatus.CONVERGED), int(FitStatus.MAX_ITERATIONS), int(FitStatus.BEYOND_TANGENT)}
    assert set(np.unique(other.status)) <= solved
    for element in ("K", "Ca", "Fe"):
        apart = (other.amplitude - linear.amplitude).sel(component=element)
        apart = (apart / linear.sigma.sel(component=element)).values
        assert np.abs(np.median(apart)) < 0.5
        assert np.nanstd(apart) < 1.0
    assert bool(np.isfinite(other.sigma.sel(component="Fe")).all())


def test_every_group_opens_without_a_warning(stores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        basis = xr.open_zarr(stores["nonlinear"], group="basis")
    assert basis.changes.dims == ("detector", "change", "component", "channel")
    assert list(basis.parameter.values) == ["energy_offset", "energy_slope", "fwhm_offset"]
    assert basis.sizes["change"] == 6
    assert "changes" not in xr.open_zarr(stores["linear"], group="basis")


def test_the_columns_of_the_sum_change_as_those_of_its_detectors_do(stores):
    """Both detectors drift together: their changes add up like their columns, by component."""
    read = {name: read_basis(stores["nonlinear"], name) for name in ("0", "1", "sum")}
    first = max(read[name].first_channel for name in ("0", "1"))
    assert first == read["sum"].first_channel
    parts = [read[name] for name in ("0", "1")]
    n = read["sum"].columns.shape[0]
    offsets = [first - part.first_channel for part in parts]
    share = np.array([p.coefficients.numpy()[: p.n_components] for p in parts])
    share = share / share.sum(axis=0)
    expected = sum(s * p.tangents.columns[0, o : o + n].numpy() for s, p, o in zip(share, parts, offsets, strict=True))
    found = read["sum"].tangents.columns[0].numpy()
    strong = parts[0].coefficients.numpy()[: parts[0].n_components] > 1.0
    np.testing.assert_allclose(found[:, strong], expected[:, strong], atol=0.02 * np.abs(expected[:, strong]).max())
