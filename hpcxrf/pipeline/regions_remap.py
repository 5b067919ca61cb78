"""The pixels of a region, fitted again with the theta of their own region."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcxrf.fitting.detector_sum import SOLVED
from hpcxrf.fitting.setup import SpectrumSetup
from hpcxrf.pipeline.blocks import blocks_of
from hpcxrf.pipeline.pixel_task import fit_block, operator_on, read_block
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.regions_refine import RefinedRegion
from hpcxrf.pipeline.tasks import basis_of
from hpcxrf.pipeline.worker import choose_device
from hpcxrf.results.regions import read_region_mask, write_region_block
from hpcxrf.store.spectra import SpectraStore


def remap_region(
    job: DatasetJob,
    path: Path,
    store: SpectraStore,
    index: int,
    refined: RefinedRegion,
    setups: Sequence[SpectrumSetup],
) -> None:
    """Fit the region's pixels block by block, for every entry of the maps' detector axis, and write them.

    A detector whose summed spectrum has no solution is left out: its maps stay NaN, status not run.

    Args:
        job: the dataset.
        path: its results store.
        store: its spectra.
        index: of the region.
        refined: its fits.
        setups: of all detectors.
    """
    device = choose_device(job.config)
    every = read_region_mask(path, index)
    blocks = [b for b in blocks_of(job.shape[1:3]) if every[b.y, b.x].any()]
    for name in (d for d in job.detectors if d in refined.fits):
        if refined.fits[name].status not in SOLVED:
            continue
        n_pixels = int(np.count_nonzero(every))
        first, basis = basis_of(name, refined.fits, setups, n_pixels, job.config)
        operator = operator_on(basis, first, device)
        for block in blocks:
            inside = every[block.y, block.x]
            counts, measured = read_block(store, block, name)
            rows = inside.ravel()
            fit = fit_block(counts[rows], measured[rows], first, operator, job.config, device)
            write_region_block(path, index, name, block.y, block.x, inside, fit)
