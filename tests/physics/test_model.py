"""The design matrix: laws and hand numbers."""

import math

import numpy as np
import pytest
import torch
from fit_samples import channels, one_line, table, theta_of, thetas
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.physics.constants import CONSTANT_SETS, PHYSICS
from hpcxrf.physics.model import bin_width_kev, design_matrix, energy_kev, model_spectrum
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.scatter import compton_energy_kev, line_sigma_kev
from tests.samples.columns import NO_LOSS, TABLE, column, f64

LAW = settings(deadline=None, max_examples=25)


# --- widths, energies ---------------------------------------------------------------------------


def test_manganese_kalpha_is_155_ev_wide_on_a_detector_of_100_ev_noise():
    # FWHM^2 = 0.1^2 + 2.35482^2 * 3.58 * 5.895 * 1.2e-4 = 0.0100000 + 5.545177 * 0.002532492
    #        = 0.0240431 keV^2, hence 155.06 eV.
    sigma = line_sigma_kev(theta_of(fwhm_offset=0.1, fwhm_fanoprime=1.2e-4), f64([5.895]), PHYSICS)
    assert 2.0 * math.sqrt(2.0 * math.log(2.0)) * float(sigma) == pytest.approx(0.15506, abs=1e-5)


def test_a_column_has_the_width_at_half_height_that_the_width_law_gives():
    channel = channels(0, 3000)
    found = column(
        one_line(5.895, has_tail=False), channel, energy_slope=0.004, fwhm_offset=0.1, fwhm_fanoprime=1.2e-4
    ).numpy()
    energy = 0.004 * channel.numpy()
    peak = found.argmax()
    left = np.interp(0.5 * found.max(), found[: peak + 1], energy[: peak + 1])
    right = np.interp(-0.5 * found.max(), -found[peak:], energy[peak:])
    assert right - left == pytest.approx(0.15506, abs=2e-4)


def test_ten_kev_at_ninety_degrees_comes_back_with_9808_ev():
    # 10 / (1 + 10 / 510.99895) = 9.808062 keV
    found = compton_energy_kev(f64(10.0), f64(90.0), 510.99895)
    assert float(found) == pytest.approx(9.808062, abs=1e-6)


@pytest.mark.parametrize(
    ("angle_deg", "expected_kev"),
    # E0 = 17.5: 1 - cos = 0.5, 1, 1.8660254; 17.5 / (1 + 0.0342466 * (1 - cos))
    [(60.0, 17.205390), (90.0, 16.920528), (150.0, 16.448829)],
)
def test_the_compton_column_peaks_where_the_kinematics_put_it(angle_deg, expected_kev):
    channel = channels(1000, 3999)
    # The tails off, the column is a symmetric Gaussian: its mean is its energy.
    found = column(
        one_line(), channel, -1, energy_slope=0.005, coherent_sct_energy=17.5, compton_angle=angle_deg, **NO_LOSS
    )
    mean = float((found * 0.005 * channel).sum() / found.sum())
    assert mean == pytest.approx(expected_kev, abs=2e-5)


def test_the_compton_column_is_wider_than_a_line_by_the_factor_of_its_parameter():
    channel = channels(0, 4000)
    values = {"energy_slope": 0.005, "coherent_sct_energy": 12.0, "compton_angle": 90.0} | NO_LOSS
    found = column(one_line(), channel, -1, compton_fwhm_corr=2.0, **values)
    energy = 0.005 * channel
    mean = (found * energy).sum() / found.sum()
    spread = float((((energy - mean) ** 2 * found).sum() / found.sum()).sqrt())
    sigma = float(line_sigma_kev(theta_of(**values), mean[None], PHYSICS))
    assert spread == pytest.approx(2.0 * sigma, rel=1e-6)


def test_the_tails_of_the_compton_column_move_its_mean_by_their_share_times_gamma_sigma():
    channel = channels(0, 5000)
    values = {"energy_slope": 0.004, "coherent_sct_energy": 12.0, "compton_angle": 90.0}
    tails = {"compton_f_tail": 0.4, "compton_gamma": 3.0, "compton_hi_f_tail": 0.1, "compton_hi_gamma": 2.0}
    found = column(one_line(), channel, -1, **values, **tails)
    centre = 12.0 / (1.0 + 12.0 / 510.99895)
    sigma = float(line_sigma_kev(theta_of(**values), f64([centre]), PHYSICS))
    mean = float((found * 0.004 * channel).sum() / found.sum())
    shift = (-0.4 * 3.0 + 0.1 * 2.0) * sigma / (1.0 + 0.4 + 0.1)
    assert mean == pytest.approx(centre + shift, abs=1e-6)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-9)


def test_the_elastic_column_peaks_at_the_incident_energy():
    channel = channels(0, 1999)
    found = column(one_line(), channel, 1, coherent_sct_energy=13.37, energy_offset=-0.02, **NO_LOSS)
    assert float((found * (0.01 * channel - 0.02)).sum() / found.sum()) == pytest.approx(13.37, abs=1e-6)


def test_the_energy_axis_is_a_polynomial_and_the_bin_width_its_derivative():
    theta = theta_of(energy_offset=0.1, energy_slope=0.01, energy_quadratic=5e-8)
    n = channels(0, 2000)
    # At channel 1000: 0.1 + 10 + 0.05 keV; width 0.01 + 2 * 5e-8 * 1000 keV.
    assert float(energy_kev(theta, n)[1000]) == pytest.approx(10.15, abs=1e-12)
    assert float(bin_width_kev(theta, n, PHYSICS)[1000]) == pytest.approx(0.0101, abs=1e-15)
    np.testing.assert_allclose(
        bin_width_kev(theta, n, PHYSICS)[1:-1], np.gradient(energy_kev(theta, n))[1:-1], rtol=1e-12
    )
    maps = bin_width_kev(theta, n, CONSTANT_SETS["maps-3.58"])
    assert maps.unique().tolist() == [0.01]


