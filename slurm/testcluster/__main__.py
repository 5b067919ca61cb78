"""`python -m slurm.testcluster start DIR` and `stop DIR`."""

import argparse
import shlex
import sys
from pathlib import Path

from slurm.testcluster.cluster import PrivateSlurmError, start, stop
from slurm.testcluster.configuration import ClusterSpec


def main() -> int:
    """Start or stop the cluster of a folder; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m slurm.testcluster", description="A private Slurm on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="prints the line that makes a shell use it")
    defaults = ClusterSpec()
    for name in ("nodes", "cpus", "gpus"):
        starting.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    stopping = commands.add_parser("stop", help="ends its jobs and daemons")
    for command in (starting, stopping):
        command.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        if given.command == "stop":
            stop(given.folder)
            return 0
        spec = ClusterSpec(nodes=given.nodes, cpus=given.cpus, gpus=given.gpus)
        cluster = start(given.folder, spec)
    except PrivateSlurmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"export SLURM_CONF={shlex.quote(str(cluster.conf))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
