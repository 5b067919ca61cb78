"""Non-negative least squares on normal equations, batched: block principal pivoting, exact.

On a processor a compiled kernel takes the same steps, one member after the other.
"""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.kernels.spectrum_layout import (
    FULL_EXCHANGES,
    INFEASIBLE,
    LEAST_DIAGONAL,
    MOST_EXCHANGES,
    NNLS_RIDGE,
)

_ACTIVE_SET_STEPS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class NonNegativeSolution:
    """Minimiser of `x' G x / 2 - b' x` over x >= 0."""

    x: Tensor
    """(*batch, column)."""
    positive: Tensor
    """(*batch, column) bool: columns that are free, the others are held at 0."""
    converged: Tensor
    """(*batch,) bool: the optimality conditions hold."""


def solve_masked(gram: Tensor, rhs: Tensor, free: Tensor) -> Tensor:
    """Solve `G_FF x_F = b_F`, zero elsewhere; failed members give NaN.

    Args:
        gram: (*batch, column, column), symmetric positive semi-definite.
        rhs: (*batch, column) or (*batch, column, right-hand side).
        free: (*batch, column) bool.

    Returns:
        Shape of `rhs`.
    """
    vector = rhs.dim() == free.dim()
    b = rhs[..., None] if vector else rhs
    pair = free[..., :, None] & free[..., None, :]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, info = torch.linalg.cholesky_ex(torch.where(pair, gram, eye))
    x = torch.cholesky_solve(torch.where(free[..., None], b, 0.0), factor)
    x = torch.where((info == 0)[..., None, None], x, torch.nan)
    return x[..., 0] if vector else x


def nnls_gram(
    gram: Tensor, rhs: Tensor, start: Tensor | None = None, *, max_exchanges: int = MOST_EXCHANGES, exact: bool = True
) -> NonNegativeSolution:
    """Block principal pivoting (Kim and Park 2011, SIAM J. Sci. Comput. 33, 3261), batched.

    All infeasible columns change sides at once; a member whose number of infeasible columns has not fallen
    three times exchanges only the last one (Murty's rule, which cannot cycle but may take very long where
    columns overlap). Members that need more than `max_exchanges` rounds are solved by the active-set method of
    Lawson and Hanson, whose misfit falls in every step.

    Args:
        gram: (*batch, column, column) float64, `A' W A`.
        rhs: (*batch, column), `A' W y`.
        start: (*batch, column) bool, columns free at the start; all by default.
        max_exchanges: bound on the rounds of pivoting.
        exact: False leaves members that are not optimal by then as they are, non-negative all the same.

    Returns:
        The solution; a member that is not finite or not optimal has `converged` False.
    """
    if gram.device.type == "cpu" and gram.dtype == rhs.dtype == torch.float64:
        solution = _solve_compiled(gram, rhs, start, max_exchanges)
    else:
        solution = _solve_tensors(gram, rhs, start, max_exchanges)
    if not exact:
        return solution
    stuck = ~solution.converged & torch.isfinite(rhs).all(dim=-1)
    if not bool(stuck.any()):
        return solution
    g, b, usable, scale = _scale(gram[stuck], rhs[stuck])
    x, positive, converged = (value.clone() for value in (solution.x, solution.positive, solution.converged))
    found, positive[stuck], converged[stuck] = _solve_active_set(g, b, usable)
    x[stuck] = torch.where(positive[stuck], found, 0.0).clamp(min=0.0) * scale
    return NonNegativeSolution(x=x, positive=positive, converged=converged)


def _solve_tensors(gram: Tensor, rhs: Tensor, start: Tensor | None, max_exchanges: int) -> NonNegativeSolution:
    g, b, usable, scale = _scale(gram, rhs)
    x, free, converged = _pivot_blocks(g, b, usable, usable if start is None else start & usable, max_exchanges)
    return NonNegativeSolution(x=torch.where(free, x, 0.0).clamp(min=0.0) * scale, positive=free, converged=converged)


