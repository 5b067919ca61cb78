"""The analytic Jacobian against forward differentiation, which shares none of its formulas."""

import pytest
import torch
from fit_samples import LOWER, UPPER, as_float32, channels, random_thetas, table, theta_of, thetas
from hypothesis import given, settings

from hpcxrf.physics.constants import CONSTANT_SETS, PHYSICS
from hpcxrf.physics.jacobian import automatic_jacobian, counts_jacobian
from hpcxrf.physics.lines import build_table_from_arrays
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES, PARAMETERS

# What torch warns about itself when forward differentiation is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SCALE = torch.tensor([p.scale for p in PARAMETERS], dtype=torch.float64)
TABLE = table(("Ca", "Fe", "Ba_L", "Au_M", "Ca_Ca"))


def model_of(lines=TABLE, *, name="physics", elastic=True, with_step=True, channel=None):
    return SpectrumModel(
        table=lines,
        channel=channels(60, 1960)[::20] if channel is None else channel,
        constants=CONSTANT_SETS[name],
        elastic=elastic,
        with_step=with_step,
    )


def heights_of(model, *batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, len(model.component_names))
    return 1e4 * torch.rand(shape, generator=generator, dtype=torch.float64)


def both(theta, model, seed=1):
    """Analytic and automatic, in counts per typical step of each parameter."""
    heights = heights_of(model, *theta.shape[:-1], seed=seed)
    analytic = counts_jacobian(theta, heights, evaluate(theta, model), model)
    return analytic * SCALE, automatic_jacobian(theta, heights, model) * SCALE


def assert_same(analytic, automatic):
    """5e-7 of the largest entry of the column (of 1e-3 counts, where a peak lies outside the axis).

    Every parameter is held on its own. The clamps of the shapes have derivative 0 under automatic
    differentiation, hence not 1e-15.
    """
    assert bool(torch.isfinite(analytic).all())
    largest = automatic.abs().amax(dim=-2, keepdim=True).clamp(min=1e-3)
    worst = ((analytic - automatic) / largest).abs().amax(dim=tuple(range(automatic.dim() - 1)))
    wrong = {n: w for n, w in zip(PARAMETER_NAMES, worst.tolist(), strict=True) if not w < 5e-7}
    assert wrong == {}


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("name", ["physics", "maps-3.58"])
def test_the_jacobian_is_that_of_jacfwd_for_every_batch_rank(batch, name):
    model = model_of(name=name)
    analytic, automatic = both(random_thetas(5, *batch), model)
    assert analytic.shape == (*batch, model.channel.shape[0], len(PARAMETERS))
    assert_same(analytic, automatic)


@given(theta=thetas())
@settings(deadline=None, max_examples=12)
def test_the_jacobian_is_that_of_jacfwd_anywhere_in_the_bounds(theta):
    assert_same(*both(theta, model_of()))


@pytest.mark.parametrize("elastic", [True, False])
def test_the_jacobian_without_step_is_that_of_jacfwd(elastic):
    model = model_of(elastic=elastic, with_step=False)
    theta = random_thetas(8, 3)
    theta[:, [INDEX["step_offset"], INDEX["step_linear"]]] = 0.0
    analytic, automatic = both(theta, model)
    moved = [i for n, i in INDEX.items() if not n.startswith("step_")]
    held = [i for n, i in INDEX.items() if n.startswith("step_")]
    automatic[..., held] = analytic[..., held]
    assert_same(analytic, automatic)
    assert bool(torch.isfinite(analytic[..., moved]).all())


def test_the_jacobian_of_a_tube_with_step_is_that_of_jacfwd():
    assert_same(*both(random_thetas(9, 2), model_of(elastic=False)))


def test_the_jacobian_holds_where_lines_are_half_switched_on():
    """7.112 keV is the K edge of iron: the incident energy has its derivative there, 50 eV on each side."""
    theta = random_thetas(4, 3, incident_kev=(7.1, 7.13))
    analytic, automatic = both(theta, model_of(table(("Ca", "Fe"), 7.5)))
    assert_same(analytic, automatic)


