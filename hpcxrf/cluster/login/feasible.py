"""What speaks against a plan, before a node is asked for: both numbers in every sentence."""

import os
from pathlib import Path
from typing import Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.login.limits import partition_faults
from hpcxrf.cluster.login.probe import Probe, hours
from hpcxrf.cluster.login.sbatch import job_request, job_size
from hpcxrf.config.run import RunConfig
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError, SlurmError
from hpcxrf.pipeline.device_memory import device_fault, largest_device_memory
from hpcxrf.pipeline.memory import memory_fault
from hpcxrf.pipeline.plan import Plan, memory_by_stage
from hpcxrf.pipeline.plan_size import Workload
from hpcxrf.store.files import free_bytes

# Counts that are mostly zero compress to a tenth at best.
_BEST_COMPRESSION: Final = 10


def output_faults_of(folder: Path, work: Workload) -> tuple[list[str], list[str]]:
    """What speaks against writing there, and what is doubtful."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        return [f"output {folder}: {existing} is no folder"], []
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"output {folder}: {existing} is not writable by you"], []
    free, most = free_bytes(folder), work.bytes_written
    least = most // _BEST_COMPRESSION
    if least > free:
        return [f"output {folder}: needs at least {size_text(least)}, {size_text(free)} are free"], []
    if most > free:
        return [], [f"output {folder}: may need up to {size_text(most)}, {size_text(free)} are free"]
    return [], []


def site_faults(site: SiteProfile, config: RunConfig) -> tuple[list[str], list[str]]:
    """What the profile and, where Slurm answers, the partition cannot give; and what could not be asked."""
    gpus = config.execution.device != "cpu"
    try:
        size = job_size(site, workers=config.execution.workers, nodes=None)
        request = job_request(site, size, mode="allocation", gpus=gpus)
    except ConfigError as error:
        return [str(error)], []
    if config.execution.device == "cuda" and not site.gpus_per_node:
        return [f"execution.device is cuda, site {site.name} has gpus_per_node 0"], []
    try:
        return partition_faults(site, request, size, slurm.partitions()), []
    except SlurmError as error:
        return [], [f"limits of the partition are not checked: {error}"]


def hours_faults(work: Workload, probe: Probe | None, most_gpu_hours: float | None) -> list[str]:
    """What a limit of GPU-hours says; without a measurement on a GPU a limit cannot be kept."""
    if most_gpu_hours is None:
        return []
    if probe is None or not probe.on_gpu:
        return [
            f"--max-gpu-hours {most_gpu_hours:g}: nothing of this kind was measured on a GPU; run "
            "`hpcxrf plan RUNFILE --probe` on a node that has one"
        ]
    needed = hours(work, probe)
    if needed > most_gpu_hours:
        return [
            f"about {needed:.2g} GPU-hours by the measurement of {probe.date}, --max-gpu-hours is {most_gpu_hours:g}"
        ]
    return []


def memory_faults(plan: Plan, site: SiteProfile) -> list[str]:
    """What says that a worker of the profile, or its GPU, has too little memory for a dataset."""
    fault = memory_fault(memory_by_stage(plan), site.memory_per_worker_mb * 10**6) if plan.jobs else None
    found = [] if fault is None else [f"site {site.name}, memory_per_worker_mb: {fault}"]
    return found + _device_faults(plan, site)


def _device_faults(plan: Plan, site: SiteProfile) -> list[str]:
    needed = largest_device_memory(plan.jobs)
    if needed is None or not site.gpus_per_node or site.gpu_memory_mb is None:
        return []
    fault = device_fault(needed, site.gpu_memory_mb * 10**6)
    return [] if fault is None else [f"site {site.name}, gpu_memory_mb: {fault}"]


def size_text(number: int) -> str:
    """`12 MB`, `3.4 GB`; decimal."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"
