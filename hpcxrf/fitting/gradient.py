"""The published baseline: joint Adam over log10 amplitudes and theta, by automatic differentiation."""

from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.separable import Problem, design

STEPS: Final = 500
# A step of theta is a tenth of the parameter's scale (1e-6 keV/channel for the slope, as published);
# amplitudes move in log10.
_THETA_RATE: Final = 0.1
_AMPLITUDE_RATE: Final = 0.05
_SMALLEST_LOG10: Final = -11.0


def fit_adam(theta: Tensor, problem: Problem, *, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Minimise the weighted mean square by Adam over log10 amplitudes and free theta together.

    The algorithm of MapsTorch over this package's vectorised model. Theta is clamped to its bounds after
    every step; amplitudes are positive by construction and can never be zero.

    Args:
        theta: (parameter,) float64 start.
        problem: one spectrum; its prior is not used.
        steps: number of Adam steps.

    Returns:
        theta (parameter,) and linear coefficients (component + hat,) of the best step seen.
    """
    space = problem.space
    start = theta.clamp(space.lower, space.upper)
    moved = torch.zeros_like(start, requires_grad=True)
    logs = _initial_log10(start, problem).requires_grad_()
    optimiser = torch.optim.Adam(
        [{"params": [moved], "lr": _THETA_RATE}, {"params": [logs], "lr": _AMPLITUDE_RATE}]
    )
    best = (float("inf"), start, 10.0 ** logs.detach())
    step_size = torch.where(space.free, space.scale, 0.0)
    for _ in range(steps):
        here = (start + moved * step_size).clamp(space.lower, space.upper)
        _, columns = design(here, problem)
        linear = 10.0**logs
        residual = problem.counts - (columns @ linear[:, None])[:, 0]
        loss = (problem.weights * residual * residual).mean()
        value = float(loss.detach())
        if value < best[0]:
            best = (value, here.detach().clone(), linear.detach().clone())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            logs.clamp_(min=_SMALLEST_LOG10)
    return best[1], best[2]


def _initial_log10(theta: Tensor, problem: Problem) -> Tensor:
    """Start each column at the counts under its peak, as MAPS does from a window around the first line."""
    with torch.no_grad():
        _, columns = design(theta, problem)
        peak = columns.argmax(dim=0)
        height = columns.gather(0, peak[None])[0].clamp(min=1e-12)
        guess = problem.counts[peak] / height / columns.shape[1]
        return torch.log10(guess.clamp(min=1.0))
