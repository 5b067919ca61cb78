"""What a worker checks before it takes part: devices, scratch folder, network. Each fault is one sentence.

None of these goes away with another start, so the driver does not start such a worker again.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from hpcxrf.cluster.job.pinning import device_variable
from hpcxrf.cluster.job.worker_terms import WorkerTerms
from hpcxrf.errors import ConfigError, HpcxrfError, SlurmError


def find_faults(terms: WorkerTerms, environment: Mapping[str, str]) -> list[HpcxrfError]:
    """Everything that keeps this process from working, before anything is loaded that would take a device."""
    faults = [_device_fault(terms, environment), _scratch_fault(terms), _network_fault(terms)]
    return [fault for fault in faults if fault is not None]


def _device_fault(terms: WorkerTerms, environment: Mapping[str, str]) -> HpcxrfError | None:
    if not terms.gpus:
        return None
    variable = device_variable(environment)
    names = _words(environment.get(variable, ""))
    if len(names) == 1:
        return None
    seen = f"is {environment[variable]!r}" if variable in environment else "is not set"
    return SlurmError(
        f"{variable} {seen}, which names {len(names)} devices; Slurm must give a worker exactly one: set gpus of the "
        "site profile to the form in which this partition gives GPUs"
    )


def _scratch_fault(terms: WorkerTerms) -> HpcxrfError | None:
    if terms.scratch is None:
        return None
    folder = Path(os.path.expandvars(terms.scratch))
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return None
    shown = terms.scratch if str(folder) == terms.scratch else f"{terms.scratch} ({folder})"
    trouble = "is not writable" if folder.is_dir() else "is not a folder"
    return ConfigError(f"scratch {shown} {trouble}; correct scratch of the site profile, or leave it out")


def _network_fault(terms: WorkerTerms) -> HpcxrfError | None:
    networks = [name for _, name in socket.if_nameindex()]
    if terms.interface is not None and terms.interface not in networks:
        return ConfigError(
            f"there is no network {terms.interface} (but {', '.join(networks)}); correct interface of the site profile"
        )
    address = terms.scheduler.split("://")[-1]
    if address.startswith(("127.", "[::1]")) and socket.gethostname() != terms.driver_host:
        return ConfigError(
            f"the scheduler on {terms.driver_host} listens on {address}, which other nodes cannot reach; name the "
            "network in the site profile (interface: ib0)"
        )
    return None


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())
