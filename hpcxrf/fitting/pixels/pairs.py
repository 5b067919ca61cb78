"""Channels that products with raw counts are made of: those with information, by twos where that is enough.

Two uint16 counts that lie side by side are one uint32, `low + 2**16 high`. Times `2**16 + 1`, modulo `2**32`, that is
`2**16 (low + high) + low`: one integer multiplication adds all pairs of a spectrum, and leaves a surplus of `low /
2**16`, which is linear in the counts and so belongs to the weights of the sum. Fits of such sums are as unbiased as
those of single channels; what they lose in precision is known beforehand.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

MOST_LOSS: Final = 0.005
"""Largest relative growth of the variance of any amplitude by adding and leaving out channels: 0.25 % of its sigma."""
_MOST_LOSS_AT_AN_END: Final = 0.0005
SURPLUS: Final = 2.0**-16
"""Weight of the first channel of a pair beyond that of the second."""
# The sum of two must stay below 2**15, where the sign begins.
HIGHEST_COUNT: Final = 2**14 - 1
LEAST_ROWS: Final = 16
"""Fewer are multiplied by another routine, which rounds otherwise: they are filled up."""
# Part of the channels that stays single, tried in turn: peaks are narrowest, in channels, at low energy.
_SINGLE_SHARES: Final = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Channels `first` to `stop` of the fit range are used; `count` pairs of them from `start` on are added."""

    n_channels: int
    """Number of channels of the fit range."""
    first: int
    start: int
    count: int
    stop: int

    @property
    def end(self) -> int:
        """Channel after the last pair."""
        return self.start + 2 * self.count

    @property
    def n_sums(self) -> int:
        """Number of sums: single channels and pairs."""
        return self.stop - self.first - self.count

    def channel_of(self, sum_index: int) -> int:
        """First channel of a sum; `stop` after the last."""
        paired = min(max(sum_index - (self.start - self.first), 0), self.count)
        return self.first + sum_index + paired

    def added(self, values: Tensor) -> Tensor:
        """Values by sum (sum, any), as a product sees them, of values by channel (channel, any)."""
        first, second = values[self.start : self.end : 2], values[self.start + 1 : self.end : 2]
        pairs = (1.0 + SURPLUS) * first + second
        return torch.cat([values[self.first : self.start], pairs, values[self.end : self.stop]])

    def by_channel(self, weights: Tensor) -> Tensor:
        """Weights by channel (channel, any) that weights of the sums (sum, any) amount to."""
        before = self.start - self.first
        paired = weights[before : before + self.count]
        both = torch.stack([(1.0 + SURPLUS) * paired, paired], dim=1).flatten(0, 1)
        used = torch.cat([weights[:before], both, weights[before + self.count :]])
        return torch.nn.functional.pad(used, (0, 0, self.first, self.n_channels - self.stop))


def every_channel(n_channels: int) -> Grouping:
    """All of the fit range, nothing added."""
    return Grouping(n_channels=n_channels, first=0, start=n_channels, count=0, stop=n_channels)


def candidates(share: Tensor, first_channel: int) -> list[Grouping]:
    """Groupings to be tried, the fastest first, every channel last.

    Args:
        share: (channel, component): share of each component's variance, by channel.
        first_channel: first one of the fit range: pairs begin at even channels, where an uint32 can.
    """
    n = share.shape[0]
    first, after = (_negligible(values) for values in (share, share.flip(0)))
    stop = n - after
    found = []
    for single in _SINGLE_SHARES:
        start = min(first + int(single * (stop - first)), stop)
        start = min(start + (start + first_channel) % 2, stop)
        found.append(Grouping(n_channels=n, first=first, start=start, count=(stop - start) // 2, stop=stop))
    return [*found, every_channel(n)]


def _negligible(share: Tensor) -> int:
    """Number of the first channels that carry next to nothing."""
    return int((share.cumsum(dim=0).amax(dim=1) <= _MOST_LOSS_AT_AN_END).sum())


def with_totals(matrix: Tensor, grouping: Grouping | None = None) -> Tensor:
    """Append a column of ones, which gives the pixel's counts; with a grouping, those that are used, to 1e-5."""
    ones = torch.ones_like(matrix[:, :1])
    if grouping is not None:
        ones = grouping.by_channel(torch.ones_like(grouping.added(ones)))
    return torch.cat([matrix, ones], dim=1)
