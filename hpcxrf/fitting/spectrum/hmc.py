"""Hamiltonian Monte Carlo, all chains in one batch.

Duane, Kennedy, Pendleton and Roweth 1987, Phys. Lett. B 195, 216. The coordinates are turned by a covariance, at first
that of the curvature, later that of the draws of the warm-up; the step follows the acceptance by dual averaging
(Hoffman and Gelman 2014, J. Mach. Learn. Res. 15, 1593); the number of steps is drawn for each draw, so that no chain
runs in circles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from hpcxrf.fitting.spectrum.density import Density

_ACCEPTANCE: Final = 0.8
_PATH: Final = 2.4
"""Longest path of one draw, in standard deviations: half a turn would be pi."""
_MOST_STEPS: Final = 24
_DIVERGENT: Final = 1000.0
_SHRINKAGE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Draws of chains, and how they came about."""

    position: Tensor
    """(draw, *batch, coordinate)."""
    log_density: Tensor
    """(draw, *batch)."""
    energy: Tensor
    """(draw, *batch) of potential and motion together."""
    acceptance: Tensor
    """(draw, *batch), 0 to 1."""
    diverging: Tensor
    """(draw, *batch) bool: the path left the surface of equal energy."""
    step_size: float
    steps: Tensor
    """(draw,) gradients of each draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    position: Tensor
    density: Density


@dataclass(slots=True, kw_only=True)
class _Step:
    """Step size by dual averaging; changes with every draw of the warm-up."""

    size: float
    centre: float
    count: int = 0
    error: float = 0.0
    averaged: float = 0.0

    def adapt(self, acceptance: float) -> None:
        """Take account of the mean acceptance of one draw."""
        self.count += 1
        share = 1.0 / (self.count + 10.0)
        self.error = (1.0 - share) * self.error + share * (_ACCEPTANCE - acceptance)
        log_size = self.centre - self.error * math.sqrt(self.count) / 0.05
        weight = self.count**-0.75
        self.averaged = weight * log_size + (1.0 - weight) * self.averaged
        self.size = math.exp(log_size)


def run_chains(
    start: Tensor,
    factor: Tensor,
    density: Callable[[Tensor], Density],
    *,
    warm_up: int,
    draws: int,
    generator: torch.Generator,
) -> Draws:
    """Run chains side by side.

    Args:
        start: (chain, *batch, coordinate): chains of the same target share their covariance.
        factor: (*batch, coordinate, coordinate) Cholesky factor of a covariance, near that of the target.
        density: of positions (chain, *batch, coordinate).
        warm_up: draws of the adaptation, which are thrown away.
        draws: draws that are kept.
        generator: of all random numbers.
    """
    chain = _Chain(position=start, density=density(start))
    size = 1.0 / start.shape[-1] ** 0.25
    for window in _windows(warm_up):
        step = _Step(size=size, centre=math.log(4.0 * size))
        kept = []
        for _ in range(window):
            chain, drawn = _draw(chain, factor, density, step.size, generator)
            step.adapt(float(drawn.acceptance.mean()))
            kept.append(chain.position)
        size = math.exp(step.averaged) if window else size
        factor = _learn_covariance(torch.stack(kept), factor) if window else factor
    # The last covariance has to be met with a step of its own.
    step = _Step(size=size, centre=math.log(4.0 * size))
    for _ in range(warm_up // 4):
        chain, drawn = _draw(chain, factor, density, step.size, generator)
        step.adapt(float(drawn.acceptance.mean()))
    size = math.exp(step.averaged) if warm_up // 4 else size
    kept_draws = []
    for _ in range(draws):
        chain, drawn = _draw(chain, factor, density, size, generator)
        kept_draws.append(drawn)
    return _stack(kept_draws, size)


def _windows(warm_up: int) -> tuple[int, int]:
    return warm_up // 4, warm_up // 2


def _draw(
    chain: _Chain, factor: Tensor, density: Callable[[Tensor], Density], size: float, generator: torch.Generator
) -> tuple[_Chain, Draws]:
    """One draw of every chain."""
    longest = max(1, min(_MOST_STEPS, round(_PATH / size)))
    steps = int(torch.randint(max(1, longest // 2), longest + 1, (1,), generator=generator))
    motion = torch.randn(chain.position.shape, generator=generator, dtype=chain.position.dtype)
    begin = -chain.density.value + 0.5 * motion.square().sum(dim=-1)
    end, motion = _move(chain, motion, factor, density, size, steps)
    energy = -end.density.value + 0.5 * motion.square().sum(dim=-1)
    lost = torch.nan_to_num(energy - begin, nan=torch.inf)
    acceptance = (-lost).clamp(max=0.0).exp()
    taken = torch.rand(acceptance.shape, generator=generator, dtype=acceptance.dtype) < acceptance
    chain = _Chain(
        position=torch.where(taken[..., None], end.position, chain.position),
        density=Density(
            value=torch.where(taken, end.density.value, chain.density.value),
            gradient=torch.where(taken[..., None], end.density.gradient, chain.density.gradient),
        ),
    )
    drawn = Draws(
        position=chain.position,
        log_density=chain.density.value,
        energy=torch.where(taken, energy, begin),
        acceptance=acceptance,
        diverging=lost > _DIVERGENT,
        step_size=size,
        steps=torch.tensor(steps),
    )
    return chain, drawn


def _move(
    chain: _Chain, motion: Tensor, factor: Tensor, density: Callable[[Tensor], Density], size: float, steps: int
) -> tuple[_Chain, Tensor]:
    """Leapfrog steps in coordinates turned by the factor."""
    now = chain
    motion = motion + 0.5 * size * _turn(factor.mT, now.density.gradient)
    for i in range(steps):
        position = now.position + size * _turn(factor, motion)
        now = _Chain(position=position, density=density(position))
        push = _turn(factor.mT, now.density.gradient)
        motion = motion + (size if i < steps - 1 else 0.5 * size) * torch.nan_to_num(push)
    return now, motion


def _turn(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., :, None])[..., 0]


def _learn_covariance(positions: Tensor, factor: Tensor) -> Tensor:
    """Factor of the covariance of draws (draw, chain, *batch, coordinate); few are drawn to the one before."""
    n, dimension = positions.shape[0] * positions.shape[1], positions.shape[-1]
    flat = positions.reshape(n, *positions.shape[2:])
    centred = (flat - flat.mean(dim=0)).movedim(0, -2)
    covariance = centred.mT @ centred / max(n - 1, 1)
    weight = n / (n + _SHRINKAGE * dimension)
    blended = weight * covariance + (1.0 - weight) * (factor @ factor.mT)
    learnt, info = torch.linalg.cholesky_ex(blended)
    return torch.where((info == 0)[..., None, None], learnt, factor)


def _stack(drawn: list[Draws], size: float) -> Draws:
    names = ("position", "log_density", "energy", "acceptance", "diverging", "steps")
    stacked: dict[str, Any] = {name: torch.stack([getattr(one, name) for one in drawn]) for name in names}
    return Draws(step_size=size, **stacked)
