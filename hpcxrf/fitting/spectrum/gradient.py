"""The published baseline: joint Adam over log10 amplitudes and theta, here with an analytic gradient.

Adam: Kingma and Ba 2015, with the constants of torch. What MapsTorch gets by automatic differentiation is a
matrix product with the derivative that the separable fit uses as well: the same gradient at half the cost.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.spectrum.least_squares import LeastSquares
from hpcxrf.fitting.spectrum.separable import design
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import Evaluation

STEPS: Final = 500
# A step of theta is a tenth of the parameter's scale: 1 eV for the offset and 1e-6 keV/channel for the slope, as
# published, but 3 to 2000 times the published rate for widths and tails, which could not cross their range in 500
# steps. An amplitude moves 0.2 in log10 (published: 0.01). R2 from ten random starts on two measured spectra was
# higher than with the published rates in all ten: medians 0.998 against 0.967, and 0.991 against 0.701.
_THETA_RATE: Final = 0.1
_AMPLITUDE_RATE: Final = 0.2
_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8
SMALLEST_LOG10: Final = -11.0
LARGEST_LOG10: Final = 20.0
"""Bounds of log10 amplitudes, those of MAPS."""
_LN10: Final = 2.302585092994046


@dataclass(frozen=True, slots=True, kw_only=True)
class JointFit:
    """The best point that a search over theta and log10 amplitudes together has seen."""

    theta: Tensor
    """(parameter,)."""
    linear: Tensor
    """(component + hat,), above 0."""
    loss: float
    """Weighted mean square; infinite where no evaluation was finite."""
    evaluations: int
    """Number of evaluations of the model; each of Adam's includes a gradient."""
    converged: bool
    """Stopped by itself, not by the number of evaluations."""


def minimise_adam(
    theta: Tensor, least_squares: LeastSquares, *, steps: int = STEPS, log10_linear: Tensor | None = None
) -> JointFit:
    """Minimise the weighted mean square by Adam over log10 amplitudes and free theta together.

    The algorithm of MapsTorch over this package's vectorised model. Both are clamped to their bounds after
    every step; amplitudes are positive by construction and can never be zero. Peak shapes are computed in single
    precision, as all of MapsTorch is: it moves R2 by less than 1e-6.

    Args:
        theta: (parameter,) float64 start.
        least_squares: one spectrum; its prior is not used.
        steps: number of Adam steps.
        log10_linear: (component + hat,) start of the amplitudes; None: from the counts, see `guess_log10`.

    Returns:
        The best step seen.
    """
    space = least_squares.space
    fast = replace(least_squares, model=replace(least_squares.model, shape_dtype=torch.float32))
    begin = theta.clamp(space.lower, space.upper)
    logs = guess_log10(begin, least_squares) if log10_linear is None else log10_linear.to(begin)
    rate = torch.cat([_THETA_RATE * space.scale, torch.full_like(logs, _AMPLITUDE_RATE)])
    lower = torch.cat([space.lower, torch.full_like(logs, SMALLEST_LOG10)])
    upper = torch.cat([space.upper, torch.full_like(logs, LARGEST_LOG10)])
    point = torch.cat([begin, logs])
    best, best_point = float("inf"), point.clone()
    mean, square = torch.zeros_like(point), torch.zeros_like(point)
    n = begin.shape[0]
    for step in range(1, steps + 1):
        loss, gradient = joint_gradient(point[:n], point[n:], fast)
        if loss < best:
            best, best_point = loss, point.clone()
        _adam_step(point, gradient * rate, mean, square, rate, step)
        torch.clamp(point, lower, upper, out=point)
    return JointFit(theta=best_point[:n], linear=10.0 ** best_point[n:], loss=best, evaluations=steps, converged=False)


def joint_gradient(theta: Tensor, log10_linear: Tensor, least_squares: LeastSquares) -> tuple[float, Tensor]:
    """Weighted mean square and its gradient.

    Args:
        theta: (parameter,) inside its bounds.
        log10_linear: (component + hat,).
        least_squares: one spectrum.

    Returns:
        The loss, and its gradient (parameter + component + hat,); 0 for a fixed parameter.
    """
    evaluation, columns = design(theta, least_squares)
    linear = 10.0**log10_linear
    residual = columns @ linear - least_squares.counts
    pull = least_squares.weights * residual
    slope = pull * (2.0 / residual.shape[0])
    gradient = torch.cat(
        [_derive_by_theta(theta, linear, slope, evaluation, least_squares), (slope @ columns) * linear * _LN10]
    )
    return float(pull @ residual) / residual.shape[0], gradient


def _derive_by_theta(
    theta: Tensor, linear: Tensor, slope: Tensor, evaluation: Evaluation, least_squares: LeastSquares
) -> Tensor:
    amplitude = linear[: evaluation.phi.shape[-1]]
    jacobian = counts_jacobian(theta, amplitude, evaluation, least_squares.model, names=least_squares.space.free_names)
    return torch.where(least_squares.space.free, slope @ jacobian, 0.0)


def _adam_step(point: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, rate: Tensor, step: int) -> None:
    """Move `point` in place, and the running moments with it; gradients in units of the rate."""
    first, second = _BETAS
    mean.lerp_(gradient, 1.0 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
    spread = (square / (1.0 - second**step)).sqrt_().add_(_EPSILON)
    point.addcmul_(rate, mean / spread, value=-1.0 / (1.0 - first**step))


def guess_log10(theta: Tensor, least_squares: LeastSquares) -> Tensor:
    """Start each column at the counts under its peak, as MAPS does from a window around the first line.

    Args:
        theta: (parameter,).
        least_squares: one spectrum.

    Returns:
        (component + hat,), never below 0.
    """
    _, columns = design(theta, least_squares)
    peak = columns.argmax(dim=0)
    height = columns.gather(0, peak[None])[0].clamp(min=1e-12)
    guess = least_squares.counts[peak] / height / columns.shape[1]
    return torch.log10(guess.clamp(min=1.0))
