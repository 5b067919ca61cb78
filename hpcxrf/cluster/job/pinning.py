"""Which GPU a worker computes on where Slurm has none to hand out: nodes are whole, each worker takes one by number."""

import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.errors import ConfigError

CUDA: Final = "CUDA_VISIBLE_DEVICES"
ROCM: Final = "ROCR_VISIBLE_DEVICES"
DEVICE_VARIABLES: Final = (CUDA, ROCM, "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
"""Environment variables that say which GPUs a process sees."""
_AMD_DRIVER: Final = Path("/dev/kfd")
_NVIDIA_GPUS: Final = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGpu:
    """One GPU of a job of whole nodes."""

    node: str
    """Name of the node, as Slurm has it."""
    number: int
    """Place in the node's own list of GPUs, from 0."""


def place_workers(workers: int, nodes: Sequence[str]) -> list[NodeGpu]:
    """A GPU for each worker, on all nodes in turn, so that every node has its share."""
    return [NodeGpu(node=nodes[i % len(nodes)], number=i // len(nodes)) for i in range(workers)]


def drop_devices(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables of `DEVICE_VARIABLES`, which speak of one process or node only."""
    return {name: value for name, value in environment.items() if name not in DEVICE_VARIABLES}


def forget_devices(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove the devices of a whole job from the driver's environment, so that no worker inherits them."""
    for name in DEVICE_VARIABLES:
        environment.pop(name, None)


def device_variable(environment: Mapping[str, str], *, has_amd_driver: bool | None = None) -> str:
    """The variable that chooses the devices of this process: `CUDA_VISIBLE_DEVICES`, or that of ROCm.

    Slurm may set both on an AMD node; ROCm would apply one after the other and be left with no device.

    Args:
        environment: environment of the process.
        has_amd_driver: whether the node has AMD's driver; None: looked up.
    """
    amd = _AMD_DRIVER.exists() if has_amd_driver is None else has_amd_driver
    return ROCM if ROCM in environment and (amd or CUDA not in environment) else CUDA


def visible_devices(environment: Mapping[str, str]) -> str | None:
    """Names of the devices that a process sees; None: the variable is not set."""
    return environment.get(device_variable(environment))


def list_node_gpus(count: int, environment: Mapping[str, str] = os.environ, listed: Path = _NVIDIA_GPUS) -> list[str]:
    """The node's own list of GPUs, in its order.

    Args:
        count: number of GPUs of a node by the site profile.
        environment: CUDA_VISIBLE_DEVICES, or that of ROCm, counts where the node sets it.
        listed: folder in which the driver of the GPUs has an entry for each; where it is missing `count` is believed.
    """
    if visible := visible_devices(environment):
        return [name.strip() for name in visible.split(",") if name.strip()]
    found = len(list(listed.iterdir())) if listed.is_dir() else count
    return [str(number) for number in range(found)]


def take_node_gpu(number: int, count: int, gpus: Sequence[str]) -> str:
    """The GPU of a worker, as CUDA_VISIBLE_DEVICES or that of ROCm must name it.

    Args:
        number: which of the node's GPUs, from 0.
        count: number of GPUs of a node by the site profile.
        gpus: result of `list_node_gpus`.

    Raises:
        ConfigError: the node has fewer GPUs than the profile says.
    """
    if number >= len(gpus):
        raise ConfigError(
            f"GPU {number} of the node is not there: it lists {len(gpus)} ({', '.join(gpus) or 'none'}), gpus_per_node "
            f"of the site profile is {count}; correct the profile, or choose nodes with a constraint"
        )
    return gpus[number]
