"""Steps of pixels with a theta each on a processor, by a compiled kernel: those of the tensors, to 1e-4 of a sigma."""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.pixels.compiled import CompiledFit, compile_expectation, project_compiled
from hpcxrf.fitting.pixels.strips import StripArrays, cut_into_runs, find_near, strips_of, strips_of_all

if TYPE_CHECKING:
    from hpcxrf.fitting.pixels.tangent import TangentOperator

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTangent:
    """Matrices of the kernel."""

    n_components: int
    n_all: int
    weighted: StripArrays
    """(channel, all)."""
    gram: StripArrays
    """(all, all)."""
    inverse: StripArrays
    """(column, column)."""
    response: StripArrays
    """(parameter and column, component)."""
    curvature: StripArrays
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
        n_all=len(tangent.gram),
        weighted=strips_of(tangent.weighted, cut_into_runs(find_near(tangent.weighted))),
        gram=strips_of_all(tangent.gram),
        inverse=strips_of_all(tangent.inverse),
        response=strips_of_all(tangent.response.reshape(n, m * k).T),
        curvature=strips_of_all(torch.stack([one[rows, columns] for one in both])),
        centre=tangent.centre.contiguous().numpy(),
        motion=tangent.motion.contiguous().numpy(),
        pairs=torch.stack([tangent.first.argmax(dim=1), tangent.second.argmax(dim=1)], dim=1).numpy().astype(np.uint64),
        half=tangent.half.contiguous().numpy(),
        expectation=compile_expectation(tangent.all_columns),
    )


def project_pixels(counts: Tensor, compiled: CompiledTangent) -> tuple[Tensor, Tensor]:
    """Products (pixel, all) of all weighted columns with the counts, and the counts of each pixel (pixel,).

    Args:
        counts: (pixel, channel) finite, any real dtype.
        compiled: of `compile_tangent`.
    """
    return project_compiled(counts, compiled.weighted, compiled.n_all)


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
    matrices = (one.gram, one.inverse, one.response, one.curvature)
    load_tangent_kernel().take_steps(
        given.numpy(),
        right.numpy(),
        level.contiguous().numpy(),
        matrices,
        (one.centre, one.motion, one.pairs, one.half),
        one.n_components,
        found.numpy(),
        shift.numpy(),
        moved.numpy(),
    )
    return found.T, shift.T, moved


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(p, q) for p in range(n) for q in range(p + 1)]


@functools.cache
def load_tangent_kernel() -> ModuleType:
    """The kernel; the first call on a machine compiles it."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("tangent")
