"""The table of workloads: what `run`, `plan`, `submit`, `status` and their like work on. A new one is a row here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hpcxrf.config.run import RunConfig, workload_name
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.runner.workload import Workload
from hpcxrf.store.rundir import RunDir
from hpcxrf.studies.benchmark.workload import BENCHMARK
from hpcxrf.studies.case_study.workload import CASE_STUDY

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({one.name: one for one in (SCAN, BENCHMARK, CASE_STUDY)})
"""By name."""


def choose_workload(config: RunConfig) -> Workload:
    """The workload that the sections of a run file ask for."""
    return WORKLOADS[workload_name(config)]


def read_workload(run: RunDir) -> Workload:
    """The workload that a run directory holds.

    Raises:
        OutputError: the run directory is damaged.
    """
    return WORKLOADS[run.workload_name()]
