"""The design matrix: laws, hand numbers, and shapes computed another way."""

import math

import numpy as np
import pytest
import torch
from fit_samples import LOWER, UPPER, as_float32, channels, one_line, random_thetas, table, theta_of, thetas
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import expon, norm

from hpcxrf.physics.constants import CONSTANT_SETS, PHYSICS
from hpcxrf.physics.lines import build_table_from_arrays
from hpcxrf.physics.model import (
    COMPTON,
    ELASTIC,
    SpectrumModel,
    bin_width_kev,
    design_matrix,
    energy_kev,
    evaluate,
    model_spectrum,
)
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES, PARAMETERS, pack, replace_values
from hpcxrf.physics.scatter import compton_energy_kev, compton_shape, line_sigma_kev
from hpcxrf.physics.shapes import gaussian, low_energy_tail, step

TABLE = table(("Ca", "Fe", "Ba_L", "Au_M", "Ca_Ca"))
LAW = settings(deadline=None, max_examples=25)
NO_LOSS = {"f_tail_offset": 0.0, "kb_f_tail_offset": 0.0, "compton_f_tail": 0.0, "compton_hi_f_tail": 0.0}


def column(lines, channel, index=0, **values):
    return design_matrix(theta_of(**values), lines, channel, constants=PHYSICS)[..., index]


def f64(value):
    return torch.tensor(value, dtype=torch.float64)


def u_grid():
    return torch.linspace(-30.0, 12.0, 421, dtype=torch.float64)


# --- shapes -------------------------------------------------------------------------------------


def test_the_gaussian_is_the_normal_density():
    np.testing.assert_allclose(gaussian(u_grid()[180:]), norm.pdf(u_grid()[180:]), rtol=1e-13)


@pytest.mark.parametrize("gamma", [1.0, 2.2, 6.0])
def test_the_tail_is_a_gaussian_folded_with_a_one_sided_exponential(gamma):
    """By quadrature: E = E_line - X + Z, X exponential of mean gamma, Z normal."""

    def folded(u):
        return quad(lambda x: expon.pdf(x, scale=gamma) * norm.pdf(u + x), 0, 120, points=[-u + 0.0])[0]

    for u in (-9.0, -4.0, -1.0, -0.2, 0.0, 0.4, 1.5, 4.0):
        found = low_energy_tail(f64(u), f64(gamma))
        assert float(found) == pytest.approx(folded(u), rel=1e-7)


def test_the_tail_equals_a_discrete_convolution_on_a_fine_grid():
    du, gamma = 0.002, 3.0
    x = np.arange(-60.0, 12.0, du)
    decay = np.where(x <= 0.0, np.exp(np.minimum(x, 0.0) / gamma) / gamma, 0.0)
    kernel = norm.pdf(np.arange(-8.0, 8.0 + du / 2, du))
    folded = np.convolve(decay, kernel, mode="same") * du
    found = low_energy_tail(torch.from_numpy(x), f64(gamma)).numpy()
    inside = (x > -50.0) & (x < 4.0)
    np.testing.assert_allclose(found[inside], folded[inside], atol=1.5e-4)


@pytest.mark.parametrize("gamma", [1.0, 2.5, 6.0])
def test_the_tail_has_area_one_and_its_mean_lies_gamma_below_the_line(gamma):
    u = torch.arange(-40.0 * gamma, 12.0, 0.01, dtype=torch.float64)
    tail = low_energy_tail(u, f64(gamma))
    assert float(tail.sum() * 0.01) == pytest.approx(1.0, abs=1e-9)
    assert float((u * tail).sum() * 0.01) == pytest.approx(-gamma, abs=1e-6)


def test_the_shelf_is_the_folded_edge_of_a_box():
    for u in (-8.0, -1.3, 0.0, 0.7, 2.0):
        assert float(step(f64(u))) == pytest.approx(2.0 * norm.sf(u), rel=1e-10)


