"""A whole case study on this machine: simulate the scan, run the product on it, fit with every method, draw."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcxrf.cluster.local.cluster import default_layout, local_cluster, usable_cores
from hpcxrf.cluster.local.run import Watch, now, run_here, versions
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError, InputFileError
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.records import DatasetJob, TaskRecord
from hpcxrf.results.store.regions import read_region_mask, read_region_names
from hpcxrf.runner.driver import Progress
from hpcxrf.runner.worker import Clock, attempt, forget_attempts
from hpcxrf.simulate import ScanSpec, plant_spec, read_truth, simulate_scan, summed_scan, trial_spec, write_scan
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, create_or_resume
from hpcxrf.studies.benchmark.run import benchmark_configuration
from hpcxrf.studies.case_study.data import gather_study, richest_region
from hpcxrf.studies.case_study.driver import StudyOutcome, finished_units, run_units
from hpcxrf.studies.case_study.page import StudySummary, write_study
from hpcxrf.studies.case_study.plan import LINEAR, POISSON, StudyUnit, units_of
from hpcxrf.studies.case_study.tables import StudyData
from hpcxrf.studies.case_study.tasks import DETECTOR, limits, run_fits, run_spectra, study_record, write_arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyWatch:
    """What a case study tells whoever watches it."""

    say: Callable[[str], None]
    running: Callable[[], AbstractContextManager[Watch]]
    """Around each run of the product."""
    fitting: Callable[[Sequence[StudyUnit]], AbstractContextManager[Callable[[Progress], None]]]
    """Around the fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """How a case study ended."""

    run: RunDir
    data: StudyData
    failures: dict[str, str]
    """Reason by task."""
    n_tasks: int
    wall_s: float

    @property
    def page(self) -> Path:
        """The page."""
        return self.run.path / "case_study.html"


def case_study_here(
    config: RunConfig, run_text: str, folder: Path, watch: StudyWatch, *, command: str = ""
) -> StudyResult:
    """Run a case study; on a folder that holds the same one, only what is missing.

    Writes the scan where `input.files` names it, the runs `linear` and `poisson`, the fits (`study/`), the page
    `case_study.html` with its pictures and tables as files into the folder.

    Args:
        config: a run file for which `check_case_study` holds.
        run_text: its text as given.
        folder: of the study.
        watch: what to tell.
        command: the command line, for the page.

    Raises:
        OutputError: a folder cannot be used, holds another configuration, or another driver is at it.
        InputFileError: another file is where the scan is to be written.
        FitError: the product could not fit the scan.
    """
    began, started = time.perf_counter(), now()
    spec = study_scan(config)
    run = create_or_resume(folder.absolute(), run_text, lasting_configuration(config))
    with run_lock(run):
        forget_attempts(run.path)
        _ensure_scan(spec, Path(config.input.files[0]), watch)
        config = replace(config, sample=replace(config.sample, elements=spec.listed_elements))
        _run_product(config, run_text, run, watch, command)
        job = make_plan(config, run.path).jobs[0]
        regions = _region_pixels(job)
        mapped = richest_region(job)
        units = units_of(config, regions, mapped, chosen_pixels(config, max(regions)))
        outcome = _run_fits(job, units, run, watch)
        watch.say("drawing the page")
        data = gather_study(job, units, outcome, spec, mapped)
        result = StudyResult(
            run=run, data=data, failures=outcome.failures, n_tasks=len(units), wall_s=time.perf_counter() - began
        )
        write_study(_summary(config, result, outcome, started, command), data, run.path)
    return result


def study_scan(config: RunConfig) -> ScanSpec:
    """The scan that a run file asks for."""
    asked = config.case_study
    name = Path(config.input.files[0]).stem
    return plant_spec(seed=asked.seed, size=asked.size, name=name)


def lasting_configuration(config: RunConfig) -> dict[str, Any]:
    """What must be the same when a case study goes on: further trials and random starts may be added."""
    asked = json.loads(json.dumps(asdict(config.case_study)))
    for name in ("trials", "starts"):
        del asked[name]
    return benchmark_configuration(config) | {"case_study": asked}


def chosen_pixels(config: RunConfig, n_pixels: int) -> tuple[int, ...]:
    """Pixels of a region that every method fits: drawn by the seed, in order."""
    rng = np.random.default_rng(config.case_study.seed)
    number = min(config.case_study.pixels, n_pixels)
    return tuple(sorted(rng.choice(n_pixels, number, replace=False).tolist()))


def run_study_unit(job: DatasetJob, unit: StudyUnit, after: Sequence[TaskRecord]) -> TaskRecord:
    """What a worker runs for a task."""
    if unit.trial is not None:
        return run_trial_spectrum(job, unit.task, unit.trial)
    return run_spectra(job) if unit.method is None else run_fits(job, unit, after)


