"""What a worker runs for the regions of a scan: find them on the finished maps, and refine some of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.pipeline.pixels.findings import read_findings
from hpcxrf.pipeline.pixels.from_config import free_parameters
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.prepare.suggestions import as_records
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.regions.find import find_regions
from hpcxrf.pipeline.regions.refine import prepare_refinement, refine_region, refinement_config
from hpcxrf.pipeline.regions.region import Region, RegionMaps, layers_of, region_maps
from hpcxrf.pipeline.regions.remap import remap_method, remap_region
from hpcxrf.pipeline.units import refine_task_name
from hpcxrf.results.names import shown_name
from hpcxrf.results.store.basis import component_names
from hpcxrf.results.store.maps import read_detectors
from hpcxrf.results.store.regions import (
    GROUP,
    RegionAxes,
    RegionRows,
    create_regions,
    found_files,
    read_region_counts,
    read_region_names,
    region_files,
    remove_regions,
    write_region_fit,
    write_region_remarks,
)
from hpcxrf.results.store.storage import array_of, open_group, require_readable_schema
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import Clock, attempt, one_thread
from hpcxrf.store.files import ABSENT, tree_sha256
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.schema import BLOCK_Y
from hpcxrf.store.spectra import SpectraStore, open_spectra

_SAMPLE_PIXELS: Final = 40_000


def run_regions(job: DatasetJob, after: Sequence[TaskRecord]) -> TaskRecord:
    """Find the regions of a scan, sum their spectra, and write both.

    Args:
        job: which dataset.
        after: records that must exist first.

    Raises:
        ConfigError: a given region holds no measured pixel.
    """
    del after
    run = RunDir(path=job.run_dir)
    with attempt(job, "regions"):
        clock = Clock()
        path = run.results_store(job.dataset_id)
        store = open_spectra(run.spectra_store(job.dataset_id))
        with clock.reading():
            left_out = sorted(read_findings(require_readable_schema(path)).left_out)
            maps = read_maps(path, left_out)
        with one_thread():
            regions = find_regions(maps, job.config.regions)
        remove_regions(path)
        if regions:
            layer, label = layers_of(regions)
            with clock.reading():
                counts = sum_spectra(store, label, len(regions))
            clock.bytes_read += store.dtype.itemsize * store.shape[3] * int((label > 0).sum())
            with clock.writing():
                axes = _axes(job, maps)
                live_time_s = _live_time_s(store, regions)
                create_regions(
                    path,
                    _rows(regions, layer),
                    axes,
                    label,
                    _by_name(counts, axes.detectors, left_out),
                    _by_name(live_time_s, axes.detectors, left_out),
                    with_maps=bool(job.config.regions.remap),
                    free=free_parameters(remap_method(job.config)),
                )
        written = found_files(path) if regions else [path / GROUP / "zarr.json"]
        return clock.record(
            job, "regions", "regions", checksums=_checksums(job, written), facts={"regions": len(regions)}
        )


def run_refine(job: DatasetJob, slot: int, slots: int, after: Sequence[TaskRecord]) -> TaskRecord:
    """Refine every region whose number, counted from 0, leaves `slot` when divided by `slots`.

    Args:
        job: which dataset.
        slot: of this task.
        slots: tasks that share the regions.
        after: records that must exist first.
    """
    del after
    task = refine_task_name(slot)
    run = RunDir(path=job.run_dir)
    with attempt(job, task):
        clock = Clock()
        path = run.results_store(job.dataset_id)
        mine = range(len(read_region_names(path)))[slot::slots]
        if mine:
            store = open_spectra(run.spectra_store(job.dataset_id))
            with one_thread():
                _refine(job, path, store, mine)
        files = [file for index in mine for file in region_files(path, index)]
        return clock.record(job, task, "refine", checksums=_checksums(job, files))


def read_maps(path: Path, left_out: Sequence[int] = ()) -> RegionMaps:
    """Maps of the raw sum where it was fitted, else the sum of the detectors' maps; those without solution left out.

    Args:
        path: the results store.
        left_out: detectors that disagree with the others.
    """
    maps = open_group(path, "maps")
    amplitude, sigma = array_of(maps, "amplitude"), array_of(maps, "sigma")
    n, n_y, n_x = amplitude.shape[1:]
    step = max(1, int(np.ceil((n_y * n_x / _SAMPLE_PIXELS) ** 0.5)))
    total = np.zeros((n, n_y, n_x), np.float32)
    variance = np.zeros_like(total[:, ::step, ::step])
    detectors = read_detectors(path)
    each = [row for row, name in enumerate(detectors) if name != SUM and int(name) not in left_out]
    wanted = [detectors.index(SUM)] if SUM in detectors else each
    used = [row for row in wanted if _has_numbers(amplitude, row)]
    for row in used:
        for band in (slice(y, y + BLOCK_Y) for y in range(0, n_y, BLOCK_Y)):
            total[:, band] += np.asarray(amplitude[row, :, band])
            thin = np.arange(n_y)[::step]
            mine = (thin >= band.start) & (thin < band.stop)
            some = np.asarray(sigma[row, :, band])[:, thin[mine] - band.start, ::step]
            variance[:, mine] += some**2
    if not used:
        total[:] = np.nan
    sample = total[:, ::step, ::step].reshape(n, -1)
    names = component_names(path)
    shown = [shown_name(name) for name in names]
    return region_maps(names, total, sample, variance.reshape(n, -1), shown)


def _has_numbers(amplitude: zarr.Array[Any], row: int) -> bool:
    """Whether a detector has a solution in any pixel."""
    bands = range(0, amplitude.shape[2], BLOCK_Y)
    return any(np.isfinite(np.asarray(amplitude[row, :, y : y + BLOCK_Y])).any() for y in bands)


def sum_spectra(store: SpectraStore, label: NDArray[np.uint16], n_regions: int) -> NDArray[np.float64]:
    """Summed raw spectra of all regions in one pass, chunk by chunk; exact where counts are whole numbers.

    Args:
        store: of the scan.
        label: (layer, y, x), regions counted from 1; no pixel twice in a region.
        n_regions: how many.

    Returns:
        (region, detector, channel).
    """
    n_detectors, n_y, n_x, n_channels = store.shape
    step_y, step_x = store.chunks[1:3]
    counts = np.zeros((n_regions, n_detectors, n_channels))
    for y in (slice(i, min(i + step_y, n_y)) for i in range(0, n_y, step_y)):
        for x in (slice(i, min(i + step_x, n_x)) for i in range(0, n_x, step_x)):
            numbers = label[:, y, x].reshape(len(label), -1)
            if not numbers.any():
                continue
            for detector in range(n_detectors):
                spectra = store.read_rows([detector], y, x)[0].reshape(-1, n_channels)
                _add(counts[:, detector], spectra, numbers)
    return counts


def _add(counts: NDArray[np.float64], spectra: NDArray[Any], numbers: NDArray[np.uint16]) -> None:
    """Add the spectra (pixel, channel) to those of their regions (region, channel)."""
    exact = np.uint64 if spectra.dtype.kind == "u" else np.float64
    for layer in numbers:
        for number in np.unique(layer[layer > 0]).tolist():
            counts[number - 1] += spectra[layer == number].sum(axis=0, dtype=exact)


def _live_time_s(store: SpectraStore, regions: Sequence[Region]) -> NDArray[np.float64]:
    """(region, detector) seconds over the measured pixels; NaN where one of them has counts and no known time."""
    measured, live = store.measured(), store.times().live_time_s
    for d, one in enumerate(live):
        known = measured & ~store.missing(d)
        one[known & ~(one > 0)] = np.nan
        one[~known] = 0.0
    return np.array([[one[region.mask].sum(dtype=np.float64) for one in live] for region in regions])


def _by_name(values: NDArray[np.float64], detectors: Sequence[str], left_out: Sequence[int]) -> NDArray[np.float64]:
    """From all detectors of the scan (region, detector, ...) to the entries of the regions' axis."""
    rows = [np.delete(values, left_out, axis=1).sum(axis=1) if d == SUM else values[:, int(d)] for d in detectors]
    return np.stack(rows, axis=1)


