"""Which of two humps is the elastic peak: a scan of incident energy, angle and width at a fixed energy axis.

From a start in which the Compton peak is taken for the elastic one, or has no counts at all, no small step leads
out: the derivative of an amplitude of 0 is 0. All pairs are tried instead, by linear algebra alone.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, Space
from hpcxrf.physics.model import ELASTIC, bin_width_kev, energy_kev, evaluate
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.scatter import compton_shape, line_sigma_kev
from hpcxrf.physics.shapes import gaussian

_ENERGIES: Final = 13
_ANGLES_DEG: Final = (55.0, 75.0, 90.0, 105.0, 120.0, 140.0, 160.0)
_WIDTHS: Final = (1.3, 2.4)
_APART: Final = (0.1, 16.0, 0.8)
"""More than a neighbour's step, of each of those that are scanned."""
_EXCHANGES: Final = 30
SCANNED: Final = ("coherent_sct_energy", "compton_angle", "compton_fwhm_corr")


def scan_pairs(theta: Tensor, least_squares: LeastSquares, space: Space, keep: int) -> tuple[Tensor, Tensor]:
    """The best pairs of elastic and Compton peak at the axis and widths of theta.

    Args:
        theta: (parameter,).
        least_squares: one spectrum, counts and weights (channel,).
        space: which of incident energy, angle and width may move, and where.
        keep: pairs to return; each is in another place than all better ones.

    Returns:
        Starting values (pair, parameter), best first, and the weighted sum of squares that each leaves (pair,).
    """
    trials, widths = _build_grid(theta, space)
    columns = evaluate(theta, least_squares.model).phi
    scatter = len(least_squares.model.scatter_names)
    fixed = torch.cat([columns[:, :-scatter], least_squares.hats], dim=-1)
    gram, rhs = _multiply(fixed, _scatter_columns(trials, widths, least_squares), least_squares)
    x = nnls_gram(gram, rhs, max_exchanges=_EXCHANGES, exact=False).x.nan_to_num()
    square = (least_squares.weights * least_squares.counts.square()).sum()
    cost = square - 2.0 * (rhs * x).sum(-1) + (x[:, None] @ gram @ x[..., None])[:, 0, 0]
    chosen = _select_distinct(trials, torch.argsort(cost, stable=True), keep)
    return trials[chosen], cost[chosen]


def _build_grid(theta: Tensor, space: Space) -> tuple[Tensor, int]:
    """Copies of theta (trial, parameter) with every combination; what is fixed keeps its value.

    The widths change first, and how many there are is returned, too.
    """
    axes = []
    for name, values in zip(
        SCANNED, (torch.linspace(-1.0, 1.0, _ENERGIES), torch.tensor(_ANGLES_DEG), torch.tensor(_WIDTHS)), strict=True
    ):
        i = INDEX[name]
        low, high = space.lower[i], space.upper[i]
        wanted = values.to(theta)
        if name == SCANNED[0]:
            wanted = 0.5 * (low + high) + wanted * 0.5 * (high - low)
        axes.append(wanted.clamp(low, high) if name in space.free_names else theta[i, None])
    combined = torch.cartesian_prod(*axes)
    trials = theta.repeat(combined.shape[0], 1)
    for column, name in enumerate(SCANNED):
        trials[:, INDEX[name]] = combined[:, column]
    return trials, axes[-1].shape[0]


def _multiply(fixed: Tensor, moving: Tensor, least_squares: LeastSquares) -> tuple[Tensor, Tensor]:
    """Gram matrix and right-hand side (trial, column, ...) of columns that all trials share, and of each one's own.

    Args:
        fixed: (channel, column).
        moving: (scatter column, trial, channel).
        least_squares: counts and weights (channel,).
    """
    weights, (scatter, count, _) = least_squares.weights, moving.shape
    n, weighted, by_trial = fixed.shape[1], fixed * weights[:, None], moving * weights
    gram = fixed.new_empty((count, n + scatter, n + scatter))
    gram[:, :n, :n] = fixed.T @ weighted
    cross = (moving.flatten(0, 1) @ weighted).unflatten(0, (scatter, count))
    gram[:, n:, :n], gram[:, :n, n:] = cross.permute(1, 0, 2), cross.permute(1, 2, 0)
    for i in range(scatter):
        gram[:, n:, n + i] = (moving * by_trial[i]).sum(dim=-1).T
    rhs = fixed.new_empty((count, n + scatter))
    rhs[:, :n], rhs[:, n:] = weighted.T @ least_squares.counts, (by_trial @ least_squares.counts).T
    return gram, rhs


def _scatter_columns(trials: Tensor, widths: int, least_squares: LeastSquares) -> Tensor:
    """(scatter column, trial, channel): elastic (without tail) and Compton; those of a tube's lines whole."""
    model = least_squares.model
    if model.copies is not None:
        return evaluate(trials, model).phi[..., -len(model.scatter_names) :].permute(2, 0, 1).contiguous()
    # The axis is the same in all trials, and so is all of a Compton peak but its Gaussian whatever the width.
    places, energies = trials[::widths], energy_kev(trials[:1], model.channel)
    bins = bin_width_kev(trials[:1], model.channel, model.constants)
    shape = compton_shape(places, energies, model.constants)
    rest = shape.density - shape.share * shape.wide_gauss / shape.width
    width = shape.sigma_kev * trials[:, INDEX[SCANNED[2]]].view(-1, widths)
    wide = gaussian((energies - shape.energy_kev)[:, None] / width[..., None]) / width[..., None]
    compton = (rest[:, None] + shape.share[:, None] * wide).flatten(0, 1)
    if not model.elastic:
        return (compton * bins)[None]
    centre = places[:, INDEX[SCANNED[0]], None]
    sigma = line_sigma_kev(places, centre, model.constants)
    elastic = gaussian((energies - centre) / sigma) / sigma
    return torch.stack([elastic.repeat_interleave(widths, dim=0), compton]) * bins


def _select_distinct(trials: Tensor, order: Tensor, keep: int) -> Tensor:
    """The first `keep` that differ from every better one by more than a neighbour's step."""
    places = trials[:, [INDEX[name] for name in SCANNED]].cpu().numpy()
    kept: list[int] = []
    for i in order.tolist():
        if not kept or (np.abs(places[i] - places[kept]) > _APART).any(axis=1).all():
            kept.append(i)
        if len(kept) == keep:
            break
    return torch.tensor(kept, device=trials.device)


def scatter_is_dead(linear: Tensor, least_squares: LeastSquares) -> bool:
    """True where the elastic or the Compton peak ended without a count; linear is (component + hat,)."""
    model = least_squares.model
    names = model.component_names
    # The elastic lines of a tube's anode stand where they are.
    first = names.index(ELASTIC) if model.elastic and model.copies is None else len(names) - 1
    return bool((linear[first : len(names)] <= 0.0).any())
