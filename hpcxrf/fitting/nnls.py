"""Non-negative least squares on normal equations, batched: block principal pivoting with exact finish."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_RIDGE: Final = 1e-10
# Feasibility is judged on the unit-diagonal system; below this a sign is rounding.
_TOLERANCE: Final = 1e-11
_FULL_EXCHANGES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NonNegativeSolution:
    """Minimiser of `x' G x / 2 - b' x` over x >= 0."""

    x: Tensor
    """(*batch, column)."""
    positive: Tensor
    """(*batch, column) bool: columns that are free, the others are held at 0."""
    converged: Tensor
    """(*batch,) bool: the optimality conditions hold."""


def masked_solve(gram: Tensor, rhs: Tensor, free: Tensor) -> Tensor:
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
    gram: Tensor, rhs: Tensor, start: Tensor | None = None, *, max_exchanges: int = 60
) -> NonNegativeSolution:
    """Block principal pivoting (Kim and Park 2011, SIAM J. Sci. Comput. 33, 3261), batched.

    All infeasible columns change sides at once; a member whose number of infeasible columns has not fallen
    three times exchanges only the last one (Murty's rule, which cannot cycle).

    Args:
        gram: (*batch, column, column) float64, `A' W A`.
        rhs: (*batch, column), `A' W y`.
        start: (*batch, column) bool, columns free at the start; all by default.
        max_exchanges: bound on the rounds.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # A column without any weight (its lines are switched off) can never be free.
    usable = diagonal > 1e-14 * diagonal.amax(dim=-1, keepdim=True)
    scale = torch.where(usable, diagonal.clamp(min=1e-300).rsqrt(), 0.0)
    g = gram * scale[..., :, None] * scale[..., None, :]
    g = g + _RIDGE * torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    b = rhs * scale
    free = usable if start is None else start & usable
    best = torch.full(free.shape[:-1], free.shape[-1] + 1, device=free.device)
    patience = torch.full_like(best, _FULL_EXCHANGES)
    size = b.abs().amax(dim=-1, keepdim=True)
    number = torch.ones_like(best)
    for _ in range(max_exchanges):
        x = masked_solve(g, b, free)
        dual = (g @ x[..., None])[..., 0] - b
        wrong = (free & (x < -_TOLERANCE * size)) | (~free & usable & (dual < -_TOLERANCE * size))
        number = wrong.sum(dim=-1)
        if not bool(number.any()):
            break
        fell = number < best
        best = torch.where(fell, number, best)
        patience = torch.where(fell, _FULL_EXCHANGES, patience - 1)
        free = free ^ _exchange(wrong, patience >= 0)
    x = masked_solve(g, b, free)
    return NonNegativeSolution(
        x=torch.where(free, x, 0.0).clamp(min=0.0) * scale, positive=free, converged=number == 0
    )


def _exchange(wrong: Tensor, full: Tensor) -> Tensor:
    """All infeasible columns, or the last one where `full` is False."""
    last = wrong & (wrong.flip(-1).cumsum(-1).flip(-1) == 1)
    return torch.where(full[..., None], wrong, last)
