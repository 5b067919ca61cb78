"""The calibration curve of XRF-Maps (`constants: maps-3.58`), for areal densities that are to equal its own.

    k(family) = absorption * yield * T_be * T_ge * (1 - T_chip) * T_air
    absorption = 1 - exp(-4 pi t F beta(E0 + 0.1 keV) / lambda),       t = 100 nm / density in g/cm3: 10 ug/cm2
    F = (J - 1) / J / (jumps of the edges above, where E0 excites them),   J = J_K, J_L3, J_M5
    a_i = e_i / k_i,   e_i = counts per second / (ug/cm2 * mean scaler),   p = sum a_i^2 / sum a_i

p minimises `sum (1 - a_i / p)^2`, which XRF-Maps does by Nelder and Mead. All peculiarities are kept: the thickness,
the energy of 0.1 keV more, the yield of the single line for L and M, and a chip of thickness 0 that absorbs all.
`4 pi beta / lambda` is the photoelectric absorption coefficient: XRF-Maps has it from the f2 of Henke, Gullikson and
Davis (At. Data Nucl. Data Tables 54 (1993) 181), this module from xraylib unless it is given another function. They
differ by 1 to 2 % at calcium to copper (silicon 4 %), and p takes up what they have in common.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import xraylib

from hpcxrf.errors import FitError
from hpcxrf.quantify.sensitivity import parse_family

_EXTRA_KEV: Final = 0.1
_FILM_G_CM2: Final = 1e-5
_AIR: Final = "Air, Dry (near sea level)"
_CM_PER_UM: Final = 1e-4
_LINES: Final = {"K": ("KA1_LINE", "K_SHELL"), "L": ("LA1_LINE", "L3_SHELL"), "M": ("MA1_LINE", "M5_SHELL")}
_HIGHER: Final = {"K": (), "L": ("L2_SHELL", "L1_SHELL"), "M": ("M4_SHELL", "M3_SHELL", "M2_SHELL", "M1_SHELL")}

Absorption = Callable[[str, float], float]
"""Photoelectric absorption coefficient (cm2/g) of an element by symbol, at an energy in keV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsGeometry:
    """What an override file says of the detector, um; 0 as XRF-Maps means it."""

    be_window_um: float = 0.0
    ge_dead_layer_um: float = 0.0
    chip_thickness_um: float = 0.0
    """0: a chip that absorbs every photon."""
    air_path_um: float = 0.0
    material: Literal["Si", "Ge"] = "Si"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsPoint:
    """One family of one standard, as XRF-Maps counts it."""

    family: str
    counts_per_second: float
    """K-alpha-1, L-alpha-1 or M-alpha-1 counts of the mean pixel over its elapsed live time."""
    areal_density_ug_cm2: float
    scaler: float
    """Mean of the positive values of the scaler over the pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsCurve:
    """The curve of one fit and one scaler."""

    p: float
    incident_energy_kev: float
    geometry: MapsGeometry

    def find_value(self, family: str, *, absorption: Absorption | None = None) -> float:
        """Value of the calibration curve, counts per second, ug/cm2 and scaler count; 0 where nothing is excited."""
        return self.p * compute_maps_shape(family, self.incident_energy_kev, self.geometry, absorption=absorption)


def compute_maps_shape(
    family: str, incident_energy_kev: float, geometry: MapsGeometry, *, absorption: Absorption | None = None
) -> float:
    """Compute k of a family.

    Args:
        family: `Fe`, `Pt_L`, `Au_M`.
        incident_energy_kev: keV.
        geometry: of the override file.
        absorption: photoelectric absorption coefficients; None: xraylib's.

    Returns:
        0 where the energy does not exceed the edge, as in XRF-Maps.

    Raises:
        FitError: not a family, or an element without that line.
    """
    symbol, shell = parse_family(family)
    z = xraylib.SymbolToAtomicNumber(symbol)
    found = absorption or compute_photoabsorption
    try:
        line_kev = float(xraylib.LineEnergy(z, getattr(xraylib, _LINES[shell][0])))
        emitted = _absorbed_share(z, shell, incident_energy_kev, found) * _find_yield(z, shell)
    except ValueError as error:
        raise FitError(f"{family}: the library has no {_LINES[shell][0]} of {symbol}; remove it") from error
    return emitted * _find_transmission(line_kev, geometry, found)


def compute_photoabsorption(symbol: str, energy_kev: float) -> float:
    """Photoelectric absorption coefficient of an element, cm2/g, of xraylib."""
    return float(xraylib.CS_Photo(xraylib.SymbolToAtomicNumber(symbol), energy_kev))


def fit_maps_curve(
    points: Sequence[MapsPoint],
    incident_energy_kev: float,
    geometry: MapsGeometry,
    *,
    absorption: Absorption | None = None,
) -> MapsCurve:
    """Fit the factor p; a family that comes several times enters by the mean of its e.

    Raises:
        FitError: no point, or a family that the energy does not excite.
    """
    found: Mapping[str, list[float]] = defaultdict(list)
    for point in points:
        found[point.family].append(point.counts_per_second / (point.areal_density_ug_cm2 * point.scaler))
    shapes = {f: compute_maps_shape(f, incident_energy_kev, geometry, absorption=absorption) for f in found}
    dark = [family for family, k in shapes.items() if k <= 0.0]
    if dark or not found:
        reason = f"{incident_energy_kev:g} keV does not excite {', '.join(dark)}" if dark else "no family was measured"
        raise FitError(f"curve of XRF-Maps: {reason}; choose elements of the standard that the energy excites")
    p = fit_maps_factor([math.fsum(e) / len(e) / shapes[family] for family, e in found.items()])
    return MapsCurve(p=p, incident_energy_kev=incident_energy_kev, geometry=geometry)


def fit_maps_factor(a: Sequence[float]) -> float:
    """Minimise `sum (1 - a_i / p)^2` over p: `sum a_i^2 / sum a_i`."""
    return math.fsum(x * x for x in a) / math.fsum(a)


def _absorbed_share(z: int, shell: str, incident_energy_kev: float, absorption: Absorption) -> float:
    own = getattr(xraylib, _LINES[shell][1])
    if incident_energy_kev <= xraylib.EdgeEnergy(z, own):
        return 0.0
    jump = xraylib.JumpFactor(z, own)
    share = (jump - 1.0) / jump
    for name in _HIGHER[shell]:
        higher = getattr(xraylib, name)
        if incident_energy_kev > xraylib.EdgeEnergy(z, higher):
            share /= xraylib.JumpFactor(z, higher)
    depth = absorption(xraylib.AtomicNumberToSymbol(z), incident_energy_kev + _EXTRA_KEV) * _FILM_G_CM2
    return -math.expm1(-share * depth)


def _find_yield(z: int, shell: str) -> float:
    """Yield of the K shell; of L-alpha-1; of M5, which XRF-Maps's table gives to M-alpha-1 as a whole."""
    shell_yield = float(xraylib.FluorYield(z, getattr(xraylib, _LINES[shell][1])))
    return shell_yield * float(xraylib.RadRate(z, xraylib.LA1_LINE)) if shell == "L" else shell_yield


def _find_transmission(line_kev: float, geometry: MapsGeometry, absorption: Absorption) -> float:
    def depth(symbol: str, thickness_um: float) -> float:
        density = float(xraylib.ElementDensity(xraylib.SymbolToAtomicNumber(symbol)))
        return absorption(symbol, line_kev) * density * thickness_um * _CM_PER_UM

    chip = geometry.chip_thickness_um
    layers = depth("Be", geometry.be_window_um) + depth("Ge", geometry.ge_dead_layer_um)
    air = xraylib.GetCompoundDataNISTByName(_AIR)["density"] * geometry.air_path_um * _CM_PER_UM
    layers += float(xraylib.CS_Photo_CP(_AIR, line_kev)) * air
    absorbed = 1.0 if chip == 0.0 else -math.expm1(-depth(geometry.material, chip))
    return math.exp(-layers) * absorbed
