"""The X-ray tube: photons that leave it by energy, and what they excite and scatter.

H. Ebel, X-Ray Spectrom. 28 (1999) 255 for the continuum and the K lines, 32 (2003) 46 for the L lines: photons per
steradian, milliampere and second of a thick anode under an electron beam. M lines of the anode are not in it; they lie
below 2.5 keV for every anode in use, where windows take most of them.

Only relative weights follow from this in a fit: how the subshells of a family are excited, and how high the copies of
the anode's lines stand beside each other. They are right to some 10 to 20 %, as the formulas are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import xraylib

from hpcxrf.errors import ConfigError
from hpcxrf.physics.components import find_emitted_lines

FloatArray = npt.NDArray[np.float64]
Series = Literal["K", "L"]

LOWEST_KV: Final = 5.0
HIGHEST_KV: Final = 60.0
"""Ebel compared with measurements from 5 to 50 kV; up to 60 kV the formulas have no feature that would end them."""
LIGHTEST_ANODE: Final = 13
HEAVIEST_ANODE: Final = 79
"""Al to Au: anodes between which the depth and backscatter terms were fitted."""
ANODES: Final = frozenset(
    {"Al", "Ti", "Cr", "Fe", "Co", "Ni", "Cu", "Zn", "Mo", "Rh", "Pd", "Ag", "Ta", "W", "Pt", "Au"}
)
"""Elements that anodes are made of."""
LOWEST_KEV: Final = 1.0
"""Below it no window lets much through, and the formulas were not compared."""

_CONTINUUM: Final = 1.35e9
_K_LINES: Final = 5.0e13
_L_LINES: Final = {"L1": 0.71e13, "L2": 2.70e13, "L3": 4.94e13}
# Electrons of the shell times Bethe's constant.
_ELECTRONS: Final = {"K": 2.0 * 0.35, "L": 8.0 * 0.25}
_MEAN_IONISATION_KEV: Final = 0.0135
_CM_PER_UM: Final = 1e-4
_BIN_KEV: Final = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Matter between the anode and the sample: window, filter, air.

    Raises:
        ConfigError: a material that is neither a formula nor known by name, a thickness or density that cannot be.
    """

    material: str
    """Symbol or formula, such as `Al` or `C10H8O4`, or a name of the NIST list, such as `Kapton Polyimide Film`."""
    thickness_um: float
    density_g_cm3: float | None = None
    """None: that of the element, or of the NIST list."""

    def __post_init__(self) -> None:
        faults = []
        if not 0.0 <= self.thickness_um < math.inf:
            faults.append(f"thickness_um is {self.thickness_um}, must be a length of 0 or more")
        if self.density_g_cm3 is not None and not 0.0 < self.density_g_cm3 < 30.0:
            faults.append(f"density_g_cm3 is {self.density_g_cm3}, must lie between 0 and 30")
        try:
            known = _known_density(self.material)
        except ValueError:
            faults.append(
                f"material is {self.material!r}; write a formula such as Al or SiO2, or a name of the NIST list"
            )
        else:
            if known is None and self.density_g_cm3 is None:
                faults.append(f"the density of {self.material} is not known; give density_g_cm3")
        if faults:
            raise ConfigError("layer of the tube: " + "; ".join(faults))