def run_trial_spectrum(job: DatasetJob, task: str, trial: int) -> TaskRecord:
    """Draw the summed spectrum of one trial, and write it with what its file would claim."""
    with attempt(job, task):
        clock = Clock()
        spec = trial_spec(study_scan(job.config), trial)
        drawn = summed_scan(simulate_scan(spec), trial)
        axis = (spec.file_calibration or ())[DETECTOR]
        true = spec.detectors[DETECTOR].calibration
        energy = spec.file_energy_kev or spec.incident_energy_kev
        arrays = {
            "whole": drawn.counts[None],
            "claimed": np.array([axis.offset_kev, axis.slope_kev, axis.quadratic_kev, energy]),
            "true": np.array([true.offset_kev, true.slope_kev, spec.incident_energy_kev]),
        }
        write_arrays(job, task, arrays)
        return study_record(job, task, clock, "spectra", facts={"stamps": dict(job.stamps)})


def _ensure_scan(spec: ScanSpec, file: Path, watch: StudyWatch) -> None:
    """Simulate the scan, unless it is there."""
    truth = file.parent / f"{spec.name}.truth.json"
    if truth.is_file() and file.is_file():
        if read_truth(truth).spec == read_back(spec):
            return
        told = "is the simulated scan of another size or seed"
    elif file.exists():
        told = "is no simulated scan"
    else:
        watch.say(f"simulating a scan of {' x '.join(map(str, spec.shape))} (detector, y, x, channel)")
        write_scan(simulate_scan(spec), file.parent)
        return
    raise InputFileError(
        f"{file}: {told}; remove it, or name another file in input.files, and give the same command again"
    )


def read_back(spec: ScanSpec) -> ScanSpec:
    """The specification as a truth file gives it back."""
    from hpcxrf.simulate import spec_from_json

    return spec_from_json(json.loads(json.dumps(asdict(spec))))


def _run_product(config: RunConfig, run_text: str, run: RunDir, watch: StudyWatch, command: str) -> None:
    """The program as it comes, on the whole scan: with regions and linear maps, then with Poisson maps."""
    poisson = replace(
        config, pixels=replace(config.pixels, method="poisson"), regions=replace(config.regions, find=(), rectangles={})
    )
    linear = replace(config, pixels=replace(config.pixels, method="linear"))
    for name, asked in ((LINEAR, linear), (POISSON, poisson)):
        watch.say(f"the product, {name} maps")
        with watch.running() as inner:
            done = run_here(asked, run_text, run.path / name, inner, command=command)
        if done.failed:
            raise FitError("; ".join(done.failed.values()))


def _region_pixels(job: DatasetJob) -> tuple[int, ...]:
    results = RunDir(path=job.run_dir / LINEAR).results_store(job.dataset_id)
    names = read_region_names(results)
    if not names:
        raise FitError(f"{job.source}: no region was found; give regions.side smaller than the scan")
    return tuple(int(np.count_nonzero(read_region_mask(results, i))) for i in range(len(names)))


def _run_fits(job: DatasetJob, units: Sequence[StudyUnit], run: RunDir, watch: StudyWatch) -> StudyOutcome:
    done = finished_units(run, job, units)
    if len(done) == len(units):
        return StudyOutcome(records=done, failures={})
    execution = job.config.execution
    workers = execution.workers or default_layout(usable_cores(), 0)[0]
    watch.say(f"the fits, CPU, {workers} workers x 1 thread")
    with local_cluster(workers, 1, run.path, dashboard=execution.dashboard) as handle, watch.fitting(units) as progress:
        return run_units(job, units, run_study_unit, run, handle.client, progress)


def _summary(config: RunConfig, result: StudyResult, outcome: StudyOutcome, started: str, command: str) -> StudySummary:
    asked = config.case_study
    workers = config.execution.workers or default_layout(usable_cores(), 0)[0]
    return StudySummary(
        title=result.run.path.name,
        size=asked.size,
        seed=asked.seed,
        start=config.benchmark.start,
        background=config.benchmark.background,
        limits=limits(config, "first-pass"),
        pixel_limits=limits(config, "single-pixels"),
        map_limits=limits(config, "map"),
        device=f"CPU, {workers} workers x 1 thread",
        started=started,
        finished=now(),
        seconds=result.wall_s,
        cpu_s=sum(r.cpu_s for r in outcome.records.values()),
        n_tasks=result.n_tasks,
        command=command,
        versions=versions(),
        configuration=json.dumps(benchmark_configuration(config) | {"case_study": asdict(asked)}, indent=2),
        failures=outcome.failures,
    )
