"""Spectra that a tube excites, fitted from nothing: axis, amplitudes, and what is refused."""

from functools import cache

import numpy as np
import pytest
import torch
import zarr
from tube_samples import draw_tube

import hpcxrf
from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError
from hpcxrf.fitting.pixels.model import columns_at
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.physics.model import COMPTON, ELASTIC
from hpcxrf.pipeline.pixels.from_config import pixel_model_of
from hpcxrf.results.store.maps import create_results, write_spectrum_fits
from hpcxrf.results.store.pixel_model import read_pixel_model, write_pixel_models


@cache
def fitted(anode, **drawn):
    sample = draw_tube(11, anode, total=1e6, **drawn)
    return sample, hpcxrf.fit_spectrum(sample.counts, sample.names, tube=hpcxrf.Tube(anode=anode, kv=sample.kv))


@pytest.mark.parametrize("anode", ["Rh", "W"])
def test_axis_and_amplitudes_are_found_from_anode_and_high_voltage(anode):
    sample, fit = fitted(anode)
    for energy in (3.0, 20.0):
        channel = (energy - sample.offset_kev) / sample.slope_kev
        assert float(fit.theta[0] + fit.theta[1] * channel) == pytest.approx(energy, abs=0.05)
    assert fit.verdict is Verdict.GOOD
    assert fit.r2 > fit.r2_expected - 1e-4
    for name, true in sample.truth.items():
        i = fit.component_names.index(name)
        error = abs(float(fit.amplitude[i]) - true)
        assert error < max(0.06 * true, 3.0 * float(fit.amplitude_sigma[i])), name


def test_the_anodes_lines_stand_beside_compton_and_its_second_series_apart():
    _, fit = fitted("Rh")
    assert fit.component_names[-3:] == (ELASTIC, "ANODE_L_SCT", COMPTON)
    assert float(fit.amplitude[-3]) > 5.0 * float(fit.amplitude_sigma[-3])


def test_the_scattered_l_lines_of_the_anode_are_left_to_its_own_family_where_that_is_listed():
    sample = draw_tube(11, "Rh", total=1e6)
    fit = hpcxrf.fit_spectrum(sample.counts, (*sample.names, "Rh_L"), tube=hpcxrf.Tube(anode="Rh", kv=sample.kv))
    assert fit.component_names[-3:] == ("Rh_L", ELASTIC, COMPTON)


def test_an_axis_far_from_the_usual_one_is_found():
    sample, fit = fitted("Rh", offset_kev=-0.955, slope_kev=0.0201)
    assert float(fit.theta[0]) == pytest.approx(sample.offset_kev, abs=0.02)
    assert float(fit.theta[1]) == pytest.approx(sample.slope_kev, rel=1e-3)


def test_the_pixel_model_of_a_tube_is_stored_and_read_bit_for_bit(tmp_path):
    _, fit = fitted("W")
    model = pixel_model_of("0", {"0": fit}, [fit.problem])
    path = tmp_path / "store.zarr"
    create_results(
        path,
        detectors=("0",),
        components=fit.component_names,
        shape_yx=(2, 2),
        n_channels=2048,
        attributes={"dataset_id": "store", "versions": {"hpcxrf": "0"}},
    )
    write_pixel_models(path, {"0": model})
    again = read_pixel_model(path, "0", fit.problem.constants)
    assert torch.equal(columns_at(again), columns_at(model))
    np.testing.assert_allclose(columns_at(model) @ fit.amplitude + fit.background, fit.model, rtol=1e-9)


def test_energy_and_tube_exclude_each_other_and_one_is_needed():
    counts = np.ones(2048)
    with pytest.raises(ConfigError, match="beside tube"):
        hpcxrf.fit_spectrum(counts, ["Fe"], 20.0, tube=hpcxrf.Tube(anode="Rh", kv=40.0))
    with pytest.raises(ConfigError, match="incident_energy_kev is missing"):
        hpcxrf.fit_spectrum(counts, ["Fe"])


@pytest.mark.parametrize(
    ("sample", "fault"),
    [
        ({"anode": "Rh", "tube_kv": 50.0}, "describe a tube; give sample.source: tube"),
        ({"source": "tube", "anode": "Rh"}, "needs both sample.anode and sample.tube_kv"),
        ({"source": "tube", "anode": "Rh", "tube_kv": 50.0, "incident_energy_kev": 20.0}, "leave it out"),
    ],
)
def test_a_run_file_that_half_describes_a_tube_is_refused(sample, fault):
    with pytest.raises(ConfigError, match=fault):
        check_config({"input": {"files": ["x"]}, "sample": {"elements": ["Fe"], **sample}}, "test")


def test_line_ratios_are_kept_in_the_store_as_the_fit_has_them(tmp_path):
    _, fit = fitted("W")
    path = tmp_path / "store.zarr"
    create_results(
        path,
        detectors=("0", "1"),
        components=fit.component_names,
        shape_yx=(2, 2),
        n_channels=2048,
        attributes={"dataset_id": "store", "versions": {"hpcxrf": "0"}},
    )
    write_spectrum_fits(path, {"0": fit}, 2048)
    write_spectrum_fits(path, {"1": fit}, 2048)
    stored = zarr.open_group(path / "spectrum", mode="r", use_consolidated=False).attrs["line_ratios"]
    assert stored == {"0": fit.ratios.describe(), "1": fit.ratios.describe()}
    one = stored["0"]["parameters"]["W anode L2"]
    assert one["value"] == float(fit.ratios.value[fit.ratios.names.index("W anode L2")])
    assert one["sigma"] > 0.0
    assert stored["0"]["sample_depth"] == fit.ratios.sample_depth