@pytest.mark.parametrize("corner", [LOWER, UPPER])
def test_the_jacobian_holds_at_the_corners_of_the_bounds_where_fractions_and_escape_vanish(corner):
    theta = corner.clone()
    theta[INDEX["coherent_sct_energy"]] = 12.0
    assert_same(*both(theta, model_of()))


def test_the_escape_factor_has_its_derivative_at_zero_where_there_is_no_escape_peak():
    lines = build_table_from_arrays(
        component_names=["A"],
        component=[0, 0],
        energy_kev=[6.4, 4.66],
        ratio=[1.0, 0.01],
        escape_parent=[-1, 0],
        incident_energy_kev=12.0,
    )
    model = model_of(lines, channel=channels(0, 999))
    theta = theta_of(coherent_sct_energy=12.0, escape_factor=0.0, energy_slope=0.01)
    heights = torch.tensor([1e5, 0.0, 0.0], dtype=torch.float64)
    jacobian = counts_jacobian(theta, heights, evaluate(theta, model), model)
    assert bool(torch.isfinite(jacobian).all())
    # 1e5 counts, a hundredth of which escape per unit of the factor
    assert float(jacobian[:, INDEX["escape_factor"]].sum()) == pytest.approx(1000.0, rel=1e-6)


@pytest.mark.parametrize("name", ["physics", "maps-3.58"])
@pytest.mark.parametrize(
    "wanted", [(), ("energy_slope",), ("compton_gamma", "gamma_offset", "fwhm_offset"), ("escape_factor",)]
)
def test_columns_that_are_not_wanted_are_zero_and_the_others_do_not_change(name, wanted):
    theta, model = random_thetas(7, 2), model_of(name=name)
    heights, evaluation = heights_of(model, 2), evaluate(theta, model)
    every = counts_jacobian(theta, heights, evaluation, model)
    some = counts_jacobian(theta, heights, evaluation, model, names=wanted)
    kept = torch.tensor([n in wanted for n in PARAMETER_NAMES])
    torch.testing.assert_close(some, torch.where(kept, every, 0.0), rtol=1e-12, atol=1e-12)


def test_the_jacobian_agrees_with_central_differences():
    """A second oracle, without automatic differentiation."""
    theta, model = random_thetas(12), model_of()
    heights = heights_of(model)
    analytic = counts_jacobian(theta, heights, evaluate(theta, model), model) * SCALE
    for i, name in enumerate(PARAMETER_NAMES):
        step = torch.zeros_like(theta)
        step[i] = 1e-4 * SCALE[i]
        up, down = ((evaluate(t, model).phi @ heights) for t in (theta + step, theta - step))
        torch.testing.assert_close(
            analytic[:, i], (up - down) / 2e-4, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_parameter_of_absent_components_has_no_derivative():
    model = model_of()
    theta = random_thetas(2)
    nothing = torch.zeros(len(model.component_names), dtype=torch.float64)
    assert float(counts_jacobian(theta, nothing, evaluate(theta, model), model).abs().max()) == 0.0


def test_in_single_precision_the_jacobian_keeps_its_type_and_agrees_to_1e_4():
    lines = as_float32(TABLE)
    theta = random_thetas(6)
    model = model_of()
    single = model_of(lines, channel=model.channel.float())
    heights = heights_of(model)
    exact = counts_jacobian(theta, heights, evaluate(theta, model), model)
    found = counts_jacobian(theta.float(), heights.float(), evaluate(theta.float(), single), single)
    assert found.dtype == torch.float32
    largest = exact.abs().amax(dim=0).clamp(min=1e-9)
    assert float(((found - exact) / largest).abs().max()) < 2e-3


def test_the_physics_set_takes_the_analytic_path(monkeypatch):
    """Else the comparison above would compare jacfwd with itself."""
    import hpcxrf.physics.jacobian as module

    def forbidden(*_):
        raise AssertionError

    monkeypatch.setattr(module, "automatic_jacobian", forbidden)
    model, theta = model_of(), random_thetas(1)
    counts_jacobian(theta, heights_of(model), evaluate(theta, model), model)
    parity = SpectrumModel(table=TABLE, channel=model.channel, constants=CONSTANT_SETS["maps-3.58"])
    with pytest.raises(AssertionError):
        counts_jacobian(theta, heights_of(model), evaluate(theta, parity), parity)
    assert not PHYSICS.maps_line_shape
