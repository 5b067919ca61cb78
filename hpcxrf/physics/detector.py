"""The detector: which share of the photons it records in the full-energy peak, and in the escape peak."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import xraylib

from hpcxrf.errors import ConfigError

Material = Literal["Si", "Ge"]

FloatArray = npt.NDArray[np.float64]

LOWEST_KEV: Final = 0.1
"""Lowest energy with cross-sections in the library; below it no window lets a photon through."""
HIGHEST_KEV: Final = 800.0
"""Highest energy: above it the library's photoelectric cross-sections end or are extrapolated."""

_AIR: Final = "Air, Dry (near sea level)"
_CM_PER_UM: Final = 1e-4
_CM_PER_MM: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """The matter between the sample and the signal; the defaults are a silicon drift detector in air.

    Within a family only the *relative* efficiency of its lines counts, so that the defaults matter for
    M and L families below 4 keV and hardly above: 8 um beryllium is the window most sold (the other, 24 um,
    is for large chips); 10 mm of air is a snout close to the sample (0 in helium or vacuum); 0.1 um of
    silicon is a present-day entrance contact; 450 um is the usual drift-chip wafer (350 to 1000 um exist).

    Raises:
        ConfigError: a material other than Si and Ge, or a length that is negative or not finite.
    """

    material: Material = "Si"
    be_window_um: float = 8.0
    air_path_mm: float = 10.0
    dead_layer_um: float = 0.1
    """Thickness of the insensitive entrance layer, of the detector's own material."""
    chip_thickness_um: float = 450.0

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value}, must be a length of 0 or more"
            for name, value in (
                ("be_window_um", self.be_window_um),
                ("air_path_mm", self.air_path_mm),
                ("dead_layer_um", self.dead_layer_um),
                ("chip_thickness_um", self.chip_thickness_um),
            )
            if not 0.0 <= value < np.inf
        ]
        if self.chip_thickness_um == 0.0:
            faults.append("chip_thickness_um is 0: such a detector records nothing; 450 is usual")
        if self.material not in {"Si", "Ge"}:
            faults.append(f"material is {self.material!r}, must be Si or Ge")
        if faults:
            raise ConfigError("detector: " + "; ".join(faults))


def efficiency(energy_kev: npt.ArrayLike, setup: Detector) -> FloatArray:
    """Share of the photons that end in the full-energy peak or its escape peak, 0 to 1.

    `exp(-sum mu t) * (1 - exp(-mu_photo t_chip))`: windows take whatever interacts (total cross-section),
    the chip records what is absorbed (photoelectric; a photon scattered out of it is lost to the peak).
    Cross-sections and densities from xraylib, dry air at sea level and 20 degrees.

    Args:
        energy_kev: any shape, 0.1 to 800 keV.
        setup: materials and lengths.

    Returns:
        Same shape, float64.

    Raises:
        ConfigError: an energy outside the range of the cross-sections.
    """
    energy = _check_energies(energy_kev)
    chip = xraylib.SymbolToAtomicNumber(setup.material)
    chip_density = xraylib.ElementDensity(chip)
    be, air_density = 4, xraylib.GetCompoundDataNISTByName(_AIR)["density"]
    layers = (
        _evaluate_each(lambda e: xraylib.CS_Total(be, e), energy)
        * (xraylib.ElementDensity(be) * setup.be_window_um * _CM_PER_UM)
        + _evaluate_each(lambda e: xraylib.CS_Total_CP(_AIR, e), energy)
        * (air_density * setup.air_path_mm * _CM_PER_MM)
        + _evaluate_each(lambda e: xraylib.CS_Total(chip, e), energy)
        * (chip_density * setup.dead_layer_um * _CM_PER_UM)
    )
    in_chip = _evaluate_each(lambda e: xraylib.CS_Photo(chip, e), energy) * (
        chip_density * setup.chip_thickness_um * _CM_PER_UM
    )
    recorded: FloatArray = np.exp(-layers) * -np.expm1(-in_chip)
    return recorded


