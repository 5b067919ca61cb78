"""The section `sample` of the run file: what was measured, and with what."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED, Positive

AUTO: Final = ("auto",)
"""In the place of a list of elements: they are found in the spectrum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """Elements of the sample, and the beam that excites them."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    elements: tuple[str, ...] = ()
    """Families to be fitted: `Fe` (K), `Pt_L`, `Au_M`, pile-up `Ca_Ca`. None: those of the override file, and without
    one those that the spectrum shows; `auto` alone: these in any case."""
    incident_energy_kev: Positive | None = None
    """Energy of the beam, keV; None: that of the scan or the override file."""
    source: Literal["monochromatic", "tube"] = "monochromatic"
    """Kind of source. `tube` has no elastic line, and needs `incident_energy_kev` as an effective energy."""
