"""A whole run on this machine, whatever its workload: plan, cluster, driver, pages."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from distributed.system import MEMORY_LIMIT

from hpcxrf.cluster.local.cluster import LocalClusterHandle, default_layout, local_cluster, usable_cores, visible_gpus
from hpcxrf.config.execution import ExecutionConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError, InputFileError
from hpcxrf.pipeline.request import keep_configuration
from hpcxrf.runner.datasets import read_kept
from hpcxrf.runner.driver import Ended, Hooks, Progress, run_items
from hpcxrf.runner.ending import RunEnd, describe_device, keep_end, now
from hpcxrf.runner.worker import forget_attempts
from hpcxrf.runner.workload import PlanRequest, Workload
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, create_or_resume, prepare_folder, set_damaged_aside
from hpcxrf.workloads import choose_workload


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCallbacks:
    """What a run says to whoever watches it; callables that return at once."""

    opened: Callable[[int, int], None] = lambda _opened, _total: None
    """Takes files opened, and how many there are."""
    note: Callable[[str], None] = lambda _text: None
    """Takes what was noticed while the files were found."""
    units: Callable[[Mapping[str, int]], None] = lambda _counts: None
    """Takes the number of tasks by stage of a dataset, when they are known."""
    started: Callable[[LocalClusterHandle], None] = lambda _handle: None
    """Takes the cluster when its workers are there."""
    progress: Callable[[Progress], None] = lambda _progress: None
    """Takes every task that ends."""
    reporting: Callable[[int], None] = lambda _datasets: None
    """Takes the number of datasets that the report is about to be written of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run on this machine ended."""

    workload: Workload
    ended: Ended
    end: RunEnd
    workers: int
    summary: object = None
    """What the workload's `summarise` returned."""
    wall_s: float
    """Seconds, report included."""

    @property
    def run(self) -> RunDir:
        """The run directory."""
        return self.end.run

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.end.run.path / self.workload.page

    @property
    def failed(self) -> dict[str, str]:
        """Reason by dataset_id of what failed or was not tried, files that could not be opened included."""
        return self.ended.reasons


def layout(execution: ExecutionConfig, *, one_core: bool = False) -> tuple[int, int, tuple[str, ...]]:
    """Workers, torch threads of each, and the GPUs they are pinned to (none: CPU).

    Args:
        execution: section of the run file.
        one_core: CPU seconds are compared, so that every worker has one thread and no GPU.

    Raises:
        FitError: `cuda` was asked for and this machine has none.
    """
    if one_core:
        return execution.workers or default_layout(usable_cores(), 0)[0], 1, ()
    gpus = () if execution.device == "cpu" else visible_gpus()
    if execution.device == "cuda" and not gpus:
        raise FitError(
            "execution.device is cuda, but torch sees no CUDA device here; install a CUDA build of torch, or set "
            "execution.device: cpu"
        )
    cores = usable_cores()
    if execution.workers is not None:
        gpus = gpus[: execution.workers]
    workers, _ = default_layout(cores, len(gpus))
    workers = len(gpus) or execution.workers or workers
    return workers, execution.threads or max(1, cores // workers), gpus


def run_here(
    config: RunConfig, run_text: str, folder: Path, callbacks: RunCallbacks | None = None, *, command: str = ""
) -> RunResult:
    """Run everything on a local cluster; on a folder that holds the same run, only what is missing.

    Args:
        config: a checked run file; its sections choose the workload.
        run_text: its text as given.
        folder: the run directory.
        callbacks: whom to tell.
        command: the command line, for the report.

    Raises:
        OutputError: the folder cannot be used, holds another configuration, or another driver works on it.
        InputFileError: no scan was found.
        FitError: a GPU was asked for and there is none.
    """
    began, started = time.perf_counter(), now()
    tell = callbacks or RunCallbacks()
    workload = choose_workload(config)
    workers, threads, gpus = layout(config.execution, one_core=workload.one_core)
    notes: list[str] = []

    def keep_note(text: str) -> None:
        notes.append(text)
        tell.note(text)

    run = RunDir(path=folder.absolute())
    request = PlanRequest(
        config=config,
        run_dir=run.path,
        worker_bytes=MEMORY_LIMIT // workers,
        kept=read_kept(run),
        note=keep_note,
        opened=tell.opened,
    )
    planned = workload.plan(request)
    # What nothing can be done with is known before a folder is made for it.
    first = next(planned, None)
    if first is None:
        raise InputFileError("nothing to run: the plan is empty; give files, folders or patterns")
    prepare_folder(run.path)
    with run_lock(run):
        create_or_resume(run.path, run_text, workload.lasting(config))
        keep_configuration(run, config)
        set_damaged_aside(run)
        forget_attempts(run.path)
        with local_cluster(workers, threads, run.path, gpus=gpus, dashboard=config.execution.dashboard) as handle:
            tell.started(handle)
            ended = run_items(
                workload,
                chain([first], planned),
                run,
                handle.client,
                in_flight=max(config.execution.datasets_in_flight, 2 * workers),
                hooks=Hooks(units=tell.units, progress=tell.progress),
            )
            device = handle.device
        tell.reporting(ended.total)
        end = RunEnd(
            run=run,
            wall_s=time.perf_counter() - began,
            device=describe_device(device, workers, threads),
            command=command,
            started=started,
            notes=tuple(notes),
        )
        keep_end(end)
        summary = workload.summarise(config, end)
    return RunResult(
        workload=workload, ended=ended, end=end, workers=workers, summary=summary, wall_s=time.perf_counter() - began
    )
