"""What a worker runs of a case study: the spectra of the scan's regions and pixels, and their fits."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.config.run import RunConfig, require_case_study
from hpcxrf.errors import FitError, InputFileError
from hpcxrf.fitting.objective import r_squared, r_squared_expected
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.full import full_model, full_solver
from hpcxrf.fitting.pixels.parts import Solver, project
from hpcxrf.fitting.result import FitStatus, PixelFit, SpectrumFit
from hpcxrf.fitting.spectrum.problem import FitProblem, fit_range, start_from
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.methods import PixelMethodName
from hpcxrf.physics.model import SpectrumModel
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.records import DatasetJob, ScanFacts
from hpcxrf.results.store.basis import read_basis
from hpcxrf.results.store.regions import read_region_counts, read_region_mask, read_region_names
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import Clock, attempt, one_thread
from hpcxrf.simulate import (
    ScanSpec,
    draw_region,
    read_truth,
    simulate_scan,
    spec_from_json,
    sum_scan,
    trial_spec,
    write_scan,
)
from hpcxrf.store.files import atomic_write_bytes, checksum_tree
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.spectra import open_spectra
from hpcxrf.studies.arms import ARMS
from hpcxrf.studies.benchmark.plan import seed_of
from hpcxrf.studies.benchmark.tasks import compared_config, follow_protocol, product_config
from hpcxrf.studies.case_study.fits import StudyFits, join_fits, read_fits, write_fits
from hpcxrf.studies.case_study.plan import (
    LINEAR,
    PRODUCT,
    SIMULATE,
    SPECTRA,
    StudyMethod,
    StudyUnit,
    study_file,
    study_folder,
    study_scan,
)
from hpcxrf.studies.protocol import ProtocolFit, fit_protocol
from hpcxrf.studies.starts import JointStart, component_names, guess_amplitudes, perturbed_start, random_start

if TYPE_CHECKING:
    from hpcxrf.studies.case_study.workload import StudyJob

DETECTOR: Final = 0
_REMEDY: Final = "remove it, or name another file in input.files, and give the same command again"
_NAN: Final = float("nan")


def run_simulation(job: "StudyJob") -> TaskRecord:
    """Simulate the scan, unless it is there.

    Raises:
        InputFileError: another file is where the scan is to be written.
    """
    file, spec = job.source, study_scan(job.dataset.config)
    with attempt(job, SIMULATE):
        clock = Clock()
        truth = file.parent / f"{spec.name}.truth.json"
        if truth.is_file() and file.is_file():
            if read_truth(truth).spec != read_back(spec):
                raise InputFileError(f"{file}: is the simulated scan of another size or seed; {_REMEDY}")
        elif file.exists():
            raise InputFileError(f"{file}: is not a simulated scan; {_REMEDY}")
        else:
            write_scan(simulate_scan(spec), file.parent)
        return clock.record(job, SIMULATE, SIMULATE)


def read_back(spec: ScanSpec) -> ScanSpec:
    """The specification as a truth file gives it back."""
    return spec_from_json(json.loads(json.dumps(dataclasses.asdict(spec))))


def run_study_unit(job: DatasetJob, unit: StudyUnit, after: Sequence[TaskRecord]) -> TaskRecord:
    """What a worker runs for a task."""
    if unit.trial is not None:
        return run_trial_spectrum(job, unit.task, unit.trial)
    if unit.region is not None:
        return run_region_draws(job, unit.task, unit.region)
    return run_spectra(job) if unit.method is None else run_fits(job, unit, after)


def run_trial_spectrum(job: DatasetJob, task: str, trial: int) -> TaskRecord:
    """Draw the summed spectrum of one trial, and write it with what its file would claim."""
    with attempt(job, task):
        clock = Clock()
        spec = trial_spec(study_scan(job.config), trial)
        drawn = sum_scan(simulate_scan(spec), trial)
        axis = (spec.file_calibration or ())[DETECTOR]
        true = spec.detectors[DETECTOR].calibration
        energy = spec.file_energy_kev or spec.incident_energy_kev
        arrays = {
            "whole": drawn.counts[None],
            "claimed": np.array([axis.offset_kev, axis.slope_kev, axis.quadratic_kev, energy]),
            "true": np.array([true.offset_kev, true.slope_kev, spec.incident_energy_kev]),
        }
        write_arrays(job, task, arrays)
        return study_record(job, task, clock, "spectra")


def run_region_draws(job: DatasetJob, task: str, region: int) -> TaskRecord:
    """Draw the summed spectrum of a region anew, as often as is asked for."""
    with attempt(job, task):
        clock = Clock()
        results = RunDir(path=job.run_dir / LINEAR).results_store(job.dataset_id)
        box = bounding_box(read_region_mask(results, region))
        draws = require_case_study(job.config).draws
        write_arrays(job, task, {task: draw_region(simulate_scan(study_scan(job.config)), box, draws)})
        return study_record(job, task, clock, "spectra")


def run_spectra(job: DatasetJob) -> TaskRecord:
    """Write the spectra of the whole scan, of its regions, and of their pixels."""
    with attempt(job, SPECTRA):
        clock = Clock()
        with clock.reading():
            arrays = gathered(job)
        write_arrays(job, SPECTRA, arrays)
        return study_record(job, SPECTRA, clock, "spectra")


def gathered(job: DatasetJob) -> dict[str, NDArray[Any]]:
    """Spectra by name (spectrum, channel), of the run of the product: pixels along the rows of their region."""
    run = RunDir(path=job.run_dir / LINEAR)
    store = open_spectra(run.spectra_store(job.dataset_id))
    results = run.results_store(job.dataset_id)
    arrays: dict[str, NDArray[Any]] = {"whole": store.integrated(DETECTOR)[None]}
    for index in range(len(read_region_names(results))):
        arrays[f"region-{index}"] = read_region_counts(results, index)[0][str(DETECTOR)][None]
        y, x = bounding_box(read_region_mask(results, index))
        pixels = store.read_rows([DETECTOR], y, x)[0]
        arrays[f"pixels-{index}"] = pixels.reshape(-1, pixels.shape[-1])
    return arrays


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of a rectangular region; mask (y, x) of at least one pixel."""
    y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