def _scale(gram: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The system of unit diagonal, which columns are usable, and the scale of each."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # A column without any weight (its lines are switched off) can never be free.
    usable = diagonal > LEAST_DIAGONAL * diagonal.amax(dim=-1, keepdim=True)
    scale = torch.where(usable, diagonal.clamp(min=1e-300).rsqrt(), 0.0)
    g = gram * scale[..., :, None] * scale[..., None, :]
    g = g + NNLS_RIDGE * torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    return g, rhs * scale, usable, scale


@functools.cache
def _load_kernels() -> ModuleType:
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("spectrum_amplitudes")


def _solve_compiled(gram: Tensor, rhs: Tensor, start: Tensor | None, max_exchanges: int) -> NonNegativeSolution:
    n, batch = rhs.shape[-1], rhs.shape[:-1]
    of_members = np.ascontiguousarray(gram.detach().expand(*batch, n, n).reshape(-1, n, n).numpy())
    right = np.ascontiguousarray(rhs.detach().reshape(-1, n).numpy())
    begin = torch.ones_like(rhs, dtype=torch.bool) if start is None else start.expand(rhs.shape)
    free = begin.reshape(-1, n).numpy().astype(np.uint64)
    x, found = np.empty_like(right), np.empty(len(right), np.uint64)
    room = np.empty((2, n, n)), np.empty((2, n)), np.empty((3, n), np.uint64)
    _load_kernels().solve_members(of_members, right, max_exchanges, free, *room, x, found)
    solved = (found > 0) & np.isfinite(x).all(axis=1)
    return NonNegativeSolution(
        x=torch.from_numpy(x).reshape(rhs.shape),
        positive=torch.from_numpy(free > 0).reshape(rhs.shape),
        converged=torch.from_numpy(solved).reshape(batch),
    )


def _pivot_blocks(
    g: Tensor, b: Tensor, usable: Tensor, free: Tensor, max_exchanges: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solution, free columns and convergence on the unit-diagonal system."""
    best = torch.full(free.shape[:-1], free.shape[-1] + 1, device=free.device)
    patience = torch.full_like(best, FULL_EXCHANGES)
    number = torch.ones_like(best)
    for _ in range(max_exchanges):
        wrong = _find_infeasible(g, b, usable, free, solve_masked(g, b, free))
        number = wrong.sum(dim=-1)
        if not bool(number.any()):
            break
        fell = number < best
        best = torch.where(fell, number, best)
        patience = torch.where(fell, FULL_EXCHANGES, patience - 1)
        free = free ^ _exchange(wrong, patience >= 0)
    x = solve_masked(g, b, free)
    return x, free, (number == 0) & torch.isfinite(x).all(dim=-1)


def _find_infeasible(g: Tensor, b: Tensor, usable: Tensor, free: Tensor, x: Tensor) -> Tensor:
    """Columns that are free and negative, or held at 0 although the misfit would fall."""
    tolerance = INFEASIBLE * b.abs().amax(dim=-1, keepdim=True)
    dual = (g @ x[..., None])[..., 0] - b
    return (free & (x < -tolerance)) | (~free & usable & (dual < -tolerance))


def _solve_active_set(g: Tensor, b: Tensor, usable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lawson and Hanson (1974, Solving Least Squares Problems, ch. 23) from x = 0; (member, column) each.

    One column is freed at a time; where the new solution would leave x >= 0, x goes towards it as far as it
    may, and the columns that reach 0 are held again.
    """
    x, free = torch.zeros_like(b), torch.zeros_like(usable)
    tolerance = INFEASIBLE * b.abs().amax(dim=-1, keepdim=True)
    for _ in range(_ACTIVE_SET_STEPS * b.shape[-1]):
        trial = solve_masked(g, b, free)
        below = free & (trial <= 0.0)
        inside = ~below.any(dim=-1, keepdim=True)
        dual = torch.where(free | ~usable, torch.inf, (g @ trial[..., None])[..., 0] - b)
        improves = inside & (dual.amin(dim=-1, keepdim=True) < -tolerance)
        if not bool((improves | ~inside).any()):
            break
        reach = torch.where(below, x / (x - trial).clamp(min=1e-300), 1.0)
        x = (x + reach.amin(dim=-1, keepdim=True) * (trial - x)).clamp(min=0.0)
        freed = torch.nn.functional.one_hot(dual.argmin(dim=-1), b.shape[-1]).bool()
        free = torch.where(improves, free | freed, free & ~(below & (reach <= reach.amin(-1, keepdim=True))))
        x = torch.where(free, x, 0.0)
    x = solve_masked(g, b, free)
    wrong = _find_infeasible(g, b, usable, free, x)
    return x, free, ~wrong.any(dim=-1) & torch.isfinite(x).all(dim=-1)


def _exchange(wrong: Tensor, full: Tensor) -> Tensor:
    """All infeasible columns, or the last one where `full` is False."""
    last = wrong & (wrong.flip(-1).cumsum(-1).flip(-1) == 1)
    return torch.where(full[..., None], wrong, last)
