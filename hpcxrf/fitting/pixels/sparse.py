"""Matrices of the kernel for pixels of few counts (`hpcxrf.fitting.kernels.sparse_maps`), and which scans it is for."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator
from hpcxrf.fitting.pixels.strips import SparseRows

FEW_COUNTS_A_PIXEL: Final = 50.0
"""Counts of the mean pixel below which channels without counts are skipped."""
# Of the largest number of a column: what is left out of a channel; its sum is made up for.
_LEFT_OUT: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseFit:
    """Matrices by channel; width is the number of columns filled up to a multiple of 8."""

    projector: NDArray[np.float32]
    """(channel x width) rows of the projector."""
    spectra: NDArray[np.float32]
    """(channel x width) rows of the columns."""
    columns: SparseRows
    """The same by pairs of channels, without what is next to nothing: fours of columns, and for each four 8 numbers,
    those of the first channel and of the second."""
    left_out: NDArray[np.float32]
    """(column,) sums over channels of what is left out."""
    variance: NDArray[np.float32]
    """(width, component)."""


def has_few_counts(basis: PixelBasis) -> bool:
    """Whether the mean pixel of the scan has so few counts that skipping channels pays.

    The basis is the same for every tile, worker and continued run, and so is the answer.

    Args:
        basis: the linear model of a pixel.
    """
    return bool(basis.expected.sum() < FEW_COUNTS_A_PIXEL)


def prepare_sparse(operator: PixelOperator) -> SparseFit:
    """Prepare the matrices.

    Args:
        operator: products of the basis, on the processor.
    """
    n, pad = len(operator.columns), torch.nn.functional.pad
    phi = operator.columns.T
    kept = phi * (phi.abs() > _LEFT_OUT * phi.abs().amax(dim=0))
    return SparseFit(
        projector=pad(operator.projector, (0, -n % 8)).flatten().numpy(),
        spectra=pad(phi, (0, -n % 8)).flatten().numpy(),
        columns=_rows_of_pairs(kept),
        left_out=(phi - kept).to(torch.float64).sum(dim=0).to(torch.float32).numpy(),
        variance=pad(operator.variance, (0, 0, 0, -n % 8)).contiguous().numpy(),
    )


def _rows_of_pairs(phi: Tensor) -> SparseRows:
    """Where the fours of each pair of channels begin, then their columns, then the numbers of both channels.

    Args:
        phi: (channel, column); after an odd number of channels follows one of zeros.
    """
    both = torch.nn.functional.pad(phi, (0, 0, 0, len(phi) % 2)).reshape(-1, 2, phi.shape[1])
    starts, columns, numbers = [0], [], []
    for pair in both:
        kept = torch.nonzero(pair.any(dim=0))[:, 0]
        fours = max(-(-len(kept) // 4), 1)
        filled = torch.nn.functional.pad(kept, (0, 4 * fours - len(kept)))
        values = torch.nn.functional.pad(pair[:, kept], (0, 4 * fours - len(kept)))
        columns.append(filled)
        numbers.append(values.reshape(2, fours, 4).transpose(0, 1).flatten())
        starts.append(starts[-1] + fours)
    return np.array(starts, np.uint64), torch.cat(columns).numpy().astype(np.uint64), torch.cat(numbers).numpy()
