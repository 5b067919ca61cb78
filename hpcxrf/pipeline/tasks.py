"""What a worker runs: the one place where files and numerics meet.

A task is a function of small picklable values. It reads its own data, computes on its own device, writes its own
aligned region, and returns a record; arrays never travel through the scheduler. Running it twice equals running
it once.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcxrf import __version__
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.config.sample import AUTO
from hpcxrf.errors import InputFileError, OtherScanError
from hpcxrf.fitting.pixels.basis import PixelBasis, photon_variance
from hpcxrf.fitting.pixels.parts import Solver
from hpcxrf.fitting.result import FitStatus, PixelFit, SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.posterior import sample_posterior
from hpcxrf.fitting.spectrum.suggestion import combine_detectors
from hpcxrf.formats.origins import read_origin
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.notes import Note, pack_notes
from hpcxrf.pipeline.blocks import Block, block_of_job, blocks_of, pixels_of
from hpcxrf.pipeline.fit_attributes import describe_merit, describe_model_error, describe_theta
from hpcxrf.pipeline.integrated import ScanFit, fit_clean
from hpcxrf.pipeline.pixels.choices import choose_for_pixels
from hpcxrf.pipeline.pixels.compiling import begin_compiling
from hpcxrf.pipeline.pixels.device import device_guard
from hpcxrf.pipeline.pixels.excess_in_store import check_sums
from hpcxrf.pipeline.pixels.findings import Findings, apply_findings, fits_for, read_findings, spectra_of
from hpcxrf.pipeline.pixels.flags import find_doubts
from hpcxrf.pipeline.pixels.from_config import free_parameters, needs_model, pixel_model_of, stored_solver
from hpcxrf.pipeline.pixels.task import PixelTask, fit_blocks
from hpcxrf.pipeline.prepare.detectors import DetectorFits
from hpcxrf.pipeline.prepare.donor import describe_start, read_donor
from hpcxrf.pipeline.prepare.elements import ask_for_elements
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import line_markers
from hpcxrf.pipeline.prepare.inputs import SUM, is_unchanged, read_options
from hpcxrf.pipeline.prepare.resolve import list_components
from hpcxrf.pipeline.prepare.sources import read_sources
from hpcxrf.pipeline.prepare.suggestions import as_records
from hpcxrf.pipeline.provenance import begin_provenance, end_provenance
from hpcxrf.pipeline.records import BlockRange, DatasetJob
from hpcxrf.pipeline.regions.given import check_thresholds
from hpcxrf.pipeline.report import pack_judgement, summarise_dataset
from hpcxrf.pipeline.trend import describe_fits
from hpcxrf.pipeline.units import pixel_task_name
from hpcxrf.results.export.csv_tables import regions_to_csv
from hpcxrf.results.photon_variance import name_components
from hpcxrf.results.report.judgement import judge, wants_page
from hpcxrf.results.report.page.dataset import write_dataset_page
from hpcxrf.results.store import areal_density, normalised, regions
from hpcxrf.results.store.basis import component_names, read_basis, write_basis
from hpcxrf.results.store.maps import (
    block_checksums,
    create_results,
    finalise,
    open_results,
    read_detectors,
    write_block,
    write_spectrum_fits,
)
from hpcxrf.results.store.pixel_model import write_pixel_models
from hpcxrf.results.store.posterior import INFERENCE, write_posterior
from hpcxrf.results.store.storage import require_readable_schema
from hpcxrf.runner.datasets import summarise
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import Clock, attempt, choose_device, one_thread
from hpcxrf.store.files import checksum_tree
from hpcxrf.store.ingest import IngestRecord, ingest_scan
from hpcxrf.store.packed import locate_store, pack_store, remove_store, unpack_store
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.spectra import Spectra, SpectraStore, open_spectra


def run_ingest(job: DatasetJob) -> TaskRecord:
    """Copy the scan into the chunked store."""
    store = RunDir(path=job.run_dir).spectra_store(job.dataset_id)
    begin_compiling(job.config)
    with attempt(job, "ingest"):
        clock = Clock()
        scan = open_scan(job.source, read_options(job.config))
        record = _ingest(job, scan, store)
        date = read_origin(scan).date
        refuse_changed_inputs(job)
        return clock.record(
            job,
            "ingest",
            "ingest",
            bytes_read=record.source_bytes,
            bytes_written=record.stored_bytes,
            checksums=_relative(job, {str(store / name): value for name, value in record.checksums.items()}),
            facts={"dtype": record.dtype, "shape": list(record.shape), "name": job.source.name, "date": date},
        )


def _ingest(job: DatasetJob, scan: RawScan, store: Path) -> IngestRecord:
    """Fill the store, which in a run over a catalogue may be that of what the scan was before."""
    try:
        return ingest_scan(scan, store)
    except OtherScanError:
        if not job.settings:
            raise
        remove_store(store)
        return ingest_scan(scan, store)


def refuse_changed_inputs(job: DatasetJob) -> None:
    """Refuse a scan whose files changed since the run opened them.

    Raises:
        InputFileError: the files that changed, by name.
    """
    changed = [name for name, stamp in job.stamps if not is_unchanged(Path(name), stamp)]
    if changed:
        raise InputFileError(
            f"{job.source}: {', '.join(changed)} changed during the run; wait for the measurement to end, then give "
            "the same command again"
        )


def run_integrated(job: DatasetJob, after: Sequence[TaskRecord]) -> TaskRecord:
    """Fit the integrated spectra, and write them with the basis of the pixel fits.

    Args:
        job: which dataset.
        after: records that must exist first.
    """
    del after
    run = RunDir(path=job.run_dir)
    # All of it: whatever is computed here is stored.
    with attempt(job, "integrated"), one_thread():
        clock = Clock()
        store = open_spectra(run.spectra_store(job.dataset_id))
        start = read_donor(job)
        clean, fitted = fit_clean(store, job, start.detectors)
        found, fits, bases, findings = fitted.found, fitted.fits, fitted.bases, fitted.findings
        components = next(iter(fits.values())).component_names
        absent = _check_thresholds(job, store, components)
        chosen = choose_for_pixels(bases, store, job, findings)
        noted = [*store.notes, *find_doubts(store), *clean.notes, *start.notes, *found.notes, *chosen.notes, *absent]
        notes = tuple(dict.fromkeys(noted))
        path = run.results_store(job.dataset_id)
        # Whatever is there belongs to an integrated fit that no longer counts, and so do its pixels.
        remove_store(path)
        chosen_for_pixels = {
            **pack_notes(notes),
            "mixed": chosen.mixed,
            "phases": chosen.weights,
            "background_columns": chosen.background,
            **({} if job.donor is None else {"warm_start": describe_start(job.donor, start, found.began)}),
        }
        wanted = {name: fits[name] for name in job.detectors}
        photon = {
            name: name_components(basis.names, findings.factor_of(name) * photon_variance(basis))
            for name, basis in chosen.bases.items()
        }
        _create(path, job, store, fits, found, chosen_for_pixels | findings.attributes(), photon)
        summed = clean.spectra[[d for d in range(store.shape[0]) if d not in findings.left_out]].sum(axis=0)
        by_name = {name: clean.spectra[int(name)] if name != SUM else summed for name in wanted}
        write_spectrum_fits(
            path, wanted, store.shape[3], line_markers=line_markers(found.problems[0].table), integrated_counts=by_name
        )
        drawn = _draw_posteriors(path, job, fitted)
        write_basis(path, chosen.bases, store.shape[3])
        models = {
            name: pixel_model_of(name, fits_for(name, fits, findings), found.problems)
            for name in bases
            if needs_model(job.config.pixels)
        }
        write_pixel_models(path, models)
        names = ("spectrum", "parameters", "basis", *(("model",) if models else ()), *drawn)
        groups = [path / name for name in names]
        return clock.record(
            job,
            "integrated",
            "integrated",
            checksums=_relative(job, checksum_tree(groups)),
            facts={
                "r2": {name: fit.r2 for name, fit in wanted.items() if fit.status in SOLVED},
                "status": {name: fit.status.name for name, fit in wanted.items()},
                "suggested": [s.name for s in combine_detectors(found.suggested)],
                "fits": describe_fits(fits, store),
                "format": store.format,
            },
            notes=notes,
        )


def _draw_posteriors(path: Path, job: DatasetJob, fitted: ScanFit) -> tuple[str, ...]:
    """Draw the posteriors of all detectors that have a solution, where they are wanted; names of the groups."""
    if job.config.fit.posterior != "hmc":
        return ()
    fits = [(str(d), fit) for d, fit in enumerate(fitted.found.fits) if fit.status in SOLVED]
    for name, fit in fits:
        write_posterior(path, name, sample_posterior(fit, fitted.found.problems[int(name)]))
    return (INFERENCE,) if fits else ()


def _check_thresholds(job: DatasetJob, store: SpectraStore, components: Sequence[str]) -> list[Note]:
    if not job.config.regions.thresholds:
        return []
    listed: Sequence[str] = components
    facts = scan_facts(store, job.source)
    if ask_for_elements(job.config, facts, 0).sample.elements != AUTO:
        listed = list_components(job.config, read_sources(job.config.fit, facts, 0))
    return check_thresholds(job.config.regions, listed, components)


def run_pixels(job: DatasetJob, blocks: BlockRange, after: Sequence[TaskRecord]) -> TaskRecord:
    """Fit whole map blocks of one detector and write them.

    Args:
        job: which dataset.
        blocks: which blocks.
        after: records that must exist first.
    """
    del after
    task = pixel_task_name(blocks)
    run = RunDir(path=job.run_dir)
    with attempt(job, task):
        clock = Clock()
        device = choose_device(job.config)
        path = run.results_store(job.dataset_id)
        shared = _share_pixels(job, blocks.detector, device)
        found, findings, spectra = shared.solver, shared.findings, shared.spectra
        mine = blocks_of(job.shape[1:3], block_of_job(job))[blocks.first : blocks.stop]
        checksums: dict[str, str] = {}
        # A store that was begun earlier may have another order than a job of today.
        row = read_detectors(path).index(blocks.detector)

        def write(block: Block, fit: PixelFit) -> None:
            if found is not None:
                fit = apply_findings(fit, spectra, block, blocks.detector, found[0].channels, findings)
            with clock.writing():
                write_block(path, row, block.y, block.x, fit)
                sums = block_checksums(path, row, block.y, block.x)
            checksums.update({str(path.relative_to(job.run_dir) / k): v for k, v in sums.items()})

        notes: tuple[Note, ...] = ()
        if found is None:
            n_components = len(component_names(path))
            for block in mine:
                write(block, no_solution(pixels_of(block), n_components))
        else:
            basis, solver = found
            fitted = PixelTask(
                store=spectra,
                detector=blocks.detector,
                channels=basis.channels,
                solver=solver,
                config=job.config.pixels,
                clock=clock,
                device=device,
            )
            notes = tuple(fit_blocks(mine, fitted, write))
        return clock.record(
            job, task, "pixels", pixels=sum(map(pixels_of, mine)), device=str(device), checksums=checksums, notes=notes
        )


def run_finalise(job: DatasetJob, after: Sequence[TaskRecord]) -> TaskRecord:
    """Close the store (metadata consolidated, `complete` last), write the table of the regions and the page, pack.

    Args:
        job: which dataset.
        after: records that must exist first.
    """
    run = RunDir(path=job.run_dir)
    with attempt(job, "finalise"):
        clock = Clock()
        path = run.results_store(job.dataset_id)
        # An attempt that was killed may have packed it.
        unpack_store(path)
        devices = sorted({r.device for r in after if r.stage == "pixels"})
        table = run.regions_table(job.dataset_id)
        notes = tuple(check_sums(path, job.config.pixels))
        _remove_unwanted(path, job.config)
        made = {
            "devices": devices,
            "torch_version": str(torch.__version__),
            "configuration": effective(job.config),
            **end_provenance(job, require_readable_schema(path), after),
        }
        finalise(path, made)
        with clock.writing(), open_results(path) as tree:
            if job.config.regions.wanted:
                regions_to_csv(tree["regions"].to_dataset() if "regions" in tree.children else None, table)
            judgement = judge(tree)
            if wants_page(job.config.report.pages, judgement.merit):
                record = summarise(job, after)
                summary = summarise_dataset(run, replace(record, notes=(*record.notes, *notes)))
                write_dataset_page(summary, tree, run.page_file(job.dataset_id))
        written = [path / "zarr.json", *([table] if table.exists() else [])]
        checksums = _relative(job, checksum_tree(written))
        if job.pack:
            with clock.writing():
                pack_store(path)
                pack_store(run.spectra_store(job.dataset_id))
        facts = pack_judgement(judgement)
        return clock.record(job, "finalise", "finalise", checksums=checksums, facts=facts, notes=notes)


def _remove_unwanted(path: Path, config: RunConfig) -> None:
    """Take out what was derived with an earlier configuration, and is not asked for any more."""
    wanted = {
        normalised.GROUP: config.normalise.wanted,
        areal_density.GROUP: config.quantify.wanted,
        regions.GROUP: config.regions.wanted,
    }
    for group, is_wanted in wanted.items():
        if not is_wanted and (path / group).is_dir():
            shutil.rmtree(path / group)


def _create(
    path: Path,
    job: DatasetJob,
    store: SpectraStore,
    fits: dict[str, SpectrumFit],
    found: DetectorFits,
    chosen: Mapping[str, Any],
    photon_variance: Mapping[str, Mapping[str, float]],
) -> None:
    by_detector = {str(d): one for d, one in enumerate(found.suggested)}
    suggested = by_detector | ({SUM: combine_detectors(found.suggested)} if SUM in fits else {})
    table = found.problems[0].table
    x_um, y_um = store.positions_um()
    known = bool(np.isfinite(x_um).all() and np.isfinite(y_um).all())
    create_results(
        path,
        detectors=job.detectors,
        components=next(iter(fits.values())).component_names,
        shape_yx=job.shape[1:3],
        block_yx=block_of_job(job),
        n_channels=job.shape[3],
        positions_um=(x_um, y_um) if known else None,
        free=free_parameters(job.config.pixels.method),
        photon_variance=photon_variance,
        attributes={
            "title": store.scan_name,
            "source": job.source.name,
            "source_format": store.format,
            "source_files": [{"path": s.path, "bytes": s.size_bytes, "sha256": s.sha256} for s in store.sources],
            "hpcxrf_version": __version__,
            "constants": job.config.fit.constants,
            "line_table": table.table_version,
            "incident_energy_kev": table.incident_energy_kev,
            **begin_provenance(job.config.fit.constants, table.component_names, table.incident_energy_kev),
            "configuration": effective(job.config),
            "run_file": RunDir(path=job.run_dir).run_file.read_text(encoding="utf-8"),
            "theta_by_detector": {name: describe_theta(fit) for name, fit in fits.items() if name != SUM},
            "merit_by_detector": {name: describe_merit(fit) for name, fit in fits.items()},
            "model_error_by_detector": {name: describe_model_error(fit) for name, fit in fits.items() if name != SUM},
            "suggested": {name: as_records(s) for name, s in suggested.items()},
            **chosen,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _SharedByTasks:
    """What all pixel tasks of a detector need, which takes longer to make than to fit some thousand pixels."""

    spectra: Spectra
    findings: Findings
    solver: tuple[PixelBasis, Solver] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stores:
    """What it is made from."""

    results: Path
    spectra: Path
    stamps: tuple[int, ...]
    """Of both stores: another one has others."""
    described: str
    """The configuration in words."""
    config: RunConfig = field(compare=False)


def _share_pixels(job: DatasetJob, detector: str, device: torch.device) -> _SharedByTasks:
    """Spectra, findings and solver of a detector: those of the worker's last task, if they are the same."""
    run = RunDir(path=job.run_dir)
    path, stored = run.results_store(job.dataset_id), run.spectra_store(job.dataset_id)
    facts = ((path / "zarr.json").stat(), locate_store(stored).stat())
    stamps = tuple(number for one in facts for number in (one.st_ino, one.st_mtime_ns))
    described = repr(job.config)
    stores = _Stores(results=path, spectra=stored, stamps=stamps, described=described, config=job.config)
    return _load_shared(stores, detector, device)


