"""What the kernel fits pixels of few counts by, each by its own counts (`hpcxrf.fitting.kernels.faint`).

Of a channel without a count the deviance is twice what is expected there, at least the least expectation. What is
expected of all channels is a sum that is known of each column. What it lacks of the least expectation is summed over
some channels, where drawn pixels say that this is next to the sum over all: it has kinks, where amplitudes below 0 make
it cross the least one, so that no rule of the columns' width would do.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels.layout import FAINT, SMALLEST_EXPECTATION
from hpcxrf.fitting.pixels.basis import PixelOperator
from hpcxrf.fitting.pixels.single import to_single
from hpcxrf.fitting.pixels.strips import StripArrays, cut_into_runs, find_near, strips_of

FaintModel = tuple[NDArray[np.float32], NDArray[np.float32], StripArrays, NDArray[np.float32], NDArray[np.float32]]
"""Rows of T and of Phi, Phi at some channels, how many each of them stands for, and the sum of each column."""
_STRIDES: Final = (8, 4, 2)
_DRAWS: Final = 24
"""Pixels that are drawn of each kind and number of counts."""
_COUNTS: Final = (3, 10, 30, FAINT - 1)
# Largest error of a drawn pixel's sum, in counts. A deviance is off by twice of that, and varies by 10 from one pixel
# of 3 counts to the next, by 40 at 60. Where no noise would put counts, all into one channel, it can be off by more.
_MOST_ERROR: Final = 0.05


def model_faint(projector: Tensor, operator: PixelOperator, lanes: int) -> FaintModel:
    """Prepare the kernel's matrices.

    Args:
        projector: (channel, column) of T, of which the kernel mixes the products.
        operator: columns, and what a count adds to their coefficients.
        lanes: numbers in a vector of the kernels.
    """
    columns = operator.columns.T
    return _make_model(projector, columns, _find_stride(operator.projector, columns), lanes)


def model_known(columns: Tensor, lanes: int) -> FaintModel:
    """The same where coefficients are known, and may be any: all channels are summed.

    Args:
        columns: (channel, column) of Phi.
        lanes: numbers in a vector of the kernels.
    """
    return _make_model(columns[:, :0], columns, 1, lanes)


def _make_model(projector: Tensor, columns: Tensor, stride: int, lanes: int) -> FaintModel:
    places, number = _space_channels(len(columns), stride)
    samples = columns[places]
    return (
        _fill_up(projector, lanes),
        _fill_up(columns, lanes),
        strips_of(samples, cut_into_runs(find_near(samples))),
        to_single(number).numpy(),
        to_single(columns.sum(dim=0)).numpy(),
    )


def _find_stride(rows: Tensor, columns: Tensor) -> int:
    """The longest that gives next to the same as every channel in all of the drawn pixels; 1 where none does."""
    columns = columns.to(torch.float64)
    drawn = _draw_pixels(rows.to(torch.float64), columns)
    lacking = (SMALLEST_EXPECTATION - columns @ drawn).clamp(min=0.0)
    whole = lacking.sum(dim=0)
    for stride in _STRIDES:
        places, number = _space_channels(len(columns), stride)
        if bool(((number.to(torch.float64) @ lacking[places] - whole).abs() <= _MOST_ERROR).all()):
            return stride
    return 1


def _space_channels(n_channels: int, stride: int) -> tuple[Tensor, Tensor]:
    """The middle of every `stride` channels, and the channels there."""
    starts = torch.arange(0, n_channels, stride)
    number = (n_channels - starts).clamp(max=stride)
    return starts + number // 2, number


def _draw_pixels(rows: Tensor, columns: Tensor) -> Tensor:
    """Coefficients (column, pixel) of drawn counts: of all columns, of a flat pixel, and of one column above all.

    Args:
        rows: (channel, column), what a count adds to the coefficients.
        columns: (channel, column).
    """
    pure = _scale_to_one(columns)
    mean = pure.mean(dim=1, keepdim=True)
    shapes = [
        mean.expand(-1, _DRAWS),
        torch.full_like(mean, 1.0 / len(mean)).expand(-1, _DRAWS),
        0.9 * pure + 0.1 * mean,
    ]
    steps = torch.cat(shapes, dim=1).T.cumsum(dim=1).contiguous()
    generator = torch.Generator().manual_seed(0)
    pixels = []
    for n in _COUNTS:
        where = torch.rand((len(steps), n), generator=generator, dtype=torch.float64) * steps[:, -1:]
        channel = torch.searchsorted(steps, where).clamp(max=len(rows) - 1)
        pixels.append(rows[channel].sum(dim=1).T)
    return torch.cat(pixels, dim=1)


def _scale_to_one(shapes: Tensor) -> Tensor:
    """Shapes (channel, shape) that are not negative, of one count; flat where there is none."""
    positive = shapes.clamp(min=0.0)
    flat = torch.where(positive.sum(dim=0) > 0.0, 0.0, 1.0)
    return (positive + flat) / (positive + flat).sum(dim=0)


def _fill_up(values: Tensor, lanes: int) -> NDArray[np.float32]:
    """Rows of whole vectors, one after the other."""
    return to_single(torch.nn.functional.pad(values, (0, -values.shape[1] % lanes)).flatten()).numpy()
