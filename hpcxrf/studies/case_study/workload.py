"""The workload `case-study`: simulate a scan, map it twice with the product, fit its spectra with every method.

Four items, each after those that it needs: the simulation, the maps `linear` and `poisson` (run directories of
their own inside that of the study), and the fits.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from hpcxrf.config.run import RunConfig, effective
from hpcxrf.pipeline.prepare.inputs import detector_names
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.ending import RunEnd
from hpcxrf.runner.printout import FinishedRun, Printout
from hpcxrf.runner.records import TaskRecord, Unit
from hpcxrf.runner.workload import PlanRequest, Workload
from hpcxrf.store.catalog import dataset_id
from hpcxrf.store.rundir import Record, RunDir, create_or_resume, set_damaged_aside
from hpcxrf.studies.case_study.plan import (
    LINEAR,
    POISSON,
    SIMULATE,
    check_case_study,
    scan_file,
    study_file,
    study_scan,
)

if TYPE_CHECKING:
    from hpcxrf.simulate import ScanSpec

STAGE_TITLES: Final = {
    SIMULATE: "simulate the scan",
    **SCAN.stages,
    "spectra": "sum and draw spectra",
    "first-pass": "first pass",
    "trials": "trials",
    "areas": "regions",
    "draws": "regions with other noise",
    "single-pixels": "single pixels",
    "map": "maps, a fit a pixel",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyJob:
    """The simulation of a study, or its fits."""

    kind: Literal["simulate", "fits"]
    number: int
    dataset_id: str
    dataset: DatasetJob
    """The simulated scan, in the run directory of the study."""
    after: tuple[int, ...]
    follows: tuple[int, ...] = ()

    @property
    def source(self) -> Path:
        """File of the simulated scan."""
        return self.dataset.source

    @property
    def run_dir(self) -> Path:
        """The run directory of the study."""
        return self.dataset.run_dir

    @property
    def shape(self) -> tuple[int, ...]:
        """(detector, y, x, channel)."""
        return self.dataset.shape

    @property
    def made_from(self) -> Mapping[str, Mapping[str, str]]:
        """What the scan is simulated from."""
        return self.dataset.made_from


def plan_study(request: PlanRequest) -> Iterator[StudyJob | DatasetJob]:
    """Give the four items of a study; the scan need not be there yet.

    Raises:
        OutputError: the folder of a map cannot be used, or holds another configuration.
    """
    spec = study_scan(request.config)
    job = make_dataset(request, spec)
    name = dataset_id(job.source, job.source.parent)
    yield StudyJob(kind="simulate", number=0, dataset_id=f"{SIMULATE}-{name.rsplit('-')[-1]}", dataset=job, after=())
    yield _plan_map(request, job, LINEAR, 1)
    yield _plan_map(request, job, POISSON, 2)
    yield StudyJob(kind="fits", number=3, dataset_id=job.dataset_id, dataset=job, after=(1, 2))


def make_dataset(request: PlanRequest, spec: "ScanSpec") -> DatasetJob:
    """The simulated scan as an item, known from its specification alone."""
    given = request.config
    # It compares fits of one detector; a sum that nobody asks for would only take time.
    pixels = replace(given.pixels, detectors="each") if given.pixels.detectors == "auto" else given.pixels
    config = replace(given, sample=replace(given.sample, elements=spec.listed_elements), pixels=pixels)
    file = scan_file(request.config)
    digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()
    return DatasetJob(
        number=3,
        dataset_id=dataset_id(file, file.parent),
        source=file,
        run_dir=request.run_dir.absolute(),
        config=config,
        detectors=detector_names(config, spec.shape[0]),
        shape=spec.shape,
        stamps=((str(file), f"simulated, sha256 {digest}"),),
    )


def _plan_map(request: PlanRequest, job: DatasetJob, method: Literal["linear", "poisson"], number: int) -> DatasetJob:
    """The program as it comes, on the whole scan: with regions and linear maps, then with Poisson maps."""
    regions = job.config.regions if method == LINEAR else replace(job.config.regions, find=(), rectangles={})
    config = replace(job.config, case_study=None, pixels=replace(job.config.pixels, method=method), regions=regions)
    from hpcxrf.runner.worker import forget_attempts

    text = RunDir(path=request.run_dir).run_file.read_text(encoding="utf-8")
    run = create_or_resume(request.run_dir.absolute() / method, text, effective(config))
    set_damaged_aside(run)
    forget_attempts(run.path)
    return replace(job, number=number, run_dir=run.path, config=config, after=(0,))


def units_of(job: StudyJob | DatasetJob) -> Sequence[Unit]:
    """All tasks of an item; those of the fits are known when the maps and their regions are there."""
    if isinstance(job, DatasetJob):
        return SCAN.units_of(job)
    if job.kind == "simulate":
        return [Unit(task=SIMULATE, stage=SIMULATE)]
    from hpcxrf.studies.case_study.gather import plan_fits

    units, _ = plan_fits(job.dataset)
    return [Unit(task=unit.task, stage=unit.stage, needs=unit.needs, work=unit) for unit in units]


def run_unit(job: StudyJob | DatasetJob, unit: Unit, after: Sequence[TaskRecord]) -> TaskRecord:
    """Do one task of an item on a worker."""
    if isinstance(job, DatasetJob):
        return SCAN.run_unit(job, unit, after)
    from hpcxrf.studies.case_study import tasks

    return tasks.run_simulation(job) if job.kind == "simulate" else tasks.run_study_unit(job.dataset, unit.work, after)


def is_there(job: StudyJob | DatasetJob, unit: Unit) -> bool:
    """Whether what a task wrote is still there."""
    if isinstance(job, DatasetJob):
        return SCAN.is_there(job, unit)
    return job.source.is_file() if job.kind == "simulate" else study_file(job.dataset, unit.task).is_file()


def reopen(job: StudyJob | DatasetJob, last: Mapping[str, Record]) -> None:
    """Prepare what is there of an unfinished map; the fits write a file each."""
    if isinstance(job, DatasetJob):
        SCAN.reopen(job, last)


def lasting_configuration(config: RunConfig) -> dict[str, Any]:
    """The part of the configuration that must be the same when a study goes on: trials and starts may be added."""
    plain = effective(config)
    for name in ("trials", "starts", "amplitudes"):
        del plain["case_study"][name]
    return plain


def summarise(config: RunConfig, end: RunEnd) -> object:
    """Write the page of the study, its pictures and tables, and return them as `StudyResult`."""
    from hpcxrf.studies.case_study.gather import summarise as gather

    request = PlanRequest(config=config, run_dir=end.run.path, kept={})
    return gather(config, make_dataset(request, study_scan(config)), end)


def describe(finished: FinishedRun) -> Printout:
    """What is printed of a case study that has ended."""
    from hpcxrf.studies.case_study.printout import describe_study

    return describe_study(finished)


CASE_STUDY: Final = Workload(
    name="case-study",
    stages=STAGE_TITLES,
    page="case_study.html",
    reads_files=False,
    one_core=True,
    check=check_case_study,
    lasting=lasting_configuration,
    plan=plan_study,
    units_of=units_of,
    run_unit=run_unit,
    foresees=lambda job: isinstance(job, DatasetJob) or job.kind == "simulate",
    is_there=is_there,
    reopen=reopen,
    summarise=summarise,
    describe=describe,
)
"""A simulated scan, its maps, and the fits of its spectra with every method beside the truth."""
