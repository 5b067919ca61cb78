"""Posterior density of theta and amplitudes, with its analytic gradient, in coordinates without bounds.

Theta runs between its bounds as `lower + (upper - lower) / (1 + exp(-w))`, an amplitude is `exp(u)`: a sampler in
(w, u) meets no edge. The density is that of theta and of the amplitudes themselves, so the logarithm of the change of
volume is part of it. Counts are Poisson. Theta has the Gaussian priors of the fit, amplitudes exponential ones: with a
mean far above the counts they are flat where anything was counted, and proper where nothing could be.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights
from hpcxrf.fitting.spectrum.least_squares import Space
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import SpectrumModel, evaluate

_SMALLEST_EXPECTATION = 1e-9
_INNER = 1e-3
"""Theta at a bound is begun by this share of its range inside of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A spectrum, or several, whose posterior is wanted."""

    counts: Tensor
    """(*batch, channel) raw counts of the fit range; the densities of all are computed side by side."""
    fixed: Tensor
    """(channel,) background that no coefficient scales."""
    hats: Tensor
    """(channel, hat): background columns, not negative; may have no column."""
    model: SpectrumModel
    space: Space
    scale: Tensor
    """(component + hat,) means of the exponential priors of the coefficients."""

    @property
    def moving(self) -> Tensor:
        """Places of the free parameters in theta."""
        return self.space.free.nonzero()[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Logarithm of the density, up to a constant, and its gradient."""

    value: Tensor
    """(*batch,)."""
    gradient: Tensor
    """(*batch, coordinate)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Coordinates taken apart."""

    theta: Tensor
    """(*batch, parameter)."""
    linear: Tensor
    """(*batch, component + hat)."""
    share: Tensor
    """(*batch, free parameter): place between the bounds, 0 to 1."""
    width: Tensor
    """(free parameter,) distance of the bounds."""


def take_apart(position: Tensor, target: Target) -> Point:
    """Theta and coefficients of coordinates (*batch, coordinate)."""
    moving, space = target.moving, target.space
    n = moving.shape[0]
    share = torch.sigmoid(position[..., :n])
    width = (space.upper - space.lower)[moving]
    theta = space.centre.expand(*position.shape[:-1], -1).clone()
    theta[..., moving] = space.lower[moving] + width * share
    return Point(theta=theta, linear=position[..., n:].exp(), share=share, width=width)


def put_together(theta: Tensor, linear: Tensor, target: Target) -> Tensor:
    """Coordinates (*batch, coordinate) of theta (*batch, parameter) and coefficients (*batch, column) above 0."""
    moving, space = target.moving, target.space
    low, high = space.lower[moving], space.upper[moving]
    share = ((theta[..., moving] - low) / (high - low)).clamp(_INNER, 1.0 - _INNER)
    return torch.cat([torch.logit(share), linear.log()], dim=-1)


def evaluate_density(position: Tensor, target: Target) -> Density:
    """Density at coordinates (*batch, coordinate)."""
    at = take_apart(position, target)
    columns, jacobian = _differentiate(at, target)
    expected = _expect(at, columns, target)
    misfit = target.counts / expected - 1.0
    moving, space = target.moving, target.space
    pull = (at.theta - space.centre)[..., moving] / space.prior_sd[moving]
    slope = at.width * at.share * (1.0 - at.share)
    by_theta = (misfit[..., None, :] @ jacobian)[..., 0, :] - pull / space.prior_sd[moving]
    by_linear = (misfit[..., None, :] @ columns)[..., 0, :]
    value = (torch.xlogy(target.counts, expected) - expected).sum(dim=-1) - 0.5 * (pull**2).sum(dim=-1)
    value = value + (at.share.log() + torch.log1p(-at.share)).sum(dim=-1) + at.linear.log().sum(dim=-1)
    value = value - (at.linear / target.scale).sum(dim=-1)
    by_linear = by_linear - 1.0 / target.scale
    gradient = torch.cat([by_theta * slope + 1.0 - 2.0 * at.share, by_linear * at.linear + 1.0], dim=-1)
    return Density(value=value, gradient=gradient)


def curvature(position: Tensor, target: Target) -> Tensor:
    """Expected curvature (*batch, coordinate, coordinate): the inverse covariance of a normal law at the position.

    A coefficient that is not determined has a standard deviation of 1 in its logarithm, and a parameter at a bound one
    of a few in its own coordinate.
    """
    at = take_apart(position, target)
    columns, jacobian = _differentiate(at, target)
    slope = at.width * at.share * (1.0 - at.share)
    full = torch.cat([jacobian * slope[..., None, :], columns * at.linear[..., None, :]], dim=-1)
    weighted = full * poisson_weights(_expect(at, columns, target))[..., None]
    prior = (slope / target.space.prior_sd[target.moving]) ** 2 + 2.0 * at.share * (1.0 - at.share) + 0.05
    return weighted.mT @ full + torch.diag_embed(torch.cat([prior, torch.ones_like(at.linear)], dim=-1))


def _differentiate(at: Point, target: Target) -> tuple[Tensor, Tensor]:
    """Columns (*batch, channel, component + hat) and derivative (*batch, channel, free parameter) of the counts."""
    e = evaluate(at.theta, target.model)
    amplitude = at.linear[..., : e.phi.shape[-1]]
    jacobian = counts_jacobian(at.theta, amplitude, e, target.model, names=target.space.free_names)
    hats = target.hats.expand(*e.phi.shape[:-2], -1, -1)
    return torch.cat([e.phi, hats], dim=-1), jacobian[..., target.moving]


def _expect(at: Point, columns: Tensor, target: Target) -> Tensor:
    expected = (columns @ at.linear[..., :, None])[..., 0] + target.fixed
    return expected.clamp(min=_SMALLEST_EXPECTATION)
