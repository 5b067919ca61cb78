"""Where site profiles are found, and a proposal for one from what Slurm says of itself."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import hpcxrf
from hpcxrf.cluster.slurm import Partition
from hpcxrf.config.site import SiteProfile, load_site
from hpcxrf.errors import ConfigError

_SUFFIXES: Final = {".yaml", ".yml"}
_DAY_S: Final = 86400
# What is left of a node's memory for the system, where a profile is proposed.
_USABLE_SHARE: Final = 0.9
_DRIVER_MB: Final = 2000
_MAX_CPU_WORKERS: Final = 16


def site_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Folders that are searched for NAME.yaml, in this order.

    Those of HPCXRF_SITES (a site's own, colons between), the user's, and those that come with hpcxrf: installed,
    or beside the package in a checkout.
    """
    given = [Path(p) for p in environment.get("HPCXRF_SITES", "").split(os.pathsep) if p]
    config_home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    checkout = Path(hpcxrf.__file__).resolve().parents[1]
    shipped = [Path(sys.prefix, "share", "hpcxrf", "sites")]
    if (checkout / "pyproject.toml").is_file():
        shipped.insert(0, checkout / "slurm")
    return [*given, Path(config_home, "hpcxrf", "sites"), *shipped]


def find_site(name: str, environment: Mapping[str, str] = os.environ) -> SiteProfile:
    """A profile by the path of its file or by its name.

    Raises:
        ConfigError: none of that name, with the names that there are and where they were looked for; or a
            profile with faults.
    """
    if Path(name).suffix in _SUFFIXES or os.sep in name:
        return load_site(Path(name))
    folders = site_folders(environment)
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return load_site(path)
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    looked = "\n".join(f"  {folder}" for folder in folders)
    raise ConfigError(
        f"no site profile {name!r}; there are {', '.join(known) or 'none'}; looked in\n{looked}\n"
        "give one of these, the path of a .yaml, or let `hpcxrf site init` propose one"
    )


def user_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's own profiles belong."""
    config_home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config_home, "hpcxrf", "sites")


def chosen_partition(found: Sequence[Partition], name: str | None) -> Partition:
    """The partition that is asked for, else the first with GPUs, else the default one.

    Raises:
        ConfigError: there is none, or none of that name.
    """
    usable = [p for p in found if p.up and (name is None or p.name == name)]
    if not usable:
        names = ", ".join(dict.fromkeys(p.name for p in found)) or "none"
        raise ConfigError(f"partition {name or '(any)'}: is not there or not up; sinfo has {names}")
    # Of several kinds of nodes the most numerous: what a job of some nodes is likely to get.
    return max(usable, key=lambda p: (p.gpus > 0, p.default, p.nodes))


def propose_site(partition: Partition) -> str:
    """The YAML of a profile for this partition; what sinfo cannot know is left as comments to fill in."""
    workers = partition.gpus or min(partition.cores, _MAX_CPU_WORKERS)
    memory_mb = int(partition.memory_mb * _USABLE_SHARE)
    driver_mb = min(_DRIVER_MB, memory_mb // 4)
    limit_s = min(partition.time_limit_s or _DAY_S, _DAY_S)
    drain_s = max(1, min(300, limit_s // 4))
    lines = [
        "# Proposed by `hpcxrf site init` from sinfo; what only the site knows is commented.",
        f"partition: {partition.name}",
        "# account: my-project",
        "# constraint: a100",
        "nodes: 1",
        f"cores_per_node: {partition.cores}",
        f"gpus_per_node: {partition.gpus}",
        f"memory_per_node_mb: {partition.memory_mb}",
        f"memory_per_worker_mb: {max(1, (memory_mb - driver_mb) // workers)}",
        f"driver_memory_mb: {driver_mb}",
        f"time_limit_h: {round(limit_s / 3600, 3):g}",
        f"drain_s: {drain_s}",
        "# modules: [python]",
        "# setup: [source /project/xrf/venv/bin/activate]",
        "# interface: ib0",
        "# scratch: /scratch/local",
        "# login_host: login.example.org",
    ]
    return "\n".join(lines) + "\n"
