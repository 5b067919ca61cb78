"""Site profiles as a command names them, and a proposal for one from what Slurm says of itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcxrf.cluster.slurm import Partition
from hpcxrf.config.site import SiteProfile, is_plain_word
from hpcxrf.config.site_files import load_named_site
from hpcxrf.errors import ConfigError

_DAY_S: Final = 86400
# What is left of a node's memory for the system, where a profile is proposed.
_USABLE_SHARE: Final = 0.9
_DRIVER_MB: Final = 2000
_MAX_CPU_WORKERS: Final = 16


def find_site(name: str, environment: Mapping[str, str] = os.environ) -> SiteProfile:
    """Find a profile by the path of its file or by its name.

    Where it names no account or no partition, SBATCH_ACCOUNT and SBATCH_PARTITION count, as they do for sbatch.

    Raises:
        ConfigError: no profile of that name (the message lists all names and the folders that were searched), a
            profile with faults, or a variable that is not a plain word.
    """
    return complete_site(load_named_site(name, environment), environment)


def complete_site(site: SiteProfile, environment: Mapping[str, str]) -> SiteProfile:
    """Take account and partition from the user's SBATCH_ variables where a profile has none.

    Raises:
        ConfigError: a variable that counts is not a plain word.
    """
    account = site.account or environment.get("SBATCH_ACCOUNT") or None
    partition = site.partition or environment.get("SBATCH_PARTITION") or None
    for name, word in (("SBATCH_ACCOUNT", account), ("SBATCH_PARTITION", partition)):
        if word is not None and not is_plain_word(word):
            raise ConfigError(f"{name}={word!r}: not a plain word; correct it, or name another in the site profile")
    return replace(site, account=account, partition=partition)


def user_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's own profiles belong."""
    config_home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config_home, "hpcxrf", "sites")


def choose_partition(found: Sequence[Partition], name: str | None) -> Partition:
    """Choose a partition: the one of this name, else the first with GPUs, else the default one.

    Raises:
        ConfigError: there is none, or none of that name.
    """
    usable = [p for p in found if p.up and (name is None or p.name == name)]
    if not usable:
        names = ", ".join(dict.fromkeys(p.name for p in found)) or "none"
        raise ConfigError(f"partition {name or '(any)'}: does not exist or is not up; sinfo has {names}")
    # Of several kinds of nodes the most numerous: what a job of some nodes is likely to get.
    return max(usable, key=lambda p: (p.gpus > 0, p.default, p.nodes))


def propose_site(partition: Partition) -> str:
    """The YAML of a profile for this partition; what sinfo does not know is left as comments to fill in."""
    workers = partition.gpus or min(partition.cores, _MAX_CPU_WORKERS)
    memory_mb = int(partition.memory_mb * _USABLE_SHARE)
    driver_mb = min(_DRIVER_MB, memory_mb // 4)
    limit_s = min(partition.time_limit_s or _DAY_S, _DAY_S)
    drain_s = max(1, min(300, limit_s // 4))
    lines = [
        "# Proposed by `hpcxrf site init` from sinfo; what only the site knows is commented.",
        "# How to install hpcxrf there: docs/how-to/install-on-a-cluster.md",
        f"partition: {partition.name}",
        "# account: my-project                # without: $SBATCH_ACCOUNT, else your default",
        "# constraint: a100",
        "nodes: 1",
        f"cores_per_node: {partition.cores}",
        f"gpus_per_node: {partition.gpus}",
        *_propose_gpus(partition),
        f"memory_per_node_mb: {partition.memory_mb}",
        f"memory_per_worker_mb: {max(1, (memory_mb - driver_mb) // workers)}",
        f"driver_memory_mb: {driver_mb}",
        f"time_limit_h: {round(limit_s / 3600, 3):g}",
        f"drain_s: {drain_s}",
        "# --- the software: an environment on a file system that all nodes see",
        "# modules: [python/3.11, cuda/12]    # `module load`, where the site has a Python of its own",
        "# setup: [source /project/xrf/venv/bin/activate]",
        "# launcher: [apptainer, exec, --nv, /project/xrf/hpcxrf.sif]   # workers in a container, the driver outside",
        "# worker_start_s: 600                # where Python and torch load slowly",
        "# --- network and disk",
        "# interface: ib0",
        "# scratch: /scratch/local",
        "# login_host: login.example.org",
    ]
    return "\n".join(lines) + "\n"


def _propose_gpus(partition: Partition) -> list[str]:
    """The form of a request: one worker per GPU needs nothing more than the type where nodes have GPUs of one type."""
    if not partition.gpus:
        return [
            "# gpus: {request: whole-node}        # if the nodes have GPUs that sinfo does not show: say how many above"
        ]
    if len(partition.gpu_types) == 1:
        [gpu_type] = partition.gpu_types
        return [
            f"gpus: {{type: {gpu_type}}}",
            "# gpus: {type: " + gpu_type + ", request: gres}   # where --gpus-per-task is refused",
        ]
    names = f"        # one of {', '.join(partition.gpu_types)}" if partition.gpu_types else ""
    return [f"# gpus: {{request: gres}}            # where --gpus-per-task is refused{names}"]
