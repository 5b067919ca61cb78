"""The pixels of some map blocks of one detector: from their store to fits, on the worker's device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.pixels.methods import MethodData, PixelOperator, fit_pixels, moved_to
from hpcxrf.fitting.result import PixelFit
from hpcxrf.pipeline.blocks import Block
from hpcxrf.pipeline.pixels.device import Batches, Staging, TileCounts, device_guard, first_batch, wait_for
from hpcxrf.pipeline.pixels.flags import silent_pixels
from hpcxrf.pipeline.pixels.tiles import Steps, run_overlapped, tiles_of
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.runner.worker import Clock, one_thread
from hpcxrf.store.spectra import SpectraStore

_PARTLY_MEASURED: Final = (
    "sum: in some pixels a detector recorded nothing where the others have counts; they are empty in the maps of the "
    "sum, and those of each detector show which it is"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelTask:
    """What all pixels of a task share."""

    store: SpectraStore
    detector: str
    first: int
    """Channel of the fit range."""
    operator: PixelOperator
    data: MethodData
    """What the method needs beside it."""
    config: RunConfig
    clock: Clock
    device: torch.device


def fit_blocks(blocks: Sequence[Block], task: PixelTask, write: Callable[[Block, PixelFit], None]) -> list[str]:
    """Read and fit blocks tile by tile, and hand them over to be written, all at the same time.

    Args:
        blocks: of the maps.
        task: what they share.
        write: called with each block in turn, in a thread of its own.

    Returns:
        What went otherwise than planned.
    """
    staging = Staging(device=task.device)
    n_channels = task.operator.columns.shape[1]
    batches = Batches(device=task.device, size=first_batch(task.device, task.operator, task.config.pixels.method))
    highest = highest_count(task.store, task.detector)
    remarks: set[str] = set()

    def read(tile: Block) -> TileCounts:
        with task.clock.reading():
            counts, measured = read_block(task.store, tile, task.detector)
            if not measured[task.store.measured(tile.y, tile.x).reshape(-1)].all():
                remarks.add(_PARTLY_MEASURED)
            task.clock.bytes_read += counts.nbytes
            inside = counts[:, task.first : task.first + n_channels]
            return staging.put(inside, measured)

    def fit(tile: TileCounts) -> PixelFit:
        with task.clock.fitting(), device_guard(task.device):
            wait_for(tile)
            return batches.run(
                lambda size: fit_tile(tile, task.operator, task.config, task.data, highest=highest, batch=size)
            )

    pixel_bytes = spectrum_bytes(task.store)
    chunks = task.store.chunks
    cut = [(b, [b] if task.device.type == "cuda" else tiles_of(b, chunks, pixel_bytes)) for b in blocks]
    run_overlapped(cut, Steps(read=read, fit=fit, write=write))
    return [*batches.notes, *remarks]


def spectrum_bytes(store: SpectraStore) -> int:
    """Bytes of one spectrum in its store."""
    return int(store.shape[3] * store.dtype.itemsize)


def highest_count(store: SpectraStore, detector: str) -> float:
    """No count of the detector, or of the sum of all, is above."""
    which = range(store.shape[0]) if detector == SUM else [int(detector)]
    return float(sum(store.max_channel_spectrum(d).max() for d in which))


def read_block(store: SpectraStore, block: Block, detector: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Counts (pixel, channel) and measured (pixel,) of one block.

    Of a sum, a pixel in which one of the detectors was silent was not measured: what is there is a part of it.
    """
    n_channels = store.shape[3]
    measured = store.measured(block.y, block.x).reshape(-1)
    if detector != SUM:
        counts = store.read_rows([int(detector)], block.y, block.x)[0]
        return counts.reshape(-1, n_channels), measured
    counts, recorded = _added(store, block)
    return counts, measured & ~silent_pixels(recorded, counts, store)


def _added(store: SpectraStore, block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Counts (pixel, channel) of all detectors, and which (detector, pixel) have any."""
    total: NDArray[Any] | None = None
    recorded = []
    for detector in range(store.shape[0]):
        counts = store.read_rows([detector], block.y, block.x)[0].reshape(-1, store.shape[3])
        recorded.append(counts.any(axis=1))
        if total is None:
            # uint16 sums of several detectors may overflow.
            fits = counts.dtype.kind == "f" or highest_count(store, SUM) <= np.iinfo(counts.dtype).max
            total = counts if fits else counts.astype(np.uint32)
        else:
            total += counts
    return cast("NDArray[Any]", total), np.stack(recorded)


def fit_block(
    counts: NDArray[Any],
    measured: NDArray[np.bool_],
    first: int,
    operator: PixelOperator,
    config: RunConfig,
    device: torch.device,
    data: MethodData | None = None,
) -> PixelFit:
    """Fit pixels (pixel, channel), of which `measured` (pixel,) were, as the run file says."""
    inside = counts[:, first : first + operator.columns.shape[1]]
    tile = Staging(device=device).put(inside, measured)
    with device_guard(device):
        wait_for(tile)
        batches = Batches(device=device, size=first_batch(device, operator, config.pixels.method))
        return batches.run(lambda size: fit_tile(tile, operator, config, data, batch=size))


def fit_tile(
    tile: TileCounts,
    operator: PixelOperator,
    config: RunConfig,
    data: MethodData | None = None,
    *,
    highest: float | None = None,
    batch: int | None = None,
) -> PixelFit:
    """Fit a tile on its device; the result is on the CPU."""
    device = tile.counts.device
    with one_thread() as workers_threads:
        threads = workers_threads if device.type == "cpu" else 1
        fit = fit_pixels(
            tile.counts,
            tile.measured,
            operator,
            method=config.pixels.method,
            data=data,
            deviance=config.pixels.deviance,
            highest=highest,
            batch=batch,
            threads=threads,
        )
    return fit if device.type == "cpu" else moved_to(torch.device("cpu"), fit)
