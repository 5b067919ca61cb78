"""The section `case_study` of the run file: the published case study on a simulated scan."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.benchmark import AmplitudeStart
from hpcxrf.config.fields import CHECKED


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseStudyConfig:
    """What `hpcxrf case-study` simulates and compares."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] = (500, 600)
    """Rows and columns of the simulated scan."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the scan, the trials, the random starts and the choice of pixels."""
    starts: Annotated[int, Field(ge=1)] = 20
    """Number of random starts of the first pass."""
    start: Literal["narrow", "wide"] = "narrow"
    """Range of the random starting values of the published methods."""
    amplitudes: tuple[AmplitudeStart, ...] = ("random", "guessed")
    """Where the amplitudes of the published methods start in first pass and trials, a row each: `random` as
    published, `guessed` from the counts."""
    background: Literal["hats", "snip", "none"] = "snip"
    """Background of the published methods; `product` has its own."""
    adam_steps: Annotated[int, Field(ge=1)] = 500
    """Steps of Adam in the fits of summed spectra."""
    sbplx_evaluations: Annotated[int, Field(ge=1)] = 20_000
    """Evaluations of SBPLX in the fits of summed spectra."""
    pixels: Annotated[int, Field(ge=1)] = 64
    """Number of single pixels of each region that are fitted with every method."""
    pixel_adam_steps: Annotated[int, Field(ge=1)] = 500
    """Steps of Adam in the fit of one of these pixels."""
    pixel_sbplx_evaluations: Annotated[int, Field(ge=1)] = 5000
    """Evaluations of SBPLX in the fit of one of these pixels."""
    map_adam_steps: Annotated[int, Field(ge=1)] = 200
    """Steps of Adam per pixel in the maps of the region richest in the traces."""
    map_sbplx_evaluations: Annotated[int, Field(ge=1)] = 1000
    """Evaluations of SBPLX per pixel in the maps of that region."""
    trials: Annotated[int, Field(ge=0)] = 20
    """Number of further first passes, each with another detector, incident energy, nominal energy and noise."""
    draws: Annotated[int, Field(ge=0)] = 12
    """Number of times that the noise of every region is drawn anew: bias and its error come from these."""
