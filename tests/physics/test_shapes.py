"""Line shapes by quadrature and convolution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import expon, norm

from hpcxrf.physics.shapes import gaussian, low_energy_tail, step
from tests.samples.columns import f64


def u_grid():
    return torch.linspace(-30.0, 12.0, 421, dtype=torch.float64)


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
