"""What a worker runs for the areal densities of a scan, block by block, so that no scan is whole in memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.quantify import LayerConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError
from hpcxrf.notes import Note
from hpcxrf.physics.components import parse_component
from hpcxrf.pipeline.blocks import Block, block_of_job, blocks_of
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.quantify.facts import describe_areal_densities, note_areal_densities
from hpcxrf.pipeline.quantify.maps_responses import MAPS_CONSTANTS, find_maps_responses
from hpcxrf.pipeline.quantify.measure import read_or_measure_standards
from hpcxrf.pipeline.quantify.sample import Sample, read_sample, refuse_standards
from hpcxrf.pipeline.quantify.scans import StandardScan
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.quantify.calibration import Calibration, Response, calibrate
from hpcxrf.quantify.checks import build_points
from hpcxrf.quantify.densities import DensityScale, combine_density_sigma, scale_rates
from hpcxrf.quantify.matrix import Layer, LayerCorrection, correct_layer
from hpcxrf.quantify.normalise import PixelFlag, compute_factor
from hpcxrf.results.store.areal_density import (
    TERMS,
    ResponseTable,
    areal_density_files,
    create_areal_density,
    open_densities,
)
from hpcxrf.results.store.derived import write_blocks
from hpcxrf.results.store.normalised import COMBINED, open_rates
from hpcxrf.results.store.opening import open_results
from hpcxrf.results.store.tiled import TiledMap, open_map
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import Clock, attempt, one_thread
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.spectra import SpectraStore, open_spectra

FloatArray = NDArray[np.float64]

_CERTAIN: Final = 3.0


def run_quantify(job: DatasetJob, after: Sequence[TaskRecord]) -> TaskRecord:
    """Convert the normalised maps of a scan to areal densities.

    Args:
        job: which dataset.
        after: records that must exist first.

    Raises:
        ConfigError: no certificate of a standard, or what speaks against its use for this scan.
        FitError: a standard cannot be fitted, or a layer not be described.
    """
    del after
    run = RunDir(path=job.run_dir)
    with attempt(job, "quantify"):
        clock = Clock()
        path = run.results_store(job.dataset_id)
        with clock.fitting():
            standards = read_or_measure_standards(job.run_dir, job.config, job.i0_reference, dict(job.standard_stamps))
        with one_thread():
            notes = quantify_results(
                path,
                open_spectra(run.spectra_store(job.dataset_id)),
                job.config,
                standards,
                block_yx=block_of_job(job),
                source=job.source,
            )
        checksums = {
            str((path / name).relative_to(job.run_dir)): one for name, one in areal_density_files(path).items()
        }
        return clock.record(job, "quantify", "quantify", checksums=checksums, notes=notes)


def quantify_results(
    path: Path,
    store: SpectraStore,
    config: RunConfig,
    standards: Sequence[StandardScan],
    *,
    block_yx: tuple[int, int],
    source: Path,
) -> tuple[Note, ...]:
    """Write the group `areal_density` of a results store that is not closed; twice equals once.

    Args:
        path: folder of the results store, with normalised maps.
        store: spectra of the scan.
        config: run file.
        standards: fitted standards.
        block_yx: rows and columns of the blocks of its maps.
        source: the scan's file.

    Returns:
        Sentences on what was done.

    Raises:
        ConfigError: what speaks against the use of the standards for this scan.
        FitError: a layer that cannot be described.
    """
    tree = open_results(path, ("maps", "normalised", "spectrum"))
    sample = read_sample(tree, store, config, source)
    families = [name for name in sample.components if _is_family(name)]
    if not families:
        raise FitError(f"{source}: no family of a single element was fitted, so that nothing has an areal density")
    refuse_standards(sample, standards, config.quantify, source)
    calibrations = {entry: _calibrate(sample, entry, standards) for entry in sample.entries if sample.parts[entry]}
    maps_constants = config.fit.constants == MAPS_CONSTANTS
    # The curve is that of one incident energy, which a tube has not.
    seen = {point.family for one in calibrations.values() for point in one.points}
    reached = [family for family in families if family in seen or config.sample.source != "tube"]
    responses = {
        entry: find_maps_responses(one, reached) if maps_constants else _find_responses(one, reached)
        for entry, one in calibrations.items()
    }
    primary = next(entry for entry in (COMBINED, SUM, *sample.entries) if entry in calibrations)
    correction = None
    if config.quantify.layer is not None:
        correction = _correct_layer(config.quantify.layer, sample, primary, responses[primary], calibrations[primary])
    factors = {family: 1.0 if correction is None else correction.factors.get(family, math.nan) for family in families}
    theta = _find_theta_errors(path, sample, families, block_yx)
    table = _tabulate(sample, families, responses, factors, theta)
    create_areal_density(
        path,
        detectors=sample.entries,
        components=families,
        shape_yx=sample.shape_yx,
        block_yx=block_yx,
        stored=[primary],
        attributes=describe_areal_densities(
            tree.attrs, sample, standards, calibrations, primary, correction, maps_constants=maps_constants
        ),
        responses=table,
        positions_um={name: sample.maps[name].values for name in ("x_um", "y_um") if name in sample.maps.coords},
    )
    row = sample.entries.index(primary)
    places = [sample.components.index(family) for family in families]
    rates, densities, scale = open_rates(path), open_densities(path), table.scale_of(row)
    for block in blocks_of(sample.shape_yx, block_yx):
        found = _convert_block(_read_rates(rates, sample, row, block), places, scale)
        write_blocks(densities, row, block.y, block.x, found)
    notes = tuple(note_areal_densities(standards, calibrations[primary], correction, maps_constants=maps_constants))
    if len(reached) < len(families):
        without = ", ".join(family for family in families if family not in reached)
        text = f"areal densities: {without} without any: the curve holds for one incident energy, which a tube has not"
        notes = (*notes, Note("warning", text))
    return notes


def _is_family(name: str) -> bool:
    try:
        return len(parse_component(name).families) == 1
    except FitError:
        return False


def _calibrate(sample: Sample, entry: str, standards: Sequence[StandardScan]) -> Calibration:
    names = sample.parts[entry]
    points = [point for one in standards for point in build_points(one.certified, one.measured(names))]
    return calibrate(points, sample.incident_energy_kev, sample.detector[names[0]])


def _find_responses(calibration: Calibration, families: Sequence[str]) -> dict[str, Response]:
    return {family: calibration.find_response(family) for family in families}


def _correct_layer(
    config: LayerConfig, sample: Sample, entry: str, responses: Mapping[str, Response], calibration: Calibration
) -> LayerCorrection:
    """Factors by the mean of the maps of one entry, the same for all pixels and detectors."""
    row = sample.entries.index(entry)
    total, number = np.zeros(len(sample.components)), np.zeros(len(sample.components))
    for block in blocks_of(sample.shape_yx):
        rate = sample.maps["rate"][row, :, block.y, block.x].values.astype(np.float64)
        total += np.nansum(rate, axis=(1, 2))
        number += np.isfinite(rate).sum(axis=(1, 2))
    mean = dict(zip(sample.components, (total / np.maximum(number, 1)).tolist(), strict=True))
    thin = {family: mean[family] / one.rate_hz_per_ug_cm2 for family, one in responses.items()}
    return correct_layer(thin, _build_layer(config), sample.incident_energy_kev, calibration.detector)


def _build_layer(config: LayerConfig) -> Layer:
    return Layer(
        formula=config.formula,
        areal_density_ug_cm2=config.areal_density_ug_cm2,
        incidence_deg=config.incidence_deg,
        takeoff_deg=config.takeoff_deg,
        enhancement=config.enhancement,
        matrix=config.matrix,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ThetaErrors:
    """Errors by peak shapes and axis, which all pixels have in common."""

    relative: FloatArray
    """(entry, family) of components that are certain in the integrated spectrum; 0 of others."""
    floor_hz: FloatArray
    """(entry, family) counts per second, the same in every pixel, of components that are not; 0 of others."""


def _find_theta_errors(path: Path, sample: Sample, families: Sequence[str], block_yx: tuple[int, int]) -> _ThetaErrors:
    """Find what the sum of the pixels' counting errors leaves of the uncertainties of the integrated spectra."""
    names = [str(name) for name in sample.counts["detector"].values]
    shape = (len(names), len(sample.components))
    variance, of_counts, of_rates, number = np.zeros(shape), np.zeros(len(names)), np.zeros(len(names)), np.zeros(shape)
    errors, rates = open_map(path / "maps" / "sigma"), open_rates(path)
    for block in blocks_of(sample.shape_yx, block_yx):
        for row, name in enumerate(names):
            counts = errors.read(row, block.y, block.x)
            known = np.isfinite(counts)
            number[row] += np.count_nonzero(known, axis=(1, 2))
            if not known.all():
                counts = np.where(known, counts, 0.0)
            variance[row] += np.einsum("cyx,cyx->c", counts, counts, dtype=np.float64)
            # Rate of one count, weighted as the errors are.
            factor = _read_factor(rates, sample.entries.index(name), block, sample.i0_reference)
            total = np.where(np.isfinite(factor), counts.sum(axis=0, dtype=np.float64), 0.0)
            of_counts[row] += total.sum()
            of_rates[row] += (total * np.nan_to_num(factor)).sum()
    whole = sample.spectrum.sel(detector=names)
    amplitude, sigma = whole["amplitude"].values, whole["sigma"].values
    certain = amplitude > _CERTAIN * sigma
    excess = np.nan_to_num(np.sqrt(np.maximum(sigma**2 - variance, 0.0)))
    relative = np.where(certain, excess / np.where(certain, amplitude, 1.0), 0.0)
    rate_of_count = np.divide(of_rates, of_counts, out=np.zeros_like(of_rates), where=of_counts > 0.0)
    floor = np.where(certain, 0.0, excess / np.maximum(number, 1.0)) * rate_of_count[:, None]
    places = [sample.components.index(family) for family in families]
    if COMBINED in sample.entries:
        used = [names.index(name) for name in sample.parts[COMBINED]]
        weight = np.nan_to_num(sample.maps["weight"].values[[sample.entries.index(names[i]) for i in used]])
        # Lines and peak shapes are wrong alike in all detectors: no average makes that smaller.
        mean = (weight * relative[used]).sum(axis=0) / np.maximum(weight.sum(axis=0), np.finfo(float).tiny)
        relative = np.vstack([relative, mean])
        floor = np.vstack([floor, np.where(mean > 0.0, 0.0, floor[used].sum(axis=0))])
        names = [*names, COMBINED]
    order = [names.index(entry) for entry in sample.entries]
    return _ThetaErrors(relative=relative[order][:, places], floor_hz=floor[order][:, places])


