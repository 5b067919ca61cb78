"""Pages and tables of a run directory, written again from its records; nothing is computed."""

from pathlib import Path

from hpcxrf.pipeline.request import config_of_run
from hpcxrf.results.report.report import PAGES
from hpcxrf.results.report.single_file import write_single_file
from hpcxrf.runner.ending import read_end
from hpcxrf.store.rundir import open_run
from hpcxrf.workloads import read_workload


def report_again(folder: Path) -> Path:
    """Write the pages of a run directory from what is in it, whatever its workload; the page to open.

    A run that went to its end kept what is true of the whole of it; of any other the records tell.

    Raises:
        OutputError: no run there, or it cannot be written.
    """
    run = open_run(folder)
    workload = read_workload(run)
    config, _ = config_of_run(run)
    workload.summarise(config, read_end(run))
    return run.path / workload.page


def write_in_one_file(report: Path) -> Path:
    """Write a report that `report_again` wrote as one file beside it.

    Raises:
        OutputError: it cannot be written.
    """
    return write_single_file(report, report.parent / PAGES)
