"""Pixels whose theta has left the range of the tangent dictionary, fitted again around where it went."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.parts import Estimate, project, shared_variance, spectrum_deviance
from hpcxrf.fitting.pixels.tangent import SHIFT_REACH, TangentOperator, find_misfit, fit_tangent

PLAUSIBLE_SD: Final = 3.0
"""Farthest distance from the theta of the scan to which a pixel is followed, in standard deviations of the prior."""
TOLD_BY: Final = 14.2
"""Poisson deviance that a theta of its own must take off a pixel that has left the range, or found no end: chi2 of
three parameters at three sigmas."""
_TOLD_SHARE: Final = 0.5
_MOVES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansions:
    """Further points of expansion, on a lattice about the theta of the scan."""

    spacing: Tensor
    """(parameter,) float32: distance of two points, in prior standard deviations."""
    prior_sd: Tensor
    """(parameter,) float32, units of theta."""
    at: Callable[[tuple[int, ...]], TangentOperator]
    """Operator of the pixels near a point of the lattice."""


def follow(counts: Tensor, found: Estimate, expansions: Expansions, *, errors: bool) -> Estimate:
    """Fit the pixels that have left the range of their expansion, or found no end, again at the point nearest to them.

    Until all that left have the nearest point, or would have to go farther than is plausible: those stay flagged.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        found: estimate of `fit_tangent`, with its misfit where any pixel has left the range.
        expansions: further points of expansion.
        errors: whether the variance is wanted.
    """
    if not has_left(found):
        return found
    place = torch.zeros_like(_find_outside(found, expansions)[1])
    for _ in range(_MOVES):
        outside, wanted = _find_outside(found, expansions)
        left = outside | (place != 0).any(dim=1)
        going = torch.nonzero(left & (wanted != place).any(dim=1))[:, 0]
        if going.numel() == 0:
            break
        place[going] = wanted[going]
        for point in torch.unique(place[going], dim=0):
            rows = going[(place[going] == point).all(dim=1)]
            tangent = expansions.at(tuple(int(i) for i in point.tolist()))
            again = _fit_at_point(counts[rows], tangent, errors=errors)
            found = _replace_rows(found, rows, again)
    return found


def has_left(found: Estimate) -> bool:
    """Whether any pixel has left the range of its expansion, or found no end."""
    return found.in_range is not None and not bool((found.in_range & found.solved).all())


def keep_theta(counts: Tensor, signed: Tensor, found: Estimate, tangent: TangentOperator, *, errors: bool) -> Estimate:
    """Give the theta of the scan to pixels whose own was not found, or is out of reach, without counts that tell it.

    In a pixel of a few counts a shift of the lines can please single counts without end. N counts in one peak tell its
    place to its width over sqrt(N): where that is not half of the prior, or where the Poisson deviance at the theta of
    the scan is as good, the pixel has nothing to say on its theta.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        signed: (pixel, column) float32: the unconstrained coefficients at the theta of the scan.
        found: estimate of `follow`.
        tangent: products at the theta of the scan.
        errors: whether the variance is wanted.
    """
    if found.in_range is None or found.shift is None or found.misfit is None:
        return found
    doubtful = torch.nonzero(~(found.in_range & found.solved))[:, 0]
    if doubtful.numel() == 0:
        return found
    operator = tangent.shared
    misfit = spectrum_deviance(counts[doubtful], signed[doubtful], operator.columns)
    faint = counts[doubtful].to(torch.float32).sum(dim=1) < least_counts(tangent)
    untold = faint | (misfit - found.misfit[doubtful] < TOLD_BY)
    rows = doubtful[untold]
    if rows.numel() == 0:
        return found
    variance, null = shared_variance(signed[rows], operator) if errors else (None, None)
    yes = torch.ones_like(rows, dtype=torch.bool)
    sigma = tangent.prior_sd.expand(rows.numel(), -1)
    again = Estimate(
        coefficients=signed[rows],
        solved=yes,
        factors=signed[rows],
        columns=operator.columns,
        variance=variance,
        null_variance=null,
        shift=torch.zeros_like(sigma),
        shift_sigma=sigma if errors else None,
        in_range=yes,
        misfit=misfit[untold],
    )
    kept = torch.zeros_like(found.solved).index_fill(0, rows, value=True)
    return replace(_replace_rows(found, rows, again), theta_kept=kept)


def least_counts(tangent: TangentOperator) -> float:
    """Counts in one peak that tell its place to half of what one standard deviation of the prior moves it."""
    widths = SHIFT_REACH * float(tangent.motion.abs().max())
    return (_TOLD_SHARE * widths) ** -2 if widths > 0.0 else 0.0


def _find_outside(found: Estimate, expansions: Expansions) -> tuple[Tensor, Tensor]:
    """Pixels (pixel,) that another point may mend, and the lattice's point (pixel, parameter) nearest to each pixel."""
    if found.in_range is None or found.shift is None:
        raise FitError("only pixels with a theta of their own can be followed; use pixel method 'nonlinear'")
    farthest = torch.ceil(PLAUSIBLE_SD / expansions.spacing)
    nearest = torch.round(found.shift / expansions.prior_sd / expansions.spacing)
    # Near the end of its range the dictionary converges slowly: nearer, it does not.
    return ~(found.in_range & found.solved), torch.minimum(torch.maximum(nearest, -farthest), farthest)


def _fit_at_point(counts: Tensor, tangent: TangentOperator, *, errors: bool) -> Estimate:
    found = fit_tangent(counts, project(counts, tangent.shared.projector), tangent, errors=errors)
    return replace(found, misfit=find_misfit(counts, found, tangent))


def _replace_rows(found: Estimate, rows: Tensor, again: Estimate) -> Estimate:
    """The estimate with some pixels taken from another."""
    names = ("coefficients", "solved", "variance", "null_variance", "shift", "shift_sigma", "in_range", "misfit")
    changed: dict[str, Any] = {name: _put(found, again, name, rows) for name in names}
    return replace(found, **changed)


def _put(found: Estimate, again: Estimate, name: str, rows: Tensor) -> Tensor | None:
    old, new = getattr(found, name), getattr(again, name)
    return None if old is None else old.index_copy(0, rows, new)
