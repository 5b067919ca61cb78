"""Maximum likelihood of pixels on a processor by a compiled kernel."""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.pixels.basis import shared_weights
from hpcxrf.fitting.pixels.compiled import COUNT_TYPES, as_bytes
from hpcxrf.fitting.pixels.parts import join_channels
from hpcxrf.fitting.pixels.strips import StripArrays, by_tile, cut_into_runs, find_near, strips_of

# Share of the information of two columns, in its tile, below which their product is left out.
_APART: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledLikelihood:
    """Columns of the kernel, in units of a scale."""

    fine: StripArrays
    coarse: StripArrays
    """Over joined channels."""
    pairs: StripArrays
    """Products of two columns, the second one not after the first, over joined channels."""
    units: NDArray[np.float32]
    """(2, column): counts of one unit in the fit range; 1 for a column with counts, else 0."""
    rows: NDArray[np.float32]
    """(channel, column)."""
    totals: NDArray[np.float64]
    """(column,): counts of one unit."""
    n_joined: int


def compile_likelihood(columns: Tensor, usable: Tensor, expected: Tensor) -> CompiledLikelihood:
    """Prepare the kernel's columns, and compile it where that was not done.

    Args:
        columns: (channel, column) float64, in the search's units.
        usable: (column,) bool: has counts.
        expected: (channel,) float64 counts of a mean pixel.
    """
    load_poisson_kernels()
    joined = join_channels(columns.T).T
    first, second = torch.tril_indices(*(2 * [columns.shape[1]]))
    pairs = joined[:, first] * joined[:, second]
    weights = shared_weights(join_channels(expected[None])[0])
    information = by_tile(weights[:, None] * pairs).sum(dim=1)
    own = information.sum(dim=0)[first == second].clamp(min=1e-300).sqrt()
    totals = columns.sum(dim=0)
    return CompiledLikelihood(
        fine=_strips(columns, find_near(columns)),
        coarse=_strips(joined, find_near(joined)),
        pairs=_strips(pairs, information > _APART * own[first] * own[second]),
        units=torch.stack([totals, usable.to(totals.dtype)]).to(torch.float32).numpy(),
        rows=columns.to(torch.float32).contiguous().numpy(),
        totals=totals.numpy(),
        n_joined=len(joined),
    )


def maximise(counts: Tensor, start: Tensor, model: CompiledLikelihood) -> tuple[Tensor, Tensor]:
    """Most likely coefficients (pixel, column) in the search's units, and which (pixel,) are found.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        start: (pixel, column) float32, above 0 for columns with counts.
        model: columns of `compile_likelihood`.
    """
    if counts.dtype not in COUNT_TYPES:
        counts = counts.to(torch.float32)
    data, stride = as_bytes(counts)
    x, solved = start.clone(memory_format=torch.contiguous_format), torch.empty(len(counts), dtype=torch.uint8)
    load_poisson_kernels().maximise(
        data,
        COUNT_TYPES[counts.dtype],
        stride,
        counts.shape[1],
        (model.fine, model.coarse, model.pairs),
        model.units,
        model.rows,
        model.totals,
        x.numpy(),
        solved.numpy(),
    )
    return x, solved.to(torch.bool)


def inverse_information(expected: Tensor, model: CompiledLikelihood) -> Tensor:
    """Diagonal (pixel, column) of the inverse of the expected information, in the search's units; NaN: singular.

    Args:
        expected: (pixel, column) float32 expected coefficients.
        model: columns of `compile_likelihood`.
    """
    variance = torch.empty_like(expected, memory_format=torch.contiguous_format)
    load_poisson_kernels().invert_information(
        expected.contiguous().numpy(), model.coarse, model.pairs, model.n_joined, model.units[1], variance.numpy()
    )
    return variance


@functools.cache
def load_poisson_kernels() -> ModuleType:
    """The kernels; the first call on a machine compiles them."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("poisson")


def _strips(values: Tensor, present: Tensor) -> StripArrays:
    return strips_of(values, cut_into_runs(present))
