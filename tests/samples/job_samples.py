"""What tests of a job are made of: a request, the terms of its workers, a worker process."""

import os
import socket
import subprocess
import sys
import time

from hpcxrf.cluster.job.worker_terms import WorkerTerms
from hpcxrf.cluster.job_files import JobRequest, RunProgress, StageProgress

REQUEST = JobRequest(
    site="test",
    mode="allocation",
    workers=2,
    threads_per_worker=1,
    gpus_per_worker=0,
    memory_per_worker_mb=900,
    interface="lo",
    scratch=None,
    setup=("module load x",),
    worker_options=("--partition=main", "--time=00:10:00"),
    time_limit_s=600,
    drain_s=30,
    requeue=True,
    dashboard=True,
    insecure=False,
)
TERMS = WorkerTerms(
    scheduler="tls://127.0.0.1:1",
    driver_host=socket.gethostname(),
    threads=1,
    gpus=0,
    pretend_gpus=False,
    memory_bytes=900 * 2**20,
    interface="lo",
    scratch=None,
    worker_start_s=2.0,
    tls=True,
)


def worker(run, *more, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "hpcxrf.cluster.job.worker_main", "--run", str(run.path), "--name", "w-0", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | environment,
    )


def known(*names):
    return {name: f"tls://{name}" for name in names}


def wait_until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def make_progress(**fields) -> RunProgress:
    """The account of a driver at work."""
    usual = {
        "host": "n1",
        "pid": 1,
        "job_id": "7",
        "state": "running",
        "uptime_s": 65.0,
        "datasets": 10,
        "datasets_done": 4,
        "datasets_failed": 1,
        "datasets_running": 2,
        "stages": {"ingest": StageProgress(total=10, done=5, failed=1, pixels=0)},
        "workers": 3,
        "workers_wanted": 4,
        "seconds_since_progress": 1.0,
        "tasks_per_s": 0.5,
        "eta_s": 120.0,
        "alarms": ("worker 2 is paused",),
    }
    return RunProgress(**{**usual, **fields})
