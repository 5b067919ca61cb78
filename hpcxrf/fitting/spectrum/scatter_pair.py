"""Which of two humps is the elastic peak: a scan of incident energy, angle and width at a fixed energy axis.

From a start in which the Compton peak is taken for the elastic one, or has no counts at all, no small step leads
out: the derivative of an amplitude of 0 is 0. All pairs are tried instead, by linear algebra alone.
"""

from typing import Final

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
    trials = _build_grid(theta, space)
    columns = evaluate(theta, least_squares.model).phi
    scatter = len(least_squares.model.scatter_names)
    fixed = torch.cat([columns[:, :-scatter], least_squares.hats], dim=-1)
    moving = _scatter_columns(trials, least_squares)
    weights, y = least_squares.weights, least_squares.counts
    weighted = fixed * weights[:, None]
    by_trial = moving * weights[:, None]
    own, cross = fixed.T @ weighted, weighted.T @ moving
    count = trials.shape[0]
    gram = torch.cat(
        [torch.cat([own.expand(count, -1, -1), cross], dim=-1), torch.cat([cross.mT, moving.mT @ by_trial], dim=-1)],
        dim=-2,
    )
    rhs = torch.cat([(weighted.T @ y).expand(count, -1), by_trial.mT @ y], dim=-1)
    x = nnls_gram(gram, rhs, max_exchanges=6, exact=False).x.nan_to_num()
    square = (weights * y * y).sum()
    cost = square - 2.0 * (rhs * x).sum(-1) + (x[:, None] @ gram @ x[..., None])[:, 0, 0]
    chosen = _select_distinct(trials, torch.argsort(cost, stable=True), keep)
    return trials[chosen], cost[chosen]


def _build_grid(theta: Tensor, space: Space) -> Tensor:
    """Copies of theta (trial, parameter) with every combination; what is fixed keeps its value."""
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
    return trials


def _scatter_columns(trials: Tensor, least_squares: LeastSquares) -> Tensor:
    """(trial, channel, scatter column): elastic (without tail) and Compton; those of a tube's lines whole."""
    model = least_squares.model
    if model.copies is not None:
        return evaluate(trials, model).phi[..., -len(model.scatter_names) :]
    energies = energy_kev(trials, model.channel)
    bins = bin_width_kev(trials, model.channel, model.constants)
    compton = compton_shape(trials, energies, model.constants).density
    if not model.elastic:
        return (compton * bins)[..., None]
    centre = trials[:, INDEX[SCANNED[0]], None]
    sigma = line_sigma_kev(trials, centre, model.constants)
    elastic = gaussian((energies - centre) / sigma) / sigma
    return torch.stack([elastic * bins, compton * bins], dim=-1)


def _select_distinct(trials: Tensor, order: Tensor, keep: int) -> Tensor:
    """The first `keep` that differ from every better one by more than a neighbour's step."""
    places = trials[:, [INDEX[name] for name in SCANNED]]
    step = places.new_tensor([0.1, 16.0, 0.8])
    kept: list[int] = []
    for i in order.tolist():
        if all(bool(((places[i] - places[j]).abs() > step).any()) for j in kept):
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
