"""The end of a case study: its units once the maps are there, and its page, pictures and tables from their files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpcxrf.config.run import RunConfig, effective, require_case_study
from hpcxrf.errors import FitError
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.report import write_run_report
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.results.store.regions import read_region_mask, read_region_names
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.ending import RunEnd, tell_finish, versions
from hpcxrf.runner.journal import read_record
from hpcxrf.store.rundir import FAILED, FINISHED, RunDir
from hpcxrf.studies.case_study.data import StudyOutcome, find_richest_region, gather_study
from hpcxrf.studies.case_study.page import StudySummary, write_study
from hpcxrf.studies.case_study.plan import LINEAR, POISSON, StudyUnit, plan_units, study_scan
from hpcxrf.studies.case_study.tables import StudyData
from hpcxrf.studies.case_study.tasks import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What a case study found."""

    data: StudyData
    failures: dict[str, str]
    """Reason by task of what was tried and failed, and of what was therefore not tried."""
    n_tasks: int


def plan_fits(job: DatasetJob) -> tuple[list[StudyUnit], int]:
    """All fits of a study whose maps are finished, and the region whose every pixel the published methods fit.

    Raises:
        FitError: the maps have no region.
    """
    results = RunDir(path=job.run_dir / LINEAR).results_store(job.dataset_id)
    names = read_region_names(results)
    if not names:
        raise FitError(f"{job.source}: no region was found; give regions.side smaller than the scan")
    pixels = tuple(int(np.count_nonzero(read_region_mask(results, i))) for i in range(len(names)))
    mapped = find_richest_region(job)
    return plan_units(job.config, pixels, mapped, choose_pixels(job.config, max(pixels))), mapped


def choose_pixels(config: RunConfig, n_pixels: int) -> tuple[int, ...]:
    """Pixels of a region that every method fits: drawn by the seed, in order."""
    asked = require_case_study(config)
    rng = np.random.default_rng(asked.seed)
    return tuple(sorted(rng.choice(n_pixels, min(asked.pixels, n_pixels), replace=False).tolist()))


def summarise(config: RunConfig, job: DatasetJob, end: RunEnd) -> StudyResult:
    """Write `case_study.html`, its pictures and tables into the run directory.

    Args:
        config: run file of the study.
        job: the simulated scan.
        end: how the run went.

    Raises:
        FitError: the scan has no maps, so that nothing was fitted.
        OutputError: the run directory cannot be written.
    """
    broken = [record for record in read_datasets(end.run) if record.state != "done" and not record.seconds]
    units, mapped = _plan_or_refuse(job, [record.reason for record in broken])
    outcome = read_outcome(job, units)
    data = gather_study(job, units, outcome, study_scan(config), mapped)
    result = StudyResult(data=data, failures=outcome.failures, n_tasks=len(units))
    asked = require_case_study(config)
    summary = StudySummary(
        title=end.run.path.name,
        size=asked.size,
        seed=asked.seed,
        start=asked.start,
        background=asked.background,
        limits=limits(config, "first-pass"),
        pixel_limits=limits(config, "single-pixels"),
        map_limits=limits(config, "map"),
        device=end.device,
        started=end.started,
        finished=tell_finish(end),
        seconds=end.wall_s,
        cpu_s=sum(record.cpu_s for record in outcome.records.values()),
        n_tasks=len(units),
        command=end.command,
        versions=versions(),
        configuration=json.dumps(effective(config), indent=2),
        failures=outcome.failures,
    )
    write_study(summary, data, end.run.path)
    for method in (LINEAR, POISSON):
        inner = end.run.inner(method)
        write_run_report(config_of_run(inner)[0], replace(end, run=inner))
    return result


def _plan_or_refuse(job: DatasetJob, reasons: Sequence[str]) -> tuple[list[StudyUnit], int]:
    if reasons:
        raise FitError("; ".join(dict.fromkeys(reasons)))
    return plan_fits(job)


def read_outcome(job: DatasetJob, units: Sequence[StudyUnit]) -> StudyOutcome:
    """Records of the finished fits and reasons of the others, from the journal of the study."""
    last = last_lines(RunDir(path=job.run_dir).read_journal(job.dataset_id))
    lines = {unit.task: last.get(unit.task, {}) for unit in units}
    failed = {task: str(line["reason"]) for task, line in lines.items() if line.get("event") == FAILED}
    kept = f"not tried: {next(iter(failed))} failed" if failed else "not tried"
    return StudyOutcome(
        records={task: read_record(line) for task, line in lines.items() if line.get("event") == FINISHED},
        failures=failed | {task: kept for task, line in lines.items() if not line},
    )
