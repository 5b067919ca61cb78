"""`python -m hpcxrf.cluster.job.worker_main --run RUN --name NAME`: one worker of a job, with its supervisor.

Everything else is in the files of `worker_terms`.
"""

import argparse
import asyncio
import json
import logging
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny, Security

from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.pinning import (
    CUDA,
    ROCM,
    device_variable,
    forget_devices,
    list_node_gpus,
    take_node_gpu,
    visible_devices,
)
from hpcxrf.cluster.job.worker_checks import find_faults
from hpcxrf.cluster.job.worker_terms import WorkerFacts, WorkerTerms, fault_file, read_terms, worker_facts, write_facts
from hpcxrf.cluster.local.cluster import LOOPBACK, dask_settings
from hpcxrf.cluster.local.worker import THREAD_VARIABLES, WorkerSetup, make_worker
from hpcxrf.errors import HpcxrfError
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.scratch import remove_abandoned


@dataclass(slots=True)
class Diary:
    """What a worker leaves of itself for the driver."""

    run: RunDir
    """Run directory."""
    facts: WorkerFacts
    """What it found."""
    last_death: str = ""
    """How its last process ended, in Dask's words."""

    def note(self, fault: str, *, exit_code: int = 1, is_final: bool = False) -> None:
        """Write down why it, or its last process, does not work."""
        self.facts = replace(self.facts, fault=fault, exit_code=exit_code, is_final=is_final)
        # The run directory may be what is at fault.
        with suppress(HpcxrfError):
            write_facts(self.run, self.facts)

    def note_deaths(self, record: logging.LogRecord) -> bool:
        """A filter of Dask's log that hears of processes that end: nothing else tells how."""
        text = record.getMessage()
        if text.startswith("Worker process") and ("was killed by" in text or "exited with" in text):
            self.last_death = text[0].lower() + text[1:]
            self.note(self.last_death)
        return True

    def found_fault(self) -> int:
        """The exit code of the fault that the worker's process has left; 0: none."""
        try:
            left = json.loads(fault_file(self.run, self.facts.name).read_bytes())
        except (OSError, ValueError):
            return 0
        self.note(left["fault"], exit_code=left["exit_code"], is_final=left["is_final"])
        return int(left["exit_code"])


def main(arguments: list[str] | None = None) -> int:
    """Work until the scheduler goes or a signal comes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpcxrf.cluster.job.worker_main")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--node-gpu", metavar="NUMBER/COUNT", help="GPU of a whole node; without: pinned by Slurm")
    # What dask-jobqueue writes beside these (address, threads, memory) stands in the terms of the run directory.
    given, _ = parser.parse_known_args(arguments)
    try:
        return _work(RunDir(path=given.run), given.name, given.node_gpu)
    except HpcxrfError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _work(run: RunDir, name: str, node_gpu: str | None) -> int:
    terms, tls_files = read_terms(run)
    # One sentence for one cause: where the node has no such device none is visible either.
    faults = _pin_node_gpu(node_gpu) or find_faults(terms, os.environ)
    diary = Diary(run, worker_facts(name, terms, visible_devices(os.environ), os.environ))
    write_facts(run, diary.facts)
    if faults:
        diary.note("; ".join(map(str, faults)), exit_code=faults[0].exit_code, is_final=True)
        sys.stderr.write(f"error: {name} on {diary.facts.node or diary.facts.host}: {diary.facts.fault}\n")
        return faults[0].exit_code
    _set_up_process(name, terms)
    scratch = None if terms.scratch is None else os.path.expandvars(terms.scratch)
    # On the node's own disk: Dask locks files in it, which network file systems do badly.
    with tempfile.TemporaryDirectory(prefix="hpcxrf-", dir=scratch, ignore_cleanup_errors=True) as folder:
        options = _options(run, name, terms, tls_files, folder)
        try:
            return asyncio.run(_serve(terms, options, diary)) or diary.found_fault()
        finally:
            # A process of this worker that was killed left what it had in memory.
            remove_abandoned()


def _pin_node_gpu(node_gpu: str | None) -> list[HpcxrfError]:
    """Leave one GPU of a whole node to this process; the fault where the node has no such one."""
    if node_gpu is None:
        return []
    number, count = map(int, node_gpu.split("/"))
    variable, gpus = device_variable(os.environ), list_node_gpus(count)
    forget_devices()
    os.environ[variable] = ""
    try:
        os.environ[variable] = take_node_gpu(number, count, gpus)
    except HpcxrfError as error:
        return [error]
    return []


def _set_up_process(name: str, terms: WorkerTerms) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The runner's WORKER_NAME, without loading what numerics need.
    os.environ["HPCXRF_WORKER"] = name
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(terms.threads)))
    if not terms.gpus or terms.pretend_gpus:
        os.environ[CUDA] = ""
    elif device_variable(os.environ) == ROCM:
        # The numbers of a second variable would be counted among the devices that the first has left.
        device = os.environ[ROCM]
        forget_devices()
        os.environ[ROCM] = device
    dask.config.set(dask_settings(dashboard=False))


def _options(run: RunDir, name: str, terms: WorkerTerms, tls_files: Mapping[str, str], folder: str) -> dict[str, Any]:
    setup = WorkerSetup(
        n_threads=terms.threads,
        device="cuda:0" if terms.gpus and not terms.pretend_gpus else "cpu",
        log_path=run.logs / f"{name}.log",
        fault_file=fault_file(run, name),
    )
    secure = {"security": Security(**tls_files, require_encryption=True)} if terms.tls else {}
    return {
        **address_options(terms.interface),
        **secure,
        "name": name,
        "protocol": "tls://" if terms.tls else "tcp://",
        "nthreads": 1,
        "memory_limit": terms.memory_bytes,
        "death_timeout": terms.worker_start_s,
        "local_directory": folder,
        "dashboard_address": f"{LOOPBACK}:0",
        "dashboard": False,
        "worker_class": partial(make_worker, setup=setup),
    }


async def _serve(terms: WorkerTerms, options: Mapping[str, Any], diary: Diary) -> int:
    logging.getLogger("distributed.nanny").addFilter(diary.note_deaths)
    nanny = Nanny(terms.scheduler, **options)
    serving = asyncio.ensure_future(_serve_until_finished(nanny))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        await nanny.close(timeout=2, reason="TERM")
        return 0
    except TimeoutError as error:
        diary.note(
            f"did not register with the scheduler at {terms.scheduler} within {terms.worker_start_s:g} s "
            f"({diary.last_death or error}); worker_start_s of the site profile allows more time"
        )
    except (OSError, RuntimeError) as error:
        diary.note(f"did not start with the scheduler at {terms.scheduler}: {diary.last_death or explain_root(error)}")
    else:
        return 0
    sys.stderr.write(f"error: {options['name']}: {diary.facts.fault}\n")
    await nanny.close(timeout=2, reason="did not start")
    return HpcxrfError.exit_code


async def _serve_until_finished(nanny: Nanny) -> None:
    await nanny
    await nanny.finished()


def explain_root(error: BaseException) -> str:
    """The error that began a chain, in one line, without the `RuntimeError: Nanny failed to start` around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
