"""The section `normalise` of the run file: counts of every pixel to counts per second at a fixed I0."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive
from hpcxrf.config.scalers import ScalerConfig
from hpcxrf.config.site_files import load_named_site
from hpcxrf.errors import ConfigError

# YAML reads `on` as true, which is not a second.
Number = Annotated[float, Field(gt=0, strict=True)]
LiveTimeChoice = Literal["auto", "rates", "real"]
SHIPPED_SITE: Final = "aps-2id-e"


@dataclass(frozen=True, slots=True, kw_only=True)
class NormaliseConfig:
    """Normalisation of the maps: counts stay as they are, normalised maps stand beside them.

    Off where neither `live_time` nor `i0` is given.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    live_time: LiveTimeChoice | Number | None = None
    """Live time that counts are divided by: `auto`: real * OCR / ICR, or where a scan has no rates the live time of its
    file; `rates`: real * OCR / ICR, else the scan is refused; `real`: the real time, without a correction of the dead
    time; a number: seconds, the same for all pixels. None: `auto` where `i0` is given."""
    i0: str | None = None
    """Scaler of the incident flux: a name of the site's table, as `us_ic`, `ds_ic`, `sr_current`, or the name of a PV
    of the scan; None: rates are not divided by I0."""
    i0_kind: Literal["auto", "count", "rate"] = "auto"
    """`count`: I0 counts while its own gate is open, which `i0_clock` measures; `rate`: it is a rate or a current;
    `auto`: as the site's table says."""
    i0_clock: Number | str = "auto"
    """Clock of the gate of I0: the name of a PV, or seconds; `auto`: as the site's table says."""
    i0_clock_hz: Positive | None = None
    """Ticks of `i0_clock` in a second, 1 where it gives seconds; None: as the site's table says."""
    reference: Number | str | None = None
    """I0 that all maps are brought to, the same for all scans that are compared: a number in the unit of I0 (counts per
    second of a `count`), or the path of a scan whose mean I0 it is."""
    detectors: Literal["auto", "all"] = "auto"
    """Detectors that `combined` is made of: `auto`: without those that disagree with the others, `all`."""
    site: str = SHIPPED_SITE
    """Site profile whose table `scalers` names the PVs: a name, or the path of its YAML file."""
    scalers: dict[str, ScalerConfig] = field(default_factory=dict)
    """Table of scalers by name, in the place of the site's."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return self.live_time is not None or self.i0 is not None

    @property
    def live_time_choice(self) -> LiveTimeChoice | float:
        """Live time that counts are divided by."""
        return "auto" if self.live_time is None else self.live_time


def normalise_faults(config: NormaliseConfig) -> list[str]:
    """Contradictions in the section, each with its place and the remedy."""
    faults = [
        f"normalise.{name}: {value!r} is a text in YAML; write {float(value):.10g}"
        for name, value in (("reference", config.reference), ("i0_clock", config.i0_clock))
        if isinstance(value, str) and is_number(value)
    ]
    if config.i0 is None:
        usual = NormaliseConfig()
        names = ("i0_kind", "i0_clock", "i0_clock_hz", "reference")
        given = [f"normalise.{name}" for name in names if getattr(config, name) != getattr(usual, name)]
        return [*faults, f"{', '.join(given)}: given without normalise.i0; name the scaler"] if given else faults
    if config.reference is None:
        faults.append(
            "normalise.reference: is needed with normalise.i0; give the I0 that all scans are brought to, a number in "
            "counts per second, or the path of a scan whose mean I0 it is"
        )
    if config.i0_clock_hz is not None and isinstance(config.i0_clock, float):
        faults.append("normalise.i0_clock_hz: i0_clock is given in seconds already; remove one of them")
    return faults


def is_number(text: str) -> bool:
    """Whether a text was meant as a number: YAML takes 1.75e5, without a sign in its exponent, as a text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def with_site_scalers(config: NormaliseConfig) -> NormaliseConfig:
    """Take the table of scalers from the site profile where the run file has none and names a scaler.

    The run keeps the table: what the profile says later changes nothing in it.

    Raises:
        ConfigError: there is no such profile, or it has faults.
    """
    if config.i0 is None or config.scalers:
        return config
    try:
        return dataclasses.replace(config, scalers=dict(load_named_site(config.site).scalers))
    except ConfigError as error:
        raise ConfigError(f"normalise.site: {error}") from error
