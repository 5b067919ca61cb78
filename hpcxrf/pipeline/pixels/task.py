"""The pixels of some map blocks of one detector: from their store to fits, on the worker's device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.fitting.pixels.parts import Solver
from hpcxrf.fitting.result import PixelFit
from hpcxrf.notes import Note
from hpcxrf.pipeline.blocks import Block, pixels_of
from hpcxrf.pipeline.pixels.device import Batches, Staging, TileCounts, device_guard, first_batch, wait_for
from hpcxrf.pipeline.pixels.flags import silent_pixels
from hpcxrf.pipeline.pixels.tiles import Pending, TileCallbacks, run_overlapped, tiles_of
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.runner.worker import Clock, one_thread

_PARTLY_MEASURED: Final = Note(
    "warning",
    "sum: in some pixels a detector recorded nothing where the others have counts; they have status not_measured "
    "in the maps of the sum, and those of each detector show which it is",
)

if TYPE_CHECKING:
    # It loads zarr, which a fit of one file has no need of.
    from hpcxrf.store.spectra import Spectra


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelTask:
    """Store, solver and device that all pixels of a task share."""

    store: "Spectra"
    detector: str
    channels: slice
    """Channels of the fit range."""
    solver: Solver
    config: PixelConfig
    clock: Clock
    device: torch.device


def fit_blocks(blocks: Sequence[Block], task: PixelTask, write: Callable[[Block, PixelFit], None]) -> list[Note]:
    """Read and fit blocks tile by tile, and hand them over to be written, all at the same time.

    Args:
        blocks: blocks of the maps.
        task: what they share.
        write: called with each block in turn, in a thread of its own.

    Returns:
        Notes on what went otherwise than planned.
    """
    staging = Staging(device=task.device)
    batches = Batches(device=task.device, size=first_batch(task.device, task.solver, task.config.method))
    highest = highest_count(task.store, task.detector)
    remarks: set[Note] = set()

    def read(tile: Block) -> TileCounts:
        with task.clock.reading():
            counts, measured = read_block(task.store, tile, task.detector)
            if task.detector == SUM and not measured[task.store.measured(tile.y, tile.x).reshape(-1)].all():
                remarks.add(_PARTLY_MEASURED)
            task.clock.bytes_read += counts.nbytes
            return staging.put(counts[:, task.channels], measured)

    def fit(tile: TileCounts) -> Pending:
        with task.clock.fitting(), device_guard(task.device):
            wait_for(tile)
            found = batches.run(lambda size: fit_tile(tile, task.solver, task.config, highest=highest, batch=size))
            return staging.begin_return(found)

    pixel_bytes = spectrum_bytes(task.store)
    chunks = task.store.chunks
    cut = [(b, [b] if task.device.type == "cuda" else tiles_of(b, chunks, pixel_bytes)) for b in blocks]
    run_overlapped(cut, TileCallbacks(read=read, fit=fit, write=write))
    return [*batches.notes, *remarks]


def spectrum_bytes(store: "Spectra") -> int:
    """Bytes of one spectrum in its store."""
    return int(store.shape[3] * store.dtype.itemsize)


def highest_count(store: "Spectra", detector: str) -> float:
    """Number that no count of the detector, or of the sum of all, exceeds."""
    which = range(store.shape[0]) if detector == SUM else [int(detector)]
    return float(sum(store.max_channel_spectrum(d).max() for d in which))


def read_block(store: "Spectra", block: Block, detector: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Counts (pixel, channel) and measured (pixel,) of one block.

    Of a sum, a pixel in which one of the detectors was silent was not measured: its counts are a part of the sum.
    """
    n_channels = store.shape[3]
    measured = store.measured(block.y, block.x).reshape(-1)
    if detector != SUM:
        counts = store.read_rows([int(detector)], block.y, block.x)[0]
        absent = store.missing(int(detector), block.y, block.x).reshape(-1)
        return counts.reshape(-1, n_channels), measured & ~absent
    counts, recorded = _add_detectors(store, block)
    return counts, measured & ~silent_pixels(recorded, counts, store) & ~_missing_parts(store, block)


def _missing_parts(store: "Spectra", block: Block) -> NDArray[np.bool_]:
    """Pixels (pixel,) of a sum in which a detector, of those that have counts at all, was not measured."""
    absent = np.zeros(pixels_of(block), dtype=np.bool_)
    for d in (d for d in range(store.shape[0]) if store.integrated(d).any()):
        absent |= store.missing(d, block.y, block.x).reshape(-1)
    return absent


def _add_detectors(store: "Spectra", block: Block) -> tuple[NDArray[Any], NDArray[np.bool_]]:
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
    counts: NDArray[Any], measured: NDArray[np.bool_], solver: Solver, config: PixelConfig, device: torch.device
) -> PixelFit:
    """Fit pixels in one go, as the run file says.

    Args:
        counts: (pixel, channel) of the fit range.
        measured: (pixel,).
        solver: method on its device.
        config: section `pixels` of the run file.
        device: device of the solver.
    """
    staging = Staging(device=device)
    tile = staging.put(counts, measured)
    with device_guard(device):
        wait_for(tile)
        batches = Batches(device=device, size=first_batch(device, solver, config.method))
        return staging.begin_return(batches.run(lambda size: fit_tile(tile, solver, config, batch=size)))()


def fit_tile(
    tile: TileCounts, solver: Solver, config: PixelConfig, *, highest: float | None = None, batch: int | None = None
) -> PixelFit:
    """Fit a tile on its device, where the result is."""
    device = tile.counts.device
    with one_thread() as workers_threads:
        threads = workers_threads if device.type == "cpu" else 1
        return fit_pixels(
            tile.counts, tile.measured, solver, deviance=config.deviance, highest=highest, batch=batch, threads=threads
        )
