"""Named sets of constants: physics, or those of a MAPS program whose numbers are to be matched."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hpcxrf.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantSet:
    """Numbers and conventions in which programs differ; the name is stored with every result."""

    name: str
    width_factor: float
    """k of `sigma^2 = (fwhm_offset / fwhm_per_sigma)^2 + k * energy_kev * fwhm_fanoprime`: the energy per
    electron-hole pair in eV, fwhm_fanoprime being the Fano factor in keV/eV times whatever else widens."""
    fwhm_per_sigma: float
    electron_rest_energy_kev: float
    maps_line_shape: bool
    """True for line shapes as in XRF-Maps: the exponential of a tail held at 1 above the line, no tail on the
    elastic peak, and the slope alone for the width of a channel."""


# MAPS rounds 2 sqrt(2 ln 2) = 2.35482 to 2.3548 and 510.99895 keV (CODATA 2018) to 511. 2.96 eV is the pair
# energy of germanium; XRF-Maps took 3.58 for silicon on 2024-10-09 (3.6 to 3.7 eV in the literature). The
# physics set keeps 3.58, so that fitted widths can be exchanged with current XRF-Maps files: k and
# fwhm_fanoprime enter as a product, and only the product is measurable.
_SETS: Final[tuple[ConstantSet, ...]] = (
    ConstantSet(
        name="physics",
        width_factor=3.58,
        fwhm_per_sigma=2.0 * math.sqrt(2.0 * math.log(2.0)),
        electron_rest_energy_kev=510.99895,
        maps_line_shape=False,
    ),
    ConstantSet(
        name="maps-legacy-2.96",
        width_factor=2.96,
        fwhm_per_sigma=2.3548,
        electron_rest_energy_kev=511.0,
        maps_line_shape=True,
    ),
    ConstantSet(
        name="maps-3.58", width_factor=3.58, fwhm_per_sigma=2.3548, electron_rest_energy_kev=511.0, maps_line_shape=True
    ),
)
CONSTANT_SETS: Final[Mapping[str, ConstantSet]] = MappingProxyType({s.name: s for s in _SETS})
PHYSICS: Final = CONSTANT_SETS["physics"]


def constant_set(name: str) -> ConstantSet:
    """Look a set up by name.

    Raises:
        ConfigError: no such set.
    """
    if name not in CONSTANT_SETS:
        raise ConfigError(f"constants: {name!r} is not a constant set; use {', '.join(CONSTANT_SETS)}")
    return CONSTANT_SETS[name]


def convert_fanoprime(fwhm_fanoprime: float, *, source: ConstantSet, target: ConstantSet) -> float:
    """Restate `fwhm_fanoprime` (keV/eV) for another set, so that every peak keeps its width.

    `F_target = F_source * k_source / k_target`: a value read from a file of 2.96 needs
    `source=constant_set("maps-legacy-2.96")`.
    """
    return fwhm_fanoprime * source.width_factor / target.width_factor
