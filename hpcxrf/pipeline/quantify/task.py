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
from hpcxrf.quantify.calibration import Calibration, Response, calibrate, convert_rates
from hpcxrf.quantify.checks import build_points
from hpcxrf.quantify.matrix import Layer, LayerCorrection, correct_layer
from hpcxrf.results.store.areal_density import (
    TERMS,
    ResponseTable,
    areal_density_files,
    create_areal_density,
    write_areal_density_block,
)
from hpcxrf.results.store.maps import open_results
from hpcxrf.results.store.normalised import COMBINED
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
    tree = open_results(path)
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
    theta = _find_theta_errors(sample, families)
    create_areal_density(
        path,
        detectors=sample.entries,
        components=families,
        shape_yx=sample.shape_yx,
        block_yx=block_yx,
        attributes=describe_areal_densities(
            tree.attrs, sample, standards, calibrations, primary, correction, maps_constants=maps_constants
        ),
        responses=_tabulate(sample, families, responses, factors, theta),
        positions_um={name: sample.maps[name].values for name in ("x_um", "y_um") if name in sample.maps.coords},
    )
    for block in blocks_of(sample.shape_yx, block_yx):
        for row, entry in enumerate(sample.entries):
            values = _convert_block(sample, entry, row, block, families, responses.get(entry, {}), factors, theta)
            write_areal_density_block(path, row, block.y, block.x, values)
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


def _find_theta_errors(sample: Sample, families: Sequence[str]) -> _ThetaErrors:
    """Find what the sum of the pixels' counting errors leaves of the uncertainties of the integrated spectra."""
    names = [str(name) for name in sample.counts["detector"].values]
    shape = (len(names), len(sample.components))
    variance, of_counts, of_rates, number = np.zeros(shape), np.zeros(len(names)), np.zeros(len(names)), np.zeros(shape)
    rows = [sample.entries.index(name) for name in names]
    for block in blocks_of(sample.shape_yx):
        counts = sample.counts["sigma"][:, :, block.y, block.x].values.astype(np.float64)
        rates = sample.maps["sigma"][rows, :, block.y, block.x].values.astype(np.float64)
        variance += np.nansum(counts**2, axis=(2, 3))
        number += np.isfinite(counts).sum(axis=(2, 3))
        both = np.isfinite(counts) & np.isfinite(rates)
        of_counts += np.where(both, counts, 0.0).sum(axis=(1, 2, 3))
        of_rates += np.where(both, rates, 0.0).sum(axis=(1, 2, 3))
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


def _convert_block(
    sample: Sample,
    entry: str,
    row: int,
    block: Block,
    families: Sequence[str],
    responses: Mapping[str, Response],
    factors: Mapping[str, float],
    theta: _ThetaErrors,
) -> dict[str, NDArray[Any]]:
    """Maps (component, y, x) of one block by name; NaN where the entry has no response."""
    rates, sigma, limit = (
        sample.maps[name][row, :, block.y, block.x].values.astype(np.float64)
        for name in ("rate", "sigma", "detection_limit")
    )
    done: dict[str, list[NDArray[Any]]] = {
        "areal_density": [],
        "sigma": [],
        "counting_sigma": [],
        "detection_limit": [],
    }
    for column, family in enumerate(families):
        place, response = sample.components.index(family), responses.get(family)
        if response is None or not math.isfinite(factors[family]):
            for one in done.values():
                one.append(np.full(rates.shape[1:], np.nan))
            continue
        found = convert_rates(
            response,
            rates[place],
            sigma[place],
            limit[place],
            theta=float(theta.relative[row, column]),
            layer_factor=factors[family],
        )
        done["areal_density"].append(found.areal_density_ug_cm2)
        floor = float(theta.floor_hz[row, column]) / (response.rate_hz_per_ug_cm2 * factors[family])
        done["sigma"].append(np.hypot(found.sigma_ug_cm2, floor))
        done["counting_sigma"].append(found.counting_sigma_ug_cm2)
        done["detection_limit"].append(np.asarray(found.detection_limit_ug_cm2))
    return {name: np.stack(values) for name, values in done.items()}
