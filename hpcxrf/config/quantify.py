"""The section `quantify` of the run file: normalised maps to areal densities, by thin-film standards."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive
from hpcxrf.config.normalise import NormaliseConfig
from hpcxrf.config.standards import DensityUnit, RelativeError

Angle = Annotated[float, Field(gt=0, le=90)]
Allowed = Literal["energy", "detector", "no_i0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerConfig:
    """A homogeneous layer that absorbs its own fluorescence; the beam and the detector are on the same side."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    matrix: Literal["given", "fitted"] = "given"
    """`given`: the layer is its formula; `fitted`: of the elements that were found, with the formula as what does not
    show in the spectrum, iterated until nothing changes."""
    formula: str | None = None
    """Chemical formula, `CaCO3` or `Fe0.7Ni0.3` (atoms), or a NIST compound such as `Water, Liquid`."""
    areal_density_ug_cm2: Positive | None = None
    """Areal density of the whole layer, ug/cm2; a large number is a thick sample. None: of what was found."""
    incidence_deg: Angle = 45.0
    """Angle between beam and surface."""
    takeoff_deg: Angle = 45.0
    """Angle between surface and detector."""
    enhancement: bool = False
    """Secondary fluorescence, to first order, is corrected as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantifyConfig:
    """Areal densities of normalised maps; off where no standard is named."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    standards: tuple[str, ...] = ()
    """Scans of thin-film standards, measured and normalised as the samples are."""
    table: str | None = None
    """Certified areal densities: a `maps_standardinfo.txt`, or a table of standards (YAML); None: the
    `maps_standardinfo.txt` beside the scan or one folder up, else the standard that the shipped table has for a file of
    that name."""
    elements: tuple[str, ...] | None = None
    """Families that the standards are fitted with; None: those of the run, those of the certificate, and what the
    residual shows beside them."""
    relative_error: RelativeError = 0.10
    """Standard uncertainty, relative, of areal densities of which the certificate states none."""
    unit: DensityUnit | None = None
    """Unit of tables that do not say it: `ug/cm2` or `ng/mm2` (a tenth of it); None: ug/cm2, refused where the numbers
    are those of a list in ng/mm2."""
    allow: tuple[Allowed, ...] = ()
    """What may differ: `energy` and `detector` of standard and sample; `no_i0`: neither is normalised by I0, the flux
    was the same."""
    layer: LayerConfig | None = None
    """Absorption in the sample; None: the sample is thin."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.standards)


def quantify_faults(config: QuantifyConfig, normalise: NormaliseConfig) -> list[str]:
    """Contradictions in the section, each with its place and the remedy."""
    if not config.standards:
        given = [f"quantify.{name}" for name in ("table", "elements", "layer") if getattr(config, name) is not None]
        return [f"{', '.join(given)}: given without quantify.standards; name the standards' scans"] if given else []
    faults = []
    if not normalise.wanted:
        faults.append(
            "quantify.standards: areal densities are made of normalised maps; set normalise.i0 and "
            "normalise.reference, or normalise.live_time: auto with quantify.allow: [no_i0] where the flux was the same"
        )
    elif normalise.i0 is None and "no_i0" not in config.allow:
        faults.append(
            "quantify.standards: maps are not divided by I0; set normalise.i0 and normalise.reference, or "
            "quantify.allow: [no_i0] where the flux was the same in standard and samples"
        )
    if config.layer is not None and config.layer.matrix == "given":
        lacking = [
            f"quantify.layer.{name}"
            for name in ("formula", "areal_density_ug_cm2")
            if getattr(config.layer, name) is None
        ]
        if lacking:
            faults.append(f"{' and '.join(lacking)}: needed with matrix: given; or set quantify.layer.matrix: fitted")
    return faults
