"""The report of a run, written from its records."""

import json
from collections.abc import Iterator

from hpcxrf.config.run import RunConfig, effective
from hpcxrf.results.report.dataset_page import DatasetSummary
from hpcxrf.results.report.report import RunSummary, write_report
from hpcxrf.runner.datasets import describe_ending, read_datasets
from hpcxrf.runner.ending import RunEnd, now, versions
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
        finished=now(),
        seconds=end.wall_s,
        command=end.command,
        notes=end.notes,
    )
    write_report(summary, list(summarise_datasets(end.run)), end.run.report_file)


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
        notes=record.notes,
    )
