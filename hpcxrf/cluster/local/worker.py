"""A worker process and its supervisor: output into the log, one GPU or none, as many threads as are given."""

import os
import resource
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from distributed import Nanny, Worker

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What libraries read for their number of threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker process does to itself before it takes part."""

    n_threads: int
    device: str
    log_path: Path


def prepared_worker(*, setup: WorkerSetup, **options: object) -> Worker:
    """Set this process up, then make its Worker; a failure here fails the start, visibly."""
    _redirect_output(setup.log_path)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not _hides_every_gpu(setup):
        # Looked at before a task can come; to load torch takes a second.
        _set_up_torch(setup)
    worker = Worker(**options)
    # In the thread of the tasks, which queue behind it, while the scheduler hears of this worker already.
    ready = worker.executors["default"].submit(_load, setup)
    # An error is logged here, and met again by the first task.
    ready.add_done_callback(Future.result)
    return worker


def pinned_nanny(
    scheduler_address: str, *, name: int, gpus: tuple[str, ...], setup: WorkerSetup, **options: object
) -> Nanny:
    """The supervisor of worker number `name`, whose process sees GPU number `name` or none."""
    return Nanny(
        scheduler_address,
        name=name,
        env={"CUDA_VISIBLE_DEVICES": gpus[name] if gpus else ""},
        worker_class=partial(prepared_worker, setup=setup),
        **options,
    )


def _redirect_output(log_path: Path) -> None:
    """Send standard output and error of this process, also those of C libraries, to the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _hides_every_gpu(setup: WorkerSetup) -> bool:
    return setup.device == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES") == ""


def _load(setup: WorkerSetup) -> None:
    """Import what every task needs, and set torch up in the thread of the tasks."""
    if _hides_every_gpu(setup):
        _set_up_torch(setup)
    import hpcxrf.pipeline.regions.tasks
    import hpcxrf.pipeline.tasks  # noqa: F401 (loaded for the tasks to come)


def _set_up_torch(setup: WorkerSetup) -> None:
    import torch

    torch.set_num_threads(setup.n_threads)
    torch.set_num_interop_threads(1)
    n_seen = torch.cuda.device_count()
    n_needed = 0 if setup.device == "cpu" else 1
    if n_seen != n_needed:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise RuntimeError(f"a worker sees {n_seen} GPUs (CUDA_VISIBLE_DEVICES={seen}); it must see {n_needed}")
