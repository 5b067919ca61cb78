"""The pixels of a region, fitted again with the theta of their own region."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.parts import Solver
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.methods import METHODS, PixelMethodName
from hpcxrf.pipeline.blocks import Block, blocks_of
from hpcxrf.pipeline.pixels.findings import Findings, apply_findings, fits_for, spectra_of
from hpcxrf.pipeline.pixels.from_config import basis_of, needs_model, pixel_model_of, solver_of
from hpcxrf.pipeline.pixels.task import fit_block, read_block
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.regions.refine import RefinedRegion
from hpcxrf.pipeline.tasks import no_solution
from hpcxrf.results.store.basis import component_names, read_basis
from hpcxrf.results.store.regions import read_region_mask, write_region_block
from hpcxrf.runner.worker import choose_device
from hpcxrf.store.spectra import SpectraStore


def remap_method(config: RunConfig) -> PixelMethodName:
    """The method of the pixels of regions: the one that the run file names, else that of the scan."""
    remap = config.regions.remap
    return config.pixels.method if isinstance(remap, bool) else remap


def remap_region(
    job: DatasetJob,
    path: Path,
    store: SpectraStore,
    index: int,
    refined: RefinedRegion,
    problems: Sequence[FitProblem],
    findings: Findings,
) -> dict[str, str]:
    """Fit the region's pixels block by block, for every entry of the maps' detector axis, and write them.

    A detector whose summed spectrum has no solution is left out, and so is the sum where the method fits none: these
    maps stay NaN, status not run. One whose pixels have none, as columns have indistinguishable spectra, reads NaN,
    status singular.

    Args:
        job: the dataset.
        path: its results store.
        store: its spectra.
        index: of the region.
        refined: its fits.
        problems: of all detectors.
        findings: faults of pixels and detectors of the scan.

    Returns:
        Why not, by detector, of those that were not fitted.
    """
    config = replace(job.config.pixels, method=remap_method(job.config))
    sums = METHODS[config.method].sums
    device = choose_device(job.config)
    every = read_region_mask(path, index)
    names = component_names(path)
    remarks: dict[str, str] = {}
    for name in (d for d in job.detectors if d in refined.fits):
        if refined.fits[name].status not in SOLVED:
            status = refined.fits[name].status.name.lower()
            remarks[name] = f"not mapped again: the fit of its summed spectrum is {status}"
            continue
        if name == SUM and not sums:
            remarks[name] = f"not mapped again: the method {config.method} fits the theta of one detector, not of a sum"
            continue
        try:
            fits = fits_for(name, refined.fits, findings)
            basis, solver = _prepare_solver(name, fits, problems, every, _as_in_scan(config, path, name), device)
        except FitError as error:
            remarks[name] = f"not mapped again: {error}"
            _write_nothing(path, index, name, every, len(names))
            continue
        for block, inside in _parts(every):
            part = around(every, block, store.chunks)
            spectra = spectra_of(store, name, findings)
            counts, measured = read_block(spectra, part, name)
            rows = every[part.y, part.x].ravel()
            fit = fit_block(counts[rows][:, basis.channels], measured[rows], solver, config, device)
            fit = apply_findings(fit, spectra, part, name, basis.channels, findings, rows)
            write_region_block(path, index, name, block.y, block.x, inside, fit)
    return remarks


def around(every: NDArray[np.bool_], block: Block, chunks: Sequence[int]) -> Block:
    """The part of a block that is read for a region: whole chunks about its pixels.

    Args:
        every: (y, x): the region.
        block: with at least one of its pixels.
        chunks: (detector, y, x, channel) of the store.
    """
    inside = every[block.y, block.x]
    return Block(
        y=_about(np.flatnonzero(np.any(inside, axis=1)), block.y, chunks[1]),
        x=_about(np.flatnonzero(np.any(inside, axis=0)), block.x, chunks[2]),
    )


def _about(used: NDArray[np.intp], whole: slice, step: int) -> slice:
    """The multiples of `step` about what is used of a range, clipped to it."""
    first, last = (int(whole.start) + int(used[i]) for i in (0, -1))
    start, stop = first // step * step, -(-(last + 1) // step) * step
    return slice(max(start, whole.start), min(stop, whole.stop))


def _as_in_scan(config: PixelConfig, path: Path, name: str) -> PixelConfig:
    """The section with the number of background columns that the scan's pixels were fitted with."""
    if config.background_columns is not None or config.background != "columns":
        return config
    try:
        basis = read_basis(path, name)
    except KeyError:
        return config
    return replace(config, background_columns=basis.columns.shape[1] - basis.n_components)


def _prepare_solver(
    name: str,
    fits: Mapping[str, SpectrumFit],
    problems: Sequence[FitProblem],
    every: NDArray[np.bool_],
    config: PixelConfig,
    device: torch.device,
) -> tuple[PixelBasis, Solver]:
    """Basis and solver of one detector.

    Raises:
        FitError: columns with indistinguishable spectra, or more pixels than the method fits.
    """
    n_pixels, most = int(np.count_nonzero(every)), METHODS[config.method].most_pixels
    if most is not None and n_pixels > most:
        raise FitError(
            f"the method {config.method} fits at most {most} pixels, and the region has {n_pixels}; use another method "
            "or smaller regions"
        )
    basis = basis_of(name, fits, problems, n_pixels, config)
    model = pixel_model_of(name, fits, problems) if needs_model(config) else None
    return basis, solver_of(config, basis, model, device)


def _parts(every: NDArray[np.bool_]) -> list[tuple[Block, NDArray[np.bool_]]]:
    """Blocks of the maps that hold pixels of the region, and which."""
    blocks = blocks_of((every.shape[0], every.shape[1]))
    return [(b, every[b.y, b.x]) for b in blocks if every[b.y, b.x].any()]


def _write_nothing(path: Path, index: int, name: str, every: NDArray[np.bool_], n_components: int) -> None:
    for block, inside in _parts(every):
        n_pixels = int(np.count_nonzero(inside))
        fit = no_solution(n_pixels, n_components, FitStatus.SINGULAR)
        write_region_block(path, index, name, block.y, block.x, inside, fit)