@given(u=st.floats(-1e6, 1e6), gamma=st.floats(1.0, 130.0), single=st.booleans())
@settings(deadline=None, max_examples=200)
def test_every_shape_and_its_gradient_is_finite_for_any_distance_from_the_line(u, gamma, single):
    kind = torch.float32 if single else torch.float64
    x = torch.tensor(u, dtype=kind, requires_grad=True)
    g = torch.tensor(gamma, dtype=kind, requires_grad=True)
    value = gaussian(x) + low_energy_tail(x, g) + step(x)
    value.backward()
    assert bool(torch.isfinite(value) & torch.isfinite(x.grad) & torch.isfinite(g.grad))
    assert 0.0 <= float(value.detach()) < 3.5


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


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["physics", "maps-3.58"])
def test_autograd_of_the_design_matrix_passes_gradcheck(name):
    theta = random_thetas(3, 1).requires_grad_()
    lines = build_table_from_arrays(
        component_names=["A", "B"],
        component=[0, 0, 0, 1],
        energy_kev=[6.4, 7.06, 4.66, 2.3],
        ratio=[0.85, 0.15, 0.004, 1.0],
        edge_kev=[7.112, 7.112, 7.112, 0.0],
        is_kbeta=[False, True, False, False],
        has_tail=[True, True, True, False],
        mu_per_um=[0.031, 0.024, 0.031, 0.0],
        escape_parent=[-1, -1, 0, -1],
        incident_energy_kev=12.0,
    )
    scale = torch.tensor([p.scale for p in PARAMETERS], dtype=torch.float64)

    def phi(steps):
        return design_matrix(
            theta.detach() + steps * scale, lines, channels(150, 900)[::50], constants=CONSTANT_SETS[name]
        )

    steps = torch.zeros_like(theta).requires_grad_()
    assert torch.autograd.gradcheck(phi, (steps,), eps=1e-5, atol=1e-7, rtol=1e-4)


def gradient_of_a_spectrum(theta, *, single, constants=PHYSICS):
    lines, channel = TABLE, channels(0, 2047)[::16]
    if single:
        theta, lines, channel = theta.float(), as_float32(lines), channel.float()
    theta = theta.clone().requires_grad_()
    phi = design_matrix(theta, lines, channel, constants=constants)
    assert phi.dtype == theta.dtype
    (phi.sum(dim=-1).square().sum() + phi.sum()).backward()
    return phi.detach(), theta.grad


@given(theta=thetas(batch=(4,)), single=st.booleans(), name=st.sampled_from(sorted(CONSTANT_SETS)))
@settings(deadline=None, max_examples=40)
def test_gradients_are_finite_over_the_whole_of_the_bounds_in_both_precisions(theta, single, name):
    phi, gradient = gradient_of_a_spectrum(theta, single=single, constants=CONSTANT_SETS[name])
    assert bool(torch.isfinite(phi).all() & torch.isfinite(gradient).all())


@pytest.mark.parametrize("single", [False, True])
def test_gradients_are_finite_at_both_corners_of_every_parameter(single):
    inner = pack(PARAMETERS).expand(2 * len(PARAMETERS), -1).clone()
    for i in range(len(PARAMETERS)):
        inner[2 * i, i], inner[2 * i + 1, i] = LOWER[i], UPPER[i]
    _, gradient = gradient_of_a_spectrum(torch.cat([inner, LOWER[None], UPPER[None]]), single=single)
    assert bool(torch.isfinite(gradient).all())


def test_every_parameter_moves_the_spectrum():
    """A parameter that is read and never used would fit anything."""
    _, gradient = gradient_of_a_spectrum(
        theta_of(step_offset=0.02, step_linear=0.01, compton_f_step=0.01, coherent_sct_energy=12.0), single=False
    )
    assert [n for n, g in zip(PARAMETER_NAMES, gradient.tolist(), strict=True) if g == 0.0] == []


# --- components ---------------------------------------------------------------------------------


def test_the_switch_passes_lines_above_their_edge_and_stops_the_others():
    lines = one_line(6.4, edge_kev=7.112)
    channel = channels(400, 800)
    below, at, above = (float(column(lines, channel, coherent_sct_energy=e).sum()) for e in (7.0, 7.112, 7.3))
    assert below < 1e-9
    assert at == pytest.approx(0.5, abs=1e-6)
    assert above == pytest.approx(1.0, abs=1e-6)


def test_ten_ev_above_the_edge_seven_eighths_of_a_line_are_on():
    # The switch is 5 eV wide: 1 / (1 + exp(-2)) = 0.880797
    found = column(one_line(6.4, edge_kev=7.112), channels(300, 900), coherent_sct_energy=7.122)
    assert float(found.sum()) == pytest.approx(0.880797, abs=1e-6)


