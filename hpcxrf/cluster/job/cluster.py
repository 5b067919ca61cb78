"""The cluster of a job: the scheduler in the driver's process, the workers wherever Slurm puts them."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import dask
from distributed import Client, Scheduler, Security, SpecCluster

from hpcxrf.cluster import slurm
from hpcxrf.cluster.dashboard import guarded_scheduler, new_token, write_dashboard_file
from hpcxrf.cluster.job.elastic import WorkerJobs, worker_jobs
from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.steps import StepWorkers, allocation_steps
from hpcxrf.cluster.job.worker_terms import (
    PRETEND_GPUS,
    WorkerTerms,
    forget_facts,
    read_facts_of,
    remove_secrets,
    write_terms,
)
from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.local.cluster import LOOPBACK, dask_settings, logging_to
from hpcxrf.cluster.security import temporary_security
from hpcxrf.errors import HpcxrfError, SlurmError
from hpcxrf.store.rundir import RunDir

_CLOSE_TIMEOUT_S: Final = 5.0
_END_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSight:
    """What the scheduler knows of a worker; of its last heartbeat, half a second ago or more."""

    address: str
    """Address of its process."""
    name: str
    """Name with which it registered."""
    status: str
    """Status in Dask's words, `running` and `paused` above all."""
    at_work: frozenset[str] = frozenset()
    """Keys of the tasks that it executes."""
    silent_s: float = 0.0
    """Seconds since its last heartbeat."""
    busy_s: float = 0.0
    """CPU seconds that its process spent on anything but talking."""
    io_bytes: int = 0
    """Number of bytes that its process read and wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCluster:
    """A scheduler, and what keeps its workers alive; valid inside `job_cluster` only."""

    cluster: SpecCluster
    """Scheduler in this process."""
    client: Client
    """Client of the scheduler."""
    supervise_workers: Callable[[Mapping[str, str]], None]
    """Starts workers and replaces lost ones; called with address by name of those that the scheduler knows, about
    twice a second."""
    end_error: Callable[[], HpcxrfError | None]
    """The error with which the run ends when every worker was given up; None: somebody is left."""

    def list_workers(self) -> list[WorkerSight]:
        """All workers that the scheduler knows now."""
        found: list[WorkerSight] = self.cluster.sync(_list_workers, self.cluster.scheduler)
        return found

    def restart(self, address: str) -> None:
        """Kill a worker's process; its supervisor starts another, and its tasks are handed out again."""
        self.cluster.sync(_restart, self.cluster.scheduler, address)


@contextmanager
def job_cluster(run: RunDir, request: JobRequest, job_id: str, alarm: Callable[[str], None]) -> Iterator[JobCluster]:
    """Start the scheduler, and let workers be started.

    Credentials are fresh, what an earlier driver left is removed first, and all of it at the end.

    Args:
        run: the run directory, whose lock is held.
        request: how the job uses its nodes.
        job_id: job that this process is part of.
        alarm: called with a sentence about lost workers, and about what is unsafe.

    Raises:
        ConfigError: other nodes cannot reach the address of this host.
        HpcxrfError: the scheduler does not start; `logs/dask.log` says why.
        OutputError: the run directory cannot be written.
    """
    token = new_token()
    security = None if request.insecure else temporary_security()
    if request.insecure:
        alarm("insecure: whoever reaches the scheduler's port can run code as the owner of this run")
    scheduler = _scheduler_options(request, security, token)
    remove_secrets(run)
    forget_facts(run)
    with ExitStack() as stack:
        log_path = stack.enter_context(logging_to(run.logs, token))
        stack.enter_context(dask.config.set(dask_settings(dashboard=request.dashboard)))
        stack.callback(remove_secrets, run)
        workers = _workers(run, request, job_id, alarm)
        # Called after the scheduler has gone, with which workers end by themselves.
        stack.callback(workers.end)
        try:
            cluster = _start_scheduler(security, scheduler)
            stack.callback(cluster.close, timeout=_CLOSE_TIMEOUT_S)
            stack.callback(_end_workers, cluster)
        except (RuntimeError, OSError, ValueError) as error:
            raise HpcxrfError(f"the scheduler did not start ({error}); see {log_path}") from error
        write_terms(run, _terms(request, cluster.scheduler_address, alarm), security)
        if request.dashboard:
            write_dashboard_file(run.path, port=cluster.scheduler.http_server.port, token=token)
        client = stack.enter_context(_open_client(cluster, security))
        yield JobCluster(
            cluster=cluster, client=client, supervise_workers=workers.supervise, end_error=workers.end_error
        )


