"""The section `case_study` of the run file: the published case study on a simulated scan."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseStudyConfig:
    """What `hpcxrf case-study` simulates and compares; limits of the other fits are those of `benchmark`."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] = (500, 600)
    """Rows and columns of the simulated scan."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the scan, the trials, the random starts and the choice of pixels."""
    starts: Annotated[int, Field(ge=1)] = 20
    """Random starts of the first pass."""
    pixels: Annotated[int, Field(ge=1)] = 64
    """Single pixels of each region that are fitted with every method."""
    pixel_adam_steps: Annotated[int, Field(ge=1)] = 500
    pixel_sbplx_evaluations: Annotated[int, Field(ge=1)] = 5000
    """Limits of the fits of these pixels; those of summed spectra are the limits of `benchmark`."""
    map_adam_steps: Annotated[int, Field(ge=1)] = 200
    map_sbplx_evaluations: Annotated[int, Field(ge=1)] = 1000
    """Limits of the maps of one region, that richest in the traces, a fit a pixel."""
    trials: Annotated[int, Field(ge=0)] = 20
    """Further first passes, each with another detector, incident energy, nominal energy and noise."""
