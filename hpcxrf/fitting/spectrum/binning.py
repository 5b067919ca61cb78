"""Bins of channels that are narrow against a line: where peaks are weighed, most channels are company."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.fitting.spectrum.mismatch import FWHM_PER_SIGMA, FitPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Which channels are one bin, and its noise."""

    number: Tensor
    """(channel,) int64, every number from 0 to the last of them."""
    noise: Tensor
    """(bin,) standard deviation of the counts by the model."""

    @property
    def within(self) -> int:
        """Channels less bins."""
        return self.number.shape[0] - self.noise.shape[0]

    def add_up(self, columns: Tensor) -> Tensor:
        """Sums (bin, any) of columns (channel, any)."""
        return columns.new_zeros((self.noise.shape[0], columns.shape[1])).index_add(0, self.number, columns)

    def whiten(self, columns: Tensor) -> Tensor:
        """Columns (channel, any) of counts summed over the bins, (bin, any) in units of the noise."""
        return self.add_up(columns) / self.noise[:, None]


def bin_channels(point: FitPoint, per_sigma: float) -> Bins:
    """Bin the channels of a fit.

    Args:
        point: the fit.
        per_sigma: bins in one standard deviation of a line; where the channels are no narrower, each is a bin.
    """
    per_channel = per_sigma * point.drawn.bin_kev / (point.fwhm_kev / FWHM_PER_SIGMA)
    place = per_channel.clamp(max=1.0).cumsum(dim=0).floor()
    number = torch.unique_consecutive(place, return_inverse=True)[1]
    variance = (1.0 / point.weights).new_zeros(int(number[-1]) + 1).index_add(0, number, 1.0 / point.weights)
    return Bins(number=number, noise=variance.sqrt())
