"""The section `benchmark` of the run file: the published protocol over an archive."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED

BenchmarkMethod = Literal["separable", "adam", "sbplx", "product", "mapstorch", "pymca"]
BenchmarkTask = Literal["initial", "refinement"]
AmplitudeStart = Literal["random", "guessed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """What `hpcxrf benchmark` compares: the published protocol."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    methods: tuple[BenchmarkMethod, ...] = ("separable", "adam", "sbplx", "product")
    """`separable`, `adam` and `sbplx` share line table, background, objective and starting values; `product` is
    hpcxrf with its defaults and no calibration; `mapstorch` and `pymca` are those programs."""
    tasks: tuple[BenchmarkTask, ...] = ("initial", "refinement")
    start: Literal["narrow", "wide"] = "narrow"
    """Range of the random starting values."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the starting values, and of the choice of datasets."""
    datasets: dict[BenchmarkMethod, Annotated[int, Field(ge=1)]] = field(default_factory=dict)
    """Number of datasets, drawn by the seed, for slow methods; the others run on all."""
    amplitudes: tuple[AmplitudeStart, ...] = ("random", "guessed")
    """Where the amplitudes of `adam` and `sbplx` start, a row each: `random` as published, `guessed` from the counts
    as MapsTorch does it by default (rows `adam-guessed` and `sbplx-guessed`)."""
    ablation: tuple[Literal["start", "near", "pairs"], ...] = ()
    """Shorter searches of `separable`, a row each: from the `start` alone, with coarse channels and rival scatter
    peaks (`near`), with all pairs of scatter peaks (`pairs`)."""
    peer_backgrounds: tuple[Literal["own", "shared"], ...] = ("own", "shared")
    """Background of `mapstorch` and `pymca`, a row each: their `own`, or that of the other methods (`shared`)."""
    background: Literal["hats", "snip", "none"] = "snip"
    """Background of the methods that are compared; `product` has its own."""
    adam_steps: Annotated[int, Field(ge=1)] = 500
    """Steps of Adam in every fit, as published."""
    sbplx_evaluations: Annotated[int, Field(ge=1)] = 20_000
    """Largest number of evaluations of SBPLX in every fit, as published."""
