"""A Dask cluster on this machine: one process per GPU or per group of cores, TLS, loopback only.

It is `distributed.SpecCluster`, the base of LocalCluster, since LocalCluster gives every worker the same
environment (no GPU of its own) and its dashboard answers before anything can be closed.
"""

import asyncio
import logging
import multiprocessing.resource_tracker
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask
from dask.system import cpu_count
from distributed import Client, Nanny, Security, SpecCluster
from distributed.system import MEMORY_LIMIT

from hpcxrf.cluster.dashboard import (
    dashboard_url,
    guarded_scheduler,
    new_token,
    remove_dashboard_file,
    write_dashboard_file,
)
from hpcxrf.cluster.local.worker import THREAD_VARIABLES, WorkerSetup, make_nanny
from hpcxrf.cluster.security import temporary_security
from hpcxrf.errors import ConfigError, HpcxrfError, OutputError
from hpcxrf.store.scratch import remove_abandoned

MAX_CPU_WORKERS: Final = 16
"""Each worker holds some 0.3 GB of interpreter and libraries before it works."""
_CLOSE_TIMEOUT_S: Final = 20.0
LOOPBACK: Final = "127.0.0.1"
_GPU_FILES: Final = ("nvidia*", "nvhost*", "kfd", "dxg")
"""Files in /dev of the drivers of NVIDIA, Tegra, AMD, and of Windows beneath Linux."""
# Those with a dot have handlers of their own and tell their parents nothing.
_LOGGERS: Final = ("distributed", "distributed.client", "tornado", "tornado.application", "bokeh", "asyncio")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClusterHandle:
    """A running cluster; valid inside `local_cluster` only."""

    client: Client
    cluster: SpecCluster
    dashboard_url: str | None
    """With the secret in it: for the owner's terminal, never for a log."""
    n_workers: int
    threads_per_worker: int
    """Torch threads; every worker runs one task at a time."""
    device: str
    """What tasks compute on: `cpu`, or `cuda:0`, the only device that a worker sees."""
    log_path: Path


