"""Which channels the products with raw counts are made of: those that say something, by twos where that is enough.

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
"""Largest relative growth of the variance of any amplitude by what is added and left out: 0.25 % of its sigma."""
_MOST_LOSS_AT_AN_END: Final = 0.0005
SURPLUS: Final = 2.0**-16
"""Weight of the first channel of a pair beyond that of the second."""
_FACTOR: Final = 2**16 + 1
# The sum of two must stay below 2**15, where the sign begins.
HIGHEST_COUNT: Final = 2**14 - 1
LEAST_ROWS: Final = 16
"""Fewer are multiplied by another routine, which rounds otherwise: they are filled up."""
_WHOLE_LINES: Final = 16
# Rows at a time: what a core's cache about holds.
_ROWS: Final = 512
# Part of the channels that stays single, tried in turn: peaks are narrowest, in channels, at low energy.
_SINGLE_SHARES: Final = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Channels `first` to `stop` of the fit range are used; `count` pairs of them from `start` on are added."""

    n_channels: int
    """Of the fit range."""
    first: int
    start: int
    count: int
    stop: int

    @property
    def end(self) -> int:
        """Channel after the last pair."""
        return self.start + 2 * self.count

    def added(self, values: Tensor) -> Tensor:
        """What a product sees (sum, any) of values by channel (channel, any)."""
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
    """What may be tried, the fastest first, every channel last.

    Args:
        share: (channel, component): of each component's variance, by channel.
        first_channel: of the fit range: pairs begin at even channels, where an uint32 can.
    """
    n = share.shape[0]
    first, after = (_negligible(values) for values in (share, share.flip(0)))
    stop = n - after
    found = []
    for single in _SINGLE_SHARES:
        start = min(first + int(single * (stop - first)), stop)
        start = min(start + (start + first_channel) % 2, stop)
        found.append(
            Grouping(n_channels=n, first=first, start=start, count=(stop - start) // 2, stop=stop)
        )
    return [*found, every_channel(n)]


def _negligible(share: Tensor) -> int:
    """How many of the first channels carry next to nothing."""
    return int((share.cumsum(dim=0).amax(dim=1) <= _MOST_LOSS_AT_AN_END).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedProduct:
    """The product of a projector with uint16 counts, prepared, with room for some rows: of one thread at a time.

    The room is used again and again, as new memory costs as much as the sums.
    """

    grouping: Grouping
    rows: Tensor
    """(column, sum) float32: the projector, with sums of weight 0 to whole cache lines."""
    words: Tensor
    """(pixel, pair) int32."""
    sums: Tensor
    """(pixel, sum) float32."""

    def of(self, counts: Tensor) -> Tensor:
        """`counts @ projector` (pixel, column).

        Args:
            counts: (pixel, channel) uint16, none above `HIGHEST_COUNT`.
        """
        out = self.rows.new_empty((self.rows.shape[0], counts.shape[0]))
        for i in range(0, counts.shape[0], _ROWS):
            self._write(counts[i : i + _ROWS], out[:, i : i + _ROWS])
        return out.T

    def _write(self, counts: Tensor, out: Tensor) -> None:
        by, n = self.grouping, counts.shape[0]
        words, sums, before = self.words[:n], self.sums[:n], by.start - by.first
        pairs = _aligned(counts[:, by.start : by.end]).view(torch.int32)
        torch.mul(pairs, _FACTOR, out=words)
        sums[:, before : before + by.count].copy_(words)
        if before > 0:
            sums[:, :before].copy_(counts[:, by.first : by.start])
        after = counts[:, by.end : by.stop]
        sums[:, before + by.count :][:, : after.shape[1]].copy_(after)
        if n < LEAST_ROWS:
            out.copy_(torch.mm(self.rows, self.sums[:LEAST_ROWS].T)[:, :n])
        else:
            torch.mm(self.rows, sums.T, out=out)


def paired_product(projector: Tensor, grouping: Grouping) -> PairedProduct:
    """Prepare products.

    Args:
        projector: (channel, column) float32, from weights of the grouping's sums by `Grouping.by_channel`.
        grouping: with at least one pair.
    """
    paired = projector[grouping.start + 1 : grouping.end : 2] * SURPLUS
    before = projector[grouping.first : grouping.start]
    rows = torch.cat([before, paired, projector[grouping.end : grouping.stop]]).T
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % _WHOLE_LINES)).contiguous()
    return PairedProduct(
        grouping=grouping,
        rows=padded,
        words=torch.empty((_ROWS, grouping.count), dtype=torch.int32),
        sums=torch.zeros((_ROWS, padded.shape[1]), dtype=torch.float32),
    )


def _aligned(counts: Tensor) -> Tensor:
    """The same counts where an int32 can begin; a copy where they do not lie so."""
    even = counts.storage_offset() % 2 == 0 and counts.stride(0) % 2 == 0
    return counts if even and counts.stride(1) == 1 else counts.contiguous()
