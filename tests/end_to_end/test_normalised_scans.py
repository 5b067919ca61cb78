"""Measured scans of one film, normalised: exposures of 1.2 s and 0.5 s in one scan, gates of 1.0 s and 0.5 s in two."""

import numpy as np
import pytest
import xarray as xr
from run_samples import run_all

from hpcxrf.config.run import check_config
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.results.store.opening import open_results

pytestmark = pytest.mark.more

ELEMENTS = ("Ca", "Fe", "Cu")


@pytest.fixture(scope="module")
def stores(shared_data, tmp_path_factory):
    """Results of the step scan and of the fly scan; I0 of both is brought to that of the step scan."""
    folder = shared_data / "aps-2ide" / "mda"
    raw = {
        "input": {"files": [str(folder / f"{name}.mda") for name in ("2xfm_0010", "2xfm_0011")]},
        "fit": {"suggest": False},
        "pixels": {"detectors": "both"},
        "regions": {"find": []},
        "normalise": {"i0": "us_ic", "reference": str(folder / "2xfm_0010.mda")},
    }
    plan = make_plan(check_config(raw, "test"), tmp_path_factory.mktemp("normalised") / "run")
    assert not plan.refusals
    return {job.source.stem: run_all(job)[0] for job in plan.jobs}


def opened(stores, name, group="normalised"):
    return open_results(stores[name])[group].to_dataset().load()


def first_over_others(values) -> float:
    """Mean of the first column over that of all others, (y, x)."""
    return float(values[:, 0].mean() / values[:, 1:].mean())


@pytest.mark.parametrize("detector", ["0", "1", "2", "3", "sum", "combined"])
def test_the_first_column_of_the_fly_scan_is_within_two_percent_of_the_others(stores, detector):
    rate = opened(stores, "2xfm_0011").rate.sel(detector=detector).sum("component").values
    assert abs(first_over_others(rate) - 1.0) < 0.02


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("detector", ["sum", "combined"])
def test_so_is_every_element_within_its_error(stores, detector, element):
    one = opened(stores, "2xfm_0011").sel(detector=detector, component=element)
    error = np.sqrt((one.sigma[:, 0] ** 2).sum()) / one.sizes["y"] / one.rate[:, 1:].mean()
    assert abs(first_over_others(one.rate.values) - 1.0) < max(0.02, 2.0 * float(error))


def test_nothing_less_would_do_it(stores):
    """Counts per I0, and counts per live time and I0, both leave the first column apart."""
    maps = opened(stores, "2xfm_0011")
    counts = opened(stores, "2xfm_0011", "maps").amplitude.sel(detector="sum").sum("component").values
    live = maps.live_time_s.sel(detector="sum").values
    with xr.open_zarr(stores["2xfm_0011"].parents[1] / "spectra" / stores["2xfm_0011"].name, chunks=None) as spectra:
        us_ic = spectra.scaler.sel(name="2xfm:mcs:mca2.VAL").values
    assert first_over_others(live) == pytest.approx(2.43, abs=0.01)
    assert first_over_others(us_ic) == pytest.approx(2.55, abs=0.01)
    assert first_over_others(counts / us_ic) == pytest.approx(0.94, abs=0.01)
    assert first_over_others(counts / live / us_ic) == pytest.approx(0.39, abs=0.01)


@pytest.mark.parametrize("detector", ["sum", "combined"])
def test_pixels_of_the_even_film_scatter_as_their_sigma_says(stores, detector):
    for name in stores:
        for element in ELEMENTS:
            one = opened(stores, name).sel(detector=detector, component=element)
            assert 0.75 < float(one.rate.std() / one.sigma.mean()) < 1.3, (name, element)


@pytest.mark.parametrize("element", ELEMENTS)
def test_step_and_fly_scan_of_one_film_have_the_same_rates(stores, element):
    """The gate of the step scan is twice its real time, and scalers and clocks of the two have other PVs."""
    step, fly = (
        opened(stores, name).sel(detector="sum", component=element).rate.mean().item()
        for name in ("2xfm_0010", "2xfm_0011")
    )
    assert step / fly == pytest.approx(1.0, abs=0.06)


def test_the_reference_is_that_of_the_step_scan_in_both(stores):
    for name in stores:
        about = opened(stores, name).attrs
        assert about["reference"] == pytest.approx(175521.6, abs=1.0)
        assert about["reference_origin"] == "mean of 2xfm:scaler3_cts1.B over 121 pixels of 2xfm_0010.mda"
        assert about["reference_amplifier_a_per_v"] == pytest.approx(50e-9)
