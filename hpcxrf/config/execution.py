"""The section `execution` of the run file: where it runs; changes no result."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Processes, device and limits of a run; they change no result."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    workers: Annotated[int, Field(ge=1)] | None = None
    """Number of processes; None: one per GPU, else one per core group."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Number of torch threads of a worker; None: cores / workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the fits. `auto` is the GPU where there is one; `cuda` without one is an error."""
    datasets_in_flight: Annotated[int, Field(ge=1)] = 8
    """Number of datasets whose tasks are with the scheduler at a time."""
    join_tasks: Literal["auto", "never"] = "auto"
    """`auto`: where stores are packed, all tasks of a scan of up to 16 MB of counts are one, done in the memory of its
    machine; `never`: each is a task of its own."""
    task_limit_s: Positive = 3600.0
    """Time limit of a task in a Slurm job, seconds; a longer one is ended with its worker, and tried twice more."""
    dashboard: bool = True
    """Serve the Dask dashboard while the run goes on."""
