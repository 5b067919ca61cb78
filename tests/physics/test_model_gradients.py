"""Gradients of the design matrix."""

import pytest
import torch
from fit_samples import LOWER, UPPER, as_float32, channels, random_thetas, theta_of, thetas
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.physics.constants import CONSTANT_SETS, PHYSICS
from hpcxrf.physics.lines import build_table_from_arrays
from hpcxrf.physics.model import design_matrix
from hpcxrf.physics.parameters import PARAMETER_NAMES, PARAMETERS, pack
from tests.samples.columns import TABLE


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
