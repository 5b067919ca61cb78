"""A small scan in one task: every stage in a folder in memory, and what is left of it moved into the run at its end.

A scan of 8 x 8 pixels has some 400 files and folders while tasks hand it on, and two stores when it is done. On the
disk of a run those cost more than reading the scan, and on a shared file system each of them is a message.
"""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcxrf.methods import METHODS
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.records import TaskRecord, Unit
from hpcxrf.runner.worker import choose_device
from hpcxrf.store.files import output_faults, sync_folder
from hpcxrf.store.packed import has_store, packed_file
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.scratch import scratch_folder

MOST_BYTES: Final = 16 << 20
"""Counts of a scan that is small: of 2048 channels and one detector 64 x 64 pixels."""
_COUNT_BYTES: Final = 2
_COPIES: Final = 4
_BESIDE_BYTES: Final = 16 << 20
"""Memory of the stores of a scan: some times its counts, and what small files and a page take beside them."""
_MOST_S: Final = 5.0
"""Seconds of its pixels; those of a slower method are worth tasks of their own."""


def may_join(job: DatasetJob) -> bool:
    """Whether a scan may be one task: a small one of an archive, which needs nothing of other scans of the run.

    Args:
        job: the scan.
    """
    config = job.config
    pixels = math.prod(job.shape[1:3]) * len(job.detectors)
    return (
        config.execution.join_tasks == "auto"
        and job.pack
        and job.donor is None
        and not job.after
        and not config.quantify.wanted
        and config.fit.posterior != "hmc"
        and config.execution.device != "cuda"
        and math.prod(job.shape) * _COUNT_BYTES <= MOST_BYTES
        and pixels * job.shape[3] / METHODS[config.pixels.method].cpu_rate <= _MOST_S
    )


def is_joined(job: DatasetJob) -> bool:
    """Whether a scan is one task: its plan may have given it a donor since it was opened."""
    return job.join and may_join(job)


def scratch_bytes(job: DatasetJob) -> int:
    """Bytes in memory of the stores of a scan that is one task."""
    return _COPIES * math.prod(job.shape) * _COUNT_BYTES + _BESIDE_BYTES


def run_joined(job: DatasetJob, units: Sequence[Unit]) -> list[TaskRecord] | None:
    """Do all tasks of a scan on a worker, in the order of its units.

    Args:
        job: the scan.
        units: all of it.

    Returns:
        A record of each; None: they are to be done one by one, since this worker has a GPU, or the run has something of
        the scan already, which its tasks compare with it.

    Raises:
        OutputError: the run directory cannot be written.
        OSError: there is no room for the scan in the memory or the temporary folder of this machine.
    """
    # What a driver has no need of is loaded by `run_unit` as well.
    from hpcxrf.pipeline.workload import run_unit

    run = RunDir(path=job.run_dir)
    stores = (run.spectra_store(job.dataset_id), run.results_store(job.dataset_id))
    if choose_device(job.config).type != "cpu" or any(map(has_store, stores)):
        return None
    with scratch_folder(bytes_needed=scratch_bytes(job)) as folder:
        inside = RunDir(path=folder)
        for name in ("state", "spectra", "results"):
            (folder / name).mkdir()
        shutil.copyfile(run.run_file, inside.run_file)
        done: dict[str, TaskRecord] = {}
        for unit in units:
            done[unit.task] = run_unit(replace(job, run_dir=folder), unit, [done[name] for name in unit.needs])
        _move(inside, run, job.dataset_id)
    return list(done.values())


def _move(inside: RunDir, run: RunDir, dataset_id: str) -> None:
    """Move what is left of a finished scan into the run, on the disk before anything names it."""
    for store in ("spectra_store", "results_store"):
        made, wanted = (getattr(one, store)(dataset_id) for one in (inside, run))
        _move_file(packed_file(made), packed_file(wanted))
    for file in ("page_file", "regions_table"):
        made, wanted = (getattr(one, file)(dataset_id) for one in (inside, run))
        if made.is_file():
            wanted.parent.mkdir(exist_ok=True)
            _move_file(made, wanted)


def _move_file(made: Path, wanted: Path) -> None:
    partial = wanted.with_name(f".{wanted.name}.{os.getpid()}.partial")
    with output_faults(wanted.parent, bytes_needed=made.stat().st_size):
        try:
            with made.open("rb") as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())
            partial.replace(wanted)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(wanted.parent)
