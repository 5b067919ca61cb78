"""Maps of a results store whose sums are too high; apart from maps in memory, which need no zarr."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.notes import Note
from hpcxrf.pipeline.pixels.excess import Counts, can_exceed, describe_excess, find_excess
from hpcxrf.results.store.storage import array_of, labels_of, open_group
from hpcxrf.store.schema import BLOCK_Y


def check_sums(path: Path, config: PixelConfig) -> list[Note]:
    """Compare the maps of a results store with the fits of the summed spectra.

    Args:
        path: the results store, with all maps written.
        config: section `pixels` of the run file.
    """
    if not can_exceed(config):
        return []
    maps, spectrum = (open_group(path, name) for name in ("maps", "spectrum"))
    components, detectors = labels_of(maps, "component"), labels_of(maps, "detector")
    notes = []
    for row, detector in enumerate(detectors):
        total, variance = _add_maps(maps, row)
        amplitude, sigma = (np.asarray(array_of(spectrum, name)[row]) for name in ("amplitude", "sigma"))
        notes += describe_excess(detector, find_excess(components, total, variance, amplitude, sigma), config)
    return notes


def _add_maps(maps: zarr.Group, row: int) -> tuple[Counts, Counts]:
    """Sums over the pixels (component,) of the amplitudes and of their squared uncertainties."""
    amplitude, sigma = array_of(maps, "amplitude"), array_of(maps, "sigma")
    total, variance = np.zeros(amplitude.shape[1]), np.zeros(amplitude.shape[1])
    for y in range(0, amplitude.shape[2], BLOCK_Y):
        total += np.nansum(np.asarray(amplitude[row, :, y : y + BLOCK_Y]), axis=(1, 2), dtype=np.float64)
        some: NDArray[Any] = np.asarray(sigma[row, :, y : y + BLOCK_Y])
        variance += np.nansum(some.astype(np.float64) ** 2, axis=(1, 2))
    return total, variance
