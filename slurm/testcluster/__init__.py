"""A private Slurm on one machine: three pretend nodes with pretend GPUs, on loopback, in about a second.

By hand `python -m slurm.testcluster start DIR` and `stop DIR`; in tests `running()`. It needs the programs of
Slurm and munge, but neither root nor systemd nor cgroups, and leaves no process behind.
"""

from slurm.testcluster.cluster import (
    INSTALL,
    PrivateSlurm,
    PrivateSlurmError,
    attach,
    missing_programs,
    running,
    start,
    stop,
)
from slurm.testcluster.configuration import ClusterSpec

__all__ = [
    "INSTALL",
    "ClusterSpec",
    "PrivateSlurm",
    "PrivateSlurmError",
    "attach",
    "missing_programs",
    "running",
    "start",
    "stop",
]
