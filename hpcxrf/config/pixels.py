"""The section `pixels` of the run file: how every pixel is fitted."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED
from hpcxrf.config.regions import PixelMethodName

FULL_PIXELS_MAX: Final = 10_000
"""Pixels times detectors that `full` fits: some tens of them a second and core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelConfig:
    """How the pixels are fitted."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    method: PixelMethodName = "linear"
    """`linear`: signed and unbiased; `nnls`: non-negative; `poisson`: maximum likelihood, non-negative;
    `nonlinear`: energy offset, gain and width of every pixel free near those of the scan; `full`: the same by the true
    model, for scans of at most 10 000 pixels times detectors."""
    detectors: Literal["each", "sum", "both"] = "each"
    """`sum`: the raw counts of all detectors, fitted with every detector's own calibration."""
    phases: Literal["auto", "one"] = "auto"
    """Of `linear`: `auto`, where a scan has phases so different that it gains precision, each is weighed by its own
    mean spectrum, and the notes say which; `one`: one set of weights always."""
    background: Literal["columns", "snip"] = "columns"
    """`columns`: the fitted background's, free in every pixel; `snip`: every pixel's spectrum is clipped by itself, as
    other programs do it. It is biased at low counts and exists for comparison, of `linear` and `nnls` only."""
    background_columns: Annotated[int, Field(ge=0, le=16)] = 4
    """Columns into which the fitted background is grouped, free in every pixel."""
    deviance: bool = True
    """Compute the deviance map, which costs some four times as much as the amplitudes and their sigma."""
    blocks_per_task: Annotated[int, Field(ge=1)] | None = None
    """Map blocks (64 x 256 pixels) of a task; None: chosen by size. Does not change any result."""
