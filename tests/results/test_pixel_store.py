"""The pixels' model beyond fixed columns: through a results store, and for the sum of detectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from fit_samples import TRUTH, drawn, expected_counts, setup, table
from pixel_samples import BASIS, CHANNEL, MODEL, THETA, fit, poisson_pixels, two_classes
from results_sample import COMPONENTS, make_store

from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.pixels.nonlinear import model_tangents
from hpcxrf.fitting.pixels.tangent import tangents_at
from hpcxrf.fitting.pixels.weight_classes import WeightClasses
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.pipeline.pixels.from_config import pixel_model_of
from hpcxrf.results.store.basis import read_basis, write_basis

N_CHANNELS = 1200
FIRST = int(CHANNEL[0])
HERE = replace(BASIS, first_channel=FIRST)
WITH_TANGENTS = replace(HERE, tangents=tangents_at(THETA, MODEL))


def test_tangents_come_back_from_the_store_to_the_bit(tmp_path):
    path = tmp_path / "scan.zarr"
    make_store(path, shape_yx=(4, 5), complete=False)
    for _ in range(2):
        write_basis(path, {"0": WITH_TANGENTS, "1": replace(WITH_TANGENTS, first_channel=FIRST + 3)}, N_CHANNELS)
    for name, first in (("0", FIRST), ("1", FIRST + 3)):
        found = read_basis(path, name)
        assert found.first_channel == first
        assert found.names == COMPONENTS
        assert found.tangents.names == WITH_TANGENTS.tangents.names
        assert found.tangents.pairs == WITH_TANGENTS.tangents.pairs
        for part in ("columns", "motion", "prior_sd"):
            assert torch.equal(getattr(found.tangents, part), getattr(WITH_TANGENTS.tangents, part))
    basis = xr.open_zarr(path, group="basis", consolidated=False)
    assert basis.changes.dims == ("detector", "change", "component", "channel")
    assert list(basis.parameter.values) == list(WITH_TANGENTS.tangents.names)
    counts = poisson_pixels((3.0 * BASIS.coefficients).expand(20, -1))
    stored, here = (prepare_solver("nonlinear", basis) for basis in (read_basis(path, "0"), WITH_TANGENTS))
    by_store, by_memory = (fit(counts, "nonlinear", solver) for solver in (stored, here))
    assert torch.equal(by_store.amplitude, by_memory.amplitude)
    assert torch.equal(by_store.theta_shift, by_memory.theta_shift)


def test_a_basis_without_tangents_has_none_in_the_store(tmp_path):
    path = tmp_path / "scan.zarr"
    make_store(path, shape_yx=(4, 5), complete=False)
    write_basis(path, {"0": HERE}, N_CHANNELS)
    assert read_basis(path, "0").tangents is None
    assert "changes" not in xr.open_zarr(path, group="basis", consolidated=False)


def test_the_sum_of_two_equal_detectors_drifts_as_one_of_them():
    lines = table(("Ca", "Fe", "Zn"))
    counts = drawn(sum(expected_counts(1e6, lines=lines, truth=TRUTH)), 1)
    given = setup(lines)
    one = fit_spectrum(counts, given)
    fits = {"0": one, "1": one}
    alone, both = (model_tangents(pixel_model_of(name, fits, [given] * 2)) for name in ("0", "sum"))
    assert alone.names == both.names
    np.testing.assert_allclose(both.columns, alone.columns, atol=1e-9)
    np.testing.assert_allclose(both.motion, alone.motion)


def test_a_basis_whose_first_channel_is_not_known_is_not_written(tmp_path):
    path = tmp_path / "scan.zarr"
    make_store(path, shape_yx=(4, 5), complete=False)
    with pytest.raises(ValueError, match="first channel"):
        write_basis(path, {"0": BASIS}, N_CHANNELS)


def test_weight_classes_come_back_from_the_store_to_the_bit_under_their_names_of_version_0_1_0(tmp_path):
    path = tmp_path / "scan.zarr"
    make_store(path, shape_yx=(4, 5), complete=False)
    share, gain = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.01, 0.2], dtype=torch.float64)
    classes = WeightClasses(coefficients=two_classes(), share=share, gain=gain, report="two of them")
    write_basis(path, {"0": HERE, "1": replace(HERE, weight_classes=classes)}, N_CHANNELS)
    assert read_basis(path, "0").weight_classes is None
    found = read_basis(path, "1").weight_classes
    for name in ("coefficients", "share", "gain"):
        assert torch.equal(getattr(found, name), getattr(classes, name))
    assert found.report == "two of them"
    basis = xr.open_zarr(path, group="basis", consolidated=False)
    assert basis.phase_coefficients.dims == ("detector", "phase", "column")
    assert {"phase_share", "phase_gain"} <= set(basis)
