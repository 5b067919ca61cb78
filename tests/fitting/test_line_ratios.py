"""Line ratios that are fitted: thick samples, unknown air and K-beta ratios that are off."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, channels, drawn, setup, theta_of
from thick_samples import draw_sample

import hpcxrf
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.physics.constants import PHYSICS, constant_set
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import PARAMETERS, replace_values

NAMES = ("Si", "Ca", "Fe", "Sn_L", "Au_M", "Ca_Ca")
AMPLITUDE = torch.tensor([2e5, 1e5, 2e5, 3e5, 9e5, 1e3, 6e4, 1.6e5], dtype=torch.float64)
TOOL_STEEL = {"names": ("V", "Cr", "Fe", "Ni", "W_L"), "shares": (0.01, 0.05, 0.75, 0.02, 0.17), "total": 2e6}
COATED = {"names": ("K", "Ca", "Ti", "Mn", "Fe", "Zn"), "shares": (0.1, 0.2, 0.05, 0.5, 0.05, 0.1), "total": 1e6}


def table(air_mm=10.0):
    return build_line_table(NAMES, 10.0, efficiency=Detector(air_path_mm=air_mm))


def fit_drawn(sample, **options):
    return hpcxrf.fit_spectrum(
        sample.counts,
        sample.names,
        sample.energy_kev,
        energy_offset_kev=round(sample.offset_kev, 2),
        energy_slope_kev=round(sample.slope_kev, 4),
        **options,
    )


@cache
def fit_steel(depth):
    sample = draw_sample(7, depth=depth, **TOOL_STEEL)
    return sample, fit_drawn(sample)


@cache
def fit_behind(air_mm):
    peaks = model_spectrum(theta_of(**TRUTH), AMPLITUDE, table(air_mm), channels(0, 1499), constants=PHYSICS)
    return fit_spectrum(drawn(peaks + 20.0, 1), setup(table()))


def absorption_notes(fit):
    return [message for message in fit.messages if "absorbs its own lines" in message]


def test_a_thick_sample_is_fitted_to_the_noise_and_said_to_absorb_its_own_lines():
    sample, fit = fit_steel(6.0)
    assert fit.r2 > fit.r2_expected - 5e-5
    assert fit.ratios.depth_gain > 20.0
    assert fit.ratios.sample_depth > 0.5
    assert len(absorption_notes(fit)) == 1
    truth = np.array(list(sample.truth.values()))
    z = (fit.amplitude[: truth.size].numpy() - truth) / fit.amplitude_sigma[: truth.size].numpy()
    assert np.abs(z).max() < 4.0


def test_a_thin_sample_is_not_said_to_absorb():
    _, fit = fit_steel(0.0)
    assert fit.ratios.depth_gain < 20.0
    assert absorption_notes(fit) == []


@pytest.mark.parametrize("air_mm", [35.0, 0.0])
def test_another_air_path_is_found_and_the_amplitudes_are_right(air_mm):
    fit = fit_behind(air_mm)
    assert fit.r2 > 0.9995
    strong = [NAMES.index(n) for n in ("Si", "Ca", "Fe", "Sn_L", "Au_M")]
    torch.testing.assert_close(fit.amplitude[strong], AMPLITUDE[strong], rtol=0.02, atol=0)


def test_more_air_than_described_is_said_with_its_length():
    (said,) = [m for m in fit_behind(45.0).messages if "mm of air" in m]
    assert "extra absorption" in said
    assert float(said.split(" mm")[0].split()[-1]) == pytest.approx(35.0, abs=8.0)


def test_where_the_description_is_right_hardly_anything_is_adjusted():
    fit = fit_behind(10.0)
    assert not [m for m in fit.messages if "mm of air" in m or "absorbs" in m or "K-beta" in m]
    torch.testing.assert_close(fit.table.ratio, table().ratio, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_an_element_beside_a_kbeta_line_that_is_off_keeps_its_counts(factor):
    """Iron beside ten times as much manganese, the K-beta lines of all families 20 % off."""
    sample = draw_sample(7, depth=0.0, kbeta=lambda _: factor, **COATED)
    fit = fit_drawn(sample)
    iron = fit.component_names.index("Fe")
    assert float(fit.amplitude[iron]) == pytest.approx(sample.truth["Fe"], rel=0.05)


def test_the_ratios_are_in_the_uncertainty_of_what_lies_under_a_kbeta_line():
    sample = draw_sample(7, depth=0.0, **COATED)
    narrow, wide = (fit_drawn(sample, kbeta_sd=sd) for sd in (1e-3, 0.2))
    iron = narrow.component_names.index("Fe")
    noise = [float(fit.errors.variances.amplitude[iron].sqrt()) for fit in (narrow, wide)]
    assert noise[1] > 1.05 * noise[0]


@pytest.mark.parametrize(
    "options", [{"constants": constant_set("maps-3.58")}, {"method": "adam", "objective": "mse"}], ids=["maps", "adam"]
)
def test_parity_and_the_published_methods_keep_the_ratios_of_the_table(options):
    peaks = model_spectrum(theta_of(**TRUTH), AMPLITUDE, table(), channels(0, 1499), constants=PHYSICS)
    fit = fit_spectrum(drawn(peaks + 20.0, 1), setup(table(), **options))
    assert fit.ratios is None
    assert torch.equal(fit.table.ratio, table().ratio)


def test_a_steel_is_fitted_to_the_noise_without_being_told(shared_cases):
    counts = np.load(shared_cases / "spectra" / "thick_steel_kbeta.npz")["counts"]
    fit = hpcxrf.fit_spectrum(
        counts, "Ar,V,Cr,Mn,Fe,Ni,Cu,As,W_L,Pb_L", 16.0, energy_offset_kev=-0.02, energy_slope_kev=0.01197
    )
    assert fit.r2 > 0.99998


def test_arsenic_under_lead_in_a_thick_sample_is_found(shared_cases):
    counts = np.load(shared_cases / "spectra" / "thick_pb_l_as.npz")["counts"]
    fit = hpcxrf.fit_spectrum(
        counts, "K,Ca,Ti,Fe,Zn,As,Pb_L,Sr", 17.5, energy_offset_kev=-0.004, energy_slope_kev=0.0098
    )
    arsenic = fit.component_names.index("As")
    assert abs(float(fit.amplitude[arsenic]) - 1e4) < 2.0 * float(fit.amplitude_sigma[arsenic])
    assert float(fit.amplitude_sigma[arsenic]) < 1000.0
    assert len(absorption_notes(fit)) == 1


def test_scatter_at_small_angles_between_compton_and_elastic_peak_is_taken_up(shared_cases):
    counts = np.load(shared_cases / "spectra" / "axorf4_compton.npz")["counts"]
    listed = "Si,S,Cl,Ar,K,Ca,Ti,Cr,Mn,Fe,Co,Ni,Cu,Zn,La_L,Pd_L,Pb_L,Mo,Br"
    fit = hpcxrf.fit_spectrum(counts, listed, 21.0)
    assert fit.r2 >= 0.9985
    elastic = fit.component_names.index("COHERENT_SCT_AMPLITUDE")
    assert float(fit.amplitude[elastic]) > 3e4


def test_an_l_beta_2_line_that_is_off_is_fitted_to_the_noise():
    """L-beta-2 of lead lies in its L-beta-1, and L-alpha in the line of arsenic: both ratios count."""
    names = ("Fe", "Zn", "As", "Pb_L")
    lines = build_line_table(names, 17.0, efficiency=Detector())
    lead, beta = lines.component == 3, (lines.energy_kev > 12.60) & (lines.energy_kev < 12.64)
    from_third = beta & ((lines.edge_kev - 13.035).abs() < 1e-3)
    ratio = lines.ratio * torch.where(lead & from_third, 1.15, 1.0)
    off = replace(lines, ratio=torch.where(lead, ratio * (lines.ratio[lead].sum() / ratio[lead].sum()), ratio))
    truth = torch.tensor([5e6, 5e6, 1e5, 4e6, 2e6, 4e6], dtype=torch.float64)
    theta = theta_of(**(TRUTH | {"coherent_sct_energy": 17.0}))
    peaks = model_spectrum(theta, truth, off, channels(0, 2000), constants=PHYSICS)
    start = replace_values(PARAMETERS, {"coherent_sct_energy": 17.0, "energy_slope": 0.01})
    fit = fit_spectrum(drawn(peaks + 20.0, 1), setup(lines, parameters=start, energy_max_kev=18.5))
    pull = (fit.amplitude - truth) / fit.amplitude_sigma
    assert float(lines.ratio[lead & from_third].sum()) > 0.05
    assert fit.reduced_chi2 < 1.07
    assert abs(float(pull[2])) < 2.0
    assert abs(float(pull[3])) < 2.0
