"""Steps of pixels with a theta each on a processor, by a compiled kernel: those of the tensors, to 1e-4 of a sigma."""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels.tangent_layout import COLUMNS, ROWS
from hpcxrf.fitting.pixels.compiled import CompiledFit, compile_expectation

if TYPE_CHECKING:
    from hpcxrf.fitting.pixels.tangent import TangentOperator

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTangent:
    """Matrices of the kernel, filled up to multiples of 4 rows and 8 columns."""

    n_components: int
    gram: Matrix
    """(all, all)."""
    inverse: Matrix
    """(column, column)."""
    response: Matrix
    """(parameter and column, component)."""
    curvature: Matrix
    """(pair of parameters, pair of components): lower triangles, by rows."""
    centre: Matrix
    """(parameter,)."""
    motion: Matrix
    """(place, parameter)."""
    pairs: NDArray[np.uint64]
    """(pair, 2): parameters."""
    half: Matrix
    """(pair,)."""
    expectation: CompiledFit
    """All columns, for the deviance."""


def compile_tangent(tangent: "TangentOperator") -> CompiledTangent:
    """Prepare the kernel's matrices, and compile it where that was not done.

    Args:
        tangent: products of `tangent_operator`, on the processor.
    """
    load_tangent_kernel()
    n, k, m = tangent.curvature.shape[0], tangent.inverse.shape[0], len(tangent.names)
    curvature = tangent.curvature.reshape(n, m, m, n)
    rows, columns = torch.tril_indices(n, n)
    # A product of two different amplitudes stands in two places of the matrix.
    both = [curvature[:, p, q] + curvature[:, p, q].T - torch.diag(curvature[:, p, q].diagonal()) for p, q in _pairs(m)]
    return CompiledTangent(
        n_components=n,
        gram=_fill(tangent.gram),
        inverse=_fill(tangent.inverse),
        response=_fill(tangent.response.reshape(n, m * k).T),
        curvature=_fill(torch.stack([one[rows, columns] for one in both])),
        centre=tangent.centre.contiguous().numpy(),
        motion=tangent.motion.contiguous().numpy(),
        pairs=torch.stack([tangent.first.argmax(dim=1), tangent.second.argmax(dim=1)], dim=1).numpy().astype(np.uint64),
        half=tangent.half.contiguous().numpy(),
        expectation=compile_expectation(tangent.all_columns),
    )


def take_steps(a: Tensor, rhs: Tensor, level: Tensor, compiled: CompiledTangent) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients (pixel, column), d (pixel, parameter) and the length of the last step (pixel,).

    Args:
        a: (pixel, column) float32: coefficients at d = 0.
        rhs: (pixel, all) float32: products of all columns with the counts.
        level: (pixel,) counts in units of the mean pixel.
        compiled: of `compile_tangent`.
    """
    one = compiled
    n_pixels, m = len(a), len(one.centre)
    given, right = a.T.contiguous(), rhs.T.contiguous()
    found, shift, moved = torch.empty_like(given), torch.empty((m, n_pixels)), torch.empty(n_pixels)
    operator = (one.gram, one.inverse, one.response, one.curvature, one.centre, one.motion, one.pairs, one.half)
    load_tangent_kernel().take_steps(
        given.numpy(),
        right.numpy(),
        level.contiguous().numpy(),
        operator,
        one.n_components,
        found.numpy(),
        shift.numpy(),
        moved.numpy(),
    )
    return found.T, shift.T, moved


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(p, q) for p in range(n) for q in range(p + 1)]


def _fill(matrix: Tensor) -> Matrix:
    filled = torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % COLUMNS, 0, -matrix.shape[0] % ROWS))
    return np.ascontiguousarray(filled.to(torch.float32).numpy())


@functools.cache
def load_tangent_kernel() -> ModuleType:
    """The kernel; the first call on a machine compiles it."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("tangent")