def absorption_per_um(energy_kev: float, setup: Detector) -> float:
    """Photoelectric absorption coefficient of the detector material, 1/um.

    Args:
        energy_kev: 0.1 to 800 keV.
        setup: only the material counts.
    """
    z = xraylib.SymbolToAtomicNumber(setup.material)
    return float(xraylib.CS_Photo(z, energy_kev) * xraylib.ElementDensity(z) * _CM_PER_UM)


def escape_photons(setup: Detector) -> tuple[tuple[float, float], ...]:
    """K photons of the detector material that can leave the chip: (energy_kev, share of the K photons).

    K-alpha and K-beta, each at its intensity-weighted mean energy: 1.740 and 1.836 keV for silicon.
    """
    z = xraylib.SymbolToAtomicNumber(setup.material)
    return tuple(
        _mean_line(z, codes) for codes in ((xraylib.KL2_LINE, xraylib.KL3_LINE), (xraylib.KM2_LINE, xraylib.KM3_LINE))
    )


def escape_probability(energy_kev: npt.ArrayLike, setup: Detector) -> FloatArray:
    """Counts in the escape peaks per count in the parent's full-energy peak.

    For a beam at right angles on a thick chip a share
    `eta = 1/2 omega_K (1 - 1/J_K) (1 - mu_K/mu ln(1 + mu/mu_K))` of the absorbed photons loses a K photon
    (S. J. B. Reed and N. G. Ware, J. Phys. E 5 (1972) 582), mu and mu_K being the absorption of the parent
    and of the K photon in the chip; the peaks then stand as eta / (1 - eta). The photon that leaves through
    the back or the sides is neglected.

    Args:
        energy_kev: parent energy, any shape, 0.1 to 800 keV.
        setup: only the material counts.

    Returns:
        (photon, *shape), one row per entry of `escape_photons`; 0 at and below the K edge of the detector.

    Raises:
        ConfigError: an energy outside the range of the cross-sections.
    """
    energy = _check_energies(energy_kev)
    z = xraylib.SymbolToAtomicNumber(setup.material)
    k_share = xraylib.FluorYield(z, xraylib.K_SHELL) * (1.0 - 1.0 / xraylib.JumpFactor(z, xraylib.K_SHELL))
    mu = _evaluate_each(lambda e: xraylib.CS_Total(z, e), energy)
    lost = np.stack(
        [
            0.5 * k_share * share * _escaping_share(mu / xraylib.CS_Total(z, photon_kev))
            for photon_kev, share in escape_photons(setup)
        ]
    )
    above = energy > xraylib.EdgeEnergy(z, xraylib.K_SHELL)
    return np.where(above, lost / (1.0 - lost.sum(axis=0)), 0.0)


def _escaping_share(mu_over_mu_k: FloatArray) -> FloatArray:
    """Share of the outward K photons that reach the surface."""
    return 1.0 - np.log1p(mu_over_mu_k) / mu_over_mu_k


def _mean_line(z: int, codes: tuple[int, ...]) -> tuple[float, float]:
    rates = np.array([xraylib.RadRate(z, code) for code in codes])
    energies = np.array([xraylib.LineEnergy(z, code) for code in codes])
    return float(rates @ energies / rates.sum()), float(rates.sum())


def _evaluate_each(cross_section: Callable[[float], float], energy_kev: FloatArray) -> FloatArray:
    values = np.fromiter((cross_section(float(e)) for e in energy_kev.ravel()), dtype=np.float64)
    return values.reshape(energy_kev.shape)


def _check_energies(energy_kev: npt.ArrayLike) -> FloatArray:
    energy = np.asarray(energy_kev, dtype=np.float64)
    bad = energy[~((energy >= LOWEST_KEV) & (energy <= HIGHEST_KEV))]
    if bad.size:
        raise ConfigError(
            f"detector: no cross-sections at {bad.flat[0]:g} keV; energies must lie between "
            f"{LOWEST_KEV:g} and {HIGHEST_KEV:g} keV"
        )
    return energy
