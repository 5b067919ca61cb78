"""Preloaded by Dask in the workers of a drill: makes pixel tasks slow, and those of chosen scans go wrong.

`DRILL_FAULTS` is a JSON object: `slow_s`, and `abort`, `raise`, `hang`, `spin`, `full`: lists of names of scans;
`once`: only at the first attempt, remembered by files in that folder; `count`: folder of a file for every execution.
"""

import errno
import json
import os
import time
import uuid
from pathlib import Path

from hpcxrf.runner import executing

FAULTS = json.loads(os.environ.get("DRILL_FAULTS", "{}"))


def dask_setup(worker):
    del worker
    once = executing.run_once

    def faulty(work, job, unit, after):
        # What was finished under this driver is not run again, whatever Dask asks for.
        if unit.stage == "pixels" and executing.read_kept_record(job, unit.task) is None:
            _disturb(job, unit)
        return once(work, job, unit, after)

    executing.run_once = faulty


def _disturb(job, unit):
    if "count" in FAULTS:
        name = f"{job.source.stem}-{unit.work.first}.{uuid.uuid4().hex}"
        Path(FAULTS["count"], name).touch()
    time.sleep(FAULTS.get("slow_s", 0.0))
    for kind, name in ((k, n) for k in ("abort", "raise", "hang", "spin", "full") for n in FAULTS.get(k, ())):
        if job.source.stem == name and not _had_already(name):
            # Inside of the attempt that the task itself would make.
            from hpcxrf.runner.worker import attempt

            with attempt(job, unit.task):
                _go_wrong(kind)


def _had_already(name):
    if "once" not in FAULTS:
        return False
    try:
        Path(FAULTS["once"], name).touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def _go_wrong(kind):
    if kind == "abort":
        os.abort()
    if kind == "raise":
        raise ValueError("this scan is cursed")
    if kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == "spin":
        # Works for long, on a machine that has much else to do.
        end = time.monotonic() + 100.0
        while time.monotonic() < end:
            sum(range(100_000))
        return
    time.sleep(3600)
