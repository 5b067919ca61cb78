"""The section `execution` of the run file: where it runs; changes no result."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Where it runs; changes no result."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes; None: one per GPU, else one per core group."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Torch threads of a worker; None: cores / workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one, and the report says which; `cuda` without one is an error."""
    datasets_in_flight: Annotated[int, Field(ge=1)] = 8
    task_limit_s: Positive = 3600.0
    """In a Slurm job: a task that takes longer is ended with its worker, and tried twice more."""
    dashboard: bool = True
