"""What a spectrum is fitted by: counts, weights, model and bounds, and where a search stands."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.physics.model import SpectrumModel
from hpcxrf.physics.parameters import Parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bounds and priors of theta, and of the line ratios where they follow it: (parameter,) float64, `free` bool."""

    centre: Tensor
    """Mean of the prior."""
    prior_sd: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor
    free: Tensor
    free_names: frozenset[str]
    """The same as names, without a transfer from the device; those of the line ratios are not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquares:
    """One spectrum to be fitted by weighted least squares, on one device, float64."""

    counts: Tensor
    """(*batch, channel): counts of the fit range less any fixed background."""
    weights: Tensor
    """(*batch, channel)."""
    model: SpectrumModel
    hats: Tensor
    """(channel, hat): background columns, fitted non-negative; may have no column."""
    space: Space


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Present point of the search, one entry per start."""

    theta: Tensor
    """(*batch, parameter)."""
    linear: Tensor
    """(*batch, component + hat): the best non-negative coefficients at theta."""
    positive: Tensor
    """(*batch, component + hat) bool: coefficients above 0."""
    residual: Tensor
    """(*batch, channel): counts less the model."""
    misfit: Tensor
    """(*batch,): weighted sum of squares, without the prior of theta."""
    hessian: Tensor
    """(*batch, parameter, parameter), in units of `Space.scale`, without prior."""
    gradient: Tensor
    """(*batch, parameter): downhill, same units."""
    damping: Tensor
    small: Tensor
    """(*batch,) int64: successive steps that hardly improved."""
    iterations: Tensor
    done: Tensor
    """(*batch,) bool."""


def build_space(parameters: tuple[Parameter, ...], device: torch.device | None = None) -> Space:
    """Bounds, priors and scales of a parameter table as tensors."""

    def column(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor([getattr(p, name) for p in parameters], dtype=dtype, device=device)

    return Space(
        centre=column("value"),
        prior_sd=column("prior_sd"),
        scale=column("scale"),
        lower=column("lower"),
        upper=column("upper"),
        free=column("free", torch.bool),
        free_names=frozenset(p.name for p in parameters if p.free),
    )