def _read_factor(rates: Mapping[str, TiledMap], row: int, block: Block, reference: float | None) -> FloatArray:
    """Rate (y, x) of one count in a block of an entry that is not combined; NaN where there is none."""
    return compute_factor(
        rates["flag"].read(row, block.y, block.x) == np.uint8(PixelFlag.NORMALISED),
        rates["live_time_s"].read(row, block.y, block.x),
        rates["i0"].read(None, block.y, block.x) if "i0" in rates else None,
        1.0 if reference is None else reference,
    )


def _tabulate(
    sample: Sample,
    families: Sequence[str],
    responses: Mapping[str, Mapping[str, Response]],
    factors: Mapping[str, float],
    theta: _ThetaErrors,
) -> ResponseTable:
    shape = (len(sample.entries), len(families))
    response, factor, floor = (np.full(shape, np.nan) for _ in range(3))
    errors, origin = np.full((*shape, len(TERMS)), np.nan), np.full(shape, "", dtype=object)
    for row, entry in enumerate(sample.entries):
        for column, family in enumerate(families):
            one = responses.get(entry, {}).get(family)
            if one is None:
                continue
            response[row, column], factor[row, column] = one.rate_hz_per_ug_cm2, factors[family]
            errors[row, column] = [getattr(one.errors, term) for term in TERMS]
            errors[row, column, TERMS.index("theta")] = math.hypot(one.errors.theta, theta.relative[row, column])
            origin[row, column] = one.origin
            floor[row, column] = theta.floor_hz[row, column] / (one.rate_hz_per_ug_cm2 * factors[family])
    return ResponseTable(
        theta_floor=floor, response=response, relative_error=errors, layer_factor=factor, origin=origin
    )


def _read_rates(rates: Mapping[str, TiledMap], sample: Sample, row: int, block: Block) -> dict[str, NDArray[Any]]:
    """Rates, their sigma and detection limits (component, y, x) of one block of an entry."""
    names = ("rate", "sigma", "detection_limit")
    if sample.is_stored(row):
        return {name: rates[name].read(row, block.y, block.x) for name in names}
    return {name: sample.maps[name][row, :, block.y, block.x].values for name in names}


def _convert_block(
    rates: Mapping[str, NDArray[Any]], places: Sequence[int], scale: DensityScale
) -> dict[str, NDArray[Any]]:
    """Maps (family, y, x) of one block by name; NaN where the entry has no response."""
    density, counting, limit = (
        scale_rates(rates[name][places], scale) for name in ("rate", "sigma", "detection_limit")
    )
    return {
        "areal_density": density,
        "sigma": combine_density_sigma(density, counting, scale),
        "counting_sigma": counting,
        "detection_limit": limit,
    }
