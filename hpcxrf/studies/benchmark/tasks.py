"""What a worker runs of a benchmark: the sums of a scan, and the fit of one method to one of them."""

import dataclasses
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.config.benchmark import BenchmarkTask
from hpcxrf.config.run import RunConfig, require_benchmark, require_protocol
from hpcxrf.errors import FitError
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import Clock, attempt, machine_type, one_thread
from hpcxrf.store.bands import read_mended
from hpcxrf.store.files import atomic_write_bytes, checksum_tree
from hpcxrf.studies.arms import ARMS, Arm
from hpcxrf.studies.benchmark.method_result import MethodResult, read_result, write_result
from hpcxrf.studies.benchmark.plan import START, SUM, central_region, result_file, result_folder, seed_of
from hpcxrf.studies.protocol import ProtocolFit, fit_protocol
from hpcxrf.studies.starts import JointStart, component_names, guess_amplitudes, perturbed_start, random_start

DETECTOR: Final = 0
"""The published protocol has one spectrum a dataset."""


def run_sum(job: DatasetJob) -> TaskRecord:
    """Sum detector 0 of the raw scan over the whole map and over the region that is refined."""
    with attempt(job, SUM):
        clock = Clock()
        scan = open_scan(job.source, read_options(job.config))
        with clock.reading():
            whole, region = sums(scan, DETECTOR)
        content = BytesIO()
        np.savez(content, initial=whole, refinement=region)
        with clock.writing():
            result_folder(job).mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(result_file(job, SUM), content.getvalue())
        return clock.record(job, SUM, "sum", bytes_written=len(content.getvalue()), checksums=_checksums(job, SUM))


def run_fit(job: DatasetJob, task: BenchmarkTask, arm: str, after: Sequence[TaskRecord]) -> TaskRecord:
    """Fit one of the sums with one arm, and write what came of it.

    Args:
        job: which dataset.
        task: which sum.
        arm: its name.
        after: records that must exist first.
    """
    del after
    name = f"{task}-{arm}"
    with attempt(job, name):
        clock = Clock()
        with one_thread():
            result = fit_task(job, task, arm)
        with clock.writing():
            write_result(result_file(job, name), result)
        return clock.record(job, name, task, checksums=_checksums(job, name), facts={"machine": machine_type()})


