"""One test for each known defect of an earlier differentiable program: none of them may come back here.

The ninth, `--flag False` read as true, belongs to the command line and is tested there.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fit_samples import LOWER, UPPER, channels, one_line, random_thetas, setup, table, theta_of

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import pixel_basis
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.integrated import build_least_squares, fit_range, fit_spectrum
from hpcxrf.fitting.spectrum.least_squares import build_space
from hpcxrf.physics.background import fwhm_channels, snip, snip_background
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel, design_matrix, energy_kev
from hpcxrf.physics.parameters import INDEX, PARAMETERS
from hpcxrf.physics.scatter import line_sigma_kev
from hpcxrf.physics.shapes import low_energy_tail

PLAIN = {"f_tail_offset": 0.0, "kb_f_tail_offset": 0.0, "compton_f_tail": 0.0, "compton_hi_f_tail": 0.0}


def test_defect_1_the_compton_peak_has_the_width_of_a_line_at_its_energy_when_unwidened():
    """The noise term squared, in one kernel for all ranks: a copy for maps once said to the 62nd power."""
    values = PLAIN | {"compton_fwhm_corr": 1.0, "coherent_sct_energy": 12.0, "compton_angle": 90.0}
    centre = 12.0 / (1.0 + 12.0 / 510.99895)
    channel = channels(0, 1999)
    theta = theta_of(**values)
    phi = design_matrix(theta, one_line(centre), channel, constants=PHYSICS)
    torch.testing.assert_close(phi[:, -1], phi[:, 0], rtol=1e-9, atol=1e-15)
    # 0.0467128^2 + 3.58 * 11.724665 * 1.6e-4 = 2.18208e-3 + 6.71589e-3 keV^2
    sigma = line_sigma_kev(theta, torch.tensor([centre], dtype=torch.float64), PHYSICS)
    assert float(sigma) == pytest.approx(0.0943290, abs=1e-7)
    stacked = design_matrix(theta.expand(4, 3, -1), one_line(centre), channel, constants=PHYSICS)
    assert bool((stacked[..., -1] == stacked[0, 0, :, -1]).all())


def test_defect_2_the_last_channel_of_the_fit_range_lies_one_slope_above_the_one_before():
    parameters = setup().parameters
    low, high = fit_range(parameters, 1.0, 13.0, 2048)
    assert (low, high) == (100, 1300)
    model = SpectrumModel(table=table(), channel=channels(low, high), constants=PHYSICS)
    problem, _ = build_least_squares(torch.ones(2048).double(), low, high, model, setup())
    assert problem.counts.shape[0] == high - low + 1
    theta = theta_of(energy_slope=0.01)
    steps = energy_kev(theta, problem.model.channel).diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.01), rtol=1e-10, atol=0.0)
    assert float(energy_kev(theta, problem.model.channel)[-1]) == pytest.approx(13.0, abs=1e-12)
    fit = fit_spectrum(torch.full((2048,), 50.0), setup(background="hats"))
    assert fit.counts.shape[0] == 1201


@pytest.mark.parametrize("offset", [-0.2, 0.0, 0.2])
def test_defect_3_escape_peaks_do_not_depend_on_the_sign_of_the_offset_and_have_a_gradient(offset):
    lines = table(("Fe",), 12.0)
    escape = int((lines.escape_parent >= 0).nonzero()[0])
    theta = theta_of(energy_offset=offset, coherent_sct_energy=12.0, **PLAIN).requires_grad_()
    channel = channels(0, 1500)
    phi = design_matrix(theta, lines, channel, constants=PHYSICS)[:, 0]
    near = (energy_kev(theta.detach(), channel) - lines.energy_kev[escape]).abs() < 0.5
    assert float(phi[near].sum().detach()) == pytest.approx(float(lines.ratio[escape]), rel=0.15)
    phi[near].sum().backward()
    assert theta.grad[INDEX["escape_factor"]] > 0.0


def test_defect_4_snip_sees_the_full_spectrum_and_the_widths_of_the_detector():
    """Cut first, the first channels of the range became one flat number."""
    channel = channels(0, 1499)
    counts = 900.0 * torch.exp(-channel / 300.0) + 5.0
    given = setup(background="snip")
    low, high = fit_range(given.parameters, 2.0, 12.0, 1500)
    model = SpectrumModel(table=table(), channel=channel[low : high + 1], constants=PHYSICS)
    _, fixed = build_least_squares(counts, low, high, model, given)
    truth = counts[low : high + 1]
    np.testing.assert_allclose(fixed[:150], truth[:150], rtol=0.02)
    assert bool((fixed[:150].diff() < 0.0).all())
    theta = theta_of(energy_slope=0.01)
    full = snip(counts, half_width_channels=1.5 * fwhm_channels(theta, channel, PHYSICS))
    torch.testing.assert_close(fixed, full[low : high + 1], rtol=1e-6, atol=1e-9)
    peaked = counts + 5000.0 * torch.exp(-0.5 * ((channel - 640) / 20.0) ** 2)
    by_noise = [float(snip_background(peaked, theta_of(fwhm_offset=w), constants=PHYSICS)[640]) for w in (0.03, 0.2)]
    assert by_noise[0] > 1.05 * by_noise[1]
    moved = snip_background(peaked, theta_of(energy_offset=0.05), constants=PHYSICS)
    still = snip_background(peaked, theta_of(), constants=PHYSICS)
    np.testing.assert_allclose(moved[300:], still[300:], rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_defect_5_the_tail_has_a_finite_gradient_far_above_the_line_at_the_default_gamma(dtype):
    default = next(p.value for p in PARAMETERS if p.name == "gamma_offset")
    # exp(u / gamma) overflows single precision from u = 88 gamma on.
    u = torch.linspace(-1000.0, 1000.0, 4001, dtype=dtype).requires_grad_()
    gamma = torch.tensor(default, dtype=dtype, requires_grad=True)
    low_energy_tail(u, gamma).sum().backward()
    assert bool(torch.isfinite(u.grad).all() & torch.isfinite(gamma.grad))


ORDER = """
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.parameters import PARAMETER_NAMES
lines = build_line_table(("Zn", "Fe", "Ca", "Ba_L", "Ca_Ca", "Si"), 12.0, efficiency=Detector())
print(lines.component_names, lines.energy_kev.tolist(), lines.ratio.tolist(), PARAMETER_NAMES)
"""


def test_defect_6_components_lines_and_parameters_have_the_same_order_in_every_process():
    seen = set()
    for seed in ("0", "4711"):
        ran = subprocess.run(
            [sys.executable, "-c", ORDER],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(ran.stdout)
    assert len(seen) == 1
    assert seen.pop().startswith("('Zn', 'Fe', 'Ca', 'Ba_L', 'Ca_Ca', 'Si')")


def test_defect_6_a_component_that_means_nothing_is_an_error_and_not_left_out():
    with pytest.raises(FitError, match=r"Xx.*Fe"):
        table(("Ca", "Xx", "Fe", "Fe"))


def test_defect_7_an_absent_component_can_end_at_exactly_zero():
    lines = table(("Ca", "Fe", "Zn"))
    counts = design_matrix(theta_of(coherent_sct_energy=12.0), lines, channels(0, 1499), constants=PHYSICS)
    # Where iron would be, the continuum has a dip: the best amplitude is negative, the fitted one 0.
    spectrum = 1e5 * (counts[:, 0] + counts[:, 2] + counts[:, 3] + counts[:, 4]) + 50.0
    spectrum = spectrum - 400.0 * counts[:, 1]
    fit = fit_spectrum(spectrum.clamp(min=0.0), setup(lines))
    assert float(fit.amplitude[fit.component_names.index("Fe")]) == 0.0
    assert float(fit.amplitude[fit.component_names.index("Ca")]) > 9e4


def test_defect_7_a_pixel_is_solved_exactly_and_not_by_descent():
    lines = table(("Ca", "Fe", "Zn"))
    phi = design_matrix(theta_of(coherent_sct_energy=12.0), lines, channels(100, 1300), constants=PHYSICS)
    mean = torch.tensor([40.0, 30.0, 20.0, 50.0, 60.0], dtype=torch.float64)
    basis = pixel_basis(phi, mean, torch.zeros(0, 1201).double(), 1)
    given = torch.tensor([[100.0, 0.0, 7.0, 30.0, 10.0], [0.0, 0.0, 0.0, 1e5, 0.0]]).double()
    for method in ("linear", "nnls"):
        found = fit_pixels(given @ phi.T, torch.ones(2).bool(), prepare_solver(method, basis))
        np.testing.assert_allclose(found.amplitude, given, atol=1e-5 * 1e5 * 5)
        np.testing.assert_allclose(found.amplitude[0], given[0], atol=1e-3)


def test_defect_8_width_parameters_are_bounded_where_every_width_is_real():
    """FWHM and Fano term unbounded below made the square root of a negative number."""
    space = build_space(PARAMETERS)
    for name in ("fwhm_offset", "fwhm_fanoprime"):
        assert float(space.lower[INDEX[name]]) > 0.0
    corners = torch.stack([LOWER, UPPER, *random_thetas(0, 50)])
    energies = torch.tensor([0.1, 1.0, 30.0, 120.0], dtype=torch.float64)
    sigma = line_sigma_kev(corners, energies, PHYSICS)
    assert bool((sigma > 0.005).all() & torch.isfinite(sigma).all())


def test_defect_8_a_fit_that_would_leave_the_bounds_stays_inside_and_says_so():
    lines = table(("Ca", "Fe", "Zn"))
    sharp = theta_of(coherent_sct_energy=12.0, fwhm_offset=1e-4, fwhm_fanoprime=1e-6)
    counts = design_matrix(sharp, lines, channels(0, 1499), constants=PHYSICS).sum(dim=1) * 1e5
    fit = fit_spectrum(counts, setup(lines))
    assert fit.status in {FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS}
    assert bool(torch.isfinite(fit.theta).all())
    assert bool(((fit.theta >= fit.theta_lower) & (fit.theta <= fit.theta_upper)).all())
    assert bool(fit.at_bound[INDEX["fwhm_offset"]] & fit.at_bound[INDEX["fwhm_fanoprime"]])
    assert "fwhm_offset" in fit.messages[0]
