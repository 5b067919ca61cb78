"""Non-negative coefficients of pixels on a processor, by a compiled kernel."""

import functools
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PixelOperator, unit_diagonal


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledNonnegative:
    """What all pixels share."""

    inverse: NDArray[np.float64]
    """(column, column) of the Gram matrix with a diagonal of 1."""
    scale: NDArray[np.float64]
    """(column,): 0 for a column without a count."""


def compile_nonnegative(operator: PixelOperator) -> CompiledNonnegative:
    """Prepare the kernel's matrices, and compile it where that was not done.

    Args:
        operator: products of the basis, on the processor.
    """
    load_nonnegative_kernel()
    unit, scale = unit_diagonal(operator.gram)
    return CompiledNonnegative(inverse=torch.linalg.inv(unit).contiguous().numpy(), scale=scale.contiguous().numpy())


def hold_at_zero(signed: Tensor, shared: CompiledNonnegative) -> tuple[Tensor, Tensor]:
    """Non-negative least squares (pixel, column) float32, and which of them are optimal (pixel,).

    Args:
        signed: (pixel, column) float32: the unconstrained ones.
        shared: of `compile_nonnegative`.
    """
    given = signed.T.contiguous()
    found, solved = torch.empty_like(given), torch.empty(len(signed), dtype=torch.uint8)
    load_nonnegative_kernel().hold_at_zero(given.numpy(), shared.inverse, shared.scale, found.numpy(), solved.numpy())
    return found.T, solved.to(torch.bool)


@functools.cache
def load_nonnegative_kernel() -> ModuleType:
    """The kernel; the first call on a machine compiles it."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("nonnegative")
