"""Line ratios that differ from the library's: the multipliers of override files, and the table they belong to.

A multiplier of an override file is relative to the line table of MAPS. That table's K-beta lines are up to half too
weak below gallium, and the multipliers in use repair it: on the library's ratios, which are right, sulfur's 2.6 would
put the K-beta line 2.6 times too high. What a file asks for is MAPS's ratio times its multiplier.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import xraylib

from hpcxrf.errors import ConfigError

MAPS_KBETA: Final[Mapping[str, float]] = MappingProxyType(
    {"Al": 0.012, "Si": 0.021, "S": 0.050, "Cl": 0.060, "K": 0.099, "Ca": 0.116, "Ti": 0.137, "Fe": 0.172, "Ni": 0.189}
)
"""K-beta to K-alpha-1 of the line table of MAPS, XRF-Maps and MapsTorch, where it differs from the library's."""
_EQUAL_FROM: Final = "Ga"

_ONES: Final = (1.0,) * 12
# Order of the twelve multipliers in override files; Lb15 and Lg4' go with their stronger neighbours.
_L_ORDER: Final[Mapping[str, int]] = MappingProxyType(
    {
        "L3M5": 0,
        "L3M4": 1,
        "L2M4": 2,
        "L3N5": 3,
        "L3N4": 3,
        "L1M3": 4,
        "L1M2": 5,
        "L2N4": 6,
        "L1N2": 7,
        "L1N3": 8,
        "L1O3": 9,
        "L1O2": 9,
        "L3M1": 10,
        "L2M1": 11,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branching:
    """Multipliers on the ratios of lines, and the K-beta ratios that they are relative to.

    Raises:
        ConfigError: a wrong number of multipliers, or one that is negative or not finite.
    """

    k_ratios: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Multipliers by element ("Fe"): Ka1, Ka2, Kb1 (with 3 and 5), Kb2 (all of N, O, P)."""
    l_ratios: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Multipliers by family ("Pt_L"): La1, La2, Lb1, Lb2 (with 15), Lb3, Lb4, Lg1, Lg2, Lg3, Lg4, Ll, Ln."""
    l_families: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Multipliers by family ("Pt_L"): L1, L2, L3."""
    kbeta_base: Mapping[str, float] = field(default_factory=dict)
    """Recorded counts of Kb1 (with 3 and 5) to those of Ka1, by element, that the multipliers are relative to; for
    other elements it is the library's ratio times the detector's efficiency."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} has {list(values)}, must be {count} numbers of 0 or more"
            for table, count in ((self.k_ratios, 4), (self.l_ratios, 12), (self.l_families, 3))
            for name, values in table.items()
            if len(values) != count or not all(0.0 <= v < math.inf for v in values)
        ]
        faults += [
            f"{name} has a K-beta ratio of {value}, must be 0 or more"
            for name, value in self.kbeta_base.items()
            if not 0.0 <= value < math.inf
        ]
        if faults:
            raise ConfigError("branching: " + "; ".join(faults))


def line_multiplier(symbol: str, line_name: str, branching: Branching) -> float:
    """Multiplier of one line by its library name ("KL3", "L2M4"); 1 for M lines and what is not named."""
    if line_name[0] == "K":
        index = {"L3": 0, "L2": 1}.get(line_name[1:], 2 if line_name[1] == "M" else 3)
        return float(branching.k_ratios.get(symbol, _ONES)[index])
    if line_name[0] == "M":
        return 1.0
    family = f"{symbol}_L"
    shell_factor = branching.l_families.get(family, _ONES)[int(line_name[1]) - 1]
    if line_name not in _L_ORDER:
        return float(shell_factor)
    return float(shell_factor * branching.l_ratios.get(family, _ONES)[_L_ORDER[line_name]])


def kbeta_correction(symbol: str, recorded: Sequence[tuple[str, float]], branching: Branching) -> float:
    """Factor that brings recorded Kb1 (with 3 and 5) to Ka1 to the ratio that multipliers are relative to.

    Args:
        symbol: the element.
        recorded: library name and recorded strength of its K lines; other families are not looked up.
        branching: `kbeta_base` decides.

    Returns:
        1 for an element without such a ratio, and where either line is missing.
    """
    if symbol not in branching.kbeta_base:
        return 1.0
    alpha = sum(strength for name, strength in recorded if name == "KL3")
    beta = sum(strength for name, strength in recorded if name.startswith("KM"))
    if alpha <= 0.0 or beta <= 0.0:
        return 1.0
    return branching.kbeta_base[symbol] * alpha / beta


def maps_kbeta_ratio(symbol: str) -> float | None:
    """K-beta to K-alpha-1 of the MAPS line table: from `MAPS_KBETA`, and the library's ratio from gallium on.

    Between known elements, MAPS's share of the library's ratio is interpolated in Z.

    Returns:
        None below aluminium, where nothing is known.
    """
    if symbol in MAPS_KBETA:
        return MAPS_KBETA[symbol]
    z = xraylib.SymbolToAtomicNumber(symbol)
    known = {xraylib.SymbolToAtomicNumber(s): r for s, r in MAPS_KBETA.items()}
    if z < min(known):
        return None
    shares = {k: r / _library_kbeta_ratio(k) for k, r in known.items()}
    shares[xraylib.SymbolToAtomicNumber(_EQUAL_FROM)] = 1.0
    return float(np.interp(z, list(shares), list(shares.values()))) * _library_kbeta_ratio(z)


def _library_kbeta_ratio(z: int) -> float:
    beta = sum(_rate(z, name) for name in ("KM1", "KM2", "KM3", "KM4", "KM5"))
    return beta / _rate(z, "KL3")


def _rate(z: int, line_name: str) -> float:
    try:
        return float(xraylib.RadRate(z, getattr(xraylib, f"{line_name}_LINE")))
    except ValueError:  # the atom has no such line
        return 0.0