def write_arrays(job: DatasetJob, task: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what a task found, by a temporary name."""
    content = BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(content, **named)
    study_folder(job).mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(study_file(job, task), content.getvalue())


def study_record(job: DatasetJob, task: str, clock: Clock, stage: str) -> TaskRecord:
    """The record of a task that wrote its file."""
    found = checksum_tree([study_file(job, task)])
    sums = {str(study_file(job, task).relative_to(job.run_dir)): v for v in found.values()}
    return clock.record(job, task, stage, checksums=sums)


def run_fits(job: DatasetJob, unit: StudyUnit, after: Sequence[TaskRecord]) -> TaskRecord:
    """Fit some spectra with one method, and write what came of it.

    Args:
        job: the scan.
        unit: what is fitted, and how.
        after: records that must exist first.
    """
    del after
    with attempt(job, unit.task):
        clock = Clock()
        with one_thread():
            fits = fit_unit(job, unit)
        with clock.writing():
            write_fits(study_file(job, unit.task), fits)
        return study_record(job, unit.task, clock, unit.stage)


def fit_unit(job: DatasetJob, unit: StudyUnit) -> StudyFits:
    """The fits of one task.

    Raises:
        ConfigError: no elements or calibration.
        FitError: the fit as asked is impossible, or the first pass found no solution to start from.
    """
    counts, facts = read_spectra(job, unit)
    if unit.method == "linear" or unit.method == "poisson" or unit.method == "full":  # noqa: PLR1714 (narrows the type)
        return _together(job, counts, facts, unit.method)
    if unit.method == "product":
        ready = prepare(product_config(job.config), facts, DETECTOR).problem
        if unit.stage in {"areas", "draws"}:
            ready = start_from(ready, _fitted(job)[0])
        return join_fits([_product(one, ready) for one in counts])
    if unit.method is None:
        raise FitError(f"{unit.task}: names no method")
    problem = prepare_study(job.config, facts)
    return join_fits([_compared(job, unit, one, problem, unit.method) for one in counts])


def read_spectra(job: DatasetJob, unit: StudyUnit) -> tuple[Tensor, ScanFacts]:
    """Spectra (spectrum, channel) of a task, and what is known of their scan: of a trial, its own."""
    with np.load(study_file(job, unit.source)) as stored:
        counts = torch.from_numpy(stored[unit.spectra][list(unit.rows)].astype(np.float64))
        claimed = stored["claimed"].tolist() if "claimed" in stored else None
    facts = scan_facts(open_scan(job.source, read_options(job.config)), job.source)
    if claimed is None:
        return counts, facts
    offset, slope, quadratic, energy = claimed
    axis = EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)
    return counts, dataclasses.replace(facts, calibration=(axis,), incident_energy_kev=energy)


def prepare_study(config: RunConfig, facts: ScanFacts) -> FitProblem:
    """What the published methods and `separable` share: starts are drawn around the calibration of the file."""
    fit = dataclasses.replace(config.fit, calibration="file")
    known = compared_config(dataclasses.replace(config, fit=fit))
    return follow_protocol(known, prepare(known, facts, DETECTOR).problem)


def _fitted(job: DatasetJob) -> tuple[Tensor, Tensor]:
    """Theta and amplitudes where the product's first pass ended."""
    first = read_fits(study_file(job, PRODUCT))
    theta, amplitude = torch.from_numpy(first.theta[0]), torch.from_numpy(first.amplitude[0])
    if not bool(torch.isfinite(torch.cat([theta, amplitude])).all()):
        raise FitError(f"{job.source}: {PRODUCT} found no solution to start from")
    return theta, amplitude


def _start(job: DatasetJob, unit: StudyUnit, counts: Tensor, problem: FitProblem) -> JointStart:
    asked = job.config
    if unit.start is not None:
        purpose = f"{unit.source} {unit.start}"
        seed = seed_of(require_case_study(asked).seed, job.dataset_id, purpose)
        return random_start(problem, require_case_study(asked).start, seed)
    theta, amplitude = _fitted(job)
    with np.load(study_file(job, SPECTRA)) as stored:
        whole = float(stored["whole"].sum())
    share = float(counts.sum()) / max(whole, 1.0)
    return perturbed_start(theta, torch.zeros_like(theta), amplitude * share, problem, 0)


def _compared(job: DatasetJob, unit: StudyUnit, counts: Tensor, problem: FitProblem, method: StudyMethod) -> StudyFits:
    arm = ARMS[method]
    if arm.method != "separable" and arm.method != "adam" and arm.method != "sbplx":  # noqa: PLR1714 (narrows the type)
        raise FitError(f"{unit.task}: {method} is not an optimiser of the shared problem")
    start = _start(job, unit, counts, problem)
    adam_steps, sbplx_evaluations = limits(job.config, unit.stage)
    fit = fit_protocol(
        counts,
        problem,
        guess_amplitudes(start, counts, problem) if arm.guessed else start,
        arm.method,
        adam_steps=adam_steps,
        sbplx_evaluations=sbplx_evaluations,
    )
    first, _ = fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, counts.shape[0])
    return _one(fit, component_names(problem), first, counts.shape[0], fit.evaluations)