def default_layout(n_cores: int, n_gpus: int) -> tuple[int, int]:
    """Workers and torch threads per worker of this machine.

    With GPUs: one worker each, which share the cores. Without: one worker per core up to 16 cores, since
    separate processes scale better than threads on small matrices; above, at most 16 workers, each with
    an equal group of cores. workers x threads <= max(n_cores, n_gpus).

    Args:
        n_cores: >= 1.
        n_gpus: >= 0.

    Returns:
        (workers, threads per worker), both >= 1.

    Raises:
        ConfigError: If a number is out of range.
    """
    if n_cores < 1 or n_gpus < 0:
        raise ConfigError(f"{n_cores} cores and {n_gpus} GPUs: need >= 1 core and >= 0 GPUs")
    if n_gpus:
        return n_gpus, max(1, n_cores // n_gpus)
    n_threads = -(-n_cores // MAX_CPU_WORKERS)
    return n_cores // n_threads, n_threads


def usable_cores() -> int:
    """Cores that this process may use: CPU affinity and cgroup quota are respected."""
    return int(cpu_count())


def visible_gpus() -> tuple[str, ...]:
    """Names of the CUDA devices that this process sees, as CUDA_VISIBLE_DEVICES takes them."""
    if not any(next(Path("/dev").glob(pattern), None) for pattern in _GPU_FILES):
        # No driver of a GPU, which torch would take seconds to say.
        return ()
    import torch

    n_gpus = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(n_gpus)] if named is None else named.split(",")
    return tuple(name.strip() for name in names[:n_gpus])


@contextmanager
def local_cluster(
    n_workers: int,
    threads_per_worker: int,
    run_dir: Path,
    *,
    gpus: tuple[str, ...] = (),
    memory_limit_bytes: int | None = None,
    dashboard: bool = True,
) -> Iterator[LocalClusterHandle]:
    """Start workers, and stop all of them on the way out, whatever the way.

    Dask's own messages and the workers' output go to `run_dir/logs/dask.log`; configuration, environment
    and loggers of this process are as before afterwards. Ctrl-C reaches this process only; workers end
    with it, even when it is killed. Worker data stays in memory: nothing is spilled.

    Args:
        n_workers: >= 1; with `gpus` one for each.
        threads_per_worker: Torch threads of a worker, >= 1.
        run_dir: The run directory, 0700.
        gpus: Of `visible_gpus`; empty: the workers see no GPU.
        memory_limit_bytes: Of one worker; it pauses at 85 % and is restarted at 95 %. None: an equal
            part of the machine's.
        dashboard: Serve it on a free port of 127.0.0.1 below a secret path, named in
            `secrets/dashboard.json`. Without it the port serves nothing.

    Raises:
        ConfigError: If the layout is impossible.
        OutputError: If the log or the secrets cannot be written.
        HpcxrfError: If a worker does not start; the log says why.
    """
    _check_layout(n_workers, threads_per_worker, gpus)
    device = "cuda:0" if gpus else "cpu"
    token = new_token()
    with ExitStack() as stack:
        # Last, when all workers have ended: one that was killed left what it had in memory.
        stack.callback(remove_abandoned)
        log_path = stack.enter_context(logging_to(run_dir / "logs", token))
        stack.enter_context(process_environment(dict.fromkeys(THREAD_VARIABLES, str(threads_per_worker))))
        stack.enter_context(dask.config.set(dask_settings(dashboard=dashboard)))
        setup = WorkerSetup(n_threads=threads_per_worker, device=device, log_path=log_path)
        # On the local disk: Dask locks files in it, which network file systems do badly.
        folder = tempfile.TemporaryDirectory(prefix="hpcxrf-", ignore_cleanup_errors=True)
        scratch = stack.enter_context(folder)
        worker_options = {
            "gpus": gpus,
            "setup": setup,
            "local_directory": scratch,
            "memory_limit": memory_limit_bytes or MEMORY_LIMIT // n_workers,
        }
        cluster, client = _start(stack, n_workers, worker_options, {"token": token, "dashboard": dashboard}, log_path)
        port = cluster.scheduler.http_server.port
        if dashboard:
            stack.callback(remove_dashboard_file, run_dir)
            write_dashboard_file(run_dir, port=port, token=token)
        # Makes `wait` and `as_completed` find the client; a default set for the process would outlive it.
        stack.enter_context(client.as_current())
        yield LocalClusterHandle(
            client=client,
            cluster=cluster,
            dashboard_url=dashboard_url(port, token) if dashboard else None,
            n_workers=n_workers,
            threads_per_worker=threads_per_worker,
            device=device,
            log_path=log_path,
        )


def live_workers(client: Client) -> int:
    """Number of workers that take tasks: neither lost nor paused for lack of memory."""
    return sum(status == "running" for status in worker_status(client).values())


def worker_status(client: Client) -> Mapping[str, str]:
    """Status by address of every worker that the scheduler knows, `running` and `paused` above all."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {address: str(worker["status"]) for address, worker in workers.items()}


def restart_worker(client: Client, address: str, *, timeout_s: float = 60.0) -> None:
    """Kill one worker process and wait for its successor; the scheduler hands its tasks out again.

    Raises:
        HpcxrfError: If there is no such worker or no successor in time.
    """
    try:
        done = client.restart_workers([address], timeout=timeout_s, raise_for_error=False)
    except (KeyError, ValueError) as error:
        raise HpcxrfError(f"worker {address}: not known to the scheduler ({error})") from error
    if done[address] != "OK":
        raise HpcxrfError(f"worker {address}: restart ended as {done[address]} in {timeout_s:g} s")


def dask_settings(*, dashboard: bool) -> dict[str, Any]:
    """Dask configuration that the rules of execution need; for a context, never set at import."""
    settings: dict[str, Any] = {
        # Tasks count their own attempts: Dask would blame a killed worker's other tasks.
        "distributed.scheduler.allowed-failures": 10**9,
        "distributed.scheduler.worker-ttl": "120 s",
        # None waits on a worker behind another: what is free takes the next.
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.idle-timeout": None,
        "distributed.scheduler.no-workers-timeout": None,
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.worker.lifetime.duration": None,
        # A full spill disk pauses a worker for ever; results are files, so there is nothing to spill.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": 0.85,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.worker.http.routes": [],
        # The nanny's own 64 kB returns the arrays of a fit to the kernel as soon as they are freed, and has them
        # zeroed again in the next step: fits took twice the CPU seconds.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
        # With a threshold set, glibc no longer learns this one, and maps every array anew; 32 MB is its largest.
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
        # Logs for the developers of Dask hold whole messages, for each connection of the driver.
        "distributed.admin.low-level-log-length": 100,
        # What the dashboard shows of the machine: by itself twice a second, and an hour of it is held.
        "distributed.admin.system-monitor.interval": "2 s",
        "distributed.admin.system-monitor.log-length": 900,
        # 50 looks a second at every loop, for a warning when one is late by 3 s.
        "distributed.admin.tick.interval": "500 ms",
        # After this time without its process SpecCluster gives a worker up and never replaces it.
        "distributed.deploy.lost-worker-timeout": "1 hour",
    }
    return settings if dashboard else settings | {"distributed.scheduler.http.routes": []}


def _check_layout(n_workers: int, threads_per_worker: int, gpus: tuple[str, ...]) -> None:
    faults = []
    if n_workers < 1:
        faults.append(f"{n_workers} workers: must be >= 1")
    if threads_per_worker < 1:
        faults.append(f"{threads_per_worker} threads per worker: must be >= 1")
    if gpus and len(gpus) != n_workers:
        faults.append(f"{n_workers} workers for {len(gpus)} GPUs: must be one for each")
    if faults:
        raise ConfigError("local cluster: " + "; ".join(faults))


def _start(
    stack: ExitStack,
    n_workers: int,
    worker_options: Mapping[str, Any],
    scheduler_options: Mapping[str, Any],
    log_path: Path,
) -> tuple[SpecCluster, Client]:
    security = temporary_security()
    # Once it runs it leaves signal masks alone; started later it would undo the one below.
    multiprocessing.resource_tracker.ensure_running()
    try:
        with _interrupt_deferred():
            # Made without workers, so that its threads, and by them the workers, inherit a mask
            # without SIGINT: a terminal's Ctrl-C goes to the whole process group.
            cluster = _bare_cluster(security, worker_options, scheduler_options)
            stack.callback(_close, cluster, log_path)
    except (RuntimeError, OSError) as error:
        raise HpcxrfError(f"local cluster did not start ({error}); see {log_path}") from error
    cluster.scale(n_workers)
    faults = cluster.sync(_start_faults, cluster)
    if faults:
        raise HpcxrfError(f"local cluster: {'; '.join(faults)}; see {log_path}")
    client = Client(cluster, security=security, set_as_default=False)
    stack.callback(_close, client, log_path)
    return cluster, client


def _bare_cluster(
    security: Security, worker_options: Mapping[str, Any], scheduler_options: Mapping[str, Any]
) -> SpecCluster:
    common = {"host": LOOPBACK, "protocol": "tls://", "security": security}
    http = {"dashboard_address": f"{LOOPBACK}:0"}
    worker = {**common, **http, "dashboard": False, "nthreads": 1, **worker_options}
    scheduler = {**common, **http, "port": 0, **scheduler_options}
    return SpecCluster(
        workers={},
        worker={"cls": make_nanny, "options": worker},
        scheduler={"cls": guarded_scheduler, "options": scheduler},
        security=security,
        silence_logs=False,
    )


async def _start_faults(cluster: SpecCluster) -> list[str]:
    """Wait for all workers, then say which did not start and why."""

    async def started() -> list[object]:
        await cluster
        nannies: list[Nanny] = list(cluster.workers.values())
        return list(await asyncio.gather(*nannies, return_exceptions=True))

    # Ctrl-C cancels what is awaited here; a start that is cut in two can be neither used nor closed.
    results = await asyncio.shield(asyncio.ensure_future(started()))
    faults = [f"{type(r).__name__}: {r}" for r in results if isinstance(r, BaseException)]
    return sorted({f"a worker did not start ({fault})" for fault in faults})


def _close(closable: SpecCluster | Client, log_path: Path) -> None:
    with _interrupt_deferred():
        try:
            closable.close(timeout=_CLOSE_TIMEOUT_S)
        except TimeoutError:
            # Its processes end with this one; an error here would hide the one that brought us here.
            logging.getLogger("distributed").exception("%s did not close: %s", closable, log_path)


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; threads started inside never receive it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def process_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for processes to come; put back these, and what distributed sets by itself."""
    names = {*variables, "PYTHONHASHSEED", *dask.config.get("distributed.nanny.pre-spawn-environ")}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def logging_to(folder: Path, token: str) -> Iterator[Path]:
    """Dask's loggers write to `folder/dask.log` (0600) alone, and never the token."""
    log_path = folder / "dask.log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        handler = logging.FileHandler(log_path, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{log_path}: {error.strerror}; it must be writable") from error
    handler.addFilter(partial(_hide, token))
    handler.setFormatter(logging.Formatter(dask.config.get("distributed.admin.log-format")))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        yield log_path
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


def _hide(token: str, record: logging.LogRecord) -> bool:
    """A logging filter: tornado quotes the address of a page that fails."""
    record.msg, record.args = record.getMessage().replace(token, "SECRET"), ()
    return True
