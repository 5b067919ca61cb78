"""Tasks of a scan in this process, as a worker runs them, and what of them a driver would count as finished."""

from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.done import find_finished
from hpcxrf.runner.executing import run_once


def units_of(job):
    return SCAN.units_of(job)


def run_unit(job, unit, after):
    return run_once(SCAN.run_unit, job, unit, after)


def finished_tasks(run, job):
    return find_finished(SCAN, job, units_of(job), run.read_journal(job.dataset_id))
