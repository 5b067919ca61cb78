"""Jobs in which a stand-in does the work: their site profile, and what they are waited for with."""

import sys
import time
from pathlib import Path

import yaml

# In the place of Python in the job: says how it was called, then does what the test wants.
STAND_IN = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from hpcxrf.cluster.job_files import append_event
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import RunDir

run, job_id = RunDir(path=Path(sys.argv[-1])), os.environ["SLURM_JOB_ID"]
append_event(run, "started", job_id=job_id, host="here", pid=os.getpid())
print("called with", json.dumps(sys.argv[1:]), "in", os.getcwd(), oct(os.umask(0o77)), flush=True)
def leave(number, frame):
    append_event(run, "ended", job_id=job_id, exit_code=75, reason=signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, leave)
while not (Path({folder!r}) / "go").exists():
    time.sleep(0.02)
{body}
"""
GOOD = """
run.append("scan-00000000", {"task": "finalise", "event": "finished", "checksums": {}})
append_event(run, "ended", job_id=job_id, exit_code=0)
"""
BAD = """
print("and so it broke", flush=True)
run.append("scan-00000000", {"task": "ingest", "event": "failed", "reason": "is cut short", "traceback": "line 1"})
append_event(run, "ended", job_id=job_id, exit_code=6)
sys.exit(6)
"""


def site(folder: Path, body: str, **fields) -> None:
    """The profile `lab`, in whose jobs the stand-in is the interpreter."""
    stand_in = folder / "python"
    path = [p for p in sys.path if p]
    stand_in.write_text(STAND_IN.format(python=sys.executable, path=path, folder=str(folder), body=body))
    stand_in.chmod(0o700)
    usual = {
        "partition": "main",
        "cores_per_node": 8,
        "gpus_per_node": 4,
        "workers_per_node": 2,
        "memory_per_worker_mb": 1000,
        "driver_memory_mb": 200,
        "time_limit_h": 0.2,
        "drain_s": 30,
        "python": str(stand_in),
        "login_host": "login.lab.org",
    }
    (folder / "sites" / "lab.yaml").write_text(yaml.safe_dump({**usual, **fields}))


def until(hpcxrf, run, verdict: str, patience_s: float = 20.0):
    deadline = time.monotonic() + patience_s
    while (status := hpcxrf("status", run, "--json").json)["verdict"] != verdict:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def submitted(hpcxrf, *more, run="out") -> str:
    ran = hpcxrf("submit", "run.yaml", "--site", "lab", "-o", run, *more, "--json")
    assert ran.code == 0, ran.err
    return ran.json["job_id"]


def queue(cluster) -> list[str]:
    return cluster.run("squeue", "-h", "-o", "%A").split()


def until_queue(cluster, left: set[str], patience_s: float = 20.0) -> None:
    """Wait until the queue holds these jobs and no other: a job that has said its last word takes a while to leave."""
    deadline = time.monotonic() + patience_s
    while set(queue(cluster)) != left:
        assert time.monotonic() < deadline, queue(cluster)
        time.sleep(0.05)
