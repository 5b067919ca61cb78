"""Draws in a results store: groups that xarray opens by themselves, named as ArviZ names them."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from hpcxrf.fitting.spectrum.posterior import Posterior
from hpcxrf.results.store.posterior import INFERENCE, build_posterior_groups, write_posterior


def draws(seed=0):
    rng = np.random.default_rng(seed)

    def of(*shape):
        return torch.from_numpy(rng.normal(size=shape))

    return Posterior(
        parameter_names=("energy_offset", "energy_slope"),
        component_names=("Ca", "Fe", "Pt_L"),
        theta=of(4, 10, 2),
        amplitude=of(4, 10, 3),
        log_density=of(4, 10),
        energy=of(4, 10),
        acceptance=of(4, 10).sigmoid(),
        diverging=of(4, 10) > 1.5,
        steps=torch.arange(10) + 3,
        step_size=0.4,
        r_hat=torch.ones(5).double(),
        effective_size=torch.full((5,), 30.0).double(),
    )


@pytest.mark.parametrize("group", ["posterior", "sample_stats", "convergence"])
def test_every_group_opens_with_xarray_as_it_was_written(tmp_path, group):
    found = draws()
    zarr.create_group(tmp_path / "s.zarr", zarr_format=3)
    write_posterior(tmp_path / "s.zarr", "0", draws(1))
    write_posterior(tmp_path / "s.zarr", "0", found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "s.zarr" / INFERENCE / "0", group=group, consolidated=False).load()
    expected = build_posterior_groups(found)[group]
    assert set(opened.data_vars) == set(expected.data_vars)
    for name in expected.variables:
        assert opened[name].dims == expected[name].dims
        # ArviZ takes `diverging` for a mask.
        assert expected[name].dtype.kind == "O" or opened[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(opened[name].values.astype(expected[name].dtype), expected[name].values)


def test_draws_have_the_dimensions_that_arviz_looks_for():
    groups = build_posterior_groups(draws())
    assert groups["posterior"]["theta"].dims == ("chain", "draw", "name")
    assert groups["posterior"]["amplitude"].dims == ("chain", "draw", "component")
    assert {"lp", "energy", "acceptance_rate", "diverging", "n_steps", "step_size"} == set(groups["sample_stats"])
    assert all(v.dims[:2] == ("chain", "draw") for v in groups["sample_stats"].data_vars.values())
    assert groups["convergence"]["amplitude_r_hat"].dims == ("component",)
