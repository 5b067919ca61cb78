"""The kernels of the integrated spectrum against the tensors, which are the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import channels, drawn, expected_counts, setup, table, theta_of
from model_cases import CASES, in_a_beam, pose, tailed_lines

from hpcxrf.fitting.kernels import spectrum_layout
from hpcxrf.fitting.nnls import _scale as scale_gram
from hpcxrf.fitting.nnls import _solve_active_set, _solve_tensors, nnls_gram
from hpcxrf.fitting.spectrum import compiled, separable
from hpcxrf.fitting.spectrum.compiled import can_be_compiled
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, build_space
from hpcxrf.fitting.spectrum.ratio_groups import list_family_groups
from hpcxrf.fitting.spectrum.separable import derive_ratios, find_misfits, minimise, start
from hpcxrf.physics.constants import PHYSICS, constant_set
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import PARAMETER_NAMES

# Where a peak is cut off, it and its derivatives have fallen to as much of their height.
SAME = 2e-12


def evaluated(theta, least_squares):
    """What the kernels leave at theta, and the point."""
    search = compiled.open_search(least_squares)
    search.data[spectrum_layout.COUNTS] = least_squares.counts.numpy()
    search.data[spectrum_layout.WEIGHTS] = least_squares.weights.numpy()
    misfit = compiled._evaluate(theta.numpy(), np.ones(len(search.columns), np.uint64), search)
    return search, compiled._derive(theta.numpy(), misfit, search)


def by_tensors(monkeypatch, call, *arguments, **options):
    with monkeypatch.context() as patch:
        patch.setattr(separable, "can_be_compiled", lambda *_: False)
        return call(*arguments, **options)


def assert_same(found, wanted, within=SAME):
    """To a share of the highest of each column (row, column)."""
    found, wanted = torch.as_tensor(found), torch.as_tensor(wanted)
    error = (found - wanted).abs().amax(dim=0) / wanted.abs().amax(dim=0).clamp(min=1e-200)
    assert float(error.max()) < within, error


def assert_none_differs(search, wanted):
    """To a share of the highest of all columns, where some lie outside of the range and are nothing."""
    found = torch.from_numpy(search.columns.T[:, : wanted.shape[1]].copy())
    assert float((found - wanted).abs().max()) < 1e-13 * float(wanted.max())


def test_the_kernels_know_theta_by_its_order():
    layout = (
        *("OFFSET", "SLOPE", "QUADRATIC", "NOISE", "FANO", "INCIDENT", "ANGLE", "COMPTON_WIDENING", "COMPTON_STEP"),
        *("COMPTON_TAIL", "COMPTON_GAMMA", "COMPTON_HI_TAIL", "COMPTON_HI_GAMMA", "STEP_OFFSET", "STEP_LINEAR"),
        *("TAIL_OFFSET", "TAIL_LINEAR", "KBETA_TAIL_OFFSET", "KBETA_TAIL_LINEAR", "GAMMA_OFFSET", "GAMMA_LINEAR"),
        "ESCAPE_FACTOR",
    )
    known = {name: getattr(spectrum_layout, name) for name in layout}
    assert list(known.values()) == list(range(spectrum_layout.N_THETA)) == list(range(len(PARAMETER_NAMES)))
    as_named = {"fwhm_offset": "NOISE", "fwhm_fanoprime": "FANO", "coherent_sct_energy": "INCIDENT"}
    as_named |= {"compton_fwhm_corr": "COMPTON_WIDENING"}
    for i, name in enumerate(PARAMETER_NAMES):
        told = as_named.get(name, name.upper().replace("ENERGY_", "").replace("COMPTON_ANGLE", "ANGLE"))
        told = told.replace("KB_F_TAIL", "KBETA_TAIL").replace("COMPTON_F_", "COMPTON_").replace("_HI_F_", "_HI_")
        assert known[told.removeprefix("F_")] == i


@pytest.mark.parametrize("name", CASES)
def test_columns_and_derivatives_are_those_of_the_tensors(name):
    theta, problem = CASES[name]()
    search, point = evaluated(theta, problem)
    evaluation = evaluate(theta, problem.model)
    n = evaluation.phi.shape[1]
    assert_same(search.columns.T[:, :n], evaluation.phi)
    amplitude = torch.from_numpy(point.linear[:n])
    assert bool((amplitude > 0).all())
    assert_same(search.rows.T, counts_jacobian(theta, amplitude, evaluation, problem.model))


@pytest.mark.parametrize("name", CASES)
def test_amplitudes_and_normal_equations_are_those_of_the_tensors(name, monkeypatch):
    theta, problem = CASES[name]()
    here = start(theta, problem)
    there = by_tensors(monkeypatch, start, theta, problem)
    assert torch.equal(here.positive, there.positive)
    torch.testing.assert_close(here.linear, there.linear, rtol=1e-9, atol=1e-9 * float(there.linear.max()))
    torch.testing.assert_close(here.misfit, there.misfit, rtol=1e-11, atol=0)
    unit = there.hessian.diagonal().clamp(min=1e-300).rsqrt()
    torch.testing.assert_close(
        here.hessian * unit * unit[:, None], there.hessian * unit * unit[:, None], rtol=0, atol=1e-8
    )
    torch.testing.assert_close(here.gradient * unit, there.gradient * unit, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["everything at once", "a tube"])
def test_the_derivatives_by_the_line_ratios_are_those_of_the_tensors(name, monkeypatch):
    theta, problem = CASES[name]()
    linear = start(theta, problem).linear
    assert_same(derive_ratios(theta, linear, problem), by_tensors(monkeypatch, derive_ratios, theta, linear, problem))


def test_misfits_of_trials_are_those_of_the_tensors(monkeypatch):
    theta, problem = in_a_beam()
    trials = theta.repeat(3, 1)
    trials[:, spectrum_layout.N_THETA] = torch.tensor([0.9, 0.3, 0.01])
    found = find_misfits(trials, problem)
    torch.testing.assert_close(found, by_tensors(monkeypatch, find_misfits, trials, problem), rtol=1e-9, atol=0)


def test_an_axis_that_turns_back_is_drawn_over_all_channels():
    theta, problem = in_a_beam(depth=False)
    theta[spectrum_layout.QUADRATIC] = -4e-6
    search, _ = evaluated(theta, problem)
    assert float(search.data[spectrum_layout.BIN_KEV].min()) < 0.0
    assert_none_differs(search, evaluate(theta, problem.model).phi)


def spectrum(total, seed):
    """A drawn spectrum, its problem as a fit poses it, and where the fit starts."""
    counts = drawn(sum(expected_counts(total)), seed)[100:1250].double()
    lines = table()
    model = SpectrumModel(
        table=lines, channel=channels(100, 1249), constants=PHYSICS, with_step=False, tailed=tailed_lines()
    )
    level = torch.ones((len(counts), 1), dtype=torch.float64)
    problem = LeastSquares(
        counts=counts,
        weights=1.0 / (counts + 10.0),
        model=model,
        hats=torch.cat([level, torch.linspace(0.0, 1.0, len(counts), dtype=torch.float64)[:, None]], dim=1),
        space=build_space(setup().parameters),
    )
    return problem, theta_of(coherent_sct_energy=12.0, energy_slope=0.01)


@pytest.mark.parametrize("total", [1e4, 1e6])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_search_ends_where_that_of_the_tensors_ends(total, seed, monkeypatch):
    problem, theta = spectrum(total, seed)

    def search():
        # To the optimum itself: where a search with a usual tolerance stops depends on the last digits.
        return minimise(start(theta, problem), problem, iterations=200, tolerance=1e-11)

    here, there = search(), by_tensors(monkeypatch, search)
    assert bool(here.done)
    free = problem.space.free
    precision = there.hessian + torch.diag((problem.space.scale / problem.space.prior_sd) ** 2)
    sigma = torch.linalg.inv(precision[free][:, free]).diagonal().sqrt() * problem.space.scale[free]
    assert float(((here.theta - there.theta)[free] / sigma).abs().max()) < 1e-3
    torch.testing.assert_close(here.linear, there.linear, rtol=1e-5, atol=1e-4 * total**0.5)


def test_a_member_of_a_batch_ends_where_it_ends_alone():
    """To the last bit: a spectrum's result does not depend on what is fitted beside it."""
    problem, theta = spectrum(1e6, 4)
    starts = torch.stack([theta, theta_of(coherent_sct_energy=12.1, energy_slope=0.01002, fwhm_offset=0.13)])
    together = minimise(start(starts, problem), problem, iterations=7)
    for i in range(2):
        alone = minimise(start(starts[i], problem), problem, iterations=7)
        for name in ("theta", "linear", "misfit", "hessian", "damping", "iterations", "done"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)), name
    in_parts = minimise(minimise(start(theta, problem), problem, iterations=3), problem, iterations=4)
    assert torch.equal(in_parts.theta, together.theta[0])


