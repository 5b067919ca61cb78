"""Tables of scalers: which names a beamline's scans give to ion chambers and clocks, and what these count."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive

ScalerKind = Literal["count", "rate"]
Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerConfig:
    """One scaler of a beamline under a name that all of its scans share, as `us_ic`."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    pvs: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Names of PVs that the scaler has in scan files: of the step scans, of the fly scans. The first that a scan has is
    taken."""
    kind: ScalerKind = "count"
    """`count`: it counts while its own gate is open, and is divided by its clock; `rate`: it is a rate or a current."""
    clock: tuple[Name, ...] = ()
    """Names of PVs of the clock that counts while the scaler's gate is open, likewise."""
    clock_hz: Positive = 1.0
    """Ticks of the clock in a second; 1 where it gives seconds."""
    amplifier: tuple[Name, Name] | None = None
    """Names of PVs of the sensitivity of the amplifier in front of the scaler, as SR570 have it: place in 1, 2, 5, 10,
    20, 50, 100, 200, 500, then place in pA/V, nA/V, uA/V, mA/V. With them a reference scan that was measured at another
    sensitivity can be compared."""