def limits(config: RunConfig, stage: str) -> tuple[int, int]:
    """Steps of Adam and evaluations of SBPLX in the fits of a stage."""
    asked = require_case_study(config)
    if stage == "single-pixels":
        return asked.pixel_adam_steps, asked.pixel_sbplx_evaluations
    if stage == "map":
        return asked.map_adam_steps, asked.map_sbplx_evaluations
    return asked.adam_steps, asked.sbplx_evaluations


def _product(counts: Tensor, ready: FitProblem) -> StudyFits:
    fit = solve_problem(counts, ready)
    return _one(fit, fit.component_names, fit.first_channel, counts.shape[0], fit.iterations)


def _one(
    fit: SpectrumFit | ProtocolFit, components: tuple[str, ...], first: int, n_channels: int, evaluations: int
) -> StudyFits:
    model = np.full((1, n_channels), np.nan, np.float32)
    model[0, first : first + fit.model.shape[0]] = fit.model.numpy()
    return StudyFits(
        components=components,
        amplitude=fit.amplitude.numpy()[None],
        theta=fit.theta.numpy()[None],
        r2=np.array([fit.r2]),
        r2_expected=np.array([fit.r2_expected]),
        deviance=np.array([fit.deviance]),
        cpu_s=np.array([fit.cpu_s]),
        evaluations=np.array([evaluations]),
        status=np.array([int(fit.status)]),
        model=model,
    )


