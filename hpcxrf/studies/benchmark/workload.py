"""The workload `benchmark`: the published protocol over an archive."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpcxrf.config.run import RunConfig, effective
from hpcxrf.pipeline.request import check_request
from hpcxrf.runner.ending import RunEnd
from hpcxrf.runner.printout import FinishedRun, Printout
from hpcxrf.runner.records import TaskRecord, Unit
from hpcxrf.runner.workload import Workload
from hpcxrf.store.rundir import Record
from hpcxrf.studies.benchmark.plan import BenchmarkJob, check_benchmark, plan_benchmark, result_file, units_of

STAGE_TITLES: Final = {"sum": "sum spectra", "initial": "fit from random values", "refinement": "refine a region"}


def check(config: RunConfig) -> None:
    """Refuse what no scan can be fitted with, and what cannot be compared."""
    check_request(config)
    check_benchmark(config)


def lasting_configuration(config: RunConfig) -> dict[str, Any]:
    """The part of the configuration that must be the same when a benchmark goes on.

    A further method or variant, or a larger number of datasets, goes on with the fits that there are.
    """
    plain = effective(config)
    for name in ("datasets", "methods", "amplitudes", "ablation", "peer_backgrounds"):
        del plain["benchmark"][name]
    return plain


def run_unit(job: BenchmarkJob, unit: Unit, after: Sequence[TaskRecord]) -> TaskRecord:
    """Do one task of a dataset on a worker."""
    from hpcxrf.studies.benchmark import tasks

    return (
        tasks.run_sum(job.dataset)
        if unit.work is None
        else tasks.run_fit(job.dataset, unit.work[0], unit.work[1], after)
    )


def is_there(job: BenchmarkJob, unit: Unit) -> bool:
    """Whether the file that a task wrote is still there."""
    return result_file(job.dataset, unit.task).is_file()


def reopen(job: BenchmarkJob, last: Mapping[str, Record]) -> None:
    """Every task writes a file of its own, so that nothing is to be prepared."""
    del job, last


def summarise(config: RunConfig, end: RunEnd) -> object:
    """Write statistics, tables and page, and return them as `BenchmarkResult`."""
    from hpcxrf.studies.benchmark.gather import summarise as gather

    return gather(config, end)


def describe(finished: FinishedRun) -> Printout:
    """What is printed of a benchmark that has ended."""
    from hpcxrf.studies.benchmark.printout import describe_benchmark

    return describe_benchmark(finished)


BENCHMARK: Final = Workload(
    name="benchmark",
    stages=STAGE_TITLES,
    page="benchmark.html",
    reads_files=True,
    one_core=True,
    check=check,
    lasting=lasting_configuration,
    plan=plan_benchmark,
    units_of=units_of,
    run_unit=run_unit,
    foresees=lambda _job: True,
    is_there=is_there,
    reopen=reopen,
    summarise=summarise,
    describe=describe,
)
"""Fits of every dataset and of a region in it, from random values, by several methods."""
