"""`python -m hpcxrf.cluster.job.worker_main --run RUN --name NAME`: one worker of a job, with its supervisor.

Everything else it is told by the files of `worker_terms`. Further arguments, which dask-jobqueue gives to whatever
it starts, say the same and are not read.
"""

import argparse
import asyncio
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny, Security

from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.worker_terms import WorkerTerms, read_terms, worker_facts, write_facts
from hpcxrf.cluster.local.cluster import LOOPBACK, dask_settings
from hpcxrf.cluster.local.worker import THREAD_VARIABLES, WorkerSetup, prepared_worker
from hpcxrf.errors import HpcxrfError
from hpcxrf.store.rundir import RunDir


def main(arguments: list[str] | None = None) -> int:
    """Work until the scheduler goes or a signal comes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpcxrf.cluster.job.worker_main")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True)
    given, _ = parser.parse_known_args(arguments)
    try:
        return _work(RunDir(path=given.run), given.name)
    except HpcxrfError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _work(run: RunDir, name: str) -> int:
    terms, tls_files = read_terms(run)
    facts = worker_facts(name, terms)
    write_facts(run, facts)
    if facts.fault is not None:
        raise HpcxrfError(f"{name} on {facts.node or facts.host}: {facts.fault}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The pipeline's WORKER_NAME, without loading what numerics need.
    os.environ["HPCXRF_WORKER"] = name
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(terms.threads)))
    if not terms.gpus or terms.pretend_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    dask.config.set(dask_settings(dashboard=False))
    scratch = None if terms.scratch is None else os.path.expandvars(terms.scratch)
    # On the node's own disk: Dask locks files in it, which network file systems do badly.
    with tempfile.TemporaryDirectory(prefix="hpcxrf-", dir=scratch, ignore_cleanup_errors=True) as folder:
        options = _options(run, name, terms, tls_files, folder)
        return asyncio.run(_serve(terms, options))


def _options(run: RunDir, name: str, terms: WorkerTerms, tls_files: Mapping[str, str], folder: str) -> dict[str, Any]:
    device = "cuda:0" if terms.gpus and not terms.pretend_gpus else "cpu"
    log_path = run.logs / f"{name}.log"
    setup = WorkerSetup(n_threads=terms.threads, device=device, log_path=log_path)
    secure = {"security": Security(**tls_files, require_encryption=True)} if terms.tls else {}
    return {
        **address_options(terms.interface),
        **secure,
        "name": name,
        "protocol": "tls://" if terms.tls else "tcp://",
        "nthreads": 1,
        "memory_limit": terms.memory_bytes,
        "death_timeout": terms.death_timeout_s,
        "local_directory": folder,
        "dashboard_address": f"{LOOPBACK}:0",
        "dashboard": False,
        "worker_class": partial(prepared_worker, setup=setup),
    }


async def _serve(terms: WorkerTerms, options: Mapping[str, Any]) -> int:
    nanny = Nanny(terms.scheduler, **options)
    serving = asyncio.ensure_future(_until_finished(nanny))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        await nanny.close(timeout=2, reason="told to end")
    except (TimeoutError, OSError, RuntimeError) as error:
        sys.stderr.write(
            f"error: {options['name']}: did not start with the scheduler at {terms.scheduler} within "
            f"{terms.death_timeout_s:g} s: {type(error).__name__}: {error}; gives up\n"
        )
        await nanny.close(timeout=2, reason="did not start")
        return HpcxrfError.exit_code
    return 0


async def _until_finished(nanny: Nanny) -> None:
    await nanny
    await nanny.finished()


if __name__ == "__main__":
    sys.exit(main())