def _together(job: DatasetJob, counts: Tensor, facts: ScanFacts, method: PixelMethodName) -> StudyFits:
    """Pixels with a method of the program, on the basis that its run of the scan has."""
    results = RunDir(path=job.run_dir / LINEAR).results_store(job.dataset_id)
    stored = read_basis(results, str(DETECTOR))
    inside = counts[:, stored.channels].to(torch.float32).contiguous()
    # Every channel by itself, as the compared programs have them.
    basis = dataclasses.replace(stored, first_channel=None)
    if method == "full":
        problem = prepare(product_config(job.config), facts, DETECTOR).problem
        channel = torch.arange(stored.channels.start, stored.channels.stop, dtype=torch.float64)
        lines = SpectrumModel(
            table=problem.table, channel=channel, constants=problem.constants, elastic=problem.elastic
        )
        solver = full_solver(full_model(lines, _fitted(job)[0], basis), basis, torch.device("cpu"))
    else:
        solver = prepare_solver(method, basis)
    began = time.process_time()
    fit = fit_pixels(inside, torch.ones(len(inside), dtype=torch.bool), solver)
    cpu_s = time.process_time() - began
    models = _pixel_models(inside, solver, method)
    return _of_pixels(fit, models, inside, stored.names, stored.channels.start, counts.shape[1], cpu_s)


def _pixel_models(inside: Tensor, solver: Solver, method: PixelMethodName) -> Tensor:
    """Expected counts (pixel, channel) in the fit range; NaN of `full`, which does not keep them."""
    if method == "full":
        return torch.full_like(inside, torch.nan)
    signed = project(inside, solver.operator.projector)
    if method == "linear":
        return signed @ solver.operator.columns
    found = solver.estimate(inside, signed, deviance=False, errors=False)
    return found.factors @ found.columns


def _of_pixels(
    fit: PixelFit, models: Tensor, inside: Tensor, names: tuple[str, ...], first: int, n_channels: int, cpu_s: float
) -> StudyFits:
    n = len(inside)
    model = np.full((n, n_channels), np.nan, np.float32)
    model[:, first : first + inside.shape[1]] = models.numpy()
    wide = inside.to(torch.float64)
    return StudyFits(
        components=names,
        amplitude=fit.amplitude.to(torch.float64).numpy(),
        theta=np.full((n, 0), _NAN),
        r2=r_squared(wide, models.to(torch.float64)).numpy(),
        r2_expected=r_squared_expected(wide).numpy(),
        deviance=fit.deviance.to(torch.float64).numpy(),
        cpu_s=np.full(n, cpu_s / max(n, 1)),
        evaluations=np.zeros(n, np.int64),
        status=fit.status.numpy().astype(np.int64),
        model=model,
    )


def solved(fits: StudyFits) -> NDArray[np.bool_]:
    """Which spectra have a solution."""
    good = np.isin(fits.status, (int(FitStatus.CONVERGED), int(FitStatus.MAX_ITERATIONS)))
    return good & np.isfinite(fits.amplitude).all(axis=1)
