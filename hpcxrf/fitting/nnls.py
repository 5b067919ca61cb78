"""Non-negative least squares on normal equations, batched: block principal pivoting, exact."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_RIDGE: Final = 1e-10
# Feasibility is judged on the unit-diagonal system; below this a sign is rounding.
_TOLERANCE: Final = 1e-11
_FULL_EXCHANGES: Final = 3
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
    gram: Tensor, rhs: Tensor, start: Tensor | None = None, *, max_exchanges: int = 30, exact: bool = True
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
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # A column without any weight (its lines are switched off) can never be free.
    usable = diagonal > 1e-14 * diagonal.amax(dim=-1, keepdim=True)
    scale = torch.where(usable, diagonal.clamp(min=1e-300).rsqrt(), 0.0)
    g = gram * scale[..., :, None] * scale[..., None, :]
    g = g + _RIDGE * torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    b = rhs * scale
    free = usable if start is None else start & usable
    x, free, converged = _pivot_blocks(g, b, usable, free, max_exchanges)
    stuck = ~converged & torch.isfinite(b).all(dim=-1)
    if exact and bool(stuck.any()):
        x, free, converged = x.clone(), free.clone(), converged.clone()
        x[stuck], free[stuck], converged[stuck] = _solve_active_set(g[stuck], b[stuck], usable[stuck])
    return NonNegativeSolution(x=torch.where(free, x, 0.0).clamp(min=0.0) * scale, positive=free, converged=converged)


def _pivot_blocks(
    g: Tensor, b: Tensor, usable: Tensor, free: Tensor, max_exchanges: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solution, free columns and convergence on the unit-diagonal system."""
    best = torch.full(free.shape[:-1], free.shape[-1] + 1, device=free.device)
    patience = torch.full_like(best, _FULL_EXCHANGES)
    number = torch.ones_like(best)
    for _ in range(max_exchanges):
        wrong = _find_infeasible(g, b, usable, free, solve_masked(g, b, free))
        number = wrong.sum(dim=-1)
        if not bool(number.any()):
            break
        fell = number < best
        best = torch.where(fell, number, best)
        patience = torch.where(fell, _FULL_EXCHANGES, patience - 1)
        free = free ^ _exchange(wrong, patience >= 0)
    x = solve_masked(g, b, free)
    return x, free, (number == 0) & torch.isfinite(x).all(dim=-1)


def _find_infeasible(g: Tensor, b: Tensor, usable: Tensor, free: Tensor, x: Tensor) -> Tensor:
    """Columns that are free and negative, or held at 0 although the misfit would fall."""
    tolerance = _TOLERANCE * b.abs().amax(dim=-1, keepdim=True)
    dual = (g @ x[..., None])[..., 0] - b
    return (free & (x < -tolerance)) | (~free & usable & (dual < -tolerance))


def _solve_active_set(g: Tensor, b: Tensor, usable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lawson and Hanson (1974, Solving Least Squares Problems, ch. 23) from x = 0; (member, column) each.

    One column is freed at a time; where the new solution would leave x >= 0, x goes towards it as far as it
    may, and the columns that reach 0 are held again.
    """
    x, free = torch.zeros_like(b), torch.zeros_like(usable)
    tolerance = _TOLERANCE * b.abs().amax(dim=-1, keepdim=True)
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
