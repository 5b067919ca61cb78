"""`python many_items.py FOLDER NUMBER`: a run of so many stub items on a local cluster, as `hpcxrf run` has it.

Scheduler and client are in this process, the worker is another one: the megabytes and CPU milliseconds that are
printed are the driver's own.
"""

import json
import sys
import time
from pathlib import Path

from stub_workload import STUB, StubItem

from hpcxrf.cluster.local.cluster import local_cluster
from hpcxrf.runner.driver import run_items
from hpcxrf.store.rundir import create_or_resume


def status_mb(key):
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def main():
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    run = create_or_resume(folder.absolute(), "{}", {})
    items = (
        StubItem(number=n, run_dir=run.path, dataset_id=f"scan-{n:08x}", parts=1, quiet=True) for n in range(number)
    )
    with local_cluster(1, 1, run.path) as handle:
        begun, cpu = time.perf_counter(), time.process_time()
        ended = run_items(STUB, items, run, handle.client, in_flight=8)
        cpu = time.process_time() - cpu
        wall = time.perf_counter() - begun
        held = status_mb("VmRSS")
    found = {"done": ended.done, "held_mb": held, "peak_mb": status_mb("VmHWM")}
    sys.stdout.write(json.dumps(found | {"cpu_ms": 1e3 * cpu / number, "wall_s": wall}) + "\n")


if __name__ == "__main__":
    main()