def test_a_line_without_an_edge_is_never_switched_off():
    found = column(one_line(15.0, edge_kev=0.0), channels(1200, 1800), coherent_sct_energy=4.0)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)


def test_a_component_without_any_line_is_a_column_of_zeros_in_its_place():
    lines = build_table_from_arrays(
        component_names=["A", "none", "B"], component=[0, 2], energy_kev=[4.0, 8.0], ratio=1.0, incident_energy_kev=12.0
    )
    phi = design_matrix(theta_of(coherent_sct_energy=12.0), lines, channels(0, 1400), constants=PHYSICS)
    assert phi.shape[-1] == 5
    assert float(phi[:, 1].abs().max()) == 0.0
    assert [int(phi[:, i].argmax()) for i in (0, 2, 3)] == [400, 800, 1200]


def test_a_table_without_components_leaves_the_two_scatter_columns():
    phi = design_matrix(theta_of(coherent_sct_energy=12.0), table(()), channels(0, 1500), constants=PHYSICS)
    assert phi.shape[-1] == 2
    assert int(phi[:, 0].argmax()) == 1200


def test_a_tube_has_no_elastic_column_and_the_others_stay():
    theta, channel = theta_of(coherent_sct_energy=12.0), channels(100, 1400)
    beam = design_matrix(theta, TABLE, channel, constants=PHYSICS)
    tube = design_matrix(theta, TABLE, channel, constants=PHYSICS, elastic=False)
    torch.testing.assert_close(tube, torch.cat([beam[:, :-2], beam[:, -1:]], dim=1))
    model = SpectrumModel(table=TABLE, channel=channel, constants=PHYSICS, elastic=False)
    assert model.component_names == (*TABLE.component_names, COMPTON)


def test_a_tube_without_components_leaves_the_compton_column_alone():
    theta, channel = theta_of(coherent_sct_energy=12.0), channels(100, 1400)
    beam = design_matrix(theta, TABLE, channel, constants=PHYSICS)
    tube = design_matrix(theta, table(()), channel, constants=PHYSICS, elastic=False)
    torch.testing.assert_close(tube, beam[:, -1:])


def test_the_columns_are_named_in_their_order():
    model = SpectrumModel(table=TABLE, channel=channels(0, 9), constants=PHYSICS)
    assert model.component_names == ("Ca", "Fe", "Ba_L", "Au_M", "Ca_Ca", ELASTIC, COMPTON)


def test_pile_up_columns_are_sums_of_gaussians_without_a_tail():
    channel, values = channels(0, 1300), {"coherent_sct_energy": 12.0, "energy_slope": 0.01}
    theta = theta_of(f_tail_offset=0.15, kb_f_tail_offset=0.25, **values)
    for name in ("Ca_Ca", "Si_Fe"):
        lines = table((name,), 12.0, escape=False)
        found = design_matrix(theta, lines, channel, constants=PHYSICS)[:, 0].numpy()
        sigma = line_sigma_kev(theta, lines.energy_kev, PHYSICS).numpy()
        by_hand = sum(
            0.01 * r * norm.pdf(0.01 * channel.numpy(), e, s)
            for e, r, s in zip(lines.energy_kev.tolist(), lines.ratio.tolist(), sigma, strict=True)
        )
        np.testing.assert_allclose(found, by_hand, atol=1e-15)
        assert found.sum() == pytest.approx(1.0, abs=1e-6)


def test_calcium_pile_up_peaks_at_twice_kalpha():
    channel = channels(0, 1300)
    found = column(table(("Ca_Ca",), 12.0), channel, coherent_sct_energy=12.0, energy_slope=0.01)
    # 2 * 3.6905 keV (mean of Ka1 3.6917 and Ka2 3.6881 by 2:1)
    assert 0.01 * int(found.argmax()) == pytest.approx(7.38, abs=0.011)


