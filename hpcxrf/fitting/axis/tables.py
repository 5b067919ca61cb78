"""How probable a peak is at an energy, before anything is known of the sample: by how common the elements are."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import xraylib
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP_KEV: Final = 0.002
LOWEST_KEV: Final = -0.3
LISTED_COST: Final = -2.0
"""Cost of a family that the user lists."""
_ABOVE_KEV: Final = 2.5
# Cost of a family: -ln of how common it is, up to a constant. Judged, not fitted; the order matters, not the figures.
_COMMON: Final = ("Si", "S", "Cl", "Ar", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Ni", "Cu", "Zn")
_LESS_COMMON: Final = ("Al", "P", "Mg", "V", "Co", "As", "Se", "Br", "Rb", "Sr", "Zr", "Mo", "Na", "Y", "Nb")
_HEAVY: Final = (
    *("Pb", "Ba", "W", "Au", "Pt", "Sn", "Ag", "La", "Ce", "I", "Hg"),
    *("Cd", "Rh", "Pd", "Bi", "U", "Sb", "Gd", "Th", "Hf", "Ta"),
)
_K_COST: Final = dict.fromkeys(_COMMON, 0.0) | dict.fromkeys(_LESS_COMMON, 1.0)
_L_COST: Final = dict.fromkeys(_HEAVY, 1.5)
_M_COST: Final = dict.fromkeys(("Pb", "Au", "Pt", "Hg", "W", "U", "Bi", "Th"), 3.0)
_COSTS: Final = {"K": (_K_COST, 2.0), "L": (_L_COST, 2.5), "M": (_M_COST, 4.0)}
_UNUSUAL: Final = frozenset(["Ne", "Kr", "Xe", "Tc", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa"])
_UNUSUAL_COST: Final = 9.0
_RANGES: Final = {"K": range(11, 60), "L": range(30, 93), "M": range(70, 93)}
_EDGES: Final = {"K": xraylib.K_SHELL, "L": xraylib.L3_SHELL, "M": xraylib.M5_SHELL}
_ALPHA: Final = {"K": xraylib.KA_LINE, "L": xraylib.LA_LINE, "M": xraylib.MA1_LINE}
# The mean of all L-beta lines stands where none is: 85 eV above L-beta-1 of Ce.
_BETA: Final = {"K": xraylib.KB_LINE, "L": xraylib.L2M4_LINE, "M": xraylib.MB_LINE}
# Shares of the strong peaks of a spectrum, and how far a peak lies from its line (axis step, chemistry, neighbours).
_SHARES: Final = {"K": 0.62, "L": 0.10, "M": 0.02}
# Of the K lines' share, what goes to L and M lines as the list does.
_LISTED_SHARE: Final = 0.35
_OUTER_L_LINES: Final = (xraylib.L3N5_LINE, xraylib.L2N4_LINE)
_LINE_SD_KEV: Final = 0.022
_ELASTIC_SHARE: Final = 0.05
_ELASTIC_SD_KEV: Final = 0.15
_COMPTON_SHARE: Final = 0.06
# Lines of a tube stand where the anode has them.
_ANODE_SHARE: Final = 0.15
_ZERO_SHARE: Final = 0.10
_ZERO_SD_KEV: Final = 0.03
_LOW_SHARE: Final = 0.03
_LOW_KEV: Final = (0.15, 0.9)
_FARTHEST_ANGLE_DEG: Final = 160.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of lines: its two strongest groups, its edge, and how uncommon it is."""

    name: str
    shell: str
    z: int
    alpha_kev: float
    beta_kev: float
    edge_kev: float
    cost: float
    """-ln of how common the family is, up to a constant; 9 for elements that no sample holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionTable:
    """Probability density (1/keV) of a peak by energy."""

    density: Array
    """(energy,) from `LOWEST_KEV` in steps of `STEP_KEV`."""
    span_kev: float
    """Energies over which peaks are expected: a density of `1 / span_kev` says nothing."""
    incident_kev: float

    def at(self, energy_kev: Array) -> Array:
        """Density at any energies, 0 outside of the table."""
        index = np.rint((energy_kev - LOWEST_KEV) / STEP_KEV).astype(np.int64)
        inside = (index >= 0) & (index < self.density.size)
        return np.where(inside, self.density[np.clip(index, 0, self.density.size - 1)], 0.0)


@lru_cache(maxsize=1)
def list_families() -> tuple[Family, ...]:
    """K families of Na to Pr, L of Zn to U, M of Yb to U, with the library's mean energies."""
    found = []
    for shell, numbers in _RANGES.items():
        costs, otherwise = _COSTS[shell]
        for z in numbers:
            symbol = xraylib.AtomicNumberToSymbol(z)
            try:
                alpha = xraylib.LineEnergy(z, _ALPHA[shell])
            except ValueError:
                continue
            found.append(
                Family(
                    name=symbol if shell == "K" else f"{symbol}_{shell}",
                    shell=shell,
                    z=z,
                    alpha_kev=alpha,
                    beta_kev=_line_or(z, _BETA[shell], alpha),
                    edge_kev=xraylib.EdgeEnergy(z, _EDGES[shell]),
                    cost=_UNUSUAL_COST if symbol in _UNUSUAL else costs.get(symbol, otherwise),
                )
            )
    return tuple(found)


