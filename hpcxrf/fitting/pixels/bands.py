"""Which columns say something where: products with raw counts made of fewer multiplications.

`(T' Phi)^-1 T' y` are unbiased coefficients for any T, the most precise ones for T = W Phi. Peaks are narrow: most of
T is next to nothing. It is cut into bands of channels, each with the columns alone that have information there; the
inverse of what is left makes up for the rest.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.pairs import Grouping, with_totals

LEFT_OUT: Final = 1e-11
"""Largest share of a column's information left out in a band: coefficients change by its square root, in sigma."""
MOST_ROUNDING: Final = 3e-5
"""Largest change of a coefficient by the rounding of bands, in its sigma, where one product does not half of it."""
# Bands begin on whole cache lines of float32.
_STEP: Final = 16
# Time of a band of n sums and r columns, in multiplications: n (r + _PASS) to read its sums, and a call.
_PASS: Final = 6.0
_CALL: Final = 150.0
_EPSILON: Final = torch.finfo(torch.float32).eps


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Sums `start` to `stop`, seen by some columns."""

    start: int
    stop: int
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BandedProjector:
    """A projector as weights in bands and a small matrix; its last column is a pixel's counts, as of `with_totals`."""

    bands: tuple[Band, ...]
    weights: Tensor
    """(channel, column) float64: T of all bands, by channel."""
    mixing: Tensor
    """(column, column) float64: `T' y @ mixing` are the coefficients."""


def banded_projector(columns: Tensor, weighted: Tensor, used: Tensor, grouping: Grouping) -> BandedProjector:
    """Cut the weighted columns into the bands that take the fewest multiplications.

    Args:
        columns: (channel, column) float64.
        weighted: (channel, column) float64: W Phi, of the grouping's sums.
        used: (column,) bool: the others' coefficients are 0.
        grouping: the sums that a product is made of.
    """
    edges = _edges(grouping)
    information = _information(columns, weighted, grouping, edges)
    present = information[None] - information[:, None] > LEFT_OUT
    bands = _cheapest(edges, torch.nn.functional.pad(present, (0, 1), value=True))
    whole = with_totals(weighted, grouping)
    weights = torch.zeros_like(whole)
    for band in bands:
        first, after = grouping.channel_of(band.start), grouping.channel_of(band.stop)
        kept = list(band.columns)
        weights[first:after, kept] = whole[first:after, kept]
    mixing = mixing_matrix(weights[:, :-1].T @ columns, used)
    return BandedProjector(
        bands=bands, weights=weights, mixing=torch.block_diag(mixing, torch.ones_like(mixing[:1, :1]))
    )


def one_band(projector: Tensor, grouping: Grouping) -> BandedProjector:
    """A projector (channel, column) float64 as it is."""
    whole = with_totals(projector, grouping)
    everywhere = Band(start=0, stop=grouping.n_sums, columns=tuple(range(whole.shape[1])))
    mixing = torch.eye(whole.shape[1], dtype=whole.dtype)
    return BandedProjector(bands=(everywhere,), weights=whole, mixing=mixing)


def rounding(banded: BandedProjector, expected: Tensor) -> Tensor:
    """(column,): largest change of the coefficients of a spectrum by single precision, in their sigma.

    Columns that are nearly mixtures of others are small differences of large numbers in bands.

    Args:
        banded: projector in bands or whole.
        expected: (channel,) counts of the spectrum.
    """
    weights, mixing = banded.weights[:, :-1], banded.mixing[:-1, :-1]
    sigma = (((weights @ mixing) ** 2).T @ expected).sqrt()
    changed = _EPSILON * ((weights.abs().T @ expected) @ mixing.abs())
    return torch.where(sigma > 0, changed / sigma.clamp(min=1e-300), 0.0)


def mixing_matrix(seen: Tensor, used: Tensor) -> Tensor:
    """(T' Phi)^-1 transposed, of the used columns; 0 elsewhere.

    Args:
        seen: (column, column) float64: T' Phi.
        used: (column,) bool.
    """
    both = used[:, None] & used
    scale = torch.where(used, seen.diagonal().clamp(min=1e-300).rsqrt(), 0.0)
    unit = torch.where(both, seen * scale[:, None] * scale, torch.eye(len(used), dtype=seen.dtype))
    inverse: Tensor = torch.linalg.inv(unit)
    return inverse.T * scale[:, None] * scale


def _edges(grouping: Grouping) -> list[int]:
    """Sums where a band may begin, and the end."""
    return [*range(0, grouping.n_sums, _STEP), grouping.n_sums]


def _information(columns: Tensor, weighted: Tensor, grouping: Grouping, edges: list[int]) -> Tensor:
    """(edge, column): share of each column's information before it."""
    cumulated = torch.nn.functional.pad((columns * weighted).cumsum(dim=0), (0, 0, 1, 0))
    at_edges = cumulated[[grouping.channel_of(edge) for edge in edges]]
    return at_edges / at_edges[-1].clamp(min=1e-300)


def _cheapest(edges: list[int], present: Tensor) -> tuple[Band, ...]:
    """The cuts of least time, by the shortest way from the first edge to the last.

    Args:
        edges: (edge,) sums.
        present: (edge, edge, column) bool: has information between two edges.
    """
    at = torch.tensor(edges, dtype=torch.float64)
    n_kept = present.sum(dim=2)
    time = (at - at[:, None]) * (n_kept + _PASS) + _CALL + n_kept * present.shape[2]
    best, before = [0.0], [0]
    for j in range(1, len(edges)):
        ways = torch.tensor(best, dtype=torch.float64) + time[:j, j]
        before.append(int(ways.argmin()))
        best.append(float(ways.min()))
    cuts = [len(edges) - 1]
    while cuts[0] > 0:
        cuts.insert(0, before[cuts[0]])
    return tuple(
        Band(start=edges[i], stop=edges[j], columns=tuple(torch.nonzero(present[i, j])[:, 0].tolist()))
        for i, j in pairwise(cuts)
    )
