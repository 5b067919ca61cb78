"""Products of projectors with uint16 counts, neighbouring channels added on the way."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.bands import BandedProjector
from hpcxrf.fitting.pixels.pairs import LEAST_ROWS, SURPLUS, Grouping
from hpcxrf.fitting.pixels.single import to_single

_FACTOR: Final = 2**16 + 1
_WHOLE_LINES: Final = 16
# Rows at a time: what a core's cache about holds, and many enough for the calls not to count.
_ROWS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Weights of the sums `start` to `stop`."""

    start: int
    stop: int
    rows: Tensor
    """(row, sum) float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """Views of a product's memory for a number of rows."""

    before: Tensor
    """(pixel, sum) float32: single channels before the pairs."""
    pairs: Tensor
    """(pixel, sum) float32."""
    words: Tensor
    """(pixel, sum) int32: the same memory."""
    after: Tensor
    """(pixel, sum) float32: single channels after the pairs."""
    factors: tuple[tuple[Tensor, Tensor, Tensor], ...]
    """Operands by part: rows, sums (sum, pixel), and memory of their product (row, pixel)."""
    seen: Tensor
    """(row of all parts, pixel) float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedProduct:
    """The product of a projector with uint16 counts, prepared, with room for some rows: of one thread at a time.

    The room is used again and again, as new memory costs as much as the sums.
    """

    grouping: Grouping
    parts: tuple[_Part, ...]
    mixing: Tensor
    """(column, row of all parts) float32."""
    sums: Tensor
    """(pixel, sum) float32."""
    seen: Tensor
    """(row of all parts, pixel) float32."""

    def of(self, counts: Tensor) -> Tensor:
        """`counts @ projector` (pixel, column).

        Args:
            counts: (pixel, channel) uint16, none above `pairs.HIGHEST_COUNT`.
        """
        n_rows, whole = counts.shape[0], self._room(_ROWS)
        out = self.seen.new_empty((len(self.mixing), n_rows))
        for i in range(0, n_rows, _ROWS):
            n = min(n_rows - i, _ROWS)
            self._add(counts[i : i + n], whole if n == _ROWS else self._room(n))
            self._multiply(whole if n == _ROWS else self._room(max(n, LEAST_ROWS)), out[:, i : i + n])
        return out.T

    def _room(self, n: int) -> _Room:
        by, sums, seen = self.grouping, self.sums[:n], self.seen[:, :n]
        start, end = by.start - by.first, by.start - by.first + by.count
        pairs = sums[:, start:end]
        places = seen.split([len(part.rows) for part in self.parts])
        return _Room(
            before=sums[:, :start],
            pairs=pairs,
            words=pairs.view(torch.int32),
            after=sums[:, end : by.n_sums],
            seen=seen,
            factors=tuple(
                (part.rows, sums[:, part.start : part.stop].T, place)
                for part, place in zip(self.parts, places, strict=True)
            ),
        )

    def _add(self, counts: Tensor, room: _Room) -> None:
        by = self.grouping
        torch.mul(_align(counts[:, by.start : by.end]).view(torch.int32), _FACTOR, out=room.words)
        # In place: every number is read before it is written.
        room.pairs.copy_(room.words)
        if by.start > by.first:
            room.before.copy_(counts[:, by.first : by.start])
        if by.stop > by.end:
            room.after.copy_(counts[:, by.end : by.stop])

    def _multiply(self, room: _Room, out: Tensor) -> None:
        """Fill `out` (column, at most the room's rows)."""
        for rows, sums, place in room.factors:
            torch.mm(rows, sums, out=place)
        if out.shape[1] == room.seen.shape[1]:
            torch.mm(self.mixing, room.seen, out=out)
        else:
            out.copy_(torch.mm(self.mixing, room.seen)[:, : out.shape[1]])


def paired_product(banded: BandedProjector, grouping: Grouping) -> PairedProduct:
    """Prepare products.

    Args:
        banded: projector of the grouping's sums.
        grouping: grouping with at least one pair.
    """
    rows = _rows(banded.weights, grouping)
    parts = [
        _Part(start=b.start, stop=b.stop, rows=rows[list(b.columns), b.start : b.stop].contiguous())
        for b in banded.bands
    ]
    parts[-1] = _whole(parts[-1])
    mixing = torch.cat([banded.mixing[list(band.columns)] for band in banded.bands])
    return PairedProduct(
        grouping=grouping,
        parts=tuple(parts),
        mixing=mixing.T.to(torch.float32).contiguous(),
        sums=torch.zeros((_ROWS, parts[-1].stop), dtype=torch.float32),
        seen=torch.empty((len(mixing), _ROWS), dtype=torch.float32),
    )


def _rows(weights: Tensor, grouping: Grouping) -> Tensor:
    """(column, sum) float32: weights by channel as those of the sums."""
    paired = weights[grouping.start + 1 : grouping.end : 2] * SURPLUS
    before = weights[grouping.first : grouping.start]
    return to_single(torch.cat([before, paired, weights[grouping.end : grouping.stop]]).T)


def _whole(part: _Part) -> _Part:
    """The last part, with sums of weight 0 to whole cache lines."""
    missing = -part.stop % _WHOLE_LINES
    rows = torch.nn.functional.pad(part.rows, (0, missing)).contiguous()
    return _Part(start=part.start, stop=part.stop + missing, rows=rows)


def _align(counts: Tensor) -> Tensor:
    """The same counts where an int32 can begin; a copy where they do not lie so."""
    even = counts.storage_offset() % 2 == 0 and counts.stride(0) % 2 == 0
    # Not `contiguous`: one row is contiguous wherever it begins, and would stay at its odd place.
    return counts if even and counts.stride(1) == 1 else counts.clone(memory_format=torch.contiguous_format)
