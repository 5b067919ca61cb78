"""What would never start or never fit, found before a node is taken: every sentence has both numbers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.login.probe import Probe, hours
from hpcxrf.cluster.login.sbatch import JobSize, job_request, job_size
from hpcxrf.cluster.slurm import Partition, time_text
from hpcxrf.config.run import RunConfig
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError, SlurmError
from hpcxrf.notes import Note
from hpcxrf.pipeline.device_memory import device_fault, largest_device_memory
from hpcxrf.pipeline.memory import memory_fault
from hpcxrf.pipeline.plan import Plan, memory_by_stage
from hpcxrf.pipeline.plan_size import PlanSize
from hpcxrf.store.files import free_bytes

# Counts that are mostly zero compress to a tenth at best.
_BEST_COMPRESSION: Final = 10


def partition_faults(site: SiteProfile, request: JobRequest, size: JobSize, found: Sequence[Partition]) -> list[str]:
    """List what the partition of a profile cannot give.

    Slurm accepts some of this and lets the job pend for ever (`PartitionNodeLimit`, `PartitionTimeLimit`).

    Args:
        site: the profile.
        request: what each worker takes, and the time limit.
        size: what the job takes.
        found: result of `slurm.partitions`.

    Returns:
        One sentence each; empty: no fault is known, as for a profile that names several partitions.
    """
    if site.partition is not None and "," in site.partition:
        return []
    mine = [p for p in found if (p.default if site.partition is None else p.name == site.partition)]
    if not mine:
        names = ", ".join(dict.fromkeys(p.name for p in found)) or "none"
        wanted = "a default partition" if site.partition is None else f"partition {site.partition}"
        return [f"{wanted}: Slurm has {names}"]
    name = mine[0].name
    if not any(p.up for p in mine):
        return [f"partition {name} is down"]
    needed = _amounts(site, request, size)
    offered = {
        "nodes": sum(p.nodes for p in mine),
        "cores a node": max(p.cores for p in mine),
        "GPUs a node": max(p.gpus for p in mine),
        "MB of memory a node": max(p.memory_mb for p in mine),
    }
    faults = [
        f"{needed[what]} {what} are requested, partition {name} has {most}"
        for what, most in offered.items()
        if needed[what] > most
    ]
    limits = [p.time_limit_s for p in mine]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    if longest is not None and request.time_limit_s > longest:
        faults.append(
            f"a time limit of {time_text(request.time_limit_s)} is requested, partition {name} allows "
            f"{time_text(longest)}"
        )
    return faults


def _amounts(site: SiteProfile, request: JobRequest, size: JobSize) -> dict[str, int]:
    on_a_node = size.workers_per_node if request.mode == "allocation" else 1
    memory_mb = on_a_node * request.memory_per_worker_mb
    if request.mode == "allocation":
        memory_mb += site.driver_memory_mb
    return {
        "nodes": size.nodes if request.mode == "allocation" else 1,
        "cores a node": on_a_node * request.threads_per_worker,
        # GPUs of whole nodes are not resources of Slurm.
        "GPUs a node": 0 if request.node_gpus else on_a_node * request.gpus_per_worker,
        "MB of memory a node": 0 if site.takes_whole_nodes else memory_mb,
    }


def folder_faults(folder: Path) -> list[str]:
    """List what makes writing into a run directory impossible, whatever its size."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        return [f"output {folder}: {existing} is not a folder"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"output {folder}: {existing} is not writable by you"]
    return []


def output_faults_of(folder: Path, work: PlanSize) -> tuple[list[str], list[Note]]:
    """List what makes writing there impossible, and what makes it doubtful."""
    faults = folder_faults(folder)
    if faults:
        return faults, []
    free, most = free_bytes(folder), work.bytes_written
    least = most // _BEST_COMPRESSION
    if least > free:
        return [f"output {folder}: needs at least {size_text(least)}, {size_text(free)} are free"], []
    if most > free:
        text = f"output {folder}: may need up to {size_text(most)}, {size_text(free)} are free"
        return [], [Note("warning", text)]
    return [], []


def site_faults(site: SiteProfile, config: RunConfig) -> tuple[list[str], list[Note]]:
    """List what the profile and, where Slurm answers, the partition cannot give; and what could not be checked."""
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
        return [], [Note("warning", f"the limits of the partition were not checked: {error}")]


def hours_faults(work: PlanSize, probe: Probe | None, most_gpu_hours: float | None) -> list[str]:
    """Compare a plan with a limit of GPU-hours; without a measurement on a GPU a limit cannot be kept."""
    if most_gpu_hours is None:
        return []
    if probe is None or not probe.on_gpu:
        return [
            f"--max-gpu-hours {most_gpu_hours:g}: no fit of this kind was measured on a GPU yet; run "
            "`hpcxrf plan RUNFILE --probe` on a node that has one"
        ]
    needed = hours(work, probe)
    if needed > most_gpu_hours:
        return [
            f"about {needed:.2g} GPU-hours by the measurement of {probe.date}, --max-gpu-hours is {most_gpu_hours:g}"
        ]
    return []


def memory_faults(plan: Plan, site: SiteProfile) -> list[str]:
    """Say whether a worker of the profile, or its GPU, has too little memory for a dataset."""
    fault = memory_fault(memory_by_stage(plan), site.memory_per_worker_mb * 10**6) if plan.jobs else None
    found = [] if fault is None else [f"site {site.name}, memory_per_worker_mb: {fault}"]
    needed = largest_device_memory(plan.jobs)
    if needed is not None and site.gpus_per_node and site.gpu_memory_mb is not None:
        fault = device_fault(needed, site.gpu_memory_mb * 10**6)
        found += [] if fault is None else [f"site {site.name}, gpu_memory_mb: {fault}"]
    return found


def size_text(number: int) -> str:
    """A number of bytes with a decimal unit: `12 MB`, `3.4 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"