def sums(scan: RawScan, detector: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spectra (channel,) of one detector, summed over the map and over its central region.

    Raises:
        InputFileError: the file ends early, or holds values that are not counts.
    """
    _, n_rows, n_x, n_channels = scan.shape
    y, x = central_region((n_rows, n_x))
    whole, region = np.zeros(n_channels), np.zeros(n_channels)
    for start in range(0, n_rows, scan.rows_per_read):
        stop = min(start + scan.rows_per_read, n_rows)
        counts = read_mended(scan, slice(start, stop)).counts[detector]
        whole += counts.sum(axis=(0, 1), dtype=np.float64)
        inside = counts[max(y.start - start, 0) : max(y.stop - start, 0), x]
        region += inside.sum(axis=(0, 1), dtype=np.float64)
    return whole, region


def fit_task(job: DatasetJob, task: BenchmarkTask, arm: str) -> MethodResult:
    """The fit of one arm to one sum.

    Raises:
        ConfigError: no elements, calibration or incident energy.
        FitError: the fit as asked is impossible, or the fit that it starts from has no solution.
    """
    with np.load(result_file(job, SUM)) as stored:
        spectra = {name: torch.from_numpy(stored[name]) for name in ("initial", "refinement")}
    scan = open_scan(job.source, read_options(job.config))
    facts = scan_facts(scan, job.source)
    if arm == "product" and task == "initial":
        return _product(spectra[task], prepare(product_config(job.config), facts, DETECTOR).problem)
    problem = follow_protocol(job.config, prepare(compared_config(job.config), facts, DETECTOR).problem)
    start = _start(job, task, problem, spectra)
    if arm == "product":
        own = prepare(product_config(job.config), facts, DETECTOR).problem
        return _product(spectra[task], start_from(own, start.theta))
    fit = _compare(spectra[task], problem, start, ARMS[arm], job.config)
    return _of_protocol(arm, spectra[task], problem, fit)


def compared_config(config: RunConfig) -> RunConfig:
    """What the methods that are compared are prepared with: one background, the published objective."""
    fit = dataclasses.replace(
        config.fit, background=require_protocol(config).background, objective="mse", method="separable"
    )
    return dataclasses.replace(config, fit=fit)


def product_config(config: RunConfig) -> RunConfig:
    """The program as it comes, and no calibration."""
    fit = dataclasses.replace(
        config.fit, calibration="none", background="hats", objective="poisson", method="separable"
    )
    return dataclasses.replace(config, fit=fit)


def follow_protocol(config: RunConfig, problem: FitProblem) -> FitProblem:
    """Lines, range and background that all compared methods share."""
    return dataclasses.replace(problem, background=require_protocol(config).background, objective="mse")


def _start(job: DatasetJob, task: BenchmarkTask, problem: FitProblem, spectra: dict[str, Tensor]) -> JointStart:
    """The start that every method of a dataset and task is given."""
    asked = require_benchmark(job.config)
    seed = seed_of(asked.seed, job.dataset_id, task)
    if task == "initial":
        return random_start(problem, asked.start, seed)
    fitted = read_result(result_file(job, START))
    theta, sigma, amplitude = (
        torch.tensor(v, dtype=torch.float64) for v in (fitted.theta, fitted.theta_sigma, fitted.amplitude)
    )
    if not bool(torch.isfinite(theta).all() and torch.isfinite(amplitude).all()):
        raise FitError(f"{job.source}: {START} found no solution that a refinement could start from")
    share = float(spectra["refinement"].sum()) / max(float(spectra["initial"].sum()), 1.0)
    return perturbed_start(theta, sigma, amplitude * share, problem, seed)


def _compare(counts: Tensor, problem: FitProblem, start: JointStart, arm: Arm, config: RunConfig) -> ProtocolFit:
    method = arm.method
    if method == "product":
        raise FitError("product is not an optimiser of the shared problem")
    if method == "mapstorch" or method == "pymca":  # noqa: PLR1714 (narrows the type)
        from hpcxrf.studies.peers.fit import fit_peer

        return fit_peer(method, counts, problem, start, shared_background=arm.shared)
    return fit_protocol(
        counts,
        problem,
        guess_amplitudes(start, counts, problem) if arm.guessed else start,
        method,
        search=arm.search,
        adam_steps=require_benchmark(config).adam_steps,
        sbplx_evaluations=require_benchmark(config).sbplx_evaluations,
    )


def _of_protocol(name: str, counts: Tensor, problem: FitProblem, fit: ProtocolFit) -> MethodResult:
    return MethodResult(
        method=name,
        status=fit.status,
        r2=fit.r2,
        r2_expected=fit.r2_expected,
        deviance=fit.deviance,
        cpu_s=fit.cpu_s,
        wall_s=fit.wall_s,
        evaluations=fit.evaluations,
        counts=float(counts.sum()),
        parameters=tuple(p.name for p in problem.parameters),
        theta=tuple(fit.theta.tolist()),
        theta_sigma=tuple(fit.theta_sigma.tolist()),
        components=component_names(problem),
        amplitude=tuple(fit.amplitude.tolist()),
        energy_range_kev=(problem.energy_min_kev, problem.energy_max_kev),
    )


def _product(counts: Tensor, problem: FitProblem) -> MethodResult:
    began = time.perf_counter()
    fit = solve_problem(counts, problem)
    wall_s = time.perf_counter() - began
    return MethodResult(
        method="product",
        status=fit.status,
        r2=fit.r2,
        r2_expected=fit.r2_expected,
        deviance=fit.deviance,
        cpu_s=fit.cpu_s,
        wall_s=wall_s,
        evaluations=fit.iterations,
        counts=float(counts.sum()),
        parameters=fit.parameter_names,
        theta=tuple(fit.theta.tolist()),
        theta_sigma=tuple(fit.theta_sigma.tolist()),
        components=fit.component_names,
        amplitude=tuple(fit.amplitude.tolist()),
        energy_range_kev=(problem.energy_min_kev, problem.energy_max_kev),
    )


def _checksums(job: DatasetJob, task: str) -> dict[str, str]:
    found = checksum_tree([result_file(job, task)])
    return {str(result_file(job, task).relative_to(job.run_dir)): v for v in found.values()}
