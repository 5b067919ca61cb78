"""The section `sample` of the run file: what was measured, and with what."""

from collections.abc import Mapping
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
    elements_table: str | None = None
    """Table (CSV) of the elements of scans of a catalogue, with the columns `path` or `sample`, and `elements`; a scan
    that it names has the elements of the last such row, whatever `elements` says. None: there is no table."""
    incident_energy_kev: Positive | None = None
    """Energy of the beam, keV; None: that of the scan or the override file."""
    source: Literal["monochromatic", "tube"] = "monochromatic"
    """Kind of source. `tube` has no elastic line at one energy: give `anode` and `tube_kv`; without them the line
    ratios are those of `incident_energy_kev`, as an effective energy."""
    anode: str | None = None
    """Element of a tube's anode, such as `Rh`: its lines, scattered by the sample, are fitted and tell the energy
    axis, and families are excited by its spectrum."""
    tube_kv: Positive | None = None
    """High voltage of the tube, kV."""
    tube_filters_um: Mapping[str, Positive] | None = None
    """Window and filters before the sample, material to um; None: a window of 125 um of beryllium."""

    @property
    def describes_tube(self) -> bool:
        """True where anode and high voltage of a tube are given."""
        return self.source == "tube" and self.anode is not None and self.tube_kv is not None