def test_kbeta_takes_its_own_tail_and_the_other_lines_do_not():
    lines = build_table_from_arrays(
        component_names=["A", "B"],
        component=[0, 1],
        energy_kev=[5.0, 9.0],
        ratio=1.0,
        is_kbeta=[False, True],
        incident_energy_kev=12.0,
    )
    channel = channels(0, 1400)
    base = {"coherent_sct_energy": 12.0, "energy_offset": 0.0}
    plain, kbeta, kalpha = (
        design_matrix(theta_of(**base, f_tail_offset=a, kb_f_tail_offset=b), lines, channel, constants=PHYSICS)
        for a, b in ((0.0, 0.0), (0.0, 0.2), (0.1, 0.0))
    )
    torch.testing.assert_close(kbeta[:, 0], plain[:, 0])
    torch.testing.assert_close(kalpha[:, 1], plain[:, 1])
    assert float((kbeta[:, 1] - plain[:, 1]).abs().max()) > 1e-3
    assert float((kalpha[:, 0] - plain[:, 0]).abs().max()) > 1e-3


def test_step_and_linear_tail_grow_with_the_absorption_at_the_line():
    """Shelf height 1 / (2 E) per count of step fraction, on both sides of the folded edge."""
    mu, energy = 0.04, 6.0
    found = column(
        one_line(energy, mu_per_um=mu),
        channels(0, 999),
        step_offset=0.05,
        step_linear=0.01,
        f_tail_offset=0.0,
        energy_offset=0.0,
    )
    share = mu * (0.05 + 0.01 * energy)
    assert float(found[200]) == pytest.approx(0.01 * share / (1 + share) / energy, rel=1e-9)
    assert float(found[900]) == pytest.approx(0.0, abs=1e-30)
    tailed = column(one_line(energy, mu_per_um=mu), channels(0, 999), f_tail_offset=0.0, f_tail_linear=0.1)
    same = column(one_line(energy), channels(0, 999), f_tail_offset=0.1 * mu)
    torch.testing.assert_close(tailed, same)


def test_the_decay_length_grows_with_the_energy_of_the_line():
    steep = column(one_line(6.0), channels(0, 999), gamma_offset=1.5, gamma_linear=0.25)
    flat = column(one_line(6.0), channels(0, 999), gamma_offset=3.0)
    torch.testing.assert_close(steep, flat)


def test_the_escape_factor_scales_the_escape_peak_and_leaves_its_parent():
    lines = build_table_from_arrays(
        component_names=["A", "A"],
        component=[0, 1],
        energy_kev=[6.4, 4.66],
        ratio=[1.0, 0.01],
        escape_parent=[-1, 0],
        incident_energy_kev=12.0,
    )
    channel = channels(0, 1400)
    off, one, two = (
        design_matrix(theta_of(coherent_sct_energy=12.0, escape_factor=f), lines, channel, constants=PHYSICS)
        for f in (0.0, 1.0, 2.0)
    )
    torch.testing.assert_close(off[:, 0], one[:, 0])
    assert float(off[:, 1].abs().max()) == 0.0
    assert float(one[:, 1].sum()) == pytest.approx(0.01, rel=1e-6)
    torch.testing.assert_close(two[:, 1], 2.0 * one[:, 1])


def test_without_step_the_columns_are_those_of_a_step_of_zero():
    theta, channel = theta_of(coherent_sct_energy=12.0), channels(100, 1300)
    full = SpectrumModel(table=TABLE, channel=channel, constants=PHYSICS)
    lean = SpectrumModel(table=TABLE, channel=channel, constants=PHYSICS, with_step=False)
    torch.testing.assert_close(evaluate(theta, lean).phi, evaluate(theta, full).phi)


def test_the_compton_step_is_a_shelf_below_its_peak():
    theta = theta_of(coherent_sct_energy=12.0, compton_f_step=0.1, energy_offset=0.0, **NO_LOSS)
    shape = compton_shape(theta, f64([5.0, 14.0]), PHYSICS)
    centre = 12.0 / (1.0 + 12.0 / 510.99895)
    assert float(shape.density[0]) == pytest.approx(0.1 / 1.1 / centre, rel=1e-9)
    assert float(shape.density[1]) == pytest.approx(0.0, abs=1e-20)


def test_starting_values_outside_the_bounds_widen_them_and_wrong_names_are_refused():
    wide = {p.name: p for p in replace_values(PARAMETERS, {"energy_slope": 0.05})}
    # Ten steps beyond it: at a bound it could not move.
    assert wide["energy_slope"].upper == pytest.approx(0.05 + 10 * 1e-5)
    assert wide["energy_slope"].lower == 0.004
    with pytest.raises(KeyError, match="no_such"):
        replace_values(PARAMETERS, {"no_such": 1.0})