def _line_or(z: int, code: int, otherwise: float) -> float:
    try:
        return float(xraylib.LineEnergy(z, code))
    except ValueError:
        return otherwise


def cost_of(family: Family, listed: Collection[str]) -> float:
    """Cost of a family where the user lists some."""
    return LISTED_COST if family.name in listed else family.cost


def build_position_table(
    incident_kev: float,
    *,
    listed: Collection[str] = (),
    elastic: bool = True,
    anode: tuple[tuple[float, float], ...] = (),
    reach_kev: float = 0.3,
) -> PositionTable:
    """Build the table of an incident energy.

    Args:
        incident_kev: nominal energy of the beam.
        listed: families that the user names; all others stay possible.
        elastic: False for a tube, of which no peak is elastic and lines may lie above the effective energy.
        anode: energies (keV) and shares of the strong lines of a tube's anode; the incident energy is then its high
            voltage, and no family needs more.
        reach_kev: a family is excited if its edge lies below the incident energy plus this.
    """
    highest_kev = incident_kev * (1.0 if elastic or anode else 2.0)
    top = highest_kev + _ABOVE_KEV
    energy = np.arange(LOWEST_KEV, top, STEP_KEV)
    density = _add_lines(energy, highest_kev + reach_kev, listed)
    density += _ZERO_SHARE * _gauss(energy, 0.0, _ZERO_SD_KEV)
    low, high = _LOW_KEV
    density += _LOW_SHARE / (high - low) * ((energy > low) & (energy < high))
    if elastic:
        density += _ELASTIC_SHARE * _gauss(energy, incident_kev, _ELASTIC_SD_KEV) + _expect_compton(
            energy, incident_kev
        )
    for line_kev, share in anode:
        density += _ANODE_SHARE * share * _gauss(energy, line_kev, _LINE_SD_KEV)
    if anode:
        density += _expect_compton(energy, max(anode, key=lambda one: one[1])[0])
    return PositionTable(density=density, span_kev=top - _ABOVE_KEV - 0.9, incident_kev=incident_kev)


def _expect_compton(energy: Array, line_kev: float) -> Array:
    """Density of the Compton peak of a line: anywhere below it that an angle can bring it."""
    lowest = line_kev / (1.0 + line_kev / 511.0 * (1.0 - np.cos(np.radians(_FARTHEST_ANGLE_DEG))))
    wide = (energy > lowest - 0.25) & (energy < line_kev)
    found: Array = _COMPTON_SHARE * wide / (max(wide.sum(), 1) * STEP_KEV)
    return found


def _add_lines(energy: Array, highest_edge_kev: float, listed: Collection[str]) -> Array:
    density = np.zeros_like(energy)
    for shell, share in _share_shells(listed).items():
        mine = [f for f in list_families() if f.shell == shell and f.edge_kev < highest_edge_kev and f.alpha_kev > 0.9]
        weights = np.array([np.exp(-cost_of(f, listed)) for f in mine])
        if not mine:
            continue
        weights *= share / weights.sum()
        for family, weight in zip(mine, weights, strict=True):
            for line_kev, part in _strong_lines(family, listed):
                first = max(int((line_kev - LOWEST_KEV - 0.15) / STEP_KEV), 0)
                near = slice(first, first + int(0.3 / STEP_KEV))
                density[near] += weight * part * _gauss(energy[near], line_kev, _LINE_SD_KEV)
    return density


def _share_shells(listed: Collection[str]) -> dict[str, float]:
    """Shares of K, L and M lines; where L and M families are listed, they have more and K lines less."""
    shells = {f.name: f.shell for f in list_families()}
    mine = [shells[name] for name in listed if name in shells]
    moved = {shell: _LISTED_SHARE * mine.count(shell) / len(mine) if mine else 0.0 for shell in ("L", "M")}
    more = {shell: _SHARES[shell] + part for shell, part in moved.items()}
    return {"K": _SHARES["K"] - sum(moved.values()), **more}


def list_outer_lines(family: Family) -> tuple[float, ...]:
    """List the energies (keV) of the peaks beyond the alpha and the first beta line: L-beta-2 and L-gamma-1."""
    if family.shell != "L":
        return ()
    return tuple(_line_or(family.z, code, family.beta_kev) for code in _OUTER_L_LINES)


def _strong_lines(family: Family, listed: Collection[str]) -> list[tuple[float, float]]:
    """Energies and shares of the peaks that a family may have among the strongest of a spectrum."""
    if family.shell != "L":
        return [(family.alpha_kev, 1.0)]
    if family.name not in listed:
        return [(family.alpha_kev, 0.6), (family.beta_kev, 0.4)]
    second, gamma = list_outer_lines(family)
    return [(family.alpha_kev, 0.45), (family.beta_kev, 0.3), (second, 0.15), (gamma, 0.1)]


def _gauss(energy: Array, centre: float, sd: float) -> Array:
    found: Array = np.exp(-0.5 * ((energy - centre) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
    return found
