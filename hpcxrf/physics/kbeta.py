"""K-beta lines free of the K-alpha lines: two columns for a family, tied by a prior on their ratio.

Thick samples absorb K-alpha more than K-beta, and chemistry moves the ratio by some per cent. Each K family gets a
column of its K-alpha and one of its K-beta lines; both coefficients are found with the others, under the prior
`a_beta ~ N(rho a_alpha, (sd rho a_alpha)^2)`, rho being the ratio of the line table.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics.lines import LineTable

SUFFIX: Final = "_Kb"
"""Ending of the K-beta component's name."""
# Counts of K-alpha below which the prior gets no tighter: a family near zero stays tied, and the precision finite.
_FLOOR_COUNTS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KbetaPairs:
    """Components of a split table that are the two parts of one family."""

    alpha: Tensor
    """(pair,) int64, index of the K-alpha component; the same as in the original table."""
    beta: Tensor
    """(pair,) int64, index of the K-beta component."""
    rho: Tensor
    """(pair,) float64, counts of K-beta to counts of K-alpha in the original table."""


def split_kbeta(
    table: LineTable, *, energy_min_kev: float = 0.0, energy_max_kev: float = torch.inf
) -> tuple[LineTable, KbetaPairs]:
    """Give the K-beta lines of every K family a component of their own.

    Args:
        table: of `build_line_table`: a component's ratios sum to 1.
        energy_min_kev: a family is split where both parts have a line from here ...
        energy_max_kev: ... to here; the data could not separate the parts of the others.

    Returns:
        The same lines in the same order with the components of the original, `Fe` holding the K-alpha lines, then
        `Fe_Kb` and the like. Of each, the ratios sum to 1 again, so that an amplitude is counts.
    """
    beta = table.is_kbeta
    inside = (table.energy_kev >= energy_min_kev) & (table.energy_kev <= energy_max_kev)
    own = table.escape_parent < 0
    # A component without K-beta lines has none of the second kind, whatever shell it is of.
    seen_alpha = _share(table, own & inside & ~beta)
    seen_beta = _share(table, own & inside & beta)
    alpha = torch.nonzero((seen_alpha > 0.0) & (seen_beta > 0.0))[:, 0]
    share = torch.stack([_share(table, ~beta), _share(table, beta)])
    first = len(table.component_names)
    pairs = KbetaPairs(
        alpha=alpha,
        beta=first + torch.arange(alpha.shape[0], device=alpha.device),
        rho=share[1, alpha] / share[0, alpha],
    )
    split, place = _membership(table, pairs)
    ratio = torch.where(split, table.ratio / share[beta.to(torch.int64), table.component], table.ratio)
    names = tuple(f"{table.component_names[i]}{SUFFIX}" for i in alpha.tolist())
    moved = torch.where(split & beta, place, table.component)
    return (replace(table, component_names=(*table.component_names, *names), component=moved, ratio=ratio), pairs)


def prior_gram(pairs: KbetaPairs, amplitude: Tensor, sd: float) -> Tensor:
    """Quadratic form of the prior, to be added to the normal equations of the amplitudes in counts.

    `a^T G a = sum over pairs of (a_beta - rho a_alpha)^2 / (sd rho max(a_alpha, 1))^2`, its width taken at the given
    amplitudes.

    Args:
        pairs: of `split_kbeta`.
        amplitude: (..., component) counts, of the split table's components and any that follow them.
        sd: relative width, above 0.

    Returns:
        (..., component, component), zero but for the pairs.
    """
    alpha, beta, rho = pairs.alpha, pairs.beta, pairs.rho.to(amplitude.dtype)
    width = sd * rho * amplitude[..., alpha].clamp(min=_FLOOR_COUNTS)
    precision = width**-2
    gram = amplitude.new_zeros((*amplitude.shape, amplitude.shape[-1]))
    gram[..., alpha, alpha] = precision * rho * rho
    gram[..., beta, beta] = precision
    gram[..., alpha, beta] = gram[..., beta, alpha] = -precision * rho
    return gram


def merge_table(table: LineTable, pairs: KbetaPairs, amplitude: Tensor) -> LineTable:
    """The original table with the K-beta ratios that were fitted.

    Its columns times `amplitude[alpha] + amplitude[beta]` are those of the two parts times their own amplitudes.

    Args:
        table: the original, not the split one.
        pairs: of `split_kbeta`.
        amplitude: (component,) fitted counts of the split table's components and any that follow them.

    Returns:
        Components, names, lines and their order as in the original; ratios of a family sum to 1. Where K-alpha has
        no counts, the ratio stays.
    """
    fitted = torch.where(
        amplitude[pairs.alpha] > 0.0,
        amplitude[pairs.beta] / amplitude[pairs.alpha].clamp(min=torch.finfo(table.ratio.dtype).tiny),
        pairs.rho,
    )
    n = len(table.component_names)
    to_alpha, to_beta = table.ratio.new_ones(n), table.ratio.new_ones(n)
    to_alpha[pairs.alpha] = (1.0 + pairs.rho) / (1.0 + fitted)
    to_beta[pairs.alpha] = (1.0 + pairs.rho) / (1.0 + fitted) * fitted / pairs.rho
    factor = torch.where(table.is_kbeta, to_beta[table.component], to_alpha[table.component])
    return replace(table, ratio=table.ratio * factor)


def merge_amplitude(pairs: KbetaPairs, amplitude: Tensor) -> Tensor:
    """Counts of whole families: those of both parts added, the K-beta components gone.

    Args:
        pairs: of `split_kbeta`.
        amplitude: (..., component) counts, of the split table's components and any that follow them.

    Returns:
        (..., component - pair): the original table's components, then any that followed.
    """
    whole = amplitude.clone()
    whole[..., pairs.alpha] += amplitude[..., pairs.beta]
    keep = torch.ones(amplitude.shape[-1], dtype=torch.bool, device=amplitude.device)
    keep[pairs.beta] = False
    return whole[..., keep]


def _share(table: LineTable, mask: Tensor) -> Tensor:
    """(component,) sum of the ratios of the lines of a mask."""
    total = table.ratio.new_zeros(len(table.component_names))
    return total.index_add(0, table.component, table.ratio * mask)


def _membership(table: LineTable, pairs: KbetaPairs) -> tuple[Tensor, Tensor]:
    """(line,) whether its family is split, and the K-beta component of that family."""
    place = torch.full((len(table.component_names),), -1, device=table.component.device)
    place[pairs.alpha] = pairs.beta
    of_line = place[table.component]
    return of_line >= 0, of_line