def beryllium_window() -> tuple[Layer, ...]:
    """The window of most sealed tubes: 125 um (75 to 250 um are sold)."""
    return (Layer(material="Be", thickness_um=125.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tube:
    """An X-ray tube with a thick anode.

    Raises:
        ConfigError: values outside of the range of the formulas, all of them at once.
    """

    anode: str
    """Symbol of the anode's element."""
    kv: float
    """High voltage, kV: the highest photon energy, keV."""
    electron_angle_deg: float = 70.0
    """Angle between electron beam and anode surface; with the next one, a side window at right angles to the beam and
    an anode angle of 20 degrees, the usual one."""
    take_off_angle_deg: float = 20.0
    """Angle between the emitted X-rays and the anode surface."""
    layers: tuple[Layer, ...] = field(default_factory=beryllium_window)
    """Window and filters."""

    def __post_init__(self) -> None:
        faults = []
        try:
            z = xraylib.SymbolToAtomicNumber(self.anode)
        except ValueError:
            faults.append(f"anode is {self.anode!r}, must be the symbol of an element, such as Rh")
        else:
            if not LIGHTEST_ANODE <= z <= HEAVIEST_ANODE:
                faults.append(f"anode is {self.anode}, must be an element from Al to Au")
        for name, value, low, high in (
            ("kv", self.kv, LOWEST_KV, HIGHEST_KV),
            ("electron_angle_deg", self.electron_angle_deg, 50.0, 90.0),
            ("take_off_angle_deg", self.take_off_angle_deg, 5.0, 90.0),
        ):
            if not low <= value <= high:
                faults.append(f"{name} is {value:g}, must lie between {low:g} and {high:g}")
        if faults:
            raise ConfigError("tube: " + "; ".join(faults))

    @property
    def anode_z(self) -> int:
        """Atomic number of the anode."""
        return int(xraylib.SymbolToAtomicNumber(self.anode))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnodeLine:
    """A characteristic line of the anode, as it leaves the tube."""

    name: str
    """Name of the transition, such as `KL3`."""
    energy_kev: float
    photons: float
    """1/(sr mA s), behind window and filters."""

    @property
    def series(self) -> Series:
        """`K` or `L`."""
        return "K" if self.name[0] == "K" else "L"


@dataclass(frozen=True, slots=True, kw_only=True)
class TubeSpectrum:
    """Photons behind window and filters, as bins of the continuum and lines."""

    energy_kev: FloatArray
    """(node,): middles of the bins, then the lines."""
    photons: FloatArray
    """(node,) 1/(sr mA s) in the bin or line."""
    n_bins: int
    lines: tuple[AnodeLine, ...]


def continuum(energy_kev: npt.ArrayLike, tube: Tube) -> FloatArray:
    """Bremsstrahlung behind window and filters, photons/(sr mA s keV).

    `1.35e9 Z (E0/E - 1)^x f`, x = 1.109 - 0.00435 Z + 0.00175 E0; f is the anode's own absorption over the depth in
    which the photons arise. Kramers' law is x = 1, f = 1.

    Args:
        energy_kev: any shape, above 0; 0 at the high voltage and above it.
        tube: the tube.
    """
    energy = np.asarray(energy_kev, dtype=np.float64)
    z = tube.anode_z
    below = np.minimum(energy, tube.kv * (1.0 - 1e-12))
    overvoltage = tube.kv / below
    exponent = 1.109 - 0.00435 * z + 0.00175 * tube.kv
    bare = _CONTINUUM * z * (overvoltage - 1.0) ** exponent * _escaping_share(below, overvoltage, tube)
    return np.where(energy < tube.kv, bare * transmission(energy, tube.layers), 0.0)


@lru_cache(maxsize=64)
def find_anode_lines(tube: Tube) -> tuple[AnodeLine, ...]:
    """K and L lines of the anode behind window and filters, those that the high voltage excites, above 1 keV.

    `const R / S omega p f`: backscatter R, stopping power S over the overvoltage of the line's own subshell, yield,
    rate, absorption in the anode. The constants of L1 and L2 carry Ebel's correction for anodes lighter than mercury.
    """
    z = tube.anode_z
    emitted = [one for series in ("K", "L") for one in find_emitted_lines(z, series, HIGHEST_KV)]
    found = []
    for name, energy, _ in emitted:
        shell = _subshell(name)
        edge = xraylib.EdgeEnergy(z, getattr(xraylib, f"{shell}_SHELL"))
        if tube.kv > edge and energy >= LOWEST_KEV:
            rate = xraylib.RadRate(z, getattr(xraylib, f"{name}_LINE"))
            emitted_photons = _ionisations(shell, edge, tube) * rate
            at = np.array([energy])
            escaping = _escaping_share(at, np.array([tube.kv / edge]), tube) * transmission(at, tube.layers)
            found.append(AnodeLine(name=name, energy_kev=energy, photons=float(emitted_photons * escaping[0])))
    return tuple(sorted(found, key=lambda line: line.energy_kev))


@lru_cache(maxsize=64)
def tube_spectrum(tube: Tube) -> TubeSpectrum:
    """Spectrum of the tube as bins of 25 eV from 1 keV to the high voltage, and lines."""
    n_bins = math.ceil((tube.kv - LOWEST_KEV) / _BIN_KEV)
    edges = np.linspace(LOWEST_KEV, tube.kv, n_bins + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    lines = find_anode_lines(tube)
    return TubeSpectrum(
        energy_kev=np.concatenate([middle, [line.energy_kev for line in lines]]),
        photons=np.concatenate([continuum(middle, tube) * np.diff(edges), [line.photons for line in lines]]),
        n_bins=n_bins,
        lines=lines,
    )


def transmission(energy_kev: npt.ArrayLike, layers: Sequence[Layer]) -> FloatArray:
    """Share of the photons that layers let through, `exp(-sum mu t)` with the total cross-section.

    Args:
        energy_kev: any shape, 0.1 to 800 keV.
        layers: materials and thicknesses.
    """
    energy = np.asarray(energy_kev, dtype=np.float64)
    depth = np.zeros_like(energy)
    for layer in layers:
        density = layer.density_g_cm3 or _known_density(layer.material) or math.nan
        mass = density * layer.thickness_um * _CM_PER_UM
        depth += mass * np.array([xraylib.CS_Total_CP(layer.material, e) for e in energy.flat]).reshape(energy.shape)
    passed: FloatArray = np.exp(-depth)
    return passed


@lru_cache(maxsize=4096)
def subshell_excitation(tube: Tube, z: int, shell: str) -> float:
    """How a tube excites the lines of one subshell: `sum_E S(E) G(E) / G(kV)`, photons/(sr mA s).

    G is the cross-section for the lines of the subshell, with what inner vacancies add; within a subshell the ratios
    of the lines do not depend on the energy, so that a table made at the high voltage is right with this factor.

    Args:
        tube: the tube.
        z: atomic number, Na to U.
        shell: `K`, `L1` to `L3`, or `M1` to `M5`.

    Returns:
        The factor; 0 where the high voltage does not excite the subshell.
    """
    lines = [one for one in find_emitted_lines(z, shell[0], tube.kv) if _subshell(one[0]) == shell]
    if not lines:
        return 0.0
    name, _, at_highest = max(lines, key=lambda one: one[2])
    code, spectrum = getattr(xraylib, f"{name}_LINE"), tube_spectrum(tube)
    edge = xraylib.EdgeEnergy(z, getattr(xraylib, f"{shell}_SHELL"))
    used = (spectrum.energy_kev > edge) & (spectrum.photons > 0.0)
    strength = np.array([xraylib.CS_FluorLine_Kissel(z, code, e) for e in spectrum.energy_kev[used]])
    return float(strength @ spectrum.photons[used] / at_highest)


def _subshell(line: str) -> str:
    """Subshell whose vacancy a line fills: `K` of `KL3`, `L2` of `L2M4`."""
    return line[0] if line[0] == "K" else line[:2]


def _ionisations(shell: str, edge_kev: float, tube: Tube) -> float:
    """Photons/(sr mA s) of all lines of a subshell before they leave the anode."""
    z, u = tube.anode_z, tube.kv / edge_kev
    growth = u * math.log(u) + 1.0 - u
    root = math.sqrt(u) * math.log(u) + 2.0 * (1.0 - math.sqrt(u))
    correction = 1.0 + 16.05 * math.sqrt(_MEAN_IONISATION_KEV * z / edge_kev) * root / growth
    stopping = _ELECTRONS[shell[0]] / z * growth * correction
    backscatter = 1.0 - 0.0081517 * z + 3.613e-5 * z * z + 0.009583 * z * math.exp(-u) + 0.001141 * tube.kv
    constant = _K_LINES if shell == "K" else _L_LINES[shell]
    if shell in {"L1", "L2"}:
        constant *= -0.4814 + 0.03781 * z - 2.413e-4 * z * z
    return constant * stopping * backscatter * float(xraylib.FluorYield(z, getattr(xraylib, f"{shell}_SHELL")))


def _escaping_share(energy_kev: FloatArray, overvoltage: FloatArray, tube: Tube) -> FloatArray:
    """Share of the photons that the anode itself lets out: they arise evenly down to twice their mean depth."""
    tau = np.array([xraylib.CS_Photo(tube.anode_z, e) for e in energy_kev.flat]).reshape(energy_kev.shape)
    angles = math.sin(math.radians(tube.electron_angle_deg)) / math.sin(math.radians(tube.take_off_angle_deg))
    depth = np.maximum(2.0 * tau * _mean_depth(overvoltage, tube) * angles, 1e-12)
    share: FloatArray = -np.expm1(-depth) / depth
    return share


def _mean_depth(overvoltage: FloatArray, tube: Tube) -> FloatArray:
    """Mean depth in which photons arise, g/cm2 along the electron beam (Ebel 1999, eq. 4)."""
    z, log_z = tube.anode_z, math.log(tube.anode_z)
    eta = 0.1904 - 0.2236 * log_z + 0.1292 * log_z**2 - 0.0149 * log_z**3
    eta *= tube.kv ** (0.1382 - 0.9211 / math.sqrt(z))
    farthest = 0.787e-5 * math.sqrt(_MEAN_IONISATION_KEV * z) * tube.kv**1.5 + 0.735e-6 * tube.kv**2
    farthest *= xraylib.AtomicWeight(z) / z
    log_u = np.log(overvoltage)
    above = 0.49269 - 1.0987 * eta + 0.78557 * eta**2
    depth: FloatArray = farthest * above * log_u / (0.70256 - 1.09865 * eta + 1.0046 * eta**2 + log_u)
    return depth


def _known_density(material: str) -> float | None:
    """Density of an element or of a NIST compound, g/cm3; None of another formula; ValueError of no formula."""
    try:
        return float(xraylib.GetCompoundDataNISTByName(material)["density"])
    except ValueError:
        elements = xraylib.CompoundParser(material)["Elements"]
        return float(xraylib.ElementDensity(elements[0])) if len(elements) == 1 else None
