"""The pixels' model beyond fixed columns: through a results store, and for the sum of detectors."""

from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from fit_samples import TRUTH, drawn, expected_counts, setup, table
from pixel_samples import BASIS, CHANNEL, MODEL, NAMES, THETA, fit, poisson_pixels
from results_sample import make_store

from hpcxrf.fitting.pixels.methods import prepared
from hpcxrf.fitting.pixels.tangent import tangents_at
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.pipeline.pixels.model import tangents_of
from hpcxrf.results.store.basis import read_basis, write_basis

N_CHANNELS = 1200
FIRST = int(CHANNEL[0])
WITH_TANGENTS = replace(BASIS, tangents=tangents_at(THETA, MODEL))


def test_tangents_come_back_from_the_store_to_the_bit(tmp_path):
    path = tmp_path / "scan.zarr"
    make_store(path, shape_yx=(4, 5), complete=False)
    for _ in range(2):
        write_basis(path, {"0": (FIRST, WITH_TANGENTS), "1": (FIRST + 3, WITH_TANGENTS)}, N_CHANNELS)
    for name, first in (("0", FIRST), ("1", FIRST + 3)):
        found_first, found = read_basis(path, name)
        assert found_first == first
        assert found.tangents.names == WITH_TANGENTS.tangents.names
        assert found.tangents.pairs == WITH_TANGENTS.tangents.pairs
        for part in ("columns", "motion", "prior_sd"):
            assert torch.equal(getattr(found.tangents, part), getattr(WITH_TANGENTS.tangents, part))
    basis = xr.open_zarr(path, group="basis", consolidated=False)
    assert basis.changes.dims == ("detector", "change", "component", "channel")
    assert list(basis.parameter.values) == list(WITH_TANGENTS.tangents.names)
    counts = poisson_pixels((3.0 * BASIS.coefficients).expand(20, -1))
    device = torch.device("cpu")
    stored = prepared(read_basis(path, "0")[1], device, NAMES)
    here = prepared(WITH_TANGENTS, device, NAMES)
    by_store, by_memory = (fit(counts, "nonlinear", operator=o, data=None) for o in (stored, here))
    assert torch.equal(by_store.amplitude, by_memory.amplitude)
    assert torch.equal(by_store.theta_shift, by_memory.theta_shift)


def test_a_basis_without_tangents_has_none_in_the_store(tmp_path):
    path = tmp_path / "scan.zarr"
    make_store(path, shape_yx=(4, 5), complete=False)
    write_basis(path, {"0": (FIRST, BASIS)}, N_CHANNELS)
    assert read_basis(path, "0")[1].tangents is None
    assert "changes" not in xr.open_zarr(path, group="basis", consolidated=False)


def test_the_sum_of_two_equal_detectors_drifts_as_one_of_them():
    lines = table(("Ca", "Fe", "Zn"))
    counts = drawn(sum(expected_counts(1e6, lines=lines, truth=TRUTH)), 1)
    given = setup(lines)
    one = fit_spectrum(counts, given)
    fits = {"0": one, "1": one}
    alone, both = tangents_of("0", fits, [given] * 2), tangents_of("sum", fits, [given] * 2)
    assert alone.names == both.names
    np.testing.assert_allclose(both.columns, alone.columns, atol=1e-9)
    np.testing.assert_allclose(both.motion, alone.motion)
