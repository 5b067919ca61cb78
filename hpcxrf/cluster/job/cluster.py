"""The cluster of a job: the scheduler in the driver's process, the workers wherever Slurm puts them."""

import asyncio
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import dask
from distributed import Client, Scheduler, Security, SpecCluster

from hpcxrf.cluster import slurm
from hpcxrf.cluster.dashboard import guarded_scheduler, new_token, remove_dashboard_file, write_dashboard_file
from hpcxrf.cluster.job.elastic import WorkerJobs, elastic_cluster, job_has_ended, jobqueue_settings
from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.steps import Steps, allocation_steps
from hpcxrf.cluster.job.worker_terms import (
    PRETEND_GPUS,
    WorkerTerms,
    forget_facts,
    read_facts,
    remove_terms,
    write_terms,
)
from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.local.cluster import LOOPBACK, dask_settings, logging_to
from hpcxrf.cluster.security import temporary_security
from hpcxrf.errors import HpcxrfError, SlurmError
from hpcxrf.store.rundir import RunDir

DEATH_TIMEOUT_S: Final = 60.0
_CLOSE_TIMEOUT_S: Final = 5.0
_END_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSight:
    """What the scheduler knows of a worker."""

    address: str
    name: str
    status: str
    at_work: frozenset[str]
    """Keys of its tasks; of the last heartbeat, half a second ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCluster:
    """A scheduler, and what keeps its workers alive; valid inside `job_cluster` only."""

    cluster: SpecCluster
    client: Client
    watch_workers: Callable[[Collection[str]], None]
    """Starts workers and replaces lost ones; given the names that the scheduler knows, about twice a second."""
    nobody_left: Callable[[], bool]
    """Whether every worker was given up."""

    def sight(self) -> list[WorkerSight]:
        """All workers that the scheduler knows now."""
        found: list[WorkerSight] = self.cluster.sync(_sight, self.cluster.scheduler)
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
        job_id: of the job that this process is part of.
        alarm: told of lost workers, and of what is unsafe.

    Raises:
        HpcxrfError: the scheduler does not start; `logs/dask.log` says why.
        OutputError: the run directory cannot be written.
    """
    token = new_token()
    security = None if request.insecure else temporary_security()
    if request.insecure:
        alarm("insecure: whoever reaches the scheduler's port can run code as the owner of this run")
    remove_terms(run)
    forget_facts(run)
    with ExitStack() as stack:
        log_path = stack.enter_context(logging_to(run.logs, token))
        settings = dask_settings(dashboard=request.dashboard) | jobqueue_settings()
        stack.enter_context(dask.config.set(settings))
        stack.callback(remove_terms, run)
        scheduler = _scheduler_options(request, security, token)
        steps = _steps(run, request, job_id, alarm)
        if steps is not None:
            # Called after the scheduler has gone, with which workers end by themselves.
            stack.callback(steps.end)
        try:
            cluster = _cluster(run, request, security, scheduler)
            stack.callback(cluster.close, timeout=_CLOSE_TIMEOUT_S)
            stack.callback(_end_workers, cluster)
        except (RuntimeError, OSError, ValueError) as error:
            raise HpcxrfError(f"the scheduler did not start ({error}); see {log_path}") from error
        write_terms(run, _terms(request, cluster.scheduler_address, alarm), security)
        if request.dashboard:
            stack.callback(remove_dashboard_file, run.path)
            write_dashboard_file(run.path, port=cluster.scheduler.http_server.port, token=token)
        client = stack.enter_context(_client(cluster, security))
        workers = steps or WorkerJobs(cluster, request.workers, alarm, job_has_ended)
        yield JobCluster(
            cluster=cluster, client=client, watch_workers=workers.watch, nobody_left=lambda: workers.all_given_up
        )


def _steps(run: RunDir, request: JobRequest, job_id: str, alarm: Callable[[str], None]) -> Steps | None:
    if request.mode == "elastic":
        return None
    return allocation_steps(run, request, job_id, os.environ, alarm, lambda name: _forgive_lost_node(run, name, alarm))


def _forgive_lost_node(run: RunDir, name: str, alarm: Callable[[str], None]) -> None:
    """Of what a worker was at when its node was lost no task is to blame."""
    from hpcxrf.runner.worker import forget_attempts_of

    facts = read_facts(run).get(name)
    if facts is None or facts.node is None:
        return
    try:
        lost = slurm.node_is_lost(facts.node)
    except SlurmError as error:
        alarm(f"{name}: whether its node was lost is not known ({error})")
        return
    if lost:
        alarm(f"{name}: its node {facts.node} is lost")
        forget_attempts_of(run.path, name)


def _scheduler_options(request: JobRequest, security: Security | None, token: str) -> dict[str, Any]:
    return {
        **address_options(request.interface),
        "port": 0,
        "protocol": "tcp://" if security is None else "tls://",
        "security": security,
        "dashboard_address": f"{LOOPBACK}:0",
        "dashboard": request.dashboard,
        "token": token,
    }


def _cluster(run: RunDir, request: JobRequest, security: Security | None, scheduler: dict[str, Any]) -> SpecCluster:
    if request.mode == "elastic":
        return elastic_cluster(run, request, security, scheduler)
    return SpecCluster(
        workers={},
        scheduler={"cls": guarded_scheduler, "options": scheduler},
        security=security,
        silence_logs=False,
        name=f"hpcxrf-{secrets.token_hex(4)}",
    )


@contextmanager
def _client(cluster: SpecCluster, security: Security | None) -> Iterator[Client]:
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
        alarm(f"{PRETEND_GPUS}=1: workers compute on the CPU, whatever GPU they are given")
    return WorkerTerms(
        scheduler=address,
        threads=request.threads_per_worker,
        gpus=request.gpus_per_worker,
        pretend_gpus=pretend,
        memory_bytes=request.memory_per_worker_mb * 2**20,
        interface=request.interface,
        scratch=request.scratch,
        death_timeout_s=DEATH_TIMEOUT_S,
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


async def _sight(scheduler: Scheduler) -> list[WorkerSight]:
    return [
        WorkerSight(
            address=worker.address,
            name=str(worker.name),
            status=worker.status.name,
            at_work=frozenset(task.key for task in worker.executing),
        )
        for worker in scheduler.workers.values()
    ]


async def _restart(scheduler: Scheduler, address: str) -> None:
    await scheduler.restart_workers(
        [address], timeout=30, wait_for_workers=False, on_error="return", stimulus_id="time-limit"
    )
