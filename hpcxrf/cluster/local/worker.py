"""A worker process and its supervisor: output into the log, one GPU or none, as many threads as are given."""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from distributed import Nanny, Worker

from hpcxrf.errors import ConfigError, HpcxrfError

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables from which libraries take their number of threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker process does to itself before it takes part."""

    n_threads: int
    """Number of torch threads."""
    device: str
    """Device of its tasks, `cpu` or `cuda:0`."""
    log_path: Path
    """File that takes its output."""
    fault_file: Path | None = None
    """File for the reason when it cannot load what tasks need, after which it leaves; None: its start fails, or its
    first task."""


def make_worker(*, setup: WorkerSetup, **options: object) -> Worker:
    """Set this process up, then make its Worker; a failure here fails the start, visibly."""
    _redirect_output(setup.log_path)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if setup.fault_file is None and not _hides_every_gpu(setup):
        # Looked at before a task can come; to load torch takes a second.
        _set_up_torch(setup)
    worker = Worker(metrics=work_metrics(), **options)
    # In the thread of the tasks, which queue behind it, while the scheduler hears of this worker already.
    thread = worker.executors["default"]
    if setup.fault_file is None:
        # An error is logged here, and met again by the first task.
        thread.submit(_load, setup).add_done_callback(Future.result)
    else:
        thread.submit(_load_or_leave, worker, setup, setup.fault_file)
    return worker


def work_metrics() -> Mapping[str, Callable[[Worker], float]]:
    """What a worker adds to its heartbeats, by which the driver sees whether its task gets on."""
    return {"busy_s": _busy_s, "io_bytes": _io_bytes}


def make_nanny(
    scheduler_address: str, *, name: int, gpus: tuple[str, ...], setup: WorkerSetup, **options: object
) -> Nanny:
    """The supervisor of worker number `name`, whose process sees GPU number `name` or none."""
    return Nanny(
        scheduler_address,
        name=name,
        env={"CUDA_VISIBLE_DEVICES": gpus[name] if gpus else ""},
        worker_class=partial(make_worker, setup=setup),
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


def _busy_s(_worker: Worker) -> float:
    """CPU seconds of all threads but this one, which is that of the event loop."""
    return time.process_time() - time.thread_time()


def _io_bytes(_worker: Worker) -> float:
    """Bytes that this process has read and written, from a cache or a disk; connections do not count."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/self/io").read_text().splitlines())
    except OSError:
        return 0
    return int(fields["rchar"]) + int(fields["wchar"])


def _hides_every_gpu(setup: WorkerSetup) -> bool:
    return setup.device == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES") == ""


def _load_or_leave(worker: Worker, setup: WorkerSetup, fault_file: Path) -> None:
    """Load what every task needs; where that fails no task may begin here, so the worker and its supervisor end."""
    try:
        _load(setup)
    except Exception as error:  # noqa: BLE001 (whatever it is, this process cannot work)
        ours = isinstance(error, HpcxrfError)
        reason = str(error) if ours else f"{type(error).__name__}: {error}"
        content = {"fault": reason, "exit_code": getattr(error, "exit_code", 1), "is_final": ours}
        fault_file.write_text(json.dumps(content), encoding="utf-8")
        sys.stderr.write(f"error: {reason}\n")
        sys.stderr.flush()
        worker.loop.add_callback(worker.close, nanny=True, executor_wait=False, reason="cannot load what tasks need")
        # Until the process ends: what waits behind this call would begin when it returns.
        threading.Event().wait()


def _load(setup: WorkerSetup) -> None:
    """Import what every task needs, and set torch up in the thread of the tasks."""
    if setup.fault_file is not None or _hides_every_gpu(setup):
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
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("ROCR_VISIBLE_DEVICES"))
        raise ConfigError(
            f"torch sees {n_seen} GPUs (CUDA_VISIBLE_DEVICES={seen}), a worker must see {n_needed}; is this torch "
            "built for the node's GPU and driver?"
        )
