"""What the kernel fits pixels of few counts by, each by its own counts (`hpcxrf.fitting.kernels.faint`).

Of a channel without a count the deviance is twice what is expected there, at least the least expectation. What is
expected of all channels is a sum that is known of each column; what lies below the least expectation is smooth in the
channel, and summed over every 8th one or as many as the columns need.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels.layout import FAINT, SMALLEST_EXPECTATION
from hpcxrf.fitting.pixels.single import to_single
from hpcxrf.fitting.pixels.strips import StripArrays, cut_into_runs, find_near, strips_of

FaintModel = tuple[NDArray[np.float32], NDArray[np.float32], StripArrays, NDArray[np.float32], NDArray[np.float32]]
"""Rows of T and of Phi, Phi at some channels, how many each of them stands for, and the sum of each column."""
_STRIDES: Final = (8, 4, 2)
_TOTALS: Final = (3.0, 10.0, 30.0, float(FAINT))
"""Counts of the pixels that strides are tried on."""
# Largest error of what is added below the least expectation, in counts. The deviance is twice that, and varies by 10
# from one pixel of 3 counts to the next.
_MOST_ERROR: Final = 0.05


def model_faint(projector: Tensor, columns: Tensor, lanes: int) -> FaintModel:
    """Prepare the kernel's matrices.

    Args:
        projector: (channel, column) of T; no column where no coefficients are to be found.
        columns: (channel, column) of Phi.
        lanes: numbers in a vector of the kernels.
    """
    places, number = _sample_channels(columns)
    samples = columns[places]
    return (
        _fill_up(projector, lanes),
        _fill_up(columns, lanes),
        strips_of(samples, cut_into_runs(find_near(samples))),
        to_single(number).numpy(),
        to_single(columns.sum(dim=0)).numpy(),
    )


def _sample_channels(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Channels (sample,), as few as the columns allow, and how many each of them stands for."""
    expected = columns @ _trial_pixels(columns)
    below = (SMALLEST_EXPECTATION - expected).clamp(min=0.0)
    for stride in _STRIDES:
        places, number = _every(len(columns), stride)
        error = (number.to(below.dtype) @ below[places] - below.sum(dim=0)).abs()
        if bool((error <= _MOST_ERROR).all()):
            return places, number
    return _every(len(columns), 1)


def _every(n_channels: int, stride: int) -> tuple[Tensor, Tensor]:
    """The middle of every `stride` channels, and the channels there."""
    starts = torch.arange(0, n_channels, stride)
    number = (n_channels - starts).clamp(max=stride)
    return starts + number // 2, number


def _trial_pixels(columns: Tensor) -> Tensor:
    """Coefficients (column, pixel) of equal shares of the counts, with much of each column, and with less than none."""
    sums = columns.sum(dim=0)
    shares = torch.where(sums > 0.0, 1.0 / sums, 0.0) / len(sums)
    pure = torch.diag(shares * len(sums))
    shapes = torch.cat([shares[:, None], 0.5 * shares[:, None] + 0.5 * pure, shares[:, None] - 0.3 * pure], dim=1)
    return torch.cat([total * shapes for total in _TOTALS], dim=1)


def _fill_up(values: Tensor, lanes: int) -> NDArray[np.float32]:
    """Rows of whole vectors, one after the other."""
    return to_single(torch.nn.functional.pad(values, (0, -values.shape[1] % lanes)).flatten()).numpy()