# --- laws ---------------------------------------------------------------------------------------


@given(theta=thetas(batch=(3, 2)))
@LAW
def test_a_batch_is_the_stack_of_its_members(theta):
    channel = channels(90, 400)
    whole = design_matrix(theta, TABLE, channel, constants=PHYSICS)
    single = torch.stack(
        [torch.stack([design_matrix(t, TABLE, channel, constants=PHYSICS) for t in row]) for row in theta]
    )
    torch.testing.assert_close(whole, single, rtol=1e-12, atol=1e-300)


@given(
    energy=st.floats(3.0, 20.0),
    tail=st.floats(0.0, 0.15),
    gamma=st.floats(1.0, 6.0),
    quadratic=st.floats(-1e-7, 1e-7),
    fwhm=st.floats(0.05, 0.25),
    mu=st.floats(0.0, 0.05),
)
@LAW
def test_a_component_has_area_one_inside_a_spectrum_that_holds_it_whole(energy, tail, gamma, quadratic, fwhm, mu):
    """Peak, tail and shelf together, so that the amplitude is the family's recorded counts."""
    values = {"energy_offset": 0.0, "energy_quadratic": quadratic, "f_tail_offset": tail}
    found = column(
        one_line(energy, mu_per_um=mu),
        channels(0, 2999),
        gamma_offset=gamma,
        fwhm_offset=fwhm,
        step_offset=0.05,
        step_linear=0.003,
        **values,
    )
    # Half a bin at each end of the shelf, sigma^2 / (2 E^2) of it by the folding, and what leaks below 0.
    assert float(found.sum()) == pytest.approx(
        1.0, abs=3e-3 * mu / 0.05 + 1e-6 + tail * math.exp(-energy / (gamma * 0.15))
    )


def test_a_family_has_area_one_from_its_kalpha_to_its_faintest_line():
    channel, theta = channels(0, 2999), theta_of(coherent_sct_energy=25.0, compton_angle=90.0)
    lines = table(("Ca", "Fe", "Mo", "Pb_L", "Fe_Fe"), 25.0, escape=False)
    phi = design_matrix(theta, lines, channel, constants=PHYSICS)
    np.testing.assert_allclose(phi.sum(dim=0), 1.0, atol=1e-5)


def test_the_tail_spreads_the_counts_and_neither_adds_nor_takes_any():
    channel = channels(0, 1500)
    tailed = column(one_line(), channel, f_tail_offset=0.15, gamma_offset=4.0)
    plain = column(one_line(), channel, f_tail_offset=0.0)
    assert float(tailed.sum()) == pytest.approx(float(plain.sum()), abs=1e-9)
    # At the summit: the share of the Gaussian, 1 / 1.15, plus the tail's 0.15 T(0) sigma.
    tail_at_0 = 0.15 * math.exp(0.5 / 16) * math.erfc(0.25 / math.sqrt(2)) / 8
    expected = (1.0 / math.sqrt(2 * math.pi) + tail_at_0) / 1.15 * math.sqrt(2 * math.pi)
    assert float(tailed[640] / plain[640]) == pytest.approx(expected, rel=1e-9)


@given(theta=thetas(), k=st.integers(-40, 40))
@LAW
def test_shifting_the_offset_by_k_slopes_shifts_the_spectrum_by_k_channels(theta, k):
    theta = theta.clone()
    theta[INDEX["energy_quadratic"]] = 0.0
    moved = theta.clone()
    moved[INDEX["energy_offset"]] += k * theta[INDEX["energy_slope"]]
    channel = channels(100, 500)
    here = design_matrix(theta, TABLE, channel, constants=PHYSICS)
    there = design_matrix(moved, TABLE, channel - k, constants=PHYSICS)
    torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-14)


@given(theta=thetas(), factor=st.floats(0.0, 1e6))
@LAW
def test_the_counts_are_proportional_to_the_amplitudes(theta, factor):
    channel, heights = channels(100, 300), torch.arange(1.0, 8.0, dtype=torch.float64)
    one = model_spectrum(theta, heights, TABLE, channel, constants=PHYSICS)
    many = model_spectrum(theta, factor * heights, TABLE, channel, constants=PHYSICS)
    torch.testing.assert_close(many, factor * one, rtol=1e-12, atol=1e-300)


def test_the_quadratic_term_changes_the_height_of_a_peak_by_the_bin_width():
    channel = channels(0, 1999)
    values = {"energy_slope": 0.01, "f_tail_offset": 0.0}
    straight = column(one_line(10.0), channel, **values)
    bent = column(one_line(10.0), channel, energy_quadratic=1e-7, energy_offset=-0.1, **values)
    # At channel 1000 both are at 10 keV; the bin is 0.0102 keV instead of 0.01.
    assert float(bent[1000] / straight[1000]) == pytest.approx(1.02, rel=1e-12)
    assert float(bent.sum()) == pytest.approx(1.0, abs=1e-9)


@given(theta=thetas())
@LAW
def test_columns_are_finite_and_never_negative_over_the_whole_of_the_bounds(theta):
    phi = design_matrix(theta, TABLE, channels(0, 2047)[::16], constants=PHYSICS)
    assert bool(torch.isfinite(phi).all() & (phi >= 0.0).all())
