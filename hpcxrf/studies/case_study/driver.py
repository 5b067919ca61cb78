"""Feeds the graph of a case study: a task that fails stops those that need it, and no other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distributed import Client, Future, as_completed

from hpcxrf.pipeline.records import DatasetJob, TaskRecord
from hpcxrf.runner.driver import Progress
from hpcxrf.runner.journal import failure_line, failure_reason, failure_trace, finished_line, made_from, record_of
from hpcxrf.store.rundir import FAILED, RunDir, still_finished
from hpcxrf.store.rundir import finished as finished_record
from hpcxrf.studies.case_study.plan import StudyUnit

Work = Callable[[DatasetJob, StudyUnit, Sequence[TaskRecord]], TaskRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """How the tasks ended."""

    records: dict[str, TaskRecord]
    """By task, of those that are finished."""
    failures: dict[str, str]
    """Reason by task, of the others."""


def run_units(
    job: DatasetJob,
    units: Sequence[StudyUnit],
    work: Work,
    run: RunDir,
    client: Client,
    progress: Callable[[Progress], None],
) -> StudyOutcome:
    """Run what is missing.

    Args:
        job: the simulated scan.
        units: each after those that it needs.
        work: what a worker does for one of them.
        run: the folder of the study, locked by the caller.
        client: of the cluster.
        progress: called for every task.
    """
    done = finished_units(run, job, units)
    for record in done.values():
        progress(Progress(stage=record.stage, pixels=0, ok=True))
    futures = _submitted(job, units, work, run, client, done)
    by_key = {futures[u.task].key: u for u in units if u.task in futures}
    failures: dict[str, str] = {}
    for future in as_completed(futures.values()):
        unit = by_key[future.key]
        progress(Progress(stage=unit.stage, pixels=0, ok=future.status == "finished"))
        if future.status == "finished":
            done[unit.task] = future.result()
            run.append(job.dataset_id, finished_line(done[unit.task]))
        else:
            failures[unit.task] = _failed(job, unit, futures, run)
    return StudyOutcome(records=done, failures=failures)


def finished_units(run: RunDir, job: DatasetJob, units: Sequence[StudyUnit]) -> dict[str, TaskRecord]:
    """Records of the tasks whose journal line still holds, and of which all that they need does as well."""
    journal = run.read_journal(job.dataset_id)
    done: dict[str, TaskRecord] = {}
    for unit in units:
        line = finished_record(journal, unit.task)
        if (
            line is not None
            and all(needed in done for needed in unit.needs)
            and made_from(line, job)
            and still_finished(run, journal, unit.task)
        ):
            done[unit.task] = record_of(line)
    return done


def _submitted(
    job: DatasetJob, units: Sequence[StudyUnit], work: Work, run: RunDir, client: Client, done: dict[str, TaskRecord]
) -> dict[str, Future]:
    """Futures by task of what is missing."""
    attempt = sum(1 for line in run.read_journal(job.dataset_id) if line.get("event") == FAILED)
    futures: dict[str, Future] = {}
    for index, unit in enumerate(units):
        if unit.task not in done:
            after = [futures.get(name) or done[name] for name in unit.needs]
            key = f"{unit.stage}-{index:05}-{attempt}"
            futures[unit.task] = client.submit(work, job, unit, after, key=key, pure=False)
    return futures


def _failed(job: DatasetJob, unit: StudyUnit, futures: dict[str, Future], run: RunDir) -> str:
    """The reason; Dask hands the error of a task on to those that need it."""
    future = futures[unit.task]
    culprit = next((n for n in unit.needs if n in futures and futures[n].status == "error"), None)
    reason = failure_reason(future)
    told = reason if culprit is None else f"{culprit} failed: {reason}"
    trace = failure_trace(future) if culprit is None else ""
    run.append(job.dataset_id, failure_line(unit.task, told, trace))
    return told