def _refine(job: DatasetJob, path: Path, store: SpectraStore, mine: Sequence[int]) -> None:
    """Prepare once, fit each."""
    config = refinement_config(job.config, component_names(path))
    attributes: Any = require_readable_schema(path)
    findings = read_findings(attributes)
    # A store of version 0.1.0 has no flaws of the model.
    model_error = attributes.get("model_error_by_detector")
    problems = prepare_refinement(config, scan_facts(store, job.source), attributes["theta_by_detector"], model_error)
    for index in mine:
        counts, _ = read_region_counts(path, index)
        every = torch.from_numpy(np.stack([counts[str(d)] for d in range(store.shape[0])]))
        refined = refine_region(every, problems, config, job.detectors, findings)
        records = {name: as_records(found) for name, found in refined.suggested.items()}
        write_region_fit(path, index, refined.fits, records)
        if job.config.regions.remap:
            remarks = remap_region(job, path, store, index, refined, problems, findings)
            write_region_remarks(path, index, remarks)


def _rows(regions: Sequence[Region], layer: Sequence[int]) -> list[RegionRows]:
    return [
        RegionRows(name=r.name, kind=r.kind, reason=r.reason, n_pixels=r.n_pixels, layer=one)
        for r, one in zip(regions, layer, strict=True)
    ]


def _axes(job: DatasetJob, maps: RegionMaps) -> RegionAxes:
    """Every detector, whatever the maps have: each one's theta is refined, also for their sum."""
    each = tuple(str(d) for d in range(job.shape[0]))
    return RegionAxes(
        detectors=(SUM, *each) if SUM in job.detectors else each,
        components=maps.components,
        parameters=tuple(p.name for p in PARAMETERS),
        units=tuple(p.unit for p in PARAMETERS),
    )


def _checksums(job: DatasetJob, files: Sequence[Path]) -> dict[str, str]:
    """Of files and folders, by path in the run directory; what is only fill values has no file."""
    return {str(f.relative_to(job.run_dir)): tree_sha256(f) if f.exists() else ABSENT for f in files}
