"""Non-negative least squares of every pixel: no amplitude below 0, at the price of sums that come out high.

On a processor exactly, by a kernel (`hpcxrf.fitting.kernels.nonnegative`) from the unconstrained solution; elsewhere by
one shared factor, checked, and exact where the check fails.

All pixels share the Gram matrix, so the alternating direction method of multipliers (Boyd et al. 2011, Found. Trends
Mach. Learn. 3, 1, section 5.2) needs one small product an iteration. With w = z + u (z the non-negative copy, u
the scaled multiplier, one positive part and one negative part of the same number) the over-relaxed iteration is
w <- alpha (G + rho)^-1 (b + rho |w|) + (1 - alpha/2) w - alpha/2 |w|: a modulus and a product.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, unit_diagonal
from hpcxrf.fitting.pixels.compiled import compile_fit, load_map_kernels
from hpcxrf.fitting.pixels.compiled_nonnegative import compile_nonnegative, hold_at_zero, load_nonnegative_kernel
from hpcxrf.fitting.pixels.model import PixelModel
from hpcxrf.fitting.pixels.parts import Estimate, Solver, prepare_operator, times

_PENALTY: Final = 0.3
_RELAXATION: Final = 1.7
_ITERATIONS: Final = 40
# Optimality is required to this share of the noise of the normal equations, plus what float32 rounds.
_TOLERANCE: Final = 1e-4
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFactor:
    """Matrices of the iteration on the unit-diagonal system, (column, column) float32."""

    gram: Tensor
    step: Tensor
    """alpha (G + rho)^-1."""
    turn: Tensor
    """alpha rho (G + rho)^-1 - alpha / 2, on |w|."""
    noise: Tensor
    """(column, column): coefficients @ noise = variance of the right-hand side."""
    noise_floor: Tensor
    """(column,): that of a pixel with one count."""
    scale: Tensor
    """(column,): 0 for a column without a count."""


KERNELS: Final = ("maps", "nonnegative")
"""Modules of kernels that a processor needs."""


def load_kernels() -> None:
    """Load what a processor needs; the first call on a machine compiles it."""
    load_map_kernels()
    load_nonnegative_kernel()


def prepare(basis: PixelBasis, model: PixelModel | None, device: torch.device) -> Solver:
    """Prepare the method.

    Args:
        basis: columns and mean pixel.
        model: not needed.
        device: device of the counts.

    Raises:
        FitError: columns with indistinguishable spectra.
    """
    del model
    operator = prepare_operator(basis, device)
    if device.type == "cpu":
        return _compiled_solver(basis, operator)
    return tensor_solver(operator)


def tensor_solver(operator: PixelOperator) -> Solver:
    """Solver of tensor operations, for a GPU."""
    factor = shared_factor(operator)

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del deviance, errors
        return fit_nnls(counts, signed, operator, factor)

    return Solver(operator=operator, estimate=estimate)


def _compiled_solver(basis: PixelBasis, operator: PixelOperator) -> Solver:
    exact = compile_nonnegative(operator)

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del counts, deviance, errors
        coefficients, solved = hold_at_zero(signed, exact)
        return Estimate(
            coefficients=coefficients, solved=solved, factors=coefficients, columns=operator.columns, signed=signed
        )

    return Solver(operator=operator, estimate=estimate, compiled=compile_fit(basis, operator), nonnegative=exact)


def shared_factor(operator: PixelOperator) -> SharedFactor:
    """Prepare the iteration."""
    unit, scale = unit_diagonal(operator.gram)
    eye = torch.eye(unit.shape[0], dtype=unit.dtype, device=unit.device)
    inverse = torch.linalg.inv(unit + _PENALTY * eye)
    squares = (operator.weighted * scale) ** 2
    noise = operator.columns.to(torch.float64) @ squares
    mean = squares.mean(dim=0)
    single = torch.float32
    return SharedFactor(
        gram=unit.to(single),
        step=(_RELAXATION * inverse).to(single),
        turn=(_RELAXATION * _PENALTY * inverse - 0.5 * _RELAXATION * eye).to(single),
        noise=noise.to(single),
        noise_floor=mean.to(single),
        scale=scale.to(single),
    )


def fit_nnls(counts: Tensor, signed: Tensor, operator: PixelOperator, factor: SharedFactor) -> Estimate:
    """Non-negative coefficients of a micro-batch.

    Args:
        counts: (pixel, channel) finite, any real dtype: read again for the pixels that fail the check.
        signed: (pixel, column) float32: the unconstrained coefficients.
        operator: the basis' products.
        factor: matrices of `shared_factor`.
    """
    usable = factor.scale > 0
    start = torch.where(usable, signed / factor.scale, 0.0)
    rhs = times(start, factor.gram)
    scaled = iterate(rhs, start, factor).clamp_(min=0.0)
    coefficients = scaled * factor.scale
    wrong = ~_is_optimal(scaled, rhs, coefficients, factor)
    solved = torch.ones_like(wrong)
    if bool(wrong.any()):
        coefficients[wrong], solved[wrong] = _exact(counts[wrong], coefficients[wrong], operator)
    return Estimate(
        coefficients=coefficients, solved=solved, factors=coefficients, columns=operator.columns, signed=signed
    )


def iterate(rhs: Tensor, start: Tensor, factor: SharedFactor) -> Tensor:
    """The iterations, a fixed number, from the unconstrained solution: w (pixel, column)."""
    constant, w = times(rhs, factor.step), start.clone()
    modulus = torch.empty_like(w)
    for _ in range(_ITERATIONS):
        torch.abs(w, out=modulus)
        w.addmm_(modulus, factor.turn, beta=1.0 - 0.5 * _RELAXATION).add_(constant)
    return w


def _is_optimal(scaled: Tensor, rhs: Tensor, coefficients: Tensor, factor: SharedFactor) -> Tensor:
    """Karush-Kuhn-Tucker conditions (pixel,): no slope along what is free, none downhill along what is held at 0."""
    slope = times(scaled, factor.gram) - rhs
    violation = torch.where(scaled > 0, slope.abs(), slope.neg())
    noise = torch.maximum(times(coefficients, factor.noise), factor.noise_floor).sqrt()
    allowed = _TOLERANCE * noise + _ROUNDING * rhs.abs().amax(dim=1, keepdim=True)
    return (violation <= allowed).all(dim=1)


def _exact(counts: Tensor, near: Tensor, operator: PixelOperator) -> tuple[Tensor, Tensor]:
    """Coefficients by active sets in float64, and which of them are optimal."""
    rhs = counts.to(torch.float64) @ operator.weighted
    gram = operator.gram.expand(counts.shape[0], -1, -1)
    solution = nnls_gram(gram, rhs, near > 0)
    return solution.x.to(torch.float32), solution.converged
