"""Figures of merit of a fitted spectrum."""

import torch
from torch import Tensor


def r_squared(counts: Tensor, model: Tensor) -> Tensor:
    """`1 - SS_res / SS_tot` in linear counts.

    Args:
        counts: (*batch, channel).
        model: (*batch, channel), with background.

    Returns:
        (*batch,); NaN where the counts do not vary.
    """
    residual = ((counts - model) ** 2).sum(dim=-1)
    return 1.0 - residual / _total_square(counts)


def r_squared_expected(counts: Tensor) -> Tensor:
    """R2 that counting noise alone allows: `1 - sum(counts) / SS_tot`; an expectation, not a bound.

    Args:
        counts: (*batch, channel), raw Poisson counts.
    """
    return 1.0 - counts.sum(dim=-1) / _total_square(counts)


def poisson_deviance(counts: Tensor, model: Tensor, *, floor: float = 1e-3) -> Tensor:
    """`2 sum(mu - y + y log(y / mu))` over channels.

    Args:
        counts: (*batch, channel) raw counts.
        model: (*batch, channel) expected counts; raised to `floor` where an unconstrained fit goes below.
        floor: smallest expectation, counts.
    """
    mu = model.clamp(min=floor)
    return 2.0 * (mu - counts + torch.xlogy(counts, counts / mu)).sum(dim=-1)


def poisson_weights(model: Tensor, *, floor: float = 0.1) -> Tensor:
    """Weights `1 / max(mu, floor)` of expected counts: from the model, never from the noisy data.

    Weights from the data (Neyman) pull every amplitude down, by 30 % at a few counts a channel.
    """
    return 1.0 / model.clamp(min=floor)


def _total_square(counts: Tensor) -> Tensor:
    total = ((counts - counts.mean(dim=-1, keepdim=True)) ** 2).sum(dim=-1)
    return torch.where(total > 0, total, torch.nan)