@lru_cache(maxsize=1)
def _load_shared(stores: _Stores, detector: str, device: torch.device) -> _SharedByTasks:
    findings = read_findings(require_readable_schema(stores.results))
    with one_thread(), device_guard(device):
        solver = _solver(stores.results, detector, stores.config, device)
    spectra = spectra_of(open_spectra(stores.spectra), detector, findings)
    return _SharedByTasks(spectra=spectra, findings=findings, solver=solver)


def _solver(path: Path, detector: str, config: RunConfig, device: torch.device) -> tuple[PixelBasis, Solver] | None:
    """Basis and solver of a detector; None where its integrated spectrum has no solution."""
    try:
        basis = read_basis(path, detector)
    except KeyError:
        return None
    return basis, stored_solver(path, detector, basis, config, device)


def no_solution(n_pixels: int, n_components: int, status: FitStatus = FitStatus.EMPTY) -> PixelFit:
    """Pixels that have no numbers: by default those of a detector whose integrated spectrum has no counts."""
    blank = torch.full((n_pixels, n_components), torch.nan)
    return PixelFit(
        amplitude=blank,
        sigma=blank,
        detection_limit=blank,
        deviance=blank[:, 0],
        status=torch.full((n_pixels,), int(status), dtype=torch.uint8),
    )


def _relative(job: DatasetJob, checksums: dict[str, str]) -> dict[str, str]:
    return {str(Path(name).relative_to(job.run_dir)): value for name, value in checksums.items()}