def test_line_shapes_of_maps_and_other_devices_stay_with_the_tensors():
    problem, theta = spectrum(1e5, 1)
    assert can_be_compiled(theta, problem)
    parity = replace(problem, model=replace(problem.model, constants=constant_set("maps-3.58")))
    assert not can_be_compiled(theta, parity)
    assert not can_be_compiled(theta.to(torch.device("meta")), problem)
    assert not can_be_compiled(theta.float(), problem)
    assert not can_be_compiled(theta[None][:0], problem)
    assert not can_be_compiled(theta.clone().requires_grad_(), problem)


def test_a_start_that_is_not_finite_is_done_and_harms_no_other():
    problem, theta = spectrum(1e5, 1)
    broken = theta.clone()
    broken[1] = torch.nan
    state = start(torch.stack([broken, theta]), problem)
    assert state.done.tolist() == [True, False]
    assert not bool(torch.isfinite(state.misfit[0]))
    torch.testing.assert_close(state.misfit[1], start(theta, problem).misfit, rtol=0, atol=0)


@pytest.mark.parametrize("most", [2, 30])
def test_pivoting_is_that_of_the_tensors(most):
    generator = torch.Generator().manual_seed(3)
    columns = torch.rand(200, 60, 14, generator=generator, dtype=torch.float64)
    columns[0, :, 3] = 0.0
    y = torch.rand(200, 60, generator=generator, dtype=torch.float64) - 0.3
    gram, rhs = columns.mT @ columns, (columns.mT @ y[..., None])[..., 0]
    found, wanted = nnls_gram(gram, rhs, max_exchanges=most, exact=False), _solve_tensors(gram, rhs, None, most)
    solved = wanted.converged
    assert int(solved.sum()) == (200 if most == 30 else int(solved.sum()))
    assert bool((found.converged | ~solved).all())
    assert torch.equal(found.positive[solved], wanted.positive[solved])
    torch.testing.assert_close(found.x[solved], wanted.x[solved], rtol=1e-8, atol=1e-10)
    again = nnls_gram(gram, rhs, wanted.positive)
    torch.testing.assert_close(again.x[solved], wanted.x[solved], rtol=1e-8, atol=1e-10)


