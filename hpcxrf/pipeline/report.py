"""The report of a run, written from its records."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hpcxrf.config.run import RunConfig, effective
from hpcxrf.results.report.archive.facts import unpack_fit_facts
from hpcxrf.results.report.judgement import Judgement
from hpcxrf.results.report.page.dataset import DatasetSummary
from hpcxrf.results.report.report import RunSummary, write_report
from hpcxrf.results.report.views import pack_merit, unpack_merit
from hpcxrf.runner.datasets import describe_ending, read_datasets
from hpcxrf.runner.ending import RunEnd, tell_finish, versions
from hpcxrf.runner.kinds import name_kind
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.rundir import RunDir


def write_run_report(config: RunConfig, end: RunEnd) -> None:
    """Write the report of a run from the records of its datasets.

    Args:
        config: configuration of the run.
        end: how it went.

    Raises:
        OutputError: the run directory cannot be written.
    """
    summary = RunSummary(
        title=end.run.path.name,
        versions=versions(),
        configuration=json.dumps(effective(config), indent=2),
        device=end.device,
        started=end.started,
        finished=tell_finish(end),
        seconds=end.wall_s,
        command=end.command,
        notes=end.notes,
    )
    write_report(summary, summarise_datasets(end.run), end.run.report_file, pages=config.report.pages)


def summarise_datasets(run: RunDir) -> Iterator[DatasetSummary]:
    """What the report says of every dataset beside what its results store says, in the order of the plan."""
    return (summarise_dataset(run, record) for record in read_datasets(run))


def summarise_dataset(run: RunDir, record: DatasetRecord) -> DatasetSummary:
    """What report and page say of a dataset beside what its results store says."""
    done = record.state == "done"
    return DatasetSummary(
        dataset_id=record.dataset_id,
        name=record.name,
        source=record.name,
        status=record.state,
        reason=describe_ending(record),
        shape=None if len(record.shape) != 4 else (*record.shape,),
        seconds=record.seconds,
        results_path=run.results_store(record.dataset_id) if done else None,
        spectra_path=run.spectra_store(record.dataset_id),
        files={"results": run.results_store(record.dataset_id), "regions": run.regions_table(record.dataset_id)},
        notes=record.notes,
        reason_kind="" if done else name_kind(record.reason, record.dataset_id, record.name),
        cpu_s=record.cpu_s,
        gpu_s=record.gpu_s,
        date=record.facts.get("date"),
        source_format=record.facts.get("format", ""),
        fits=unpack_fit_facts(record.facts.get("fits", ())),
        suggested=tuple(record.facts.get("suggested", ())),
        judgement=_read_judgement(record.facts),
    )


def pack_judgement(judgement: Judgement) -> dict[str, Any]:
    """The judgement as facts of the record of a dataset's last task: the report need not open its store."""
    return {
        "merit": None if judgement.merit is None else pack_merit(judgement.merit),
        "flags": list(judgement.flags),
        "axis_flags": list(judgement.axis_flags),
    }


def _read_judgement(facts: Mapping[str, Any]) -> Judgement | None:
    """Read the facts of `pack_judgement`; None: an earlier version did not write them."""
    if "flags" not in facts:
        return None
    merit = facts["merit"]
    return Judgement(
        merit=None if merit is None else unpack_merit(merit),
        flags=tuple(facts["flags"]),
        axis_flags=tuple(facts.get("axis_flags", ())),
    )
