"""Live times and I0 of a scan, some rows at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.normalise import NormaliseConfig
from hpcxrf.pipeline.blocks import Block
from hpcxrf.pipeline.memory import NORMALISE_PIXELS
from hpcxrf.pipeline.normalise.choice import (
    I0Choice,
    LiveTimeSource,
    calculate_live_time,
    choose_live_time,
    read_i0,
    require_live_time,
)
from hpcxrf.pipeline.records import I0Reference
from hpcxrf.quantify.i0 import I0, FloatMap
from hpcxrf.store.spectra import SpectraStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTimes:
    """Live times and I0 of some rows of a scan."""

    first: int
    """Number of the first row."""
    live_time_s: FloatMap
    """(detector, y, x) seconds, 0 where the detector recorded nothing, NaN where it is not known."""
    i0: I0 | None

    def live_of(self, block: Block) -> FloatMap:
        """Live times (detector, y, x) of a block."""
        return self.live_time_s[:, block.y.start - self.first : block.y.stop - self.first, block.x]

    def i0_of(self, block: Block) -> I0 | None:
        """I0 of a block."""
        if self.i0 is None:
            return None
        rows = slice(block.y.start - self.first, block.y.stop - self.first)
        return I0(rate=self.i0.rate[rows, block.x], sigma=self.i0.sigma[rows, block.x])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTimes:
    """Where live times and I0 of a scan come from."""

    store: SpectraStore
    config: NormaliseConfig
    reference: I0Reference | None
    live: Mapping[int, LiveTimeSource]
    """Sources by detector; those without a live time are left out."""
    i0: I0Choice | None
    parts: Sequence[int]
    """Detectors that the raw sum is made of."""
    _kept: dict[tuple[int, int], RowTimes] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Rows that were read last: several passes ask for those of a scan that is read at once."""

    def read(self, y: slice) -> RowTimes:
        """Read live times and I0 of some rows."""
        place = (y.start, y.stop)
        if place not in self._kept:
            self._kept.clear()
            self._kept[place] = self._read(y)
        return self._kept[place]

    def _read(self, y: slice) -> RowTimes:
        times, measured = self.store.times(y), self.store.measured(y)
        live = np.stack(
            [
                calculate_live_time(
                    self.live.get(d),
                    self.config.live_time_choice,
                    live_time_s=times.live_time_s[d],
                    real_time_s=times.real_time_s[d],
                    icr_hz=times.icr_hz[d],
                    ocr_hz=times.ocr_hz[d],
                )
                for d in range(self.store.shape[0])
            ]
        )
        live[:, ~measured] = np.nan
        for d, one in enumerate(live):
            # It has no part in the pixel's sum, either.
            one[self.store.missing(d, y)] = 0.0
        i0 = None
        if self.i0 is not None:
            gain = None if self.reference is None else self.reference.gain_a_per_v
            i0 = read_i0(self.i0, lambda name: self.store.scaler(name, y), gain)
        return RowTimes(first=y.start, live_time_s=live, i0=i0)


def find_live_times(store: SpectraStore, config: NormaliseConfig, where: object) -> dict[int, LiveTimeSource]:
    """Find where the live time of every detector comes from.

    Raises:
        ConfigError: no detector has one.
    """
    n_detectors, n_y, n_x, _ = store.shape
    rates, live, real = (np.zeros(n_detectors, dtype=np.bool_) for _ in range(3))
    step = max(1, NORMALISE_PIXELS // n_x)
    for y in (slice(row, min(row + step, n_y)) for row in range(0, n_y, step)):
        times = store.times(y)
        known = (times.real_time_s > 0.0) & (times.icr_hz > 0.0) & (times.ocr_hz > 0.0)
        rates |= known.any(axis=(1, 2))
        live |= (times.live_time_s > 0.0).any(axis=(1, 2))
        real |= (times.real_time_s > 0.0).any(axis=(1, 2))
    found = choose_live_time(
        config.live_time_choice, has_rates=rates.tolist(), has_live=live.tolist(), has_real=real.tolist()
    )
    require_live_time(config.live_time_choice, found, where)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Exposure of the integrated spectra of a scan, as `normalise_spectrum` takes it."""

    live_time_s: NDArray[np.float64]
    """(detector,) live time of all pixels together, seconds; 0 of a detector without one."""
    i0: tuple[tuple[float, float], ...] | None
    """Mean I0 of every detector's pixels, weighted by their live times, with its error by counting; NaN where none is
    known. None: rates are not divided by I0."""


def sum_exposure(
    times: ScanTimes, blocks: Sequence[Block], left_out: Mapping[int, Sequence[tuple[int, int]]] | None = None
) -> Exposure:
    """Add up the exposure of all pixels.

    Args:
        times: where live times and I0 come from.
        blocks: all blocks of the maps, which say how many rows are read at a time.
        left_out: pixels (y, x) by detector that its spectrum is the sum without.
    """
    live, lit, flux, variance = np.zeros((4, times.store.shape[0]))
    for rows, _ in read_rows(times, blocks):
        seconds = np.nan_to_num(rows.live_time_s)
        for detector, pixels in (left_out or {}).items():
            for y, x in pixels:
                if 0 <= y - rows.first < seconds.shape[1]:
                    seconds[detector, y - rows.first, x] = 0.0
        live += seconds.sum(axis=(1, 2))
        if rows.i0 is not None:
            known = np.where(rows.i0.rate > 0.0, seconds, 0.0)
            lit += known.sum(axis=(1, 2))
            flux += (known * np.nan_to_num(rows.i0.rate)).sum(axis=(1, 2))
            variance += ((known * rows.i0.sigma) ** 2).sum(axis=(1, 2))
    if times.i0 is None:
        return Exposure(live_time_s=live, i0=None)
    total = np.where(lit > 0.0, lit, np.nan)
    means, errors = (flux / total).tolist(), (np.sqrt(variance) / total).tolist()
    return Exposure(live_time_s=live, i0=tuple(zip(means, errors, strict=True)))


def read_rows(times: ScanTimes, blocks: Sequence[Block]) -> Iterator[tuple[RowTimes, list[Block]]]:
    """Read times of several rows of blocks at once, since a chunk of them holds many, with the blocks inside."""
    waiting: list[Block] = []
    width = times.store.shape[2]
    for block in blocks:
        if waiting and block.y != waiting[-1].y and (block.y.stop - waiting[0].y.start) * width > NORMALISE_PIXELS:
            yield times.read(slice(waiting[0].y.start, waiting[-1].y.stop)), waiting
            waiting = []
        waiting.append(block)
    if waiting:
        yield times.read(slice(waiting[0].y.start, waiting[-1].y.stop)), waiting