def test_what_pivoting_does_not_solve_goes_to_the_active_set():
    generator = torch.Generator().manual_seed(8)
    columns = torch.rand(50, 40, 12, generator=generator, dtype=torch.float64) + 1.0
    y = torch.randn(50, 40, generator=generator, dtype=torch.float64)
    gram, rhs = columns.mT @ columns, (columns.mT @ y[..., None])[..., 0]
    found = nnls_gram(gram, rhs, max_exchanges=1)
    assert not bool(nnls_gram(gram, rhs, max_exchanges=1, exact=False).converged.all())
    g, b, usable, unit = scale_gram(gram, rhs)
    x, free, _ = _solve_active_set(g, b, usable)
    torch.testing.assert_close(found.x, torch.where(free, x, 0.0).clamp(min=0.0) * unit, rtol=1e-7, atol=1e-9)


def test_a_system_that_is_not_finite_has_no_solution_and_harms_no_other():
    gram = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    rhs = torch.ones(3, 3, dtype=torch.float64)
    gram[0, 0, 1] = gram[0, 1, 0] = torch.nan
    rhs[1, 2] = torch.nan
    found = nnls_gram(gram, rhs)
    assert found.converged.tolist() == _solve_tensors(gram, rhs, None, 30).converged.tolist() == [False, False, True]
    torch.testing.assert_close(found.x[2], torch.ones(3, dtype=torch.float64), rtol=1e-9, atol=0)


def test_peaks_below_the_range_and_above_it_leave_only_what_reaches_in():
    theta, problem = in_a_beam()
    inside = replace(problem.model, channel=channels(700, 900))
    sparse = pose(theta, inside, list_family_groups(table(), 0.05))
    search, _ = evaluated(theta, sparse)
    assert_none_differs(search, evaluate(theta, inside).phi)
