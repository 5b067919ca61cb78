"""Shared by the programs that the benchmark compares: their result, and the measurement of their time."""

import time
from dataclasses import dataclass

from torch import Tensor

from hpcxrf.fitting.result import FitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """Result of a program, in our units and order."""

    theta: Tensor
    """(parameter,), NaN where the program has no such parameter."""
    theta_sigma: Tensor
    """(parameter,)."""
    amplitude: Tensor
    """(component,) counts over all channels, NaN where the program cannot model it."""
    model: Tensor
    """(channel,) over the fit range, with background."""
    n_free: int
    evaluations: int
    status: FitStatus
    cpu_s: float = 0.0
    wall_s: float = 0.0


def read_clocks() -> tuple[float, float]:
    """CPU and wall seconds."""
    return time.process_time(), time.perf_counter()


def measure_since(began: tuple[float, float]) -> tuple[float, float]:
    """CPU and wall seconds that went by since `began` of `read_clocks`."""
    cpu_s, wall_s = read_clocks()
    return cpu_s - began[0], wall_s - began[1]
