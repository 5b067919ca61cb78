"""Non-negative least squares against scipy, and against its own optimality conditions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from hpcxrf.fitting.nnls import nnls_gram, solve_masked


def problem(seed, rows, columns, *, active=0.5, condition=1.0):
    """A design, and counts whose solution is negative without the constraint in about `active` columns."""
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.normal(size=(rows, columns)))
    v, _ = np.linalg.qr(rng.normal(size=(columns, columns)))
    design = u * np.geomspace(1.0, 1.0 / condition, columns) @ v.T
    truth = rng.uniform(0.5, 3.0, columns) * np.where(rng.uniform(size=columns) < active, -1.0, 1.0)
    return design, design @ truth + 0.01 * rng.normal(size=rows)


def solve(design, counts, **options):
    a, y = torch.from_numpy(np.asarray(design)), torch.from_numpy(np.asarray(counts))
    return nnls_gram(a.mT @ a, (a.mT @ y[..., None])[..., 0], **options)


def assert_optimal(design, counts, solution, tolerance):
    """x >= 0, the gradient >= 0, and one of the two 0 in every column; on the unit-diagonal scale."""
    x, height = solution.x.numpy(), np.linalg.norm(design, axis=-2)
    gradient = (design.T @ (design @ x - counts)) / np.where(height > 0, height, 1.0)
    size = np.abs(design.T @ counts / np.where(height > 0, height, 1.0)).max()
    assert (x >= 0.0).all()
    assert (gradient >= -tolerance * size).all()
    assert np.abs(gradient[x > 0.0]).max(initial=0.0) <= tolerance * size


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("active", [0.0, 0.5, 1.0])
def test_random_problems_have_the_solution_of_scipy(seed, active):
    design, counts = problem(seed, 60, 17, active=active)
    found = solve(design, counts)
    assert bool(found.converged)
    np.testing.assert_allclose(found.x.numpy(), nnls(design, counts)[0], atol=1e-8)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_ill_conditioned_problems_reach_the_residual_of_scipy(seed, condition):
    """The solutions may differ along the weak directions, not the misfit."""
    design, counts = problem(seed, 80, 20, condition=condition)
    _, norm = nnls(design, counts)
    found = solve(design, counts)
    assert bool(found.converged)
    assert np.linalg.norm(design @ found.x.numpy() - counts) <= norm * (1.0 + 1e-6)
    assert_optimal(design, counts, found, 1e-6)


def test_a_negative_optimum_in_one_dimension_is_zero():
    # min (x + 1)^2: x = 0, gradient 1 there
    found = nnls_gram(torch.ones(1, 1, dtype=torch.float64), torch.tensor([-1.0]).double())
    assert found.x.tolist() == [0.0]
    assert found.positive.tolist() == [False]


def test_two_columns_solved_by_hand():
    # A = [[1, 1], [0, 1]], y = (1, -1): unconstrained (2, -1); with x2 = 0, x1 = 1, gradient of x2 = 1.
    found = solve([[1.0, 1.0], [0.0, 1.0]], [1.0, -1.0])
    np.testing.assert_allclose(found.x.numpy(), [1.0, 0.0], atol=1e-9)
    assert found.positive.tolist() == [True, False]
    np.testing.assert_allclose(solve([[1.0, 1.0], [0.0, 1.0]], [3.0, 1.0]).x.numpy(), [2.0, 1.0], rtol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(1, 25),
    extra=st.integers(0, 30),
    active=st.floats(0.0, 1.0),
    scale=st.floats(-6.0, 6.0),
)
@settings(deadline=None, max_examples=80)
def test_the_optimality_conditions_hold_whatever_the_problem_and_its_units(seed, columns, extra, active, scale):
    design, counts = problem(seed, columns + extra, columns, active=active, condition=30.0)
    units = np.geomspace(1.0, 10.0**scale, columns)
    found = solve(design * units, counts)
    assert bool(found.converged)
    assert_optimal(design * units, counts, found, 1e-7)
    assert (found.x.numpy()[~found.positive.numpy()] == 0.0).all()


def test_equal_columns_share_the_counts_and_the_misfit_is_that_of_one():
    design, counts = problem(3, 40, 6, active=0.3)
    doubled = np.concatenate([design, design[:, :1], design[:, 2:3]], axis=1)
    found = solve(doubled, counts)
    assert bool(found.converged & torch.isfinite(found.x).all())
    misfit = np.linalg.norm(doubled @ found.x.numpy() - counts)
    assert misfit == pytest.approx(nnls(design, counts)[1], rel=1e-7)


def test_a_column_without_any_weight_stays_zero_and_does_not_disturb_the_others():
    design, counts = problem(4, 40, 6)
    with_empty = np.insert(design, 2, 0.0, axis=1)
    found = solve(with_empty, counts)
    assert bool(found.converged)
    assert found.x[2] == 0.0
    assert not bool(found.positive[2])
    np.testing.assert_allclose(np.delete(found.x.numpy(), 2), nnls(design, counts)[0], atol=1e-8)


def test_counts_of_zero_give_zero():
    design, _ = problem(5, 30, 7)
    found = solve(design, np.zeros(30))
    assert bool(found.converged)
    assert float(found.x.abs().max()) == 0.0


def test_a_batch_is_the_stack_of_its_members():
    pairs = [problem(seed, 50, 12, active=seed / 10) for seed in range(10)]
    designs, counts = (np.stack(part) for part in zip(*pairs, strict=True))
    whole = solve(designs, counts)
    shaped = solve(designs.reshape(2, 5, 50, 12), counts.reshape(2, 5, 50))
    for i, (design, y) in enumerate(pairs):
        single = solve(design, y)
        torch.testing.assert_close(whole.x[i], single.x, rtol=1e-11, atol=1e-13)
        assert bool((whole.positive[i] == single.positive).all())
    torch.testing.assert_close(shaped.x.reshape(10, 12), whole.x, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("seed", range(6))
def test_the_start_does_not_change_the_solution(seed):
    design, counts = problem(seed, 60, 15)
    cold = solve(design, counts)
    rng = np.random.default_rng(seed)
    for start in (np.zeros(15, bool), np.ones(15, bool), rng.uniform(size=15) < 0.5):
        warm = solve(design, counts, start=torch.from_numpy(start))
        assert bool(warm.converged)
        torch.testing.assert_close(warm.x, cold.x, rtol=1e-9, atol=1e-12)


def test_two_hundred_hard_problems_all_converge():
    """Columns like overlapping peaks, most of them absent: pivoting alone leaves a quarter unsolved."""
    rng = np.random.default_rng(0)
    channel = np.arange(120.0)
    centres = np.sort(rng.uniform(0, 120, size=(200, 25)), axis=1)
    designs = np.exp(-0.5 * ((channel[:, None] - centres[:, None, :]) / 6.0) ** 2)
    counts = rng.poisson(2.0 + 0.0 * channel, size=(200, 120)).astype(float)
    found = solve(designs, counts)
    assert bool(found.converged.all())
    for i in range(0, 200, 10):
        misfit = np.linalg.norm(designs[i] @ found.x[i].numpy() - counts[i])
        assert misfit == pytest.approx(nnls(designs[i], counts[i])[1], rel=1e-6)


def test_members_that_pivoting_does_not_finish_are_solved_by_the_active_set():
    for seed in range(10):
        design, counts = problem(seed, 60, 17)
        found = solve(design, counts, max_exchanges=1)
        assert bool(found.converged)
        np.testing.assert_allclose(found.x.numpy(), nnls(design, counts)[0], atol=1e-8)


def test_a_member_with_counts_that_are_not_finite_is_not_converged_and_the_others_are():
    design, counts = problem(1, 60, 9)
    found = solve(np.stack([design, design]), np.stack([counts * np.nan, counts]))
    assert found.converged.tolist() == [False, True]
    np.testing.assert_allclose(found.x[1].numpy(), nnls(design, counts)[0], atol=1e-8)


def test_a_masked_solve_is_the_solve_of_the_submatrix():
    design, counts = problem(2, 30, 5)
    gram, rhs = torch.from_numpy(design.T @ design), torch.from_numpy(design.T @ counts)
    free = torch.tensor([True, False, True, True, False])
    kept = free.numpy().nonzero()[0]
    by_hand = np.linalg.solve(gram.numpy()[np.ix_(kept, kept)], rhs.numpy()[kept])
    found = solve_masked(gram, rhs, free)
    np.testing.assert_allclose(found.numpy()[kept], by_hand, rtol=1e-12)
    assert found[[1, 4]].tolist() == [0.0, 0.0]
    several = solve_masked(gram, torch.stack([rhs, 2 * rhs], dim=-1), free)
    torch.testing.assert_close(several, torch.stack([found, 2 * found], dim=-1))


def test_a_masked_solve_of_an_indefinite_member_is_nan_and_the_others_stand():
    eye = torch.eye(2, dtype=torch.float64)
    found = solve_masked(torch.stack([-eye, 2 * eye]), torch.ones(2, 2).double(), torch.ones(2, 2).bool())
    assert bool(found[0].isnan().all())
    torch.testing.assert_close(found[1], torch.tensor([0.5, 0.5]).double())
