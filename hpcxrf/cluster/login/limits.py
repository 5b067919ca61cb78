"""What would never start, known before a node is asked for: both numbers in every sentence."""

from collections.abc import Sequence

from hpcxrf.cluster.job_files import JobRequest
from hpcxrf.cluster.login.sbatch import JobSize
from hpcxrf.cluster.slurm import Partition, time_text
from hpcxrf.config.site import SiteProfile


def partition_faults(site: SiteProfile, request: JobRequest, size: JobSize, found: Sequence[Partition]) -> list[str]:
    """What the partition of a profile cannot give.

    Slurm accepts some of this and lets the job pend for ever (`PartitionNodeLimit`, `PartitionTimeLimit`).

    Args:
        site: the profile.
        request: what each worker takes, and the time.
        size: what the job takes.
        found: of `slurm.partitions`.

    Returns:
        One sentence each; empty: nothing speaks against it. Of a profile that names several partitions nothing
        is known.
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
    asked = _asked(site, request, size)
    offered = {
        "nodes": sum(p.nodes for p in mine),
        "cores a node": max(p.cores for p in mine),
        "GPUs a node": max(p.gpus for p in mine),
        "MB of memory a node": max(p.memory_mb for p in mine),
    }
    faults = [
        f"{asked[what]} {what} are asked for, partition {name} has {most}"
        for what, most in offered.items()
        if asked[what] > most
    ]
    limits = [p.time_limit_s for p in mine]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    if longest is not None and request.time_limit_s > longest:
        faults.append(
            f"{time_text(request.time_limit_s)} of time are asked for, partition {name} allows {time_text(longest)}"
        )
    return faults


def _asked(site: SiteProfile, request: JobRequest, size: JobSize) -> dict[str, int]:
    on_a_node = size.workers_per_node if request.mode == "allocation" else 1
    memory_mb = on_a_node * request.memory_per_worker_mb
    if request.mode == "allocation":
        memory_mb += site.driver_memory_mb
    return {
        "nodes": size.nodes if request.mode == "allocation" else 1,
        "cores a node": on_a_node * request.threads_per_worker,
        "GPUs a node": on_a_node * request.gpus_per_worker,
        "MB of memory a node": 0 if site.exclusive else memory_mb,
    }
