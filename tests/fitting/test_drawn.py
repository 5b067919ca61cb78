"""A fitted model drawn by the kernels and by the tensors: columns, derivatives, and what a line's flaws add up to."""

import pytest
import torch
from fit_samples import channels, setup, table, theta_of
from model_cases import CASES, in_a_beam

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.spectrum import drawn
from hpcxrf.fitting.spectrum.compiled_drawing import can_draw, draw_columns
from hpcxrf.fitting.spectrum.drawn import draw_phi
from hpcxrf.fitting.spectrum.mismatch import draw_point
from hpcxrf.physics.constants import PHYSICS, constant_set
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import INDEX

# The tensors add the sums up in single precision.
SINGLE = 2e-6
# All lines get their tails here, also those that a model leaves out because they have none.
WHOLE = [name for name in CASES if name != "no tail drawn"]


def both_ways(name, monkeypatch):
    theta, problem = CASES[name]()
    amplitude = torch.linspace(1e3, 5e5, len(problem.model.component_names), dtype=torch.float64)
    amplitude[1] = 0.0
    here = draw_point(theta, amplitude, problem.model)
    assert can_draw(theta, problem.model)
    with monkeypatch.context() as patch:
        patch.setattr(drawn, "can_draw", lambda *_: False)
        there = draw_point(theta, amplitude, problem.model)
    return here, there


def assert_same(found, wanted, within):
    """To a share of the highest of all."""
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= within * float(wanted.abs().max())


@pytest.mark.parametrize("name", WHOLE)
def test_columns_derivatives_and_sums_are_those_of_the_tensors(name, monkeypatch):
    here, there = both_ways(name, monkeypatch)
    assert_same(here.phi, there.phi, 2e-12)
    torch.testing.assert_close(here.bin_kev, there.bin_kev, rtol=1e-14, atol=0.0)
    for one, other in zip(here.jacobian.T, there.jacobian.T, strict=True):
        assert_same(one, other, 2e-12)
    for kind in range(at.SUMS):
        assert float(there.sums[:, kind].abs().max()) > 0.0
        assert_same(here.sums[:, kind], there.sums[:, kind], SINGLE)
    for kind in range(2):
        assert_same(here.families[:, kind], there.families[:, kind], SINGLE)


def test_the_sums_are_derivatives_of_the_model():
    """All lines moved down by an electronvolt, and all widened by a part in a hundred thousand, by hand."""
    theta, problem = in_a_beam(depth=False)
    amplitude = torch.linspace(1e3, 5e5, len(problem.model.component_names), dtype=torch.float64)
    # Nothing of a Compton peak is in a sum.
    amplitude[-1] = 0.0
    found = draw_point(theta, amplitude, problem.model)
    peaks = (found.families[:, 0].sum(dim=0) * found.bin_kev).double()
    no_shelf = theta.clone()
    for name in ("step_offset", "step_linear"):
        no_shelf[INDEX[name]] = 0.0
    plain = draw_point(no_shelf, amplitude, problem.model)
    assert_same(plain.families[:, 0].sum(dim=0) * plain.bin_kev, plain.phi @ amplitude, 1e-12)
    assert float(peaks.sum()) < float((found.phi @ amplitude).sum())

    no_tail = no_shelf.clone()
    for name in ("f_tail_offset", "f_tail_linear", "kb_f_tail_offset", "kb_f_tail_linear"):
        no_tail[INDEX[name]] = 0.0
    gaussians = draw_point(no_tail, amplitude, problem.model)
    step_kev = 1e-5
    up, down = (moved(no_tail, "energy_offset", by) for by in (step_kev, -step_kev))
    slope = (evaluate(up, problem.model).phi - evaluate(down, problem.model).phi) @ amplitude / (2 * step_kev)
    # A line at a lower energy is an axis at a higher one.
    shifted = gaussians.sums[:, at.SHIFTED].sum(dim=0) * gaussians.bin_kev
    assert_same(-shifted, slope, 1e-6)


def moved(theta, name, by):
    other = theta.clone()
    other[INDEX[name]] += by
    return other


def test_columns_alone_are_those_of_the_model():
    model = SpectrumModel(table=table(), channel=channels(60, 1330), constants=PHYSICS, elastic=False, with_step=False)
    theta = theta_of()
    assert_same(draw_columns(theta, model), evaluate(theta, model).phi, 2e-12)
    assert torch.equal(draw_phi(theta, model), draw_columns(theta, model))


def test_line_shapes_of_maps_are_drawn_by_tensors():
    model = SpectrumModel(table=table(), channel=channels(60, 1330), constants=constant_set("maps-3.58"))
    theta = theta_of()
    assert not can_draw(theta, model)
    amplitude = torch.full((len(model.component_names),), 1e4, dtype=torch.float64)
    made = draw_point(theta, amplitude, model)
    assert torch.equal(made.phi, evaluate(theta, model).phi)
    assert torch.equal(draw_phi(theta, model), made.phi)
    assert made.jacobian.shape == (model.channel.shape[0], len(setup().parameters))
