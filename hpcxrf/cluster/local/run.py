"""A whole run on this machine, whatever its workload: plan, cluster, driver, pages."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from distributed.system import MEMORY_LIMIT

from hpcxrf.cluster.local.cluster import LocalClusterHandle, default_layout, local_cluster, usable_cores, visible_gpus
from hpcxrf.config.execution import ExecutionConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError, InputFileError
from hpcxrf.notes import Note
from hpcxrf.pipeline.request import keep_configuration
from hpcxrf.runner.datasets import read_kept
from hpcxrf.runner.done import count_if_finished
from hpcxrf.runner.driver import run_items
from hpcxrf.runner.ending import RunEnd, describe_device, forget_end, has_end, keep_end, now, read_end
from hpcxrf.runner.hooks import Ended, Hooks, Progress
from hpcxrf.runner.records import Refusal
from hpcxrf.runner.worker import forget_attempts
from hpcxrf.runner.workload import Planned, PlanRequest, Workload
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir, create_or_resume, prepare_folder, set_damaged_aside
from hpcxrf.workloads import choose_workload

_MOST_REFUSED: Final = 64
"""Files of which none can be opened before a run begins all the same, to meet others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCallbacks:
    """What a run says to whoever watches it; callables that return at once."""

    opened: Callable[[int, int], None] = lambda _opened, _total: None
    """Takes files opened, and how many there are."""
    note: Callable[[Note], None] = lambda _note: None
    """Takes what was noticed while the files were found."""
    units: Callable[[Mapping[str, int]], None] = lambda _counts: None
    """Takes the number of tasks by stage of a dataset, when they are known."""
    all_begun: Callable[[], None] = lambda: None
    """Called once, when the tasks of every stage are known."""
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
        InputFileError: no scan was found, or none can be opened.
        FitError: a GPU was asked for and there is none.
    """
    began, started = time.perf_counter(), now()
    tell = callbacks or RunCallbacks()
    workload = choose_workload(config)
    workers, threads, gpus = layout(config.execution, one_core=workload.one_core)
    notes: list[Note] = []

    def keep_note(note: Note) -> None:
        notes.append(note)
        tell.note(note)

    run = RunDir(path=folder.absolute())
    kept = read_kept(run)
    request = PlanRequest(
        config=config,
        run_dir=run.path,
        worker_bytes=MEMORY_LIMIT // workers,
        kept=kept,
        note=keep_note,
        opened=tell.opened,
    )
    planned = require_work(workload.plan(request))
    prepare_folder(run.path)
    with run_lock(run):
        create_or_resume(run.path, run_text, workload.lasting(config), fixed=workload.fixed(config))
        keep_configuration(run, config)
        set_damaged_aside(run, kept)
        done = _count_if_finished(workload, request)
        if done is not None:
            tell.reporting(done)
            return _report_again(workload, config, run, done, began)
        forget_end(run)
        forget_attempts(run.path)
        with local_cluster(workers, threads, run.path, gpus=gpus, dashboard=config.execution.dashboard) as handle:
            tell.started(handle)
            ended = run_items(
                workload,
                planned,
                run,
                handle.client,
                in_flight=max(config.execution.datasets_in_flight, 2 * workers),
                hooks=Hooks(units=tell.units, all_begun=tell.all_begun, progress=tell.progress),
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
        summary = workload.summarise(config, end)
        keep_end(end)
    return RunResult(
        workload=workload, ended=ended, end=end, workers=workers, summary=summary, wall_s=time.perf_counter() - began
    )


def require_work(planned: Iterator[Planned]) -> Iterator[Planned]:
    """Follow a plan to the first item that can be run: what nothing can be done with gets no folder and no workers.

    Returns:
        The same plan, from its begin.

    Raises:
        InputFileError: it has no item, or none that can be opened, with the reasons.
    """
    ahead: list[Planned] = []
    for one in planned:
        ahead.append(one)
        if not isinstance(one, Refusal) or len(ahead) > _MOST_REFUSED:
            return chain(ahead, planned)
    if not ahead:
        raise InputFileError("nothing to run: the plan is empty; give files, folders or patterns")
    reasons = [one.reason for one in ahead if isinstance(one, Refusal)]
    if len(reasons) == 1:
        raise InputFileError(reasons[0])
    raise InputFileError("\n  ".join([f"none of {len(reasons)} scans can be run:", *reasons]))


def _report_again(workload: Workload, config: RunConfig, run: RunDir, done: int, began: float) -> RunResult:
    """Write the pages of a run of which nothing is left to do, which go on to say how it went that did the work."""
    end = read_end(run)
    return RunResult(
        workload=workload,
        ended=Ended(done=done),
        end=end,
        workers=0,
        summary=workload.summarise(config, end),
        wall_s=time.perf_counter() - began,
    )


def _count_if_finished(workload: Workload, request: PlanRequest) -> int | None:
    """The number of items of a run that came to its end and of which nothing is left to do, else None."""
    if not has_end(RunDir(path=request.run_dir)):
        return None
    quiet = PlanRequest(
        config=request.config, run_dir=request.run_dir, worker_bytes=request.worker_bytes, kept=request.kept
    )
    return count_if_finished(workload, workload.plan(quiet))