def _workers(run: RunDir, request: JobRequest, job_id: str, alarm: Callable[[str], None]) -> StepWorkers | WorkerJobs:
    if request.mode == "elastic":
        return worker_jobs(run, request, alarm, lambda name: _forgive(run, name))
    return allocation_steps(run, request, job_id, os.environ, alarm, lambda name: _forgive_lost_node(run, name, alarm))


def _forgive(run: RunDir, name: str) -> None:
    """Blame no task for the end of the worker that it was running on."""
    from hpcxrf.runner.worker import forget_attempts_of

    forget_attempts_of(run.path, name)


def _forgive_lost_node(run: RunDir, name: str, alarm: Callable[[str], None]) -> None:
    facts = read_facts_of(run, name)
    if facts is None or facts.node is None:
        return
    try:
        lost = slurm.node_is_lost(facts.node)
    except SlurmError as error:
        alarm(f"{name}: whether its node was lost is not known ({error})")
        return
    if lost:
        alarm(f"{name}: its node {facts.node} is lost")
        _forgive(run, name)


def _scheduler_options(request: JobRequest, security: Security | None, token: str) -> dict[str, Any]:
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    return {
        **address_options(request.interface, several_nodes=request.mode == "elastic" or nodes > 1),
        "port": 0,
        "protocol": "tcp://" if security is None else "tls://",
        "security": security,
        "dashboard_address": f"{LOOPBACK}:0",
        "dashboard": request.dashboard,
        "token": token,
    }


def _start_scheduler(security: Security | None, scheduler: dict[str, Any]) -> SpecCluster:
    return SpecCluster(
        workers={},
        scheduler={"cls": guarded_scheduler, "options": scheduler},
        security=security,
        silence_logs=False,
        name=f"hpcxrf-{secrets.token_hex(4)}",
    )


@contextmanager
def _open_client(cluster: SpecCluster, security: Security | None) -> Iterator[Client]:
    client = Client(cluster, security=security, set_as_default=False)
    try:
        # Makes `as_completed` find the client; a default set for the process would outlive it.
        with client.as_current():
            yield client
    finally:
        client.close(timeout=_CLOSE_TIMEOUT_S)


def _terms(request: JobRequest, address: str, alarm: Callable[[str], None]) -> WorkerTerms:
    pretend = os.environ.get(PRETEND_GPUS) == "1" and request.gpus_per_worker > 0
    if pretend:
        alarm(f"{PRETEND_GPUS}=1: workers compute on the CPU, even where Slurm gives them a GPU")
    return WorkerTerms(
        scheduler=address,
        driver_host=socket.gethostname(),
        threads=request.threads_per_worker,
        gpus=request.gpus_per_worker,
        pretend_gpus=pretend,
        memory_bytes=request.memory_per_worker_mb * 2**20,
        interface=request.interface,
        scratch=request.scratch,
        worker_start_s=request.worker_start_s,
        tls=not request.insecure,
    )


def _end_workers(cluster: SpecCluster) -> None:
    """Have the supervisors end their workers; one that is left to end with the scheduler waits for 2 s first."""
    # Whoever does not go is ended by its step or its job.
    with suppress(TimeoutError, OSError):
        cluster.sync(asyncio.wait_for, _terminate(cluster.scheduler), _END_TIMEOUT_S)


async def _terminate(scheduler: Scheduler) -> None:
    # No answer is waited for: a supervisor that ends gives none.
    message = {"op": "terminate", "reply": False, "timeout": _END_TIMEOUT_S / 2, "reason": "the driver ends"}
    await scheduler.broadcast(msg=message, nanny=True, on_error="return")
    while scheduler.workers:
        await asyncio.sleep(0.01)


async def _list_workers(scheduler: Scheduler) -> list[WorkerSight]:
    now = time.time()
    return [
        WorkerSight(
            address=worker.address,
            name=str(worker.name),
            status=worker.status.name,
            at_work=frozenset(task.key for task in worker.executing),
            silent_s=now - worker.last_seen,
            busy_s=worker.metrics.get("busy_s", 0.0),
            io_bytes=worker.metrics.get("io_bytes", 0),
        )
        for worker in scheduler.workers.values()
    ]


async def _restart(scheduler: Scheduler, address: str) -> None:
    await scheduler.restart_workers(
        [address], timeout=30, wait_for_workers=False, on_error="return", stimulus_id="time-limit"
    )
